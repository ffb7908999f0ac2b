"""What the stages share: pictures as tensors, and how long to train."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from mini import pool
from mini.training import Piece

N_JUDGE, N_HELD_OUT = 30_000, 2_000


SHARES = {"perceptor": 0.04, "autoencoder": 0.3, "text": 0.04, "denoiser": 0.52, "decoder": 0.1}
"""Of the time in which all stages are trained."""


def piece(options: argparse.Namespace, stage: str) -> Piece:
    """Return how long a stage trains and where."""
    fit_minutes = options.fit_minutes
    if fit_minutes is not None and options.stage in ("model", "all"):
        fit_minutes *= SHARES.get(stage, 0.0)
    return Piece(
        steps=getattr(options, f"{stage}_steps"),
        minutes=options.minutes,
        fit_minutes=fit_minutes,
        device=options.device,
        start=options.start,
    )


def to_tensor(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Pictures ``(n, 64, 64, 3)`` uint8 as ``(n, 3, 64, 64)`` in [-1, 1]."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw(generator: torch.Generator, high: int, count: int) -> torch.Tensor:
    """Whole numbers below ``high``, on the generator's device."""
    return torch.randint(high, (count,), generator=generator, device=generator.device)


def scene_images(options: argparse.Namespace) -> torch.Tensor:
    """The generator's scenes ``(n, 64, 64, 3)`` uint8 on the device."""
    images, _ = pool.scene_pool(options.work, "generator", options.scenes, options.workers)
    return torch.from_numpy(np.array(images)).to(options.device)


def scene_table(options: argparse.Namespace) -> list:
    """Descriptions of the generator's scenes."""
    return pool.scene_pool(options.work, "generator", options.scenes, options.workers)[1]


def digit_pool(options: argparse.Namespace) -> dict:
    """Digits for the generator, the judge and held-out tests."""
    references = None
    if options.avoid:
        from scipy.io import loadmat

        content = loadmat(options.avoid)
        flat = np.concatenate([content["stimTrn"], content["stimTest"]])
        references = np.stack([row.reshape(28, 28, order="F") for row in flat])
    return pool.split_digits(options.mnist, references)


def digit_pictures(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The generator's digits as pictures, each twice, moved differently; and what they are."""
    digits, labels = digit_pool(options)["generator"]
    rng = np.random.default_rng(3)
    pictures = [pool.enlarge(pool.shift_digits(digits, rng)) for _ in range(2)]
    return np.concatenate(pictures), np.tile(labels, 2)
