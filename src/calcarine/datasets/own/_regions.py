"""Masks and regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.own._description import Atlas
from calcarine.datasets.own._files import ArrayFile, find
from calcarine.errors import CalcarineError

__all__ = ["Grid", "read_mask", "read_rois", "voxel_table"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels that are kept.

    Attributes
    ----------
    mask
        bool, of the shape of a volume, or (column,) where there is no volume.
    affine
        Voxel indices to millimetres, None where unknown.
    path
        File of the mask, None where there is none.
    """

    mask: Mask
    affine: NDArray[np.float64] | None = None
    path: Path | None = None


def read_mask(root: Path, name: str) -> Grid:
    """A mask; values above 0 are inside, so the -1 of NSD's masks is outside.

    Raises
    ------
    CalcarineError
        If it is no mask or is empty.
    """
    path = find(root, name, "mask")
    file, values = _labels(path, "mask")
    mask = values > 0
    if not mask.any():
        raise CalcarineError(f"The mask {path} has no voxel above 0; is it the right file?")
    return Grid(mask, file.affine, path)


def read_rois(
    root: Path, rois: Mapping[str, str] | Atlas, grid: Grid
) -> tuple[dict[str, Mask], list[Path]]:
    """Regions as masks over the kept voxels, and the files they are from.

    Raises
    ------
    CalcarineError
        If a file does not fit the mask, or a region is empty.
    """
    if isinstance(rois, Atlas):
        path = find(root, rois.file, "atlas")
        values = _inside(path, grid, "atlas")
        found = {}
        for name, labels in rois.labels.items():
            wanted = [labels] if isinstance(labels, int) else labels
            found[name] = np.isin(values, wanted)
        files = [path]
    else:
        files = [find(root, name, "region") for name in rois.values()]
        found = {name: _one(path, grid) for name, path in zip(rois, files, strict=True)}
    for name, mask in found.items():
        if not mask.any():
            raise CalcarineError(
                f"Region {name} has none of the {len(mask)} kept voxels; check its file, its "
                "labels and the mask."
            )
    return found, files


def _one(path: Path, grid: Grid) -> Mask:
    values = _inside(path, grid, "region")
    labels = np.unique(values[values > 0])
    if len(labels) > 1:
        shown = ", ".join(f"{label:g}" for label in labels[:6])
        raise CalcarineError(
            f"The region {path} holds the labels {shown}; say which is which with rois: "
            "{file: ..., labels: {NAME: NUMBER}}."
        )
    return np.asarray(values > 0)


def _inside(path: Path, grid: Grid, what: str) -> NDArray[np.float64]:
    """Values of a volume, or of a row of voxels, at the kept voxels."""
    file, values = _labels(path, what)
    count = int(grid.mask.sum())
    if values.shape == grid.mask.shape:
        if file.affine is not None and grid.affine is not None:
            same_space(file.path, file.affine, grid.path, grid.affine)
        return np.asarray(values[grid.mask])
    if values.shape == (count,):
        return values
    raise CalcarineError(
        f"The {what} {path} has shape {values.shape}, and the kept voxels are {count} of a "
        f"{'volume' if grid.mask.ndim > 1 else 'row'} of shape {grid.mask.shape}; bring both to "
        "one space" + ("." if grid.mask.ndim > 1 else ", or give a mask.")
    )


def same_space(
    path: Path, affine: NDArray[np.float64], other: Path | None, wanted: NDArray[np.float64]
) -> None:
    """Check that two images of one shape also lie in one place.

    Raises
    ------
    CalcarineError
        If their affines differ by more than rounding.
    """
    if not np.allclose(affine, wanted, rtol=1e-3, atol=1e-2):
        turned = not np.array_equal(
            np.sign(np.round(affine[:3, :3], 3)), np.sign(np.round(wanted[:3, :3], 3))
        )
        raise CalcarineError(
            f"{path} and {other or 'the betas'} have the same shape and different affines, so they "
            f"are not in one space{' (axes are flipped or swapped)' if turned else ''}; resample "
            "one to the other."
        )


def _labels(path: Path, what: str) -> tuple[ArrayFile, NDArray[np.float64]]:
    """A volume of whole numbers; NaN is outside."""
    if path.is_dir():
        raise CalcarineError(f"The {what} {path} is a folder; give a file.")
    if path.suffix.lower() == ".npy":
        file, raw = _npy(path)
    else:
        file = ArrayFile.open(path, "", what)
        raw = file.read()
    values = np.asarray(raw, dtype=np.float64)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    values = np.where(np.isnan(values), 0.0, values)
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise CalcarineError(
            f"The {what} {path} holds values that are no whole numbers, up to {values.max():.3g}; "
            "threshold it to 0 and 1."
        )
    return file, values


def _npy(path: Path) -> tuple[ArrayFile, NDArray[np.generic]]:
    """A NumPy mask, which may be boolean."""
    try:
        raw = np.load(path, allow_pickle=False)
        if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "buif":
            raise ValueError("it holds no numbers")
    except Exception as error:
        raise CalcarineError(
            f"The mask {path} cannot be read as an array ({error}).".replace("\n", " ")
        ) from error
    return ArrayFile(path, "", tuple(raw.shape)), raw


def voxel_table(grid: Grid) -> pd.DataFrame:
    """Millimetres of each kept voxel, NaN where unknown."""
    names = ["x", "y", "z"]
    if grid.affine is None or grid.mask.ndim != 3:
        return pd.DataFrame(np.full((int(grid.mask.sum()), 3), np.nan), columns=names)
    places = np.argwhere(grid.mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return pd.DataFrame(places, columns=names)
