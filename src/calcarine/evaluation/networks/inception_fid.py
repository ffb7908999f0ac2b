"""The Inception network of 2015, on which the Frechet inception distance (FID) is defined.

It differs from torchvision's network in its pooling, which excludes padding from averages and takes
the maximum in the last block, and in its 1008 classes. Parameters have torchvision's names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import Inception3
from torchvision.models.inception import InceptionA, InceptionC, InceptionE

__all__ = ["FrechetInception"]


def _average(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _BlockA(InceptionA):
    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_average(x)),
        ]


class _BlockC(InceptionC):
    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(_average(x)),
        ]


class _BlockE(InceptionE):
    pools_maximum = False

    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.pools_maximum else _average(x)
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(pooled),
        ]


class FrechetInception(Inception3):
    """Inception of 2015; computes averaged features of width 64 and 2048."""

    def __init__(self) -> None:
        super().__init__(
            num_classes=1008, aux_logits=False, transform_input=False, init_weights=False
        )
        self.Mixed_5b = _BlockA(192, pool_features=32)
        self.Mixed_5c = _BlockA(256, pool_features=64)
        self.Mixed_5d = _BlockA(288, pool_features=64)
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(self, f"Mixed_{name}", _BlockC(768, channels_7x7=width))
        self.Mixed_7b, self.Mixed_7c = _BlockE(1280), _BlockE(2048)
        self.Mixed_7c.pools_maximum = True

    def features(self, x: torch.Tensor, wide: bool) -> dict[str, torch.Tensor]:
        """Compute the features "64" and, if ``wide``, "2048" of images (n, 3, 299, 299)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.maxpool1(x)
        result = {"64": x.mean((2, 3))}
        if not wide:
            return result
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            block: nn.Module = getattr(self, f"Mixed_{name}")
            x = block(x)
        return result | {"2048": x.mean((2, 3))}
