"""Random changes of voxel vectors for training."""

from __future__ import annotations

from dataclasses import replace

import torch

from calcarine.visdec.patches import PatchedVectors
from calcarine.visdec.settings import Augmentation

__all__ = ["augment_vectors"]


def augment_vectors(
    vectors: PatchedVectors, how: Augmentation, generator: torch.Generator
) -> PatchedVectors:
    """Return vectors with random noise, gain and dropped voxels.

    Parameters
    ----------
    vectors : PatchedVectors
    how : Augmentation
        Strength of the changes.
    generator : torch.Generator
        On the CPU, so that every device draws the same.
    """
    values = vectors.values
    shape, device = values.shape, values.device
    if how.gain:
        factors = torch.exp(how.gain * torch.randn(len(values), 1, 1, generator=generator))
        values = values * factors.to(device)
    if how.noise:
        values = values + how.noise * torch.randn(shape, generator=generator).to(device)
    if how.drop:
        values = values * (torch.rand(shape, generator=generator) >= how.drop).to(device)
    return replace(vectors, values=values * vectors.valid[..., None])
