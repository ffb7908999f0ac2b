"""Vis-Dec with parts left out or changed, over seeds (Sun et al. 2023, Table 2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.experiment.visdec import METHOD
from calcarine.files import written_aside

if TYPE_CHECKING:
    import pandas as pd

    from calcarine.experiment.progress import Progress

Rows = dict[str, tuple[str, ...]]
BASE = "as set"
METRICS = (
    "10-way top-1",
    "category read",
    "identification, pixels, fixed image",
    "identification, late layer, fixed image",
    "pixel correlation",
)
# An ablation compares trainings; decoders by ridge and ceilings are the same in all of its rows.
_ALONE = ("ridge.when=never", "evaluation.direct_ridge=false", "evaluation.ceilings=false")
_N_BOOT = 2000


@dataclass(frozen=True)
class AblationTable:
    """What an ablation found.

    Attributes
    ----------
    title : str
    headings : list of str
    cells : list of list of str
        As printed.
    scores : DataFrame
        Columns row, settings, metric, value, ci_low, ci_high, difference, d_low, d_high, seeds,
        images; differences are from the first row.
    """

    title: str
    headings: list[str]
    cells: list[list[str]]
    scores: pd.DataFrame


def paper_rows() -> Rows:
    """The rows of the paper's kind: phases and losses left out, weights, maskings, depth."""
    loss, guide = "visdec.pretrain.loss", "visdec.guide.loss"
    return {
        BASE: (),
        "from scratch, no guidance": ("visdec.pretrain.when=never", "visdec.guide.when=never"),
        "no pre-training": ("visdec.pretrain.when=never",),
        "no guidance": ("visdec.guide.when=never",),
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
    }


def varied_rows(axes: Sequence[str]) -> Rows:
    """Rows that change one setting each, from texts such as ``visdec.guide.loss.layers=2;4``."""
    rows: Rows = {BASE: ()}
    for axis in axes:
        key, sign, values = axis.partition("=")
        if not sign or not key or not values:
            raise CalcarineError(
                f"'{axis}' names no values; write key=value;value, as visdec.guide.loss.layers=2;4."
            )
        for value in values.split(";"):
            rows[f"{key.removeprefix('visdec.')}={value}"] = (f"{key}={value}",)
    return rows


def run_ablation(
    rows: Rows,
    out: Path,
    *,
    preset: str = "visdec-mini",
    settings: Sequence[str] = (),
    seeds: int = 3,
    only: Sequence[str] | None = None,
    progress: Progress | None = None,
    **dataset: Any,
) -> AblationTable:
    """Train, decode and score every row with every seed; the same folder continues.

    Parameters
    ----------
    rows : dict of str to tuple of str
        Settings of each row, the first row being what others are compared with.
    out : Path
        Gets a run for each row and seed, ``trained/`` with the networks that rows share, and
        ``ablation.csv``.
    seeds : int
        The seed changes initial weights, batches, maskings and the noise of sampling; data, split
        and validation stimuli stay.
    only : sequence of str, optional
        Names of rows; the first row is always there.
    **dataset
        ``name``, ``data`` and ``subject`` of the data set.

    Returns
    -------
    AblationTable
        Intervals (95 %) are over seeds and images, both drawn anew (crossed bootstrap).
    """
    from calcarine.experiment.config import load_experiment
    from calcarine.experiment.progress import Progress as Silent
    from calcarine.experiment.stages import run_experiment

    progress = progress or Silent()
    chosen = _chosen(rows, only)
    # Mistakes in any row are told before the first is trained.
    plans = {
        (name, seed): load_experiment(
            preset, None, [*settings, *_ALONE, *changes, *_seed_settings(seed)], **dataset
        )
        for name, changes in chosen.items()
        for seed in range(seeds)
    }
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in chosen}
    for (name, seed), experiment in plans.items():
        progress.say(f"{name}, seed {seed + 1} of {seeds}")
        run = run_experiment(
            experiment, out / _slug(name) / f"seed-{seed}", progress, out / "trained"
        )
        found[name].append(_scores_of(run.metrics))
    table = _table(found, chosen)
    with written_aside(out / "ablation.csv") as aside:
        table.scores.to_csv(aside, index=False)
    return table


def _chosen(rows: Rows, only: Sequence[str] | None) -> Rows:
    first = next(iter(rows))
    strange = [name for name in only or () if name not in rows]
    if strange:
        raise CalcarineError(f"There is no row '{strange[0]}'; there are: {', '.join(rows)}.")
    return {n: s for n, s in rows.items() if only is None or n in only or n == first}


def _seed_settings(seed: int) -> tuple[str, ...]:
    keys = [f"visdec.{phase}.training.seed" for phase in ("pretrain", "guide", "adapt")]
    return (*(f"{key}={2022 + seed}" for key in keys), f"generation.seed={42 + seed}")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.=]+", "-", name.lower()).strip("-")


def _scores_of(folder: Path) -> pd.DataFrame:
    from calcarine.evaluation.evaluate import read_evaluation

    table = read_evaluation(folder).per_image
    return table[table["method"] == METHOD].set_index(["metric", "id"])["value"].to_frame()


def _table(found: dict[str, list[pd.DataFrame]], rows: Rows) -> AblationTable:
    import pandas as pd

    first = next(iter(found))
    known = set(found[first][0].index.get_level_values("metric"))
    metrics = [name for name in METRICS if name in known]
    lines, cells = [], []
    for name, runs in found.items():
        row = [name]
        for metric in metrics:
            own, base = _matrix(runs, metric), _matrix(found[first], metric)
            value, low, high = crossed_bootstrap(own)
            difference = crossed_bootstrap(own - base)
            lines.append(
                (name, " ".join(rows[name]), metric, value, low, high, *difference, *own.shape)
            )
            told = f"{value:.3f} [{low:.3f}, {high:.3f}]"
            row.append(told if name == first else f"{told} {_sign(difference)}")
        cells.append(row)
    columns = [
        "row", "settings", "metric", "value", "ci_low", "ci_high", "difference", "d_low", "d_high",
        "seeds", "images",
    ]  # fmt: skip
    n_seeds, n_images = _matrix(found[first], metrics[0]).shape
    title = (
        f"{METHOD}: {n_seeds} seeds, {n_images} pictures; + or -: differs from '{first}' "
        "(95 % interval without 0), =: undecided"
    )
    return AblationTable(title, ["row", *metrics], cells, pd.DataFrame(lines, columns=columns))


def _matrix(runs: list[pd.DataFrame], metric: str) -> NDArray[np.float64]:
    """Scores, shape (seed, image), images in the order of the first run."""
    ids = runs[0].loc[metric].index
    return np.stack([run.loc[metric].loc[ids, "value"].to_numpy(np.float64) for run in runs])


def crossed_bootstrap(
    scores: NDArray[np.float64], n_boot: int = _N_BOOT, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a matrix (seed, image) with a 95 % interval, rows and columns drawn anew.

    With one seed the interval is over images alone.
    """
    rng = np.random.default_rng(seed)
    n_seeds, n_images = scores.shape
    rows = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), n_boot) / n_seeds
    columns = rng.multinomial(n_images, np.full(n_images, 1 / n_images), n_boot) / n_images
    means = np.einsum("bs,si,bi->b", rows, scores, columns)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(scores.mean()), float(low), float(high)


def _sign(difference: tuple[float, float, float]) -> str:
    _, low, high = difference
    if low > 0:
        return "+"
    return "-" if high < 0 else "="
