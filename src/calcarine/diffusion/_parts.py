"""Checks of the parts of a diffusion model, and small operations on its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.errors import SettingError

__all__ = ["add_axis", "check_channels", "latent_side", "rescale_guided"]


def latent_side(size: Any) -> int:
    """Return the side of the latents from the ``sample_size`` of a U-Net."""
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if not sides or sides != [sides[0]] * len(sides) or not isinstance(sides[0], int):
        raise SettingError(
            f"The U-Net's config.json has the sample_size {size}; choose a model of square "
            "pictures, for which it is one number or two equal ones."
        )
    return int(sides[0])


def check_channels(unet: Any, latent: int) -> None:
    """Raise unless U-Net and autoencoder have the same number of latent channels."""
    takes, gives = int(unet.in_channels), int(unet.out_channels)
    if takes != latent:
        more = ", or the U-Net needs further pictures (inpainting, depth, upscaling)"
        raise SettingError(
            f"The U-Net takes {takes} latent channels and the autoencoder gives {latent}: these "
            f"parts are not of one model{more if takes > latent else ''}."
        )
    if gives != takes:
        raise SettingError(
            f"The U-Net predicts {gives} channels for latents of {takes}, as models with learned "
            "variances do; choose a model with as many."
        )


def add_axis(values: NDArray[np.float32] | None, ndim: int) -> NDArray[np.float32] | None:
    """Add the axis of pictures to what one picture has without it."""
    if values is None or np.ndim(values) != ndim:
        return values
    return np.asarray(values)[None]


def rescale_guided(guided: torch.Tensor, conditional: torch.Tensor, share: float) -> torch.Tensor:
    """Rescale a guided prediction, to a share, to the spread of the conditional prediction."""
    axes = tuple(range(1, guided.ndim))
    spread = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (share * spread + 1 - share)
