"""Which patches an autoencoder sees, and which it must tell."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calcarine.errors import CalcarineError

__all__ = ["Masking", "draw_masking", "no_masking"]


@dataclass(frozen=True, eq=False)
class Masking:
    """One drawing of visible patches for each sample of a batch.

    Attributes
    ----------
    visible
        int64, shape (batch, kept): which patches are seen, ascending; filled up at the end where
        a sample keeps fewer than others.
    present
        bool, shape (batch, kept), False for what was filled up; None where nothing was.
    hidden
        bool, shape (batch, patches): masked patches, which the reconstruction loss asks for.
        Patches that a short vector has not are neither visible nor hidden.
    """

    visible: torch.Tensor
    mask: torch.Tensor | None
    hidden: torch.Tensor

    def take(self, tokens: torch.Tensor) -> torch.Tensor:
        """Visible ones of tokens of shape (batch, patches, width)."""
        index = self.visible[..., None].expand(-1, -1, tokens.shape[-1])
        return tokens.gather(1, index)


def draw_masking(valid: torch.Tensor, ratio: float, generator: torch.Generator) -> Masking:
    """Mask a share of the valid patches of each sample.

    Parameters
    ----------
    valid
        bool, shape (batch, patches).
    ratio
        Share that is masked, .75 in both seed papers; of v patches, ``v - int(v * ratio)`` are
        kept, at least one.
    generator
        On the CPU, so that every device draws the same.

    Notes
    -----
    Source: He et al. 2022 (random sampling without replacement); Sun et al. 2023, section 3.1.
    """
    if not 0 <= ratio < 1:
        raise CalcarineError(f"A mask ratio lies between 0 and below 1, not {ratio}.")
    on_cpu = valid.cpu()
    order = torch.rand(on_cpu.shape, generator=generator).masked_fill(~on_cpu, 2.0).argsort(1)
    counts = on_cpu.sum(1)
    kept = (counts - (counts.double() * ratio).long()).clamp(min=1)
    longest = int(kept.max())
    mask = torch.arange(longest)[None] < kept[:, None]
    # In their order, for where tokens stand in the sequence matters to some that listen.
    places = order[:, :longest] + (~mask) * on_cpu.shape[1]
    visible = places.sort(1).values % on_cpu.shape[1]
    hidden = on_cpu.clone()
    hidden.scatter_(1, visible, ~mask & hidden.gather(1, visible))
    even = bool(mask.all())
    return Masking(
        visible.to(valid.device),
        None if even else mask.to(valid.device),
        hidden.to(valid.device),
    )


def no_masking(valid: torch.Tensor) -> Masking:
    """All patches are seen, in their order."""
    visible = torch.arange(valid.shape[1], device=valid.device).expand(len(valid), -1)
    return Masking(visible, None if bool(valid.all()) else valid, torch.zeros_like(valid))
