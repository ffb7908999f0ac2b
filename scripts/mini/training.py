"""One resumable training loop for every stage."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


def train(
    name: str,
    work: Path,
    module: nn.Module,
    loss_of: Callable[[int, torch.Generator], torch.Tensor],
    steps: int,
    lr: float,
    *,
    ema_decay: float = 0.999,
    weight_decay: float = 0.01,
    save_every: float = 120.0,
) -> nn.Module:
    """Train ``module`` and return its exponential moving average.

    ``loss_of(step, generator)`` draws its batch from ``generator``, which is seeded by the
    step, so that a continued training sees the batches that an uninterrupted one would.
    The learning rate warms up for 2 % of the steps and falls to zero over the last 35 %.
    """
    file = work / f"{name}.pt"
    average = copy.deepcopy(module).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99)
    )
    start = 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    module.train()
    began = saved = time.monotonic()
    recent = 0.0

    def save(step: int) -> None:
        aside = file.with_suffix(".part")
        torch.save(
            {
                "module": module.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
            },
            aside,
        )
        aside.replace(file)

    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(
                1.0, (step + 1) / (0.02 * steps), (steps - step) / (0.35 * steps)
            )
        loss = loss_of(step, torch.Generator().manual_seed(1_000_003 * step + 17))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        decay = min(ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, b in zip(average.parameters(), module.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
            for a, b in zip(average.buffers(), module.buffers(), strict=True):
                a.copy_(b)
        recent = loss.item() if step == start else 0.98 * recent + 0.02 * loss.item()
        if step % 100 == 99:
            rate = (step + 1 - start) / (time.monotonic() - began)
            left = (steps - step - 1) / rate / 60
            print(
                f"{name} {step + 1}/{steps} loss {recent:.4f} {rate:.2f}/s {left:.1f} min left",
                flush=True,
            )
        if time.monotonic() - saved > save_every:
            save(step + 1)
            saved = time.monotonic()
    save(max(steps, start))
    return average
