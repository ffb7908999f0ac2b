"""How a network is trained: settings, their checks, and the learning rate of every step."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from calcarine.errors import CalcarineError

_PLACES = {"accelerator", "devices", "nodes", "strategy", "accumulate"}
_HOUSEKEEPING = {"save_every_minutes", "save_every_steps", "keep", "loggers"}


class TrainingConfig(BaseModel):
    """Settings of one training; a part of an experiment's configuration.

    ``batch_size`` counts the samples of one optimiser step on all devices together. It is cut into
    ``accumulate * devices * nodes`` micro-batches of equal size, numbered across devices, and all
    randomness belongs to the number. So two devices give what one device gives that accumulates
    twice.

    Raises
    ------
    CalcarineError
        When settings do not fit together, such as a batch that cannot be cut evenly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(10_000, ge=1, description="optimiser steps")
    batch_size: int = Field(64, ge=1, description="samples per step on all devices together")
    accumulate: int = Field(1, ge=1, description="micro-batches per step and device")
    lr: float = Field(2.5e-4, gt=0, allow_inf_nan=False, description="highest learning rate")
    min_lr: float = Field(0.0, ge=0, description="where the cosine ends")
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(0.05, ge=0, description="not on biases and norms (1-D)")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    clip: float | None = Field(0.8, gt=0, description="largest norm of the gradient")
    precision: Literal["32", "bf16", "16"] = "32"
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int = Field(1, ge=1, description="per node")
    nodes: int = Field(1, ge=1)
    strategy: str = Field("auto", pattern=r"^(auto|ddp\w*)$", description="as Lightning names it")
    validate_every: int | None = Field(None, ge=1, description="steps; never by default")
    save_every_minutes: float | None = Field(10.0, gt=0)
    save_every_steps: int | None = Field(None, ge=1)
    keep: int = Field(2, ge=1, description="checkpoints kept")
    seed: int = Field(2022, ge=0)
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = Field(
        ("csv",), description="CSV is always written"
    )
    select: Literal["last", "best"] = Field("last", description="best: by validation loss")
    patience: int | None = Field(
        None, ge=1, description="validations without a better one, after which training ends"
    )

    @property
    def chunks(self) -> int:
        """Micro-batches per optimiser step, over all devices."""
        return self.accumulate * self.devices * self.nodes

    @property
    def micro_batch(self) -> int:
        """Samples per micro-batch."""
        return self.batch_size // self.chunks

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: all that decides the numbers, and nothing else.

        The number of steps is left out where the learning rate does not depend on it, so that a
        training with a constant rate may go on for longer.
        """
        left_out = _PLACES | _HOUSEKEEPING
        if self.schedule == "constant":
            left_out = left_out | {"steps"}
        identity = self.model_dump(mode="json", exclude=left_out)
        return identity | {"micro-batches per step": self.chunks}

    @model_validator(mode="after")
    def _fit_together(self) -> TrainingConfig:
        if self.batch_size % self.chunks:
            raise CalcarineError(
                f"A batch of {self.batch_size} cannot be cut evenly into {self.chunks} "
                f"micro-batches (accumulate {self.accumulate} x devices {self.devices} x nodes "
                f"{self.nodes}); choose a batch_size that {self.chunks} divides."
            )
        if self.warmup_steps > self.steps:
            raise CalcarineError(
                f"warmup_steps is {self.warmup_steps}, more than all {self.steps} steps; lower it."
            )
        if self.min_lr > self.lr:
            raise CalcarineError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}; lower it.")
        by_validation = self.select == "best" or self.patience is not None
        if by_validation and (self.validate_every is None or self.validate_every > self.steps):
            raise CalcarineError(
                "select 'best' and patience go by the validation loss; "
                f"set validate_every to a number of steps up to {self.steps}."
            )
        return self


def learning_rate(step: int, config: TrainingConfig) -> float:
    r"""Learning rate of a step, counted from 0.

    Linear warm-up over w steps, then half a cosine from ``lr`` towards ``min_lr``, which it would
    reach at step ``steps``; per step, as in masked autoencoders (He et al. 2022):

    .. math:: \eta_s = \eta \frac{s + 1}{w} \; (s < w), \qquad
              \eta_s = \eta_{min} + \frac{\eta - \eta_{min}}{2}
              \left(1 + \cos \pi \frac{s - w}{S - w}\right)

    The warm-up counts from 1, so that no step is without effect.

    Parameters
    ----------
    step : int
        0 to ``config.steps - 1``.
    config : TrainingConfig
        ``lr``, ``min_lr``, ``warmup_steps``, ``steps`` and ``schedule`` are used.

    Returns
    -------
    float
        Learning rate of all parameters.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def ended_by(config: TrainingConfig, done: int, best_step: int | None) -> str | None:
    """What ends a training after ``done`` steps: "steps", "patience", or None when it goes on."""
    if done >= config.steps:
        return "steps"
    if config.patience is None or config.validate_every is None or best_step is None:
        return None
    without_better = (done - best_step) // config.validate_every
    return "patience" if without_better >= config.patience else None
