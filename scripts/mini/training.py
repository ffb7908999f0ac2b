"""One resumable training loop for every stage."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mini.muon import Muon, matrices_and_others

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
    ``lr`` is of the matrices and ``adam_lr`` of the other parameters, which AdamW trains. Both
    warm up over 200 steps and fall to zero over the last half.
    """
    file = work / f"{name}.pt"
    before = begin(module, name, piece.start)
    module.to(piece.device)
    average = copy.deepcopy(module).eval().requires_grad_(False)
    matrices, others = matrices_and_others(module)
    optimizers: dict[torch.optim.Optimizer, float] = {
        Muon(matrices, lr): lr,
        torch.optim.AdamW(others, adam_lr, betas=(0.9, 0.99), weight_decay=0.0): adam_lr,
    }
    start, steps = 0, piece.steps
    if file.exists():
        state = torch.load(file, weights_only=True, map_location=piece.device)
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        start, steps = state["step"], state.get("steps", steps)
        before = state.get("before", 0)
    module.train()
    began = saved = warm = time.monotonic()
    recent = torch.zeros((), device=piece.device)

    def save(step: int) -> None:
        aside = file.with_suffix(".part")
        torch.save(
            {
                "module": module.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step,
                "steps": steps,
                "before": before,
            },
            aside,
        )
        aside.replace(file)
        save_weights(average, work / f"{name}.safetensors", before + step)

    step = start
    while step < steps:
        share = min(1.0, (step + 1) / _WARM_UP, (steps - step) / (0.5 * steps))
        for optimizer, rate in optimizers.items():
            optimizer.param_groups[0]["lr"] = rate * share
        generator = torch.Generator(piece.device)
        generator.manual_seed(1_000_003 * step + 17)
        loss = loss_of(step, generator)
        module.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
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


def begin(module: nn.Module, name: str, start: Path | None) -> int:
    """Load weights that an earlier piece left, if there are any; return its number of steps."""
    found = start and read_weights(start / f"{name}.safetensors")
    if not found:
        return 0
    module.load_state_dict(found[0])
    return found[1]


def trained(options: argparse.Namespace, name: str) -> tuple[dict[str, torch.Tensor], int]:
    """Return the weights of a finished stage, of this machine or of ``--start``, and its steps."""
    file = options.work / f"{name}.pt"
    if file.exists():
        state = torch.load(file, weights_only=True, map_location="cpu")
        return state["average"], state.get("before", 0) + state["step"]
    found = options.start and read_weights(options.start / f"{name}.safetensors")
    if not found:
        raise SystemExit(f"{file} is missing; train the stage {name} first, or give --start")
    return found


def is_trained(options: argparse.Namespace, name: str) -> bool:
    """Return whether `trained` finds the weights of a stage."""
    places = [options.work / f"{name}.pt"]
    if options.start:
        places.append(options.start / f"{name}.safetensors")
    return any(place.exists() for place in places)


def read_weights(file: Path) -> tuple[dict[str, torch.Tensor], int] | None:
    """Return weights of `save_weights` in single precision and their steps, if the file exists."""
    if not file.exists():
        return None
    with safe_open(file, "pt") as stored:
        steps = int((stored.metadata() or {}).get("steps", 0))
        state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, steps


def save_weights(module: nn.Module, file: Path, steps: int) -> None:
    """Write the weights in half precision; they can be carried to another machine."""
    state = {
        k: v.half().cpu().contiguous() if v.is_floating_point() else v.cpu()
        for k, v in module.state_dict().items()
    }
    save_file(state, file, {"steps": str(steps)})
