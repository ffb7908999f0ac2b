"""The Muon optimiser, for convolutions too."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import nn

_COEFFICIENTS = 3.4445, -4.7750, 2.0315
_SMALLEST = 8


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal (Jordan et al. 2024).

    A convolution's kernel ``(out, in, height, width)`` is the matrix ``(out, in * height *
    width)``. `torch.optim.Muon` takes two-dimensional parameters only.

    Parameters
    ----------
    parameters : list of Parameter
        With two dimensions or more; see `matrices_and_others`.
    lr : float
        Learning rate: the largest singular value of a step, for a matrix that is not taller than
        wide.
    momentum, weight_decay : float
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            same: dict[tuple[int, int], list[tuple[nn.Parameter, torch.Tensor]]]
            same = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                step = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                step = step if step.shape[0] <= step.shape[1] else step.T
                same[tuple(step.shape)].append((parameter, step))
            for entries in same.values():
                steps = orthogonal(torch.stack([step for _, step in entries]))
                for (parameter, _), step in zip(entries, steps, strict=True):
                    rows, columns = parameter.flatten(1).shape
                    step = step if rows <= columns else step.T
                    size = group["lr"] * max(1, rows / columns) ** 0.5
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(step.reshape(parameter.shape), alpha=-size)


def matrices_and_others(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for `Muon`, and those that are none: embeddings, biases, scales, narrow ones."""
    embeddings = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    matrices, others = [], []
    for parameter in module.parameters():
        wide = parameter.ndim >= 2 and min(parameter.flatten(1).shape) >= _SMALLEST
        chosen = matrices if wide and id(parameter) not in embeddings else others
        chosen.append(parameter)
    return matrices, others


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices ``(n, rows, columns)`` with singular values near 1, by five steps of an iteration.

    Half precision is enough: the singular values end between about .7 and 1.2 in any case.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16()
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.to(matrices.dtype)
