"""What a diffusion model holds inside while it denoises: latents and activations of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.diffusion.conditional import ConditionalDiffusion
from calcarine.errors import CalcarineError

__all__ = ["STAGES", "Trajectory", "block_names", "record_trajectory", "stage_steps"]

STAGES = ("early", "middle", "late")
"""Thirds of the denoising, each stood for by the step in its middle."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What was recorded of some stimuli.

    Attributes
    ----------
    latents
        By step: z_c after that step, float32 of shape (n, channels, h, w).
    activations
        By block and step: the block's output under the text condition,
        float32 of shape (n, channels, h', w').
    final
        z_c after the last step.
    """

    latents: Mapping[int, NDArray[np.float32]]
    activations: Mapping[tuple[str, int], NDArray[np.float32]]
    final: NDArray[np.float32]


def block_names(model: ConditionalDiffusion) -> tuple[str, ...]:
    """Blocks of the U-Net by their names: ``down_blocks.0``, ``mid_block``, ``up_blocks.0`` ..."""
    unet = model.unet
    down = [f"down_blocks.{i}" for i in range(len(unet.down_blocks))]
    up = [f"up_blocks.{i}" for i in range(len(unet.up_blocks))]
    return (*down, "mid_block", *up)


def stage_steps(n_steps: int) -> dict[str, int]:
    """The step in the middle of each third of ``n_steps`` steps.

    Takagi & Nishimoto (2023), section 3.4, name early, middle and late steps
    but give no numbers; this is our reading.
    """
    if n_steps < 3:
        raise CalcarineError(
            f"Early, middle and late need at least 3 denoising steps, not {n_steps}; raise "
            "the strength or the number of steps."
        )
    return {name: int((i + 0.5) * n_steps / 3) for i, name in enumerate(STAGES)}


def record_trajectory(
    model: ConditionalDiffusion,
    context: NDArray[np.float32],
    keys: Sequence[tuple[str, int]],
    start: NDArray[np.float32],
    *,
    latents_at: Sequence[int] = (),
    blocks: Sequence[str] = (),
    blocks_at: Sequence[int] = (),
    strength: float = 0.8,
    guidance: float = 5.0,
    steps: int = 50,
    seed: int = 42,
    batch_size: int = 32,
    empty: NDArray[np.float32] | None = None,
) -> Trajectory:
    """Denoise from noised latents under a context and keep what passes on the way.

    Parameters
    ----------
    model
        Any `ConditionalDiffusion`.
    context, keys, start, strength, guidance, steps, seed, batch_size, empty
        As in `ConditionalDiffusion.generate`, whose result `final` equals.
    latents_at, blocks_at
        Steps, counted from 0 among those that the strength leaves.
    blocks
        Names as in `block_names`, or any module of the U-Net by its path.

    Returns
    -------
    Trajectory

    Raises
    ------
    CalcarineError
        If a block or a step is unknown.

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.4 (iii) and (iv).
    """
    modules = {name: _module(model, name) for name in blocks}
    watch = _Recorder(model.count_steps(steps, strength), latents_at, blocks_at, len(context))
    with watch.listening(modules):
        final = model.generate(
            context,
            keys,
            start,
            strength=strength,
            guidance=guidance,
            steps=steps,
            seed=seed,
            batch_size=batch_size,
            after_step=watch.after_step,
            empty=empty,
        )
    return Trajectory(watch.latents, watch.activations, final)


def _module(model: ConditionalDiffusion, name: str) -> torch.nn.Module:
    try:
        return model.unet.get_submodule(name)  # type: ignore[no-any-return]
    except AttributeError as error:
        known = ", ".join(block_names(model))
        raise CalcarineError(f"The U-Net has no block {name}; it has {known}.") from error


class _Recorder:
    """Fills arrays of all stimuli, batch by batch and step by step."""

    def __init__(
        self, n_steps: int, latents_at: Sequence[int], blocks_at: Sequence[int], count: int
    ) -> None:
        for step in (*latents_at, *blocks_at):
            if not 0 <= step < n_steps:
                raise CalcarineError(
                    f"There is no denoising step {step}; strength and steps leave {n_steps}, "
                    "counted from 0."
                )
        self.latents: dict[int, NDArray[np.float32]] = {}
        self.activations: dict[tuple[str, int], NDArray[np.float32]] = {}
        self._latents_at, self._blocks_at = frozenset(latents_at), frozenset(blocks_at)
        self._count, self._n_steps = count, n_steps
        self._row = self._step = 0
        self._heard: dict[str, torch.Tensor] = {}

    @contextmanager
    def listening(self, modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, module in modules.items():
                handle = module.register_forward_hook(self._hook(name))
                stack.callback(handle.remove)
            yield

    def _hook(self, name: str) -> Any:
        def hear(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if self._step in self._blocks_at:
                self._heard[name] = output[0] if isinstance(output, tuple) else output

        return hear

    def after_step(self, x: torch.Tensor) -> None:
        """Keep what the step brought; ``x`` has shape (batch, channels, h, w)."""
        rows = slice(self._row, self._row + len(x))
        if self._step in self._latents_at:
            _put(self.latents, self._step, rows, x, self._count)
        for name, heard in self._heard.items():
            # With guidance the second half of the batch is the one under the text.
            _put(self.activations, (name, self._step), rows, heard[-len(x) :], self._count)
        self._heard.clear()
        self._step += 1
        if self._step == self._n_steps:
            self._row, self._step = rows.stop, 0


def _put(
    into: dict[Any, NDArray[np.float32]], key: Any, rows: slice, values: torch.Tensor, count: int
) -> None:
    if key not in into:
        into[key] = np.empty((count, *values.shape[1:]), dtype=np.float32)
    into[key][rows] = values.float().cpu().numpy()
