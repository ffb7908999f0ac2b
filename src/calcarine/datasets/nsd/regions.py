"""Masks and regions of a subject's volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.nsd.files import content_error, read_label_names, read_labels, read_volume
from calcarine.datasets.nsd.layout import ATLASES, JOINED, NSDLayout
from calcarine.errors import SettingError

__all__ = ["MaskedVoxels", "check_grid", "keep_voxels", "label_names", "read_masks"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MaskedVoxels:
    """The voxels of a mask.

    Attributes
    ----------
    voxels
        One row a voxel: x, y, z (millimetres), i, j, k (indices along X, Y and
        Z, from 0) and, where the file is there, ncsnr.
    rois
        Boolean masks of shape (voxel,) of the regions that have voxels here.
    places
        Ascending places in the flattened grid (Z, Y, X) of the betas.
    grid
        Voxels along Z, Y and X.
    """

    voxels: pd.DataFrame
    rois: dict[str, Mask]
    places: NDArray[np.int64]
    grid: tuple[int, int, int]


def label_names(layout: NSDLayout, atlas: str) -> dict[int, str]:
    """Return the names of an atlas's labels: from its table, or the known ones."""
    path = layout.labels(atlas)
    return read_label_names(path) if path.is_file() else dict(ATLASES[atlas])


class _Volumes:
    """Masks over one grid, from several files."""

    def __init__(self) -> None:
        self.masks: dict[str, Mask] = {}
        self.first: tuple[Path, tuple[int, ...]] | None = None
        self.affine: NDArray[np.float64] = np.eye(4)

    def read(self, path: Path) -> NDArray[np.int64]:
        labels, affine = read_labels(path)
        if self.first is None:
            self.first, self.affine = (path, labels.shape), affine
        elif labels.shape != self.first[1]:
            raise content_error(
                path,
                f"has {labels.shape} voxels (X, Y, Z) and {self.first[0].name} has "
                f"{self.first[1]}; they are of different subjects or spaces.",
            )
        return labels

    def add(self, name: str, mask: Mask, path: Path) -> None:
        if name in self.masks:
            raise content_error(
                path, f"has a label named {name}, which is the name of another region too."
            )
        self.masks[name] = mask


def read_masks(layout: NSDLayout) -> tuple[dict[str, Mask], NDArray[np.float64]]:
    """Read every mask and region of which there is a file.

    Returns
    -------
    masks, affine
        Boolean arrays of shape (X, Y, Z): ``nsdgeneral``, ``brain``, each
        atlas as a whole, its labels, and V1, V2 and V3 of their two parts.
        A voxel belongs to a region where its label is above 0: outside of
        cortex the files have -1.  The affine leads from indices to millimetres.
    """
    volumes = _Volumes()
    for name, path in (("nsdgeneral", layout.roi("nsdgeneral")), ("brain", layout.brainmask)):
        if path.is_file():
            volumes.add(name, volumes.read(path) > 0, path)
    for atlas in ATLASES:
        path = layout.roi(atlas)
        if not path.is_file():
            continue
        labels = volumes.read(path)
        volumes.add(atlas, labels > 0, path)
        names = label_names(layout, atlas)
        for name in dict.fromkeys(names.values()):
            own = [value for value, known in names.items() if known == name]
            volumes.add(name, np.isin(labels, own), path)
        for name, parts in JOINED.items():
            if atlas == "prf-visualrois" and all(part in volumes.masks for part in parts):
                volumes.add(name, volumes.masks[parts[0]] | volumes.masks[parts[1]], path)
    return volumes.masks, volumes.affine


def keep_voxels(layout: NSDLayout, mask: str) -> MaskedVoxels:
    """Return the voxels of a mask with their positions and regions.

    Parameters
    ----------
    layout
        Whose files.
    mask
        Name of a region of `read_masks`, or several joined by ``+``.
    """
    masks, affine = read_masks(layout)
    whole = _chosen(layout, masks, mask)
    # Reversed axes, as the betas have them: their flat order is then that of the table.
    k, j, i = np.nonzero(whole.T)
    index = np.stack([i, j, k])
    millimetres = affine[:3, :3] @ index + affine[:3, 3:]
    voxels = pd.DataFrame(millimetres.T, columns=["x", "y", "z"]).assign(i=i, j=j, k=k)
    if layout.ncsnr.is_file():
        ncsnr = read_volume(layout.ncsnr)[0]
        check_grid(layout.ncsnr, ncsnr.shape, whole.shape, "the masks")
        voxels["ncsnr"] = ncsnr[i, j, k].astype(np.float64)
    inside = {name: each[i, j, k] for name, each in masks.items() if name != "brain"}
    rois = {name: own for name, own in inside.items() if own.any()}
    grid = (whole.shape[2], whole.shape[1], whole.shape[0])
    places = np.ravel_multi_index((k, j, i), grid).astype(np.int64)
    return MaskedVoxels(voxels, rois, places, grid)


def _chosen(layout: NSDLayout, masks: dict[str, Mask], mask: str) -> Mask:
    files = {"nsdgeneral": layout.roi("nsdgeneral"), "brain": layout.brainmask}
    parts = [part.strip() for part in str(mask).split("+")]
    for part in parts:
        if part in masks:
            continue
        if part in files:
            layout.need(files[part])
        known = ", ".join(masks) or f"none, for there are no masks in {layout.roi('x').parent}"
        raise SettingError(
            f"Data set nsd, subject {layout.subject}: there is no mask {part or 'without a name'}; "
            f"the masks here are {known}."
        )
    whole = np.logical_or.reduce([masks[part] for part in parts])
    if not whole.any():
        raise SettingError(
            f"Data set nsd, subject {layout.subject}: mask {mask} has no voxels; choose another."
        )
    return np.asarray(whole)


def check_grid(path: Path, found: tuple[int, ...], wanted: tuple[int, ...], other: str) -> None:
    """Compare the shapes (X, Y, Z) of a volume and of the masks."""
    if found == wanted:
        return
    turned = found == wanted[::-1]
    hint = (
        "their axes are in the opposite order (NIfTI has X, Y, Z and HDF5 has Z, Y, X)"
        if turned
        else "they are of different subjects or spaces"
    )
    raise content_error(path, f"has {found} voxels (X, Y, Z) and {other} have {wanted}: {hint}.")
