"""Regions of a simulated subject's brain, and the volumes of them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets.nsd.layout import ATLASES, NSDLayout
from calcarine.files import write_bytes, write_text

__all__ = ["FakeBrain", "make_brain", "write_volumes"]

_VOXEL = 1.8  # mm
# Parts of the small brain; in subj01 early has 5,917 and ventral 7,604 voxels of 15,724.
_SMALL = {"early": 0.2, "mid": 0.05, "ventral": 0.15, "lateral": 0.1, "parietal": 0.1}
_TRUE = {"early": 5917, "mid": 900, "ventral": 7604, "lateral": 4500, "parietal": 3000}
_TRUE_NSDGENERAL = 15724
_SMALL_NSDGENERAL = 0.6
_PRF_PARTS = ((1, 2, 0.4), (3, 4, 0.25), (5, 6, 0.2), (7, 7, 0.15))


@dataclass(frozen=True, eq=False)
class FakeBrain:
    """Regions of one simulated brain.

    Attributes
    ----------
    dims : (int, int, int)
        Voxels along X, Y and Z.
    brain : bool array
        bool, shape (X, Y, Z).
    labels : dict of str to int16 array
        Label volumes by name, int16, shape (X, Y, Z): -1 outside of cortex.
    places : int array
        Ascending places of cortex in the flattened grid (Z, Y, X).
    affine : float64 array
        Indices to millimetres.
    """

    dims: tuple[int, int, int]
    brain: NDArray[np.bool_]
    labels: dict[str, NDArray[np.int16]]
    places: NDArray[np.int64]
    affine: NDArray[np.float64]

    def stream(self, name: str) -> NDArray[np.bool_]:
        """Return which cortical voxels belong to a stream."""
        label = next(value for value, known in ATLASES["streams"].items() if known == name)
        return np.asarray(self.labels["streams"].T.ravel()[self.places] == label)


def make_brain(
    dims: tuple[int, int, int], nsdgeneral: int | None, rng: np.random.Generator
) -> FakeBrain:
    """Put regions on a folded sheet at the back of an ellipsoid.

    Parameters
    ----------
    dims : (int, int, int)
        Voxels along X, Y and Z.
    nsdgeneral : int, optional
        How many voxels it shall have; parts of a small brain if None.
    rng : Generator
        Seed of the folds and of what belongs where.
    """
    index = np.indices(dims).astype(np.float64)
    centre = (np.array(dims) - 1) / 2
    parts = (index - centre[:, None, None, None]) / (0.52 * np.array(dims))[:, None, None, None]
    brain = (parts**2).sum(0) <= 1
    counts, general = _counts(int(brain.sum()), nsdgeneral)
    total = sum(counts[name] for name in _SMALL) + 2 * counts["mid"]
    phase = rng.uniform(0, 2 * np.pi, 3)
    fold = np.abs(sum(np.sin(axis / 5.5 + p) for axis, p in zip(index, phase, strict=True)))
    fold += 1e-3 * rng.random(dims)
    back = brain & (index[1] < 0.55 * dims[1])
    fold[~(back if back.sum() >= total else brain)] = np.inf
    # Of equal folds the posterior ones; sorted from back to front.
    sheet = np.argsort(fold.ravel(), kind="stable")[:total]
    sheet = sheet[np.argsort(index[1].ravel()[sheet] + rng.random(total), kind="stable")]
    labels = _label(sheet, counts, general, index[2].ravel(), dims, rng)
    cortex = np.zeros(int(np.prod(dims)), dtype=np.bool_)
    cortex[sheet] = True
    affine = np.diag([_VOXEL, _VOXEL, _VOXEL, 1.0])
    affine[:3, 3] = -_VOXEL * centre + (0.5, -18.0, 7.0)
    places = np.flatnonzero(cortex.reshape(dims).T.ravel())
    return FakeBrain(dims, brain, labels, places, affine)


def _counts(brain: int, nsdgeneral: int | None) -> tuple[dict[str, int], int]:
    if nsdgeneral is None:
        general = int(_SMALL_NSDGENERAL * brain)
        return {name: max(2, int(part * brain)) for name, part in _SMALL.items()}, general
    scale = nsdgeneral / _TRUE_NSDGENERAL
    return {name: round(number * scale) for name, number in _TRUE.items()}, nsdgeneral


def _label(
    sheet: NDArray[np.int64],
    counts: dict[str, int],
    general: int,
    height: NDArray[np.float64],
    dims: tuple[int, int, int],
    rng: np.random.Generator,
) -> dict[str, NDArray[np.int16]]:
    early, mid = counts["early"], 3 * counts["mid"]
    middle, rest = sheet[early : early + mid], sheet[early + mid :]
    middle = middle[np.argsort(height[middle], kind="stable")]
    rest = rest[np.argsort(height[rest], kind="stable")]
    edges = np.cumsum([counts["ventral"], counts["lateral"]])
    ventral, lateral, parietal = np.split(rest, edges)
    streams = [sheet[:early], *np.split(middle, 3), ventral, lateral, parietal]
    volumes = {
        name: np.full(int(np.prod(dims)), -1, dtype=np.int16) for name in ("nsdgeneral", *ATLASES)
    }
    for volume in volumes.values():
        volume[sheet] = 0
    for value, members in enumerate(streams, 1):
        volumes["streams"][members] = value
    more = rng.permutation(rest)[: max(0, general - early - mid)]
    volumes["nsdgeneral"][np.concatenate([sheet[: early + mid], more])] = 1
    _label_retinotopic(volumes["prf-visualrois"], sheet[:early], height)
    for atlas in ATLASES:
        if atlas.startswith("floc-"):
            _label_patches(
                volumes[atlas], np.concatenate([ventral, lateral]), len(ATLASES[atlas]), rng
            )
    return {name: volume.reshape(dims) for name, volume in volumes.items()}


def _label_retinotopic(
    volume: NDArray[np.int16], early: NDArray[np.int64], height: NDArray[np.float64]
) -> None:
    edges = (np.cumsum([part for _, _, part in _PRF_PARTS])[:-1] * len(early)).astype(int)
    for members, (low, high, _) in zip(np.split(early, edges), _PRF_PARTS, strict=True):
        members = members[np.argsort(height[members], kind="stable")]
        volume[members[: len(members) // 2]] = low
        volume[members[len(members) // 2 :]] = high


def _label_patches(
    volume: NDArray[np.int16], members: NDArray[np.int64], count: int, rng: np.random.Generator
) -> None:
    size = max(1, len(members) // 12)
    starts = rng.choice(len(members) // size, count, replace=False) * size
    for value, start in enumerate(starts, 1):
        volume[members[start : start + size]] = value


def write_volumes(layout: NSDLayout, brain: FakeBrain, amplitude: NDArray[np.float32]) -> None:
    """Write masks, atlases, their label tables and the signal-to-noise ratio.

    Parameters
    ----------
    layout, brain
        Subject and data set.
    amplitude : float32 array
        SD of the signal where that of the noise is 1, in the flat grid (Z, Y, X).
    """
    for name, volume in brain.labels.items():
        _write_volume(layout.roi(name), volume, brain.affine)
    _write_volume(layout.brainmask, brain.brain.astype(np.int16), brain.affine)
    ncsnr = amplitude.reshape(brain.dims[::-1]).T
    _write_volume(layout.ncsnr, np.ascontiguousarray(ncsnr), brain.affine)
    for atlas, names in ATLASES.items():
        lines = [f"{value} {name}" for value, name in {0: "Unknown", **names}.items()]
        write_text(layout.labels(atlas), "\n".join(lines) + "\n")


def _write_volume(
    path: Path, values: NDArray[np.int16] | NDArray[np.float32], affine: NDArray[np.float64]
) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(values, affine)
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))
