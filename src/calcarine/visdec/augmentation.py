"""Changes to vectors that a network should not mind."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import ConfigDict

from calcarine.errors import CalcarineError
from calcarine.visdec.patches import PatchedVectors

__all__ = ["Augmentation", "augment_vectors"]


@dataclass(frozen=True)
class Augmentation:
    """How much vectors are changed before a network sees them.

    Attributes
    ----------
    noise
        SD of Gaussian noise, in SDs of z-scored responses.
    drop
        Share of voxels that are set to 0, their mean. (The published code means to do so with .2
        and, by an index of the wrong axis, drops none.)
    gain
        SD of the logarithm of a factor for a whole vector.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is told

    noise: float = 0.0
    drop: float = 0.0
    gain: float = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0 or self.gain < 0 or not 0 <= self.drop < 1:
            raise CalcarineError(
                "Augmentation takes noise and gain of 0 or more and drop below 1; they are "
                f"{self.noise}, {self.gain} and {self.drop}."
            )


def augment_vectors(
    vectors: PatchedVectors, how: Augmentation, generator: torch.Generator
) -> PatchedVectors:
    """Changed copies of vectors, drawn from ``generator`` (on the CPU)."""
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
