"""LPIPS, a learned perceptual distance (Zhang et al. 2018), as a squared distance of vectors."""

from __future__ import annotations

import torch
from torch import nn

from calcarine.errors import DamagedFileError

__all__ = ["PerceptualDistance"]

# ReLUs of AlexNet's five convolutions.
_LAYERS = (1, 4, 7, 9, 11)
_WIDTHS = (64, 192, 384, 256, 256)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class PerceptualDistance(nn.Module):
    """AlexNet with weighted, normalised layers that form one vector for each picture.

    The distance of two pictures is the squared Euclidean distance of their vectors: every layer's
    channels have length 1 at each place, differences are squared, weighted by channel, averaged
    over places and added over layers. All pairs are then one matrix product.

    Parameters
    ----------
    features : nn.Sequential
        Convolutions of AlexNet.
    weights : list of tensor
        Weight of each channel, one tensor a layer, none negative.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: nn.Sequential, weights: list[torch.Tensor]) -> None:
        super().__init__()
        self.convolutions = features
        for i, weight in enumerate(weights):
            self.register_buffer(f"root_{i}", weight.clamp(min=0).sqrt().reshape(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(_SHIFT).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).reshape(1, 3, 1, 1))

    @classmethod
    def of(cls, alexnet: nn.Module, linear: dict[str, torch.Tensor]) -> PerceptualDistance:
        """Combine torchvision's AlexNet with the published linear weights.

        Raises
        ------
        CalcarineError
            If the linear weights are not those of AlexNet, or one is negative.
        """
        weights = [linear.get(f"lin{i}.model.1.weight") for i in range(5)]
        fits = all(
            weight is not None and weight.numel() == width and bool((weight >= 0).all())
            for weight, width in zip(weights, _WIDTHS, strict=True)
        )
        if not fits:
            raise DamagedFileError(
                "The weights lpips_v0.1_alex.pth do not fit AlexNet; download alex.pth of LPIPS "
                "version 0.1 again."
            )
        convolutions = alexnet.get_submodule("features")
        assert isinstance(convolutions, nn.Sequential)
        return cls(convolutions, [weight for weight in weights if weight is not None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute vectors (n, features) of pictures (n, 3, height, width) in [-1, 1]."""
        x = (x - self.shift) / self.scale
        parts: list[torch.Tensor] = []
        for index, module in enumerate(self.convolutions):
            x = module(x)
            if index in _LAYERS:
                layer = len(parts)
                length = x.square().sum(1, keepdim=True).sqrt() + 1e-10
                places = x.shape[2] * x.shape[3]
                parts.append((x / length * getattr(self, f"root_{layer}") / places**0.5).flatten(1))
        return torch.cat(parts, 1)
