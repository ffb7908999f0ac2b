"""What the small measured sets share: the check of a folder, and their simulated content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo, pick_subject
from calcarine.datasets._find import find_file
from calcarine.datasets._reports import simulated_note
from calcarine.errors import CalcarineError
from calcarine.quality.findings import CheckResult

__all__ = ["check_small", "nowhere", "on_github", "planted", "sentence", "small_assets", "upright"]


def check_small(
    info: DatasetInfo,
    data: str | Path,
    subject: str | None,
    sizes: Mapping[str, int],
    load: Callable[[str | Path, str | None], BrainDataset],
    expected: Mapping[str, str],
) -> list[CheckResult]:
    """Findings on a set that is read whole.

    Parameters
    ----------
    info, data, subject
        See `calcarine.brain.info`.
    sizes
        Bytes of the official files that `load` needs.
    load
        Reads them.
    expected
        ``trials``, ``voxels``, ``stimuli``, ``sessions`` and ``categories``
        as they are known of the official data, in words.
    """
    findings = [_file(info, data, name, size) for name, size in sizes.items()]
    if any(row.status == "missing" for row in findings):
        return findings
    findings += simulated_note(find_file(info, data, next(iter(sizes))))
    try:
        found = load(data, subject)
    except CalcarineError as error:
        advice = f"Get the files again from {info.source}."
        return [*findings, CheckResult("content", "wrong", str(error), "", advice)]
    facts = _facts(found)
    for what, wanted in expected.items():
        same = facts[what] == wanted
        findings.append(CheckResult(what, "ok" if same else "note", facts[what], wanted))
    low, high = float(found.responses.min()), float(found.responses.max())
    findings.append(CheckResult("responses", "ok", f"{low:.4g} to {high:.4g}"))
    return findings


def _file(info: DatasetInfo, data: str | Path, name: str, size: int) -> CheckResult:
    try:
        path = find_file(info, data, name)
    except CalcarineError:
        return CheckResult(name, "missing", "", f"{size:,} bytes", f"It is from {info.source}.")
    found = path.stat().st_size
    # Files that were written anew have another size and may still be right.
    return CheckResult(
        name, "ok" if found == size else "note", f"{found:,} bytes", f"{size:,} bytes"
    )


def _facts(dataset: BrainDataset) -> dict[str, str]:
    first = dict(zip(dataset.stimuli.ids, dataset.stimuli.categories(), strict=True))
    shown = Counter(first[key][0] for key in dataset.trial_stimuli)
    return {
        "trials": str(dataset.n_trials),
        "voxels": str(dataset.n_voxels),
        "stimuli": str(len(dataset.stimuli)),
        "sessions": str(len(np.unique(dataset.sessions))),
        "categories": ", ".join(f"{name} {shown[name]}" for name in sorted(shown)),
    }


def small_assets(info: DatasetInfo, subjects: Sequence[str] | None, *files: Asset) -> list[Asset]:
    """The files of a set that holds all its subjects in them; their names are checked."""
    for subject in subjects or ():
        pick_subject(info, subject)
    return list(files)


def on_github(info: DatasetInfo, place: str, size: int) -> Asset:
    """The one file of a set, at ``OWNER/REPOSITORY/COMMIT/PATH``; it has ``size`` bytes."""
    return Asset(info.files[0], f"https://raw.githubusercontent.com/{place}", size, exact=True)


def nowhere(count: int) -> pd.DataFrame:
    """Voxels of which a file tells no places."""
    return pd.DataFrame(np.full((count, 3), np.nan), columns=["x", "y", "z"])


def upright(rows: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Pictures (picture, side, side, 3) of rows of grey, which MATLAB stores column by column."""
    pixels = rows.reshape(-1, side, side).transpose(0, 2, 1)
    return np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=3))


def sentence(category: str) -> tuple[str, ...]:
    """Captions of a picture that is known by its category alone."""
    article = "an" if category[0] in "aeiou" else "a"
    return (f"{article} {category}", f"a picture of {article} {category}")


def planted(
    rng: np.random.Generator, targets: NDArray[np.float64], n_voxels: int, noise: float
) -> NDArray[np.float64]:
    """Responses of unit variance that are linear in ``targets`` (trial, feature), with noise."""
    spread = targets.std(0)
    kept = (targets - targets.mean(0))[:, spread > 0] / spread[spread > 0]
    signal = kept @ rng.standard_normal((kept.shape[1], n_voxels))
    signal /= signal.std(0) + 1e-12
    found: NDArray[np.float64] = signal + noise * rng.standard_normal(signal.shape)
    return found / np.sqrt(1 + noise**2)
