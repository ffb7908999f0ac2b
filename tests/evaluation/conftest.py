from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn


class TinyFid(nn.Module):
    """Features of both widths, in place of Inception of 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 40, 40)
        self.second = nn.Linear(64, 2048)

    def features(self, x: torch.Tensor, wide: bool) -> dict[str, torch.Tensor]:
        narrow = self.first(x).relu().mean((2, 3))
        return {"64": narrow, "2048": self.second(narrow)}


def _alexnet() -> nn.Module:
    features = nn.Sequential(
        *(nn.Conv2d(3, 4, 11, 14), nn.ReLU(True), nn.Identity()),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(True), nn.Conv2d(6, 5, 3, padding=1)),
        *(nn.ReLU(True), nn.Conv2d(5, 5, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(), nn.LazyLinear(12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, 12)),
        *(nn.ReLU(True), nn.Linear(12, 9)),
    )
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten())
    net = nn.Sequential(OrderedDict(features=features, flat=flat, classifier=classifier))
    net.eval()(torch.zeros(1, 3, 224, 224))
    return net


def _pooled(width: int) -> nn.Module:
    layers = OrderedDict(
        first=nn.Conv2d(3, width, 30, 30), relu=nn.ReLU(), avgpool=nn.AdaptiveAvgPool2d(1)
    )
    return nn.Sequential(layers)


@pytest.fixture(scope="session")
def tiny_networks() -> dict[str, nn.Module]:
    """Small random networks with the layers that protocols read, by name."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from calcarine.evaluation.networks.judges import Judge, JudgeNet
    from calcarine.evaluation.networks.lpips import PerceptualDistance

    torch.manual_seed(0)
    alexnet = _alexnet()
    weights = [torch.rand(width) for width in (4, 6, 6, 5, 5)]
    clip = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=12,
            num_attention_heads=2,
            image_size=224,
            patch_size=56,
            projection_dim=6,
        )
    )
    return {
        "alexnet": alexnet,
        "inception": _pooled(32),
        "efficientnet_b1 V1": _pooled(20),
        "efficientnet_b1 V2": _pooled(20),
        "swav": _pooled(24),
        "clip": clip,
        "vit_h_14": nn.Sequential(
            nn.Conv2d(3, 16, 74, 74), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 200)
        ),
        "fid": TinyFid(),
        "lpips": PerceptualDistance(alexnet.features, weights),
        "judge": Judge(JudgeNet([chr(97 + i) for i in range(26)], (4, 6, 8)), "tiny"),
    }
