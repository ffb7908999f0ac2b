"""Masked autoencoders for vectors of another length."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch.nn import functional as F

from calcarine.errors import SettingError
from calcarine.visdec.encoder_storage import (
    POSITIONS,
    has_own_positions,
    new_autoencoder,
    set_positions,
)
from calcarine.visdec.fmri_autoencoder import FMRIAutoencoder

__all__ = ["interpolated"]


def interpolated(
    autoencoder: FMRIAutoencoder,
    n_patches: int,
    positions: Literal["sine", "nearest"] = "sine",
) -> FMRIAutoencoder:
    """Return an autoencoder with the same weights for vectors of another length.

    Parameters
    ----------
    autoencoder : FMRIAutoencoder
        Is not changed.
    n_patches : int
        Number of patches of the longest vector.
    positions : {"sine", "nearest"}
        Sines for the new length, in which a patch keeps its position; or the nearest of the old
        positions, stretched to the new length: patch i of n gets that of the old patch
        ``floor(i * n_old / n)``. The published code does the latter where the last phase starts
        from an autoencoder of another length; it has no such rule for the decoder, whose positions
        are stretched here in the same way.

    Raises
    ------
    SettingError
        If ``positions`` is "sine" for a network with other positions, or patches have weights of
        their own.
    """
    c = autoencoder.config
    if n_patches < 1 or positions not in ("sine", "nearest"):
        raise SettingError(
            f"An encoder takes 1 patch or more, with sine or nearest positions, not "
            f"{n_patches} with {positions}."
        )
    if c.embedding == "own" and n_patches != c.n_patches:
        raise SettingError(
            f"The {c.n_patches} patches of this encoder have weights of their own, so there are "
            f"none for {n_patches} patches; use vectors of the same voxels."
        )
    if positions == "sine" and has_own_positions(autoencoder):
        raise SettingError(
            "The positions of this encoder are not the fixed sines, so positions for another "
            "length cannot be computed; use positions='nearest'."
        )
    other = new_autoencoder(replace(c, n_patches=n_patches))
    # Sines that keep their length stay sines, which are not stored.
    if positions == "nearest" and (n_patches != c.n_patches or has_own_positions(autoencoder)):
        tables = (autoencoder.encoder.positions, autoencoder.decoder_positions)
        set_positions(other, *(_nearest(table, n_patches) for table in tables))
    state = {k: value for k, value in autoencoder.state_dict().items() if k not in POSITIONS}
    other.load_state_dict(
        state | {k: value for k, value in other.state_dict().items() if k in POSITIONS}
    )
    return other.to(autoencoder.mask_token).train(autoencoder.training)


def _nearest(table: torch.Tensor, n: int) -> torch.Tensor:
    """Stretch all positions but the first, which is that of the class token."""
    rest = F.interpolate(table[1:].T[None].float(), size=n, mode="nearest")
    return torch.cat([table[:1].float(), rest[0].T])
