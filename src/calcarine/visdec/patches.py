"""Patches of voxel vectors of any length, with several subjects in one batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import SettingError, ShapeError
from calcarine.visdec.padding import pad_to_patches

__all__ = ["PatchedVectors", "join_patched", "patch_vectors", "sine_positions"]


@dataclass(frozen=True, eq=False)
class PatchedVectors:
    """Voxel vectors cut into patches.

    Attributes
    ----------
    values : float32 tensor of shape (n, patches, voxels of a patch)
    valid : bool tensor of shape (n, patches)
        False for patches beyond the end of a vector that is shorter than the longest one.
    """

    values: torch.Tensor
    valid: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_patches(self) -> int:
        """Number of patches of the longest vector."""
        return int(self.values.shape[1])

    def rows(self, rows: torch.Tensor) -> PatchedVectors:
        """Return some of the vectors."""
        return PatchedVectors(self.values[rows], self.valid[rows])

    def to(self, device: torch.device) -> PatchedVectors:
        """Return the same vectors on another device."""
        return PatchedVectors(self.values.to(device), self.valid.to(device))

    def flat(self) -> torch.Tensor:
        """Return vectors of shape (n, voxels), with 0 beyond their ends."""
        return (self.values * self.valid[..., None]).flatten(1)


def patch_vectors(
    vectors: ArrayLike, patch: int = 16, n_patches: int | None = None, *, official: bool = False
) -> PatchedVectors:
    """Cut the vectors of one subject into patches; the first voxels pad the last patch.

    Parameters
    ----------
    vectors : array of shape (n, voxels)
        Finite values.
    patch : int
        Number of voxels of a patch (16 in MinD-Vis and Vis-Dec).
    n_patches : int, optional
        Pad with invalid patches to this number.
    official : bool
        Add a whole patch even if the voxels fill the last one, as the published code does.

    Returns
    -------
    PatchedVectors

    Raises
    ------
    ShapeError
        If there are fewer voxels than in one patch, a value is not finite, or the vectors have
        more than ``n_patches`` patches.

    Notes
    -----
    Source: Chen et al. (2023) and Sun et al. (2023). Patches of 16 neighbouring voxels are the
    tokens of a masked autoencoder.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.visdec import patch_vectors
    >>> vectors = patch_vectors(np.zeros((3, 100)), patch=16)
    >>> vectors.values.shape  # 100 voxels fill 7 patches of 16
    torch.Size([3, 7, 16])
    """
    values = np.asarray(vectors, np.float32)
    if values.ndim != 2:
        raise ShapeError(f"Voxel vectors have two axes, not the shape {values.shape}.")
    if values.shape[1] < patch:
        raise ShapeError(
            f"Vectors of {values.shape[1]} voxels are shorter than one patch of {patch}; choose a "
            "smaller patch or a region with more voxels."
        )
    broken = np.flatnonzero(~np.isfinite(values).all(1))
    if len(broken):
        raise ShapeError(
            f"Vector {broken[0]} holds values that are not finite ({len(broken)} such of "
            f"{len(values)}); leave these voxels or samples out."
        )
    padded = pad_to_patches(values, patch, official=official)
    cut = torch.from_numpy(np.ascontiguousarray(padded)).reshape(len(values), -1, patch)
    own = cut.shape[1]
    wanted = own if n_patches is None else n_patches
    if own > wanted:
        raise ShapeError(
            f"Vectors of {values.shape[1]} voxels make {own} patches of {patch}, and the network "
            f"takes {wanted}; choose a smaller region."
        )
    valid = torch.zeros(len(cut), wanted, dtype=torch.bool)
    valid[:, :own] = True
    return PatchedVectors(torch.nn.functional.pad(cut, (0, 0, 0, wanted - own)), valid)


def join_patched(
    sources: Iterable[NDArray[np.float32]], patch: int = 16, n_patches: int | None = None
) -> PatchedVectors:
    """Cut the vectors of several subjects into patches and stack them.

    Parameters
    ----------
    sources : iterable of array of shape (n, voxels)
        One array for each subject; their numbers of voxels may differ.
    patch : int
        Number of voxels of a patch.
    n_patches : int, optional
        Number of patches; that of the longest subject by default.

    Returns
    -------
    PatchedVectors

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.visdec import join_patched
    >>> subjects = [np.zeros((3, 100), np.float32), np.zeros((2, 60), np.float32)]
    >>> vectors = join_patched(subjects)
    >>> vectors.values.shape
    torch.Size([5, 7, 16])
    >>> vectors.valid.sum(axis=1).tolist()  # patches of each vector
    [7, 7, 7, 4, 4]
    """
    cut = [patch_vectors(source, patch) for source in sources if len(source)]
    if not cut:
        raise SettingError("There are no voxel vectors to train on; name at least one source.")
    longest = max(part.n_patches for part in cut)
    wanted = longest if n_patches is None else n_patches
    if longest > wanted:
        raise ShapeError(
            f"The longest vectors make {longest} patches of {patch}, and the network takes "
            f"{wanted}; make it longer or choose a smaller region."
        )
    return PatchedVectors(
        torch.cat([_lengthened(part.values, wanted) for part in cut]),
        torch.cat([_lengthened(part.valid, wanted) for part in cut]),
    )


def _lengthened(tensor: torch.Tensor, wanted: int) -> torch.Tensor:
    rest = tensor.new_zeros(len(tensor), wanted - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, rest], 1)


def sine_positions(n: int, width: int) -> torch.Tensor:
    """Return fixed positions of tokens, shape (n + 1, width); 0 for the class token, the first.

    Parameters
    ----------
    n : int
        Number of patches.
    width : int
        Width of a token; even.

    Notes
    -----
    The first half holds sines and the second half cosines of ``position / 10000^(2 i / width)``
    (Vaswani et al. 2017, in the order of masked autoencoders, He et al. 2022).
    """
    if width % 2:
        raise SettingError(f"Positions need an even width, not {width}.")
    rates = 1.0 / 10000 ** (np.arange(width // 2, dtype=np.float64) / (width / 2))
    angles = np.arange(n, dtype=np.float64)[:, None] * rates
    table = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    return torch.from_numpy(np.concatenate([np.zeros((1, width)), table]).astype(np.float32))
