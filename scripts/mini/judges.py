"""The judges, which never see what the generator saw."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from calcarine.evaluation.networks.judges import JudgeNet
from calcarine.stimuli import scenes
from mini import pool
from mini.networks import PACKAGE, bf16
from mini.options import N_JUDGE, digit_pool, draw, piece, to_tensor
from mini.training import train


def blurred(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures, a quarter of them each with a blur of up to 1.6 pixels.

    Reconstructions are blurred, and a judge that never saw blur goes by sharp edges.
    """
    quarters = x.chunk(4)
    sigmas = 0.3 + 1.3 * torch.rand(2, generator=generator)
    soft = [
        gaussian_blur(q, [9, 9], [float(s)] * 2) for q, s in zip(quarters, sigmas, strict=False)
    ]
    return torch.cat([*soft, *quarters[2:]])


def train_judges(options: argparse.Namespace) -> None:
    images, table = pool.scene_pool(options.work, "judge", N_JUDGE, options.workers)
    kinds = {name: i for i, name in enumerate(scenes.KINDS)}
    present = np.zeros((len(table), len(kinds)), np.float32)
    for row, entry in zip(present, table, strict=True):
        row[[kinds[k] for k in entry["kinds"]]] = 1
    main = np.asarray([kinds[entry["main"]] for entry in table])
    torch.manual_seed(3)
    scene_judge = JudgeNet(list(scenes.KINDS))

    def scene_loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = draw(generator, len(table), 64).numpy()
        x = (to_tensor(images[rows]) + 1) / 2
        if step % 2:
            x = x.flip(3)
        x = torch.roll(x, tuple((draw(generator, 5, 2) - 2).tolist()), (2, 3))
        x = blurred(x, generator)
        x = (x + 0.03 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
        with bf16():
            out = scene_judge(x)
        return F.binary_cross_entropy_with_logits(
            out["present"].float(), torch.from_numpy(present[rows])
        ) * 10 + F.cross_entropy(out["main"].float(), torch.from_numpy(main[rows]))

    train(
        "judge-scenes",
        options.work,
        scene_judge,
        scene_loss,
        replace(piece(options, "judge"), device="cpu"),
        3e-3,
        ema_decay=0.99,
    )

    digits, labels = digit_pool(options)["judge"]
    torch.manual_seed(4)
    digit_judge = JudgeNet(list(pool.NUMBERS), (16, 32, 64))
    large = pool.enlarge(digits)

    def digit_loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = draw(generator, len(large), 64).numpy()
        x = (to_tensor(large[rows]) + 1) / 2
        angle = (torch.rand(64, generator=generator) - 0.5) * 0.5
        zoom = 0.85 + 0.35 * torch.rand(64, generator=generator)
        move = (torch.rand(64, 2, generator=generator) - 0.5) * 0.2
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        theta = torch.stack(
            [torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)], 1
        )
        x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), False), align_corners=False)
        x = blurred(x, generator)
        x = (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
        y = torch.from_numpy(labels[rows])
        with bf16():
            out = digit_judge(x)
        one_hot = F.one_hot(y, 10).float()
        return F.cross_entropy(out["main"].float(), y) + F.binary_cross_entropy_with_logits(
            out["present"].float(), one_hot
        )

    train(
        "judge-digits",
        options.work,
        digit_judge,
        digit_loss,
        replace(piece(options, "digit"), device="cpu"),
        3e-3,
        ema_decay=0.99,
    )


def export_judges(options: argparse.Namespace) -> None:
    """Write the judges as fp16 safetensors and JSON."""
    from safetensors.torch import save_file

    folder = PACKAGE / "evaluation" / "networks" / "judge_weights"
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels, widths in (
        ("scenes", list(scenes.KINDS), (32, 64, 128)),
        ("digits", list(pool.NUMBERS), (16, 32, 64)),
    ):
        state = torch.load(options.work / f"judge-{name}.pt", weights_only=True)["average"]
        halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(halved, folder / f"{name}.safetensors")
        about = json.dumps({"labels": labels, "widths": widths}, indent=2)
        (folder / f"{name}.json").write_text(about + "\n")
    print(f"wrote {folder}")
