"""Padding of voxel vectors to a whole number of patches."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import SettingError, ShapeError

__all__ = ["pad_to_patches"]


def pad_to_patches(
    vectors: ArrayLike,
    patch: int = 16,
    mode: Literal["wrap", "edge", "reflect", "constant"] = "wrap",
    *,
    official: bool = False,
    length: int | None = None,
) -> NDArray[np.generic]:
    """Pad the last axis to a multiple of the patch size.

    Parameters
    ----------
    vectors : array of shape (..., n_voxels)
    patch : int
        Number of voxels of a patch.
    mode : {"wrap", "edge", "reflect", "constant"}
        Pad with the first voxels (``"wrap"``, as in MinD-Vis and Vis-Dec), the last voxel, the
        last voxels mirrored, or zeros.
    official : bool
        Add a whole patch even if the length is a multiple already, as the code of MinD-Vis and
        Vis-Dec does.
    length : int, optional
        Smallest length, so that vectors of several subjects can be stacked.

    Returns
    -------
    array of shape (..., padded length)
        With the dtype of ``vectors``.

    Raises
    ------
    ShapeError
        If there are no voxels, or more than ``length``.

    Notes
    -----
    Source: Sun et al. (2023) and Chen et al. (2023), sections on masked brain modelling. 4183
    vertices of V1 to V4 become 4192, 262 patches of 16.

    Examples
    --------
    >>> from calcarine.visdec import pad_to_patches
    >>> pad_to_patches([1, 2, 3, 4, 5], patch=4).tolist()
    [1, 2, 3, 4, 5, 1, 2, 3]
    """
    values = np.asarray(vectors)
    if patch < 1:
        raise SettingError(f"A patch has at least one voxel, not {patch}.")
    if values.ndim < 1 or values.shape[-1] == 0:
        raise ShapeError(f"There are no voxels to pad in vectors of shape {values.shape}.")
    count = values.shape[-1]
    if length is not None and count > length:
        raise ShapeError(
            f"Vectors of {count} voxels cannot be padded to {length}; give a greater length."
        )
    wanted = count if length is None else length
    rest = wanted % patch
    wanted += patch - rest if rest or official else 0
    extra = [(0, 0)] * (values.ndim - 1) + [(0, wanted - count)]
    if mode not in ("wrap", "edge", "reflect", "constant"):
        raise SettingError(f"Padding is wrap, edge, reflect or constant, not {mode}.")
    return np.pad(values, extra, mode=mode)
