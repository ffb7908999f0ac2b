"""One resumable training loop for every stage."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mini.muon import Muon

_WARM_UP = 200


@dataclass(frozen=True)
class Piece:
    """How long and where to train.

    Attributes
    ----------
    steps : int
        Steps of the whole training, over all pieces; the learning rate follows from them.
    minutes : float, optional
        End this piece after so many minutes; the same command continues.
    fit_minutes : float, optional
        Choose ``steps`` so that the whole training takes this long, from the speed of the first
        steps. For a machine that is there once.
    device : str
    start : Path, optional
        Folder with weights by `save_weights` to start from when there is no checkpoint, for
        example those that an earlier machine left. The optimiser starts anew.
    """

    steps: int
    minutes: float | None = None
    fit_minutes: float | None = None
    device: str = "cpu"
    start: Path | None = None


def train(
    name: str,
    work: Path,
    module: nn.Module,
    loss_of: Callable[[int, torch.Generator], torch.Tensor],
    piece: Piece,
    lr: float,
    *,
    adam_lr: float = 1.5e-3,
    ema_decay: float = 0.999,
    save_every: float = 120.0,
) -> nn.Module:
    """Train ``module`` and return its exponential moving average.

    ``loss_of(step, generator)`` draws its batch from ``generator``, which is seeded by the
    step, so that a continued training sees the batches that an uninterrupted one would.
    ``lr`` is of the matrices and ``adam_lr`` of the other parameters (see `Muon`). Both warm up
    over 200 steps and fall to zero over the last half.
    """
    file = work / f"{name}.pt"
    begin(module, name, piece.start)
    module.to(piece.device)
    average = copy.deepcopy(module).eval().requires_grad_(False)
    optimizer = Muon(module, lr, adam_lr)
    rates = [group["lr"] for group in optimizer.param_groups]
    start, steps = 0, piece.steps
    if file.exists():
        state = torch.load(file, weights_only=True, map_location=piece.device)
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start, steps = state["step"], state.get("steps", steps)
    module.train()
    began = saved = warm = time.monotonic()
    recent = torch.zeros((), device=piece.device)

    def save(step: int) -> None:
        aside = file.with_suffix(".part")
        torch.save(
            {
                "module": module.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "steps": steps,
            },
            aside,
        )
        aside.replace(file)
        save_weights(average, work / f"{name}.safetensors")

    step = start
    while step < steps:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / _WARM_UP, (steps - step) / (0.5 * steps))
        generator = torch.Generator(piece.device)
        generator.manual_seed(1_000_003 * step + 17)
        loss = loss_of(step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        step += 1
        seconds = time.monotonic() - began
        if piece.fit_minutes and step == start + 2 * _WARM_UP:
            rate = _WARM_UP / (time.monotonic() - warm)
            steps = step + int(rate * (60 * piece.fit_minutes - seconds))
        if step == start + _WARM_UP:
            warm = time.monotonic()
        decay = min(ema_decay, step / (step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
            for a, b in zip(average.buffers(), module.buffers(), strict=True):
                a.copy_(b)
        recent = loss.detach() if step == start + 1 else 0.98 * recent + 0.02 * loss.detach()
        if step % 100 == 0:
            rate = (step - start) / seconds
            left = (steps - step) / rate / 60
            print(
                f"{name} {step}/{steps} loss {recent:.4f} {rate:.2f}/s {left:.1f} min left",
                flush=True,
            )
        if piece.minutes is not None and seconds > 60 * piece.minutes:
            break
        if time.monotonic() - saved > save_every:
            save(step)
            saved = time.monotonic()
    save(step)
    if step < steps:
        raise SystemExit(f"{name}: {step} of {steps} steps; the same command continues")
    return average


def begin(module: nn.Module, name: str, start: Path | None) -> None:
    """Load weights that an earlier piece left, if there are any."""
    from safetensors.torch import load_file

    if start is not None and (start / f"{name}.safetensors").exists():
        state = load_file(start / f"{name}.safetensors")
        module.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )


def save_weights(module: nn.Module, file: Path) -> None:
    """Write the weights in half precision; they can be carried to another machine."""
    from safetensors.torch import save_file

    save_file(
        {
            k: v.half().cpu().contiguous() if v.is_floating_point() else v.cpu()
            for k, v in module.state_dict().items()
        },
        file,
    )
