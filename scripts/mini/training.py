"""One resumable training loop for every stage."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, nn

TOGETHER = 8


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
    Inside a process group each process takes its own steps on its own batches, and every
    `TOGETHER` steps the weights are averaged (local SGD, Stich 2019), so that they seldom wait
    for each other.
    """
    file = work / f"{name}.pt"
    together = distributed.is_initialized()
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    average = copy.deepcopy(module).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99), fused=True
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
        seed = 1_000_003 * step + 7_919 * rank + 17
        loss = loss_of(step, torch.Generator().manual_seed(seed))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        meets = step % TOGETHER == TOGETHER - 1 or step == steps - 1
        if together and meets:
            average_weights(module, processes)
        if rank:
            continue
        decay = min(ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
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
        if meets and time.monotonic() - saved > save_every:
            save(step + 1)
            saved = time.monotonic()
    if not rank:
        save(max(steps, start))
    return average


def average_weights(module: nn.Module, processes: int) -> None:
    """Replace every weight by its mean over the processes, in one message."""
    with torch.no_grad():
        weights = list(module.parameters())
        flat = torch.cat([w.flatten() for w in weights])
        distributed.all_reduce(flat)
        flat /= processes
        parts = flat.split([w.numel() for w in weights])
        torch._foreach_copy_(weights, [p.view_as(w) for p, w in zip(parts, weights, strict=True)])
