"""Random masking of patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calcarine.errors import SettingError

__all__ = ["Masking", "draw_masking", "no_masking"]


@dataclass(frozen=True, eq=False)
class Masking:
    """Visible and masked patches of each sample of a batch.

    Attributes
    ----------
    visible : int64 tensor of shape (batch, kept)
        Visible patches in ascending order, padded if a sample keeps fewer than others.
    mask : bool tensor of shape (batch, kept), optional
        False for padding; None if there is none.
    hidden : bool tensor of shape (batch, patches)
        Masked patches, over which the reconstruction loss is computed. Patches beyond the end of
        a short vector are neither visible nor hidden.
    """

    visible: torch.Tensor
    mask: torch.Tensor | None
    hidden: torch.Tensor

    def take(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the visible tokens of (batch, patches, width)."""
        index = self.visible[..., None].expand(-1, -1, tokens.shape[-1])
        return tokens.gather(1, index)


def draw_masking(valid: torch.Tensor, ratio: float, generator: torch.Generator) -> Masking:
    """Mask a share of the valid patches of each sample.

    Parameters
    ----------
    valid : bool tensor of shape (batch, patches)
        Patches that each vector has.
    ratio : float
        Share of the patches to mask, .75 in both seed papers. Of v patches,
        ``v - int(v * ratio)`` are kept, at least one; the published code keeps
        ``int(v * (1 - ratio))``, which may be one fewer.
    generator : torch.Generator
        On the CPU, so that every device draws the same patches.

    Returns
    -------
    Masking

    Notes
    -----
    Source: He et al. (2022), random sampling without replacement; Sun et al. (2023), section
    3.1.
    """
    if not 0 <= ratio < 1:
        raise SettingError(f"A mask ratio lies between 0 and below 1, not {ratio}.")
    on_cpu = valid.cpu()
    order = torch.rand(on_cpu.shape, generator=generator).masked_fill(~on_cpu, 2.0).argsort(1)
    counts = on_cpu.sum(1)
    kept = (counts - (counts.double() * ratio).long()).clamp(min=1)
    longest = int(kept.max())
    mask = torch.arange(longest)[None] < kept[:, None]
    # Sorted, because the order of tokens matters to the conditioner.
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
    """Return a masking with all patches visible, in order."""
    visible = torch.arange(valid.shape[1], device=valid.device).expand(len(valid), -1)
    return Masking(visible, None if bool(valid.all()) else valid, torch.zeros_like(valid))
