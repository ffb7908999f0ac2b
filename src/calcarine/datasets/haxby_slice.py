"""Eight categories of pictures, one axial half-slice (Haxby et al. 2001), as a time series."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo, pick_subject
from calcarine.datasets._arrays import reason
from calcarine.datasets._blocks import BlockSeries, LeaveOut, block_dataset, simulated_series
from calcarine.datasets._find import find_file, is_simulated
from calcarine.datasets._labels import whole_numbers
from calcarine.datasets._small import check_small, small_assets
from calcarine.datasets.prepare.events import Drift, Method
from calcarine.errors import DamagedFileError
from calcarine.quality.findings import CheckResult

__all__ = ["INFO", "assets", "check", "fake", "load"]

_BOLD, _MASK, _LABELS = "bold.nii.gz", "mask.nii.gz", "attributes_literal.txt"
_SIZES = {_LABELS: 12_026, _BOLD: 1_311_329, _MASK: 197}
_TR, _RUNS, _BLOCK = 2.5, 12, 9
_GRID = (40, 20, 1)
_AFFINE = np.array(
    [[-3.1, 0, 0, 60.45], [0, 3.75, 0, -35.625], [0, 0, 3.75, 0], [0, 0, 0, 1]], float
)

# Names in the file, and ours.
_NAMES = {
    "face": "face",
    "house": "house",
    "cat": "cat",
    "shoe": "shoe",
    "scissors": "pair-of-scissors",
    "bottle": "bottle",
    "chair": "chair",
    "scrambledpix": "scrambled-picture",
}

INFO = DatasetInfo(
    name="haxby_slice",
    title="Eight categories of pictures, one half-slice (Haxby et al. 2001)",
    simulated=False,
    subjects=("S1",),
    source="github.com/PyMVPA/PyMVPA (mvpa2/data, the example data set)",
    licence="MIT (of the repository)",
    needs_folder=True,
    files=(_LABELS, _BOLD, _MASK),
    access=(
        "Take attributes_literal.txt, bold.nii.gz and mask.nii.gz from the data folder of a "
        "release of PyMVPA (packages python-mvpa2 and its sources hold them)."
    ),
)


def load(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    leave_out: LeaveOut = "run",
    method: Method = "lsa",
    drift: Drift = "polynomial",
    delay: float = 2.5,
) -> BrainDataset:
    """Load 96 blocks of 22.5 s: eight categories, once in each of twelve runs.

    **The pictures are placeholders.**  The files name the category of each
    block and nothing else, so each category has one plain field of a colour
    of its own.  Only categories and captions (``"a face"``) are to be used;
    a reconstruction of these pictures means nothing.

    Each category has an id a run (``face-run03``), and a split leaves a run
    out: it asks whether a category is recognised, not a picture never seen.

    Responses are made from the volumes of each run alone, in percent signal
    change.  Drift is a straight line: with one block of a category a run,
    cosines of 128 s would take part of what tells the categories apart.

    Parameters
    ----------
    data
        Folder with ``attributes_literal.txt``, ``bold.nii.gz`` and
        ``mask.nii.gz``, or the folder above it.
    subject
        ``"S1"``.
    leave_out
        What a split leaves out: ``"run"`` or ``"category"``.
    method, drift, delay
        How blocks become responses; see `trial_betas`.

    Returns
    -------
    BrainDataset
        530 voxels (ROI ``slice``) with coordinates; sessions are runs.

    Raises
    ------
    CalcarineError
        If a file is missing or damaged, or the files do not fit each other.
    """
    who = pick_subject(INFO, subject)
    labels, runs = _labels(find_file(INFO, data, _LABELS))
    bold, affine = _volume(find_file(INFO, data, _BOLD), 4)
    mask, _ = _volume(find_file(INFO, data, _MASK), 3)
    inside = whole_numbers(mask, find_file(INFO, data, _MASK), "mask") > 0
    if bold.shape[:3] != mask.shape or bold.shape[3] != len(labels) or not inside.any():
        raise DamagedFileError(
            f"Data set {INFO.name}: {_BOLD} of shape {bold.shape}, {_MASK} of shape {mask.shape} "
            f"with {int(inside.sum())} voxels and {len(labels)} lines of {_LABELS} do not fit; "
            f"the right files are from {INFO.source}."
        )
    places = np.column_stack([np.argwhere(inside), np.ones(int(inside.sum()))]) @ affine.T
    series = BlockSeries(
        np.ascontiguousarray(bold[inside].T), tuple(_NAMES.get(x, x) for x in labels), runs, _TR
    )
    return block_dataset(
        INFO,
        who,
        series,
        ("rest",),
        {name: _placeholder(row) for row, name in enumerate(_NAMES.values())},
        pd.DataFrame(places[:, :3], columns=["x", "y", "z"]),
        {"slice": np.ones(int(inside.sum()), bool)},
        method=method,
        drift=drift,
        delay=delay,
        leave_out=leave_out,
        simulated=is_simulated(find_file(INFO, data, _BOLD)),
    )


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Say whether the files are there and hold what is known of them."""
    expected = {
        "trials": "96",
        "voxels": "530",
        "sessions": str(_RUNS),
        "categories": ", ".join(f"{name} {_RUNS}" for name in sorted(_NAMES.values())),
    }
    return check_small(INFO, data, subject, _SIZES, load, expected)


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """None: ``INFO.access`` says how one gets the files."""
    return small_assets(INFO, subjects)


