"""Rows of an ablation: which settings each changes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from calcarine.errors import SettingError

__all__ = [
    "BASE",
    "MAX_ROWS",
    "Rows",
    "chosen_rows",
    "paper_rows",
    "product_rows",
    "row_folders",
    "varied_rows",
]

Rows = dict[str, tuple[str, ...]]
BASE = "as set"
MAX_ROWS = 32
"""Most rows that are trained by default; `paper_rows` has 26."""
_LONGEST = 100


def paper_rows(preset: str = "visdec-mini", settings: Sequence[str] = ()) -> Rows:
    """Return rows as in the paper's ablation, controls, and rows without this project's additions.

    Two rows show what the pairs of guidance teach: guidance by the pictures of other stimuli, and
    as many more steps of pre-training in its place. The last two rows are the third phase of the
    paper, with as many steps and with ten times as many. The second control and the last row are
    left out where lengths are in epochs, whose numbers of steps depend on the data.

    Parameters
    ----------
    preset : str
    settings : sequence of str
        Those of all rows. They say how many steps guidance has.
    """
    from calcarine.experiment.load_config import load_experiment

    loss, guide, finetune = "visdec.pretrain.loss", "visdec.guide.loss", "visdec.finetune.loss"
    scratch = ("visdec.pretrain.enabled=false", "visdec.pretrain.start=null")
    from_noise = (f"{finetune}.latent=0", "visdec.finetune.strength=1")
    shared = "visdec.encoder.embedding=shared"
    published = (
        *from_noise,
        f"{finetune}.align=0",
        f"{finetune}.begin=random",
        f"{finetune}.drop_condition=0",
        "visdec.finetune.guidance=1",
        shared,
    )
    lengths = load_experiment(preset, None, list(settings)).visdec
    return {
        BASE: (),
        "from scratch, no guidance": (*scratch, "visdec.guide.enabled=false"),
        "no pre-training": scratch,
        "no guidance": ("visdec.guide.enabled=false",),
        "pictures of other stimuli": (f"{guide}.partners=shuffled",),
        **_more_pretraining(lengths),
        "no contrast": (f"{loss}.self_contrast=0", f"{loss}.cross_contrast=0"),
        "no self-contrast": (f"{loss}.self_contrast=0",),
        "no cross-contrast": (f"{loss}.cross_contrast=0",),
        "no reconstruction": (f"{loss}.reconstruction=0",),
        "gammas 1 and 0": (f"{guide}.gamma_fmri=1", f"{guide}.gamma_image=0"),
        "gammas 0 and 1": (f"{guide}.gamma_fmri=0", f"{guide}.gamma_image=1"),
        "gammas .5 and 1.5": (f"{guide}.gamma_fmri=0.5", f"{guide}.gamma_image=1.5"),
        "gammas 1.5 and .5": (f"{guide}.gamma_fmri=1.5", f"{guide}.gamma_image=0.5"),
        "gammas 1 and 1": (f"{guide}.gamma_fmri=1", f"{guide}.gamma_image=1"),
        "image mask .75": (f"{guide}.image_mask=0.75",),
        "fMRI mask .5": (f"{guide}.fmri_mask=0.5",),
        "2 cross-attention blocks": (f"{guide}.layers=2",),
        "4 cross-attention blocks": (f"{guide}.layers=4",),
        "8 cross-attention blocks": (f"{guide}.layers=8",),
        "not aligned with text": (f"{finetune}.align=0",),
        "from noise": from_noise,
        "from noise, not aligned with text": (*from_noise, f"{finetune}.align=0"),
        "patches share weights": (shared,),
        "as published": published,
        **_ten_times(lengths, published),
    }


def _ten_times(visdec: Any, changes: tuple[str, ...]) -> Rows:
    steps = visdec.finetune.training.steps
    if steps is None:
        return {}
    longer = f"visdec.finetune.training.steps={10 * steps}"
    return {"as published, ten times the steps": (*changes, longer)}


def _more_pretraining(visdec: Any) -> Rows:
    own, further = visdec.pretrain.training.steps, visdec.guide.training.steps
    if own is None or further is None:
        return {}
    changes = "visdec.guide.enabled=false", f"visdec.pretrain.training.steps={own + further}"
    return {"pre-training in place of guidance": changes}


def varied_rows(axes: Sequence[str]) -> Rows:
    """Return rows that change one setting each, from texts as ``visdec.guide.loss.layers=2;4``."""
    changes = [f"{key}={value}" for key, values in map(_axis, axes) for value in values]
    return {BASE: ()} | {_name([change]): (change,) for change in changes}


def product_rows(axes: Sequence[str]) -> Rows:
    """Return a row for every combination of values, from texts as in :func:`varied_rows`."""
    read = [_axis(axis) for axis in axes]
    twice = [key for key, count in Counter(key for key, _ in read).items() if count > 1]
    if twice:
        raise SettingError(
            f"'{twice[0]}' is varied twice, so there is no product; give all of its values at "
            f"once, as {twice[0]}=value;value."
        )
    grid = product(*([f"{key}={value}" for value in values] for key, values in read))
    return {BASE: ()} | {_name(changes): tuple(changes) for changes in grid}


def chosen_rows(rows: Rows, only: Sequence[str] | None, seeds: int, most: int = MAX_ROWS) -> Rows:
    """Return some of the rows, always with the first; refuse more than ``most``."""
    first = next(iter(rows))
    unknown = [name for name in only or () if name not in rows]
    if unknown:
        known = ", ".join(f"'{name}'" for name in rows)
        raise SettingError(f"There is no row '{unknown[0]}'; the rows are {known}.")
    chosen = {n: s for n, s in rows.items() if only is None or n in only or n == first}
    if len(chosen) > most:
        raise SettingError(
            f"The grid has {len(chosen)} rows, with {seeds} seeds {len(chosen) * seeds} runs, and "
            f"at most {most} rows are run by default; vary less, choose some rows with "
            f"--only, or give --max-rows {len(chosen)}."
        )
    return chosen


def row_folders(rows: Rows) -> dict[str, str]:
    """Return the folder name of each row: its own, with a hash where that is long or shared."""
    plain = {name: re.sub(r"[^a-z0-9.=]+", "-", name.lower()).strip("-") for name in rows}
    count = Counter(plain.values())
    return {
        name: slug
        if slug and len(slug) <= _LONGEST and count[slug] == 1
        else f"{slug[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, slug in plain.items()
    }


def _axis(text: str) -> tuple[str, list[str]]:
    key, _, listed = text.partition("=")
    values = [value.strip() for value in listed.split(";")]
    if not key.strip() or not all(values):
        raise SettingError(
            f"'{text}' names no values; write key=value;value, as visdec.guide.loss.layers=2;4."
        )
    return key.strip(), values


def _name(changes: Iterable[str]) -> str:
    return ", ".join(change.removeprefix("visdec.") for change in changes)
