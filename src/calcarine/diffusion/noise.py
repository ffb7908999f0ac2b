"""Noise that belongs to a stimulus and a sample, not to a place in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def gaussian_noise(
    keys: Sequence[tuple[str, int]], shape: tuple[int, ...], seed: int
) -> torch.Tensor:
    """Standard normal noise, one array per key.

    Parameters
    ----------
    keys : sequence of (stimulus id, sample index)
    shape : tuple of int
        Shape of one array.
    seed : int
        Seed of the whole experiment.

    Returns
    -------
    float32 tensor of shape ``(len(keys), *shape)``
        Row ``i`` depends on ``seed`` and ``keys[i]`` alone, so that batch size, order, shards
        and restarts change nothing. Drawn on the CPU, whatever the device of the model.
    """
    rows = []
    for stimulus, sample in keys:
        digest = hashlib.sha256(f"{seed}|{stimulus}|{sample}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows) if rows else torch.zeros((0, *shape))
