"""Latents and activations of U-Net blocks during denoising."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.diffusion.conditional import ConditionalDiffusion
from calcarine.diffusion.noise import Keys
from calcarine.errors import SettingError

__all__ = [
    "DENOISING_STAGES",
    "Trajectory",
    "block_names",
    "denoising_stage_steps",
    "record_trajectory",
]

DENOISING_STAGES = ("early", "middle", "late")
"""Thirds of the denoising, each represented by the step in its middle."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Latents and activations of stimuli during denoising.

    Attributes
    ----------
    latents : mapping of int to float32 array of shape (n, channels, h, w)
        By step, z_c after that step.
    activations : mapping of (str, int) to float32 array of shape (n, channels, h', w')
        By block and step, the conditional output of the block.
    final : float32 array of shape (n, channels, h, w)
        z_c after the last step.
    """

    latents: Mapping[int, NDArray[np.float32]]
    activations: Mapping[tuple[str, int], NDArray[np.float32]]
    final: NDArray[np.float32]


def block_names(model: ConditionalDiffusion) -> tuple[str, ...]:
    """Return the names of the U-Net's blocks: ``down_blocks.0``, ..., ``mid_block``, ..."""
    unet = model.unet
    down = [f"down_blocks.{i}" for i in range(len(unet.down_blocks))]
    up = [f"up_blocks.{i}" for i in range(len(unet.up_blocks))]
    return (*down, "mid_block", *up)


def denoising_stage_steps(n_steps: int) -> dict[str, int]:
    """Return the step in the middle of each third of ``n_steps`` steps.

    Takagi & Nishimoto (2023), section 3.4, name early, middle and late steps without numbers; this
    is an interpretation.
    """
    if n_steps < 3:
        raise SettingError(
            f"Early, middle and late stages need at least 3 denoising steps, not {n_steps}; raise "
            "the strength or the number of steps."
        )
    return {name: int((i + 0.5) * n_steps / 3) for i, name in enumerate(DENOISING_STAGES)}


def record_trajectory(
    model: ConditionalDiffusion,
    context: NDArray[np.float32],
    keys: Keys,
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
    """Denoise from noised latents, and record latents and activations.

    Parameters
    ----------
    model : ConditionalDiffusion
    context, keys, start, strength, guidance, steps, seed, batch_size, empty
        See `ConditionalDiffusion.generate`; its result is ``final``.
    latents_at, blocks_at : sequence of int
        Steps to record, counted from 0 among the steps that remain at the strength.
    blocks : sequence of str
        Names as in `block_names`, or paths of modules of the U-Net.

    Returns
    -------
    Trajectory

    Raises
    ------
    SettingError
        If a block or a step does not exist.

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.4 (iii) and (iv).
    """
    modules = {name: _module(model, name) for name in blocks}
    recorder = _Recorder(model.count_steps(steps, strength), latents_at, blocks_at, len(context))
    with recorder.recording(modules):
        final = model.generate(
            context,
            keys,
            start,
            strength=strength,
            guidance=guidance,
            steps=steps,
            seed=seed,
            batch_size=batch_size,
            after_step=recorder.after_step,
            before_batch=recorder.before_batch,
            empty=empty,
        )
    return Trajectory(recorder.latents, recorder.activations, final)


def _module(model: ConditionalDiffusion, name: str) -> torch.nn.Module:
    try:
        return model.unet.get_submodule(name)  # type: ignore[no-any-return]
    except AttributeError as error:
        known = ", ".join(block_names(model))
        raise SettingError(f"The U-Net has no block {name}; it has {known}.") from error


class _Recorder:
    """Fills arrays of all stimuli, batch by batch and step by step."""

    def __init__(
        self, n_steps: int, latents_at: Sequence[int], blocks_at: Sequence[int], count: int
    ) -> None:
        for step in (*latents_at, *blocks_at):
            if not 0 <= step < n_steps:
                raise SettingError(
                    f"There is no denoising step {step}; strength and steps leave {n_steps}, "
                    "counted from 0."
                )
        self.latents: dict[int, NDArray[np.float32]] = {}
        self.activations: dict[tuple[str, int], NDArray[np.float32]] = {}
        self._latents_at, self._blocks_at = frozenset(latents_at), frozenset(blocks_at)
        self._count = count
        self._row = self._step = 0
        self._outputs: dict[str, torch.Tensor] = {}

    @contextmanager
    def recording(self, modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, module in modules.items():
                handle = module.register_forward_hook(self._hook(name))
                stack.callback(handle.remove)
            yield

    def _hook(self, name: str) -> Any:
        def record(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if self._step in self._blocks_at:
                self._outputs[name] = output[0] if isinstance(output, tuple) else output

        return record

    def before_batch(self, rows: slice) -> None:
        """Begin with the first step of a batch, or begin it again."""
        self._row, self._step = rows.start, 0
        self._outputs.clear()

    def after_step(self, x: torch.Tensor) -> None:
        """Store the latents ``x`` (batch, channels, h, w) and outputs of a step."""
        rows = slice(self._row, self._row + len(x))
        if self._step in self._latents_at:
            _put(self.latents, self._step, rows, x, self._count)
        for name, output in self._outputs.items():
            # With guidance, the second half of the batch is conditional.
            _put(self.activations, (name, self._step), rows, output[-len(x) :], self._count)
        self._outputs.clear()
        self._step += 1


def _put(
    into: dict[Any, NDArray[np.float32]], key: Any, rows: slice, values: torch.Tensor, count: int
) -> None:
    if key not in into:
        into[key] = np.empty((count, *values.shape[1:]), dtype=np.float32)
    into[key][rows] = values.float().cpu().numpy()