def fake(folder: str | Path, *, full_size: bool = False, seed: int = 0) -> None:
    """Write the three files with official sizes and a planted pattern for each category.

    Parameters
    ----------
    folder
        Where to.
    full_size
        Makes no difference: the true sizes are small.
    seed
        Of the content.
    """
    import nibabel as nib

    rng = np.random.default_rng(seed)
    labels: list[str] = []
    for _ in range(_RUNS):
        labels += ["rest"] * 6
        for place, category in enumerate(rng.permutation(list(_NAMES))):
            labels += [str(category)] * _BLOCK + ["rest"] * (6 if place in (0, 4, 7) else 5)
    length = len(labels) // _RUNS
    runs = np.repeat(np.arange(_RUNS), length)
    inside = np.zeros(_GRID, bool)
    inside.flat[rng.choice(inside.size, 530, replace=False)] = True
    bold = np.zeros((*_GRID, len(labels)), np.int16)
    bold[inside] = np.round(simulated_series(rng, labels, runs, _TR, ("rest",), 530)).T
    root = Path(folder)
    text = "".join(f"{label} {run}\n" for label, run in zip(labels, runs, strict=True))
    (root / _LABELS).write_text(text)
    nib.save(nib.Nifti1Image(bold, _AFFINE), root / _BOLD)
    nib.save(nib.Nifti1Image(inside.astype(np.int16), _AFFINE), root / _MASK)


def _labels(path: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """What each volume shows, and its run from 1."""
    try:
        rows = [
            line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        names = tuple(name for name, _ in rows)
        runs = np.array([int(run) for _, run in rows], np.int64) + 1
    except (OSError, ValueError, OverflowError) as error:
        raise DamagedFileError(
            f"Data set {INFO.name}: lines of {path} should be a category and a run, as 'face 0'; "
            f"get it again from {INFO.source}."
        ) from error
    if not rows or (np.diff(runs) < 0).any() or runs[0] < 1:
        raise DamagedFileError(
            f"Data set {INFO.name}: the runs in {path} are not in order; get it again from "
            f"{INFO.source}."
        )
    return names, runs


def _volume(path: Path, ndim: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    import nibabel as nib

    try:
        image = nib.load(path)
        values = np.asarray(image.dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, dtype=np.float64)  # type: ignore[attr-defined]
        if values.ndim != ndim or not np.isfinite(values).all() or not np.isfinite(affine).all():
            raise ValueError(f"shape {values.shape}, or values that are not finite")
    except Exception as error:  # nibabel and gzip meet damage with errors of many kinds
        raise DamagedFileError(
            f"Data set {INFO.name}: {path} is damaged or no such volume ({reason(error)}); get it "
            f"again from {INFO.source}."
        ) from error
    return values, affine


def _placeholder(row: int) -> NDArray[np.uint8]:
    """A plain field, 16 x 16 pixels, of one of eight hues."""
    colour = np.array(colorsys.hsv_to_rgb(row / len(_NAMES), 0.5, 0.7)) * 255
    return np.broadcast_to(np.round(colour).astype(np.uint8), (16, 16, 3)).copy()
