"""Masks and regions of a description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets._integer_labels import whole_numbers
from calcarine.datasets.described.array_formats import ending
from calcarine.datasets.described.description import Atlas
from calcarine.datasets.described.description_arrays import ArrayFile, find_all
from calcarine.errors import CalcarineError, DamagedFileError, SettingError, ShapeError

__all__ = ["VoxelGrid", "read_mask", "read_rois", "voxel_table"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """The kept voxels of a volume.

    Attributes
    ----------
    mask
        bool, of the shape of a volume, or (column,) where there is no volume.
    affine
        Voxel indices to millimetres, None where unknown.
    path
        File of the mask, None where there is none.
    space
        Of grayordinates or a hemisphere: which, empty where unknown.
    """

    mask: Mask
    affine: NDArray[np.float64] | None = None
    path: Path | None = None
    space: str = ""

    def from_matlab(self) -> NDArray[np.int64]:
        """Return the index that converts MATLAB's voxel order to numpy's, shape (kept voxel,)."""
        numbers = np.arange(self.mask.size).reshape(self.mask.shape, order="F")
        return np.argsort(np.argsort(numbers[self.mask]))


def read_mask(root: Path, name: str) -> VoxelGrid:
    """Return a mask; values above 0 are inside, so the -1 of NSD's masks is outside.

    Raises
    ------
    CalcarineError
        If it is no mask or is empty.
    """
    file, values = _labels(root, name, "mask")
    path = file.path
    mask = values > 0
    if not mask.any():
        raise DamagedFileError(f"The mask {path} has no voxel above 0; is it the right file?")
    return VoxelGrid(mask, file.affine, path, file.about.space)


def read_rois(
    root: Path, rois: Mapping[str, str] | Atlas, grid: VoxelGrid, voxel_order: str | None = None
) -> tuple[dict[str, Mask], list[Path]]:
    """Return regions as masks over the kept voxels, and their files.

    Parameters
    ----------
    root, rois
        Folder of the description, and what it says.
    grid
        Voxels that are kept.
    voxel_order
        ``"matlab"`` where rows of voxels are in MATLAB's order.

    Raises
    ------
    CalcarineError
        If a file does not fit the mask, or a region is empty.
    """
    if isinstance(rois, Atlas):
        path, values = _inside(root, rois.file, grid, "atlas", voxel_order)
        results = {}
        for name, labels in rois.labels.items():
            wanted = [labels] if isinstance(labels, int) else labels
            results[name] = np.isin(values, wanted)
        files = [path]
    else:
        files, results = [], {}
        for name, file in rois.items():
            path, values = _inside(root, file, grid, "region", voxel_order)
            files.append(path)
            results[name] = _one(path, values)
    for name, mask in results.items():
        if not mask.any():
            raise CalcarineError(
                f"Region {name} has none of the {len(mask)} kept voxels; check its file, its "
                "labels and the mask."
            )
    return results, files


def _one(path: Path, values: NDArray[np.float64]) -> Mask:
    labels = np.unique(values[values > 0])
    if len(labels) > 1:
        shown = ", ".join(f"{label:g}" for label in labels[:6])
        raise SettingError(
            f"The region {path} holds the labels {shown}; say which is which with rois: "
            "{file: ..., labels: {NAME: NUMBER}}."
        )
    return np.asarray(values > 0)


def _inside(
    root: Path, name: str, grid: VoxelGrid, what: str, voxel_order: str | None
) -> tuple[Path, NDArray[np.float64]]:
    """Return the file, and its values at the kept voxels."""
    file, values = _labels(root, name, what)
    path = file.path
    count = int(grid.mask.sum())
    same_columns(path, file.about.space, grid.path, grid.space)
    if values.shape == grid.mask.shape:
        if file.affine is not None and grid.affine is not None:
            same_space(file.path, file.affine, grid.path, grid.affine)
        return path, np.asarray(values[grid.mask])
    if values.shape == (count,):
        turned = voxel_order == "matlab" and grid.mask.ndim == 3
        return path, values[grid.from_matlab()] if turned else values
    raise ShapeError(
        f"The {what} {path} has shape {values.shape}, and the kept voxels are {count} of a "
        f"{'volume' if grid.mask.ndim > 1 else 'row'} of shape {grid.mask.shape}; bring both to "
        "one space" + ("." if grid.mask.ndim > 1 else ", or give a mask.")
    )


def same_space(
    path: Path, affine: NDArray[np.float64], other: Path | None, wanted: NDArray[np.float64]
) -> None:
    """Raise unless two images of one shape are also in one space.

    Raises
    ------
    CalcarineError
        If their affines differ by more than rounding.
    """
    if not np.allclose(affine, wanted, rtol=1e-3, atol=1e-2):
        turned = not np.array_equal(
            np.sign(np.round(affine[:3, :3], 3)), np.sign(np.round(wanted[:3, :3], 3))
        )
        raise ShapeError(
            f"{path} and {other or 'the betas'} have the same shape and different affines, so they "
            f"are not in one space{' (axes are flipped or swapped)' if turned else ''}; resample "
            "one to the other."
        )


def same_columns(path: Path, space: str, other: Path | None, wanted: str) -> None:
    """Raise unless two files have the same grayordinates or the same hemisphere.

    Raises
    ------
    CalcarineError
        If both say of which they are, and they differ.
    """
    if space and wanted and space != wanted:
        kinds = " and ".join(sorted({text.split()[0] for text in (space, wanted)}))
        names = {text.removeprefix("GIFTI ") for text in (space, wanted) if text[:5] == "GIFTI"}
        names_text = f" ({', '.join(sorted(names))})" if len(names) == 2 else ""
        raise ShapeError(
            f"{path} and {other or 'the betas'} are {kinds} files of different "
            f"vertices{names_text}; give files of one space."
        )


def _labels(root: Path, name: str, what: str) -> tuple[ArrayFile, NDArray[np.float64]]:
    """Return a volume or a row of whole numbers; NaN is outside."""
    places = find_all(root, name, what)
    if len(places) != 1:
        raise SettingError(f"The {what} {name} is {len(places)} files; give one file.")
    file = ArrayFile.open(*places[0], what, kinds="buif")
    values = np.asarray(file.read(), dtype=np.float64)
    values = np.where(np.isnan(values), 0.0, values)
    values = whole_numbers(values, file.path, what, file.about.scaling)
    if file.about.trial_axes == (0,) and values.ndim == 2:
        if len(values) > 1:
            raise ShapeError(
                f"The {what} {file.path} has {len(values)} maps; give a file with one."
            )
        values = values[0]
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if file.affine is None and values.ndim == 3 and values.shape[1:] == (1, 1):
        values = values[:, 0, 0]
    if ending(file.path) == ".mat" and values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    cubic = values.ndim == 3 and values.shape == values.shape[::-1]
    if file.about.writer == "unknown" and cubic and not np.array_equal(values, values.T):
        raise DamagedFileError(
            f"The {what} {file.path} does not say whether Python or MATLAB wrote it, so x and "
            "z may be exchanged; save it as NIfTI or .npy."
        )
    return file, values


def voxel_table(grid: VoxelGrid) -> pd.DataFrame:
    """Return the coordinates of each kept voxel in millimetres, NaN if unknown."""
    names = ["x", "y", "z"]
    if grid.affine is None or grid.mask.ndim != 3:
        return pd.DataFrame(np.full((int(grid.mask.sum()), 3), np.nan), columns=names)
    places = np.argwhere(grid.mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return pd.DataFrame(places, columns=names)
