"""Files in the layout of HCP's resting state with simulated content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets.hcp._atlas import _IDS, COUNTS
from calcarine.datasets.hcp._files import ENDING, RUN
from calcarine.errors import SettingError

__all__ = ["fake"]

_COMPONENTS = 5
_BLOCK = 4096


def fake(
    folder: str | Path,
    *,
    full_size: bool = False,
    seed: int = 0,
    people: int | None = None,
    grayordinates: int | None = None,
    frames: int | None = None,
    layout: str = "flat",
) -> None:
    """Write CIFTI time series and a matching map ``mmp_1.0.npz``.

    Visual cortex follows a few slow components; the rest is noise.

    Parameters
    ----------
    folder : str or Path
        Folder to write to.
    full_size : bool
        1200 frames of 91282 grayordinates (438 MB a subject).
    seed : int
        Seed of the content.
    people, grayordinates, frames : int, optional
        How many subjects, grayordinates and frames.
    layout : str
        ``"flat"``: ``SUBJECT_rfMRI_...`` in the folder; ``"tree"``: as
        ConnectomeDB unpacks.

    Examples
    --------
    >>> import os
    >>> from calcarine.datasets import hcp
    >>> hcp.fake("hcp-fake", people=1, grayordinates=400, frames=40)
    >>> sorted(os.listdir("hcp-fake"))
    ['100206_rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii', 'mmp_1.0.npz']
    """
    import nibabel

    count = grayordinates or (91282 if full_size else 600)
    length = frames or (1200 if full_size else 120)
    people = people or (2 if full_size else 3)
    if count < 200 or length < 2:
        raise SettingError("HCP's layout needs at least 200 grayordinates and two frames.")
    if layout not in ("flat", "tree"):
        raise SettingError(f"The layout is flat or tree, not {layout}.")
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    brain = _brain(count, rng)
    labels = _labels(rng, brain, count)
    np.savez(folder / "mmp_1.0.npz", map_all=labels)
    time = nibabel.cifti2.SeriesAxis(0, 0.72, length, "SECOND")
    suffix = f"{ENDING}.dtseries.nii"
    for number in range(people):
        name = str(100206 + 101 * number)
        path = folder / f"{name}_{RUN}{suffix}"
        if layout == "tree":
            path = folder / name / "MNINonLinear" / "Results" / RUN / f"{RUN}{suffix}"
            path.parent.mkdir(parents=True)
        image = nibabel.Cifti2Image(_series(rng, labels, length), (time, brain))
        image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
        image.to_filename(path)


def _brain(count: int, rng: np.random.Generator) -> Any:
    """Return two cortices without the medial wall, and one subcortical structure."""
    from nibabel.cifti2 import BrainModelAxis

    official = count == 91282
    left = 29696 if official else count * 2 // 5
    right = 29716 if official else count * 2 // 5
    below = count - left - right
    surface = 32492 if official else 2 * left
    models = [
        BrainModelAxis.from_surface(
            np.sort(rng.choice(surface, size, replace=False)), surface, name
        )
        for size, name in ((left, "CortexLeft"), (right, "CortexRight"))
    ]
    side = int(np.ceil(below ** (1 / 3)))
    mask = np.arange(side**3).reshape(side, side, side) < below
    volume = BrainModelAxis.from_mask(mask, name="ThalamusLeft", affine=np.diag([2, 2, 2, 1]))
    return models[0] + models[1] + volume


def _labels(rng: np.random.Generator, brain: Any, count: int) -> NDArray[np.int64]:
    """Return a map with areas of HCP's sizes, or of a tenth of a hemisphere."""
    labels = np.zeros(count, dtype=np.int64)
    for side, name in enumerate(("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")):
        free = rng.permutation(np.flatnonzero(brain.name == name))
        labels[free] = np.where(np.arange(len(free)) % 2, 40, 50) + 180 * side
        start = 0
        for area, ids in _IDS.items():
            size = COUNTS[area] // 2 if count == 91282 else len(free) // 12 + ids[0]
            size += COUNTS[area] % 2 if count == 91282 and side == 0 else 0
            labels[free[start : start + size]] = ids[side]
            start += size
    return labels


def _series(
    rng: np.random.Generator, labels: NDArray[np.int64], length: int
) -> NDArray[np.float32]:
    slow = np.cumsum(rng.normal(0, 1, (length, _COMPONENTS)), axis=0)
    slow -= slow.mean(0)
    slow /= slow.std(0) + 1e-9
    visual = np.isin(labels, [number for ids in _IDS.values() for number in ids])
    # Time runs fastest in the file; so it does here, and writing copies nothing.
    series = np.empty((length, len(labels)), dtype=np.float32, order="F")
    for start in range(0, len(labels), _BLOCK):
        own = slice(start, min(start + _BLOCK, len(labels)))
        size = own.stop - own.start
        weights = rng.normal(0, 1, (_COMPONENTS, size)) * visual[own]
        noise = rng.standard_normal((length, size), dtype=np.float32)
        series[:, own] = 10_000 + 100 * (noise + slow @ weights)
    return series
