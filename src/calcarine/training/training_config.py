"""How a network is trained: settings, their checks, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from calcarine.errors import CalcarineError

__all__ = ["TrainingConfig", "ended_by", "learning_rate"]

_PLACES = {"accelerator", "devices", "nodes", "strategy", "accumulate"}
_HOUSEKEEPING = {"save_every_minutes", "save_every_steps", "keep", "loggers"}
_EPOCHS = {"epochs", "warmup_epochs"}
_STEPS = 10_000


def _as_text(value: Any) -> Any:
    """In YAML and on the command line, 16 and 32 are numbers."""
    return str(value) if isinstance(value, int) else value


class TrainingConfig(BaseModel):
    """Settings of one training; a part of an experiment's configuration.

    ``batch_size`` is the number of samples of one optimiser step on all devices together. The
    batch is divided into ``accumulate * devices * nodes`` micro-batches of equal size, numbered
    across devices. Random numbers depend on the number of the micro-batch, so two devices give
    the result of one device with ``accumulate=2``.

    The length of a training is given as ``steps`` or as ``epochs``. From epochs the number of
    steps follows once the number of training rows is known; see :meth:`for_rows`.

    Raises
    ------
    CalcarineError
        If settings do not fit together, for example if a batch cannot be divided evenly.

    Examples
    --------
    >>> from calcarine.training import TrainingConfig
    >>> config = TrainingConfig(epochs=10, batch_size=32)
    >>> config.for_rows(320).steps
    100
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int | None = Field(
        None, ge=1, description="Optimiser steps; null if epochs are given. By default 10,000."
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="Passes through the training data, in place of steps: their number then "
        "follows from the amount of data and batch_size.",
    )
    batch_size: int = Field(
        64, ge=1, description="Samples of one optimiser step, on all devices together."
    )
    accumulate: int = Field(
        1, ge=1, description="Micro-batches of each device that make one optimiser step."
    )
    lr: float = Field(2.5e-4, gt=0, allow_inf_nan=False, description="Highest learning rate.")
    min_lr: float = Field(0.0, ge=0, description="Learning rate at which the cosine ends.")
    warmup_steps: int = Field(
        0, ge=0, description="Steps over which the learning rate rises linearly from 0."
    )
    warmup_epochs: int = Field(
        0, ge=0, description="The same in epochs, for a training whose length is in epochs."
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="Learning rate after the warm-up."
    )
    weight_decay: float = Field(
        0.05, ge=0, description="Weight decay of AdamW; biases and norms (1-D) have none."
    )
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.95), description="Decay rates of AdamW's two moving averages."
    )
    clip: float | None = Field(
        0.8, gt=0, description="Largest norm of the gradient; null does not clip."
    )
    precision: Annotated[Literal["32", "bf16", "16"], BeforeValidator(_as_text)] = Field(
        "32", description="Bits of floating-point numbers in training."
    )
    accelerator: str = Field(
        "auto",
        pattern=r"^(auto|cpu|gpu|mps|cuda(:\d+)?)$",
        description="Hardware to train on: auto, cpu, gpu, cuda, cuda:N or mps. In a run, auto is "
        "that of compute.device.",
    )
    devices: int = Field(1, ge=1, description="Devices of each node.")
    nodes: int = Field(1, ge=1, description="Nodes of a cluster.")
    strategy: str = Field(
        "auto",
        pattern=r"^(auto|ddp\w*)$",
        description="How devices train together, as Lightning names it.",
    )
    validate_every: int | None = Field(
        None, ge=1, description="Steps between validations; by default none."
    )
    save_every_minutes: float | None = Field(
        10.0, gt=0, description="Minutes between checkpoints; null saves none by time."
    )
    save_every_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints; by default none by steps."
    )
    keep: int = Field(2, ge=1, description="Checkpoints that are kept.")
    seed: int = Field(2022, ge=0, description="Seed of weights, batches and masks.")
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = Field(
        ("csv",), description="Logs of the losses; CSV is always written."
    )
    select: Literal["last", "best"] = Field(
        "last", description="Weights to keep: the last, or those with the best validation loss."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Validations without a better loss after which training ends; by default it "
        "does not end early.",
    )

    @property
    def n_steps(self) -> int:
        """Number of optimiser steps; of a training in epochs see :meth:`for_rows`."""
        if self.steps is None:
            raise CalcarineError(
                f"How many steps {self.epochs} epochs are depends on the training data; call "
                "for_rows."
            )
        return self.steps

    def for_rows(self, n: int) -> TrainingConfig:
        """Return the same settings with the number of steps, if they are in epochs.

        Parameters
        ----------
        n : int
            Number of training rows.

        Returns
        -------
        TrainingConfig
            With ``steps`` and ``warmup_steps``: as many as it takes to draw ``epochs * n`` rows in
            batches of ``batch_size``, rounded up. A training in steps is returned as it is.
        """
        if self.epochs is None:
            return self
        content = self.model_dump(exclude=_EPOCHS)
        content["steps"] = -(-self.epochs * n // self.batch_size)
        if self.warmup_epochs:
            content["warmup_steps"] = -(-self.warmup_epochs * n // self.batch_size)
        return TrainingConfig(**content)

    def on_device(self, device: object) -> TrainingConfig:
        """Return the same settings, with this device if ``accelerator`` is auto.

        Parameters
        ----------
        device : str or torch.device
            ``"auto"`` leaves the settings as they are.
        """
        if self.accelerator != "auto":
            return self
        return self.model_copy(update={"accelerator": str(device)})

    @property
    def chunks(self) -> int:
        """Micro-batches per optimiser step, over all devices."""
        return self.accumulate * self.devices * self.nodes

    @property
    def micro_batch(self) -> int:
        """Samples per micro-batch."""
        return self.batch_size // self.chunks

    @property
    def chooses(self) -> bool:
        """Whether the validation loss chooses the weights or the end of the training."""
        return self.select == "best" or self.patience is not None

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: all that decides the numbers, and nothing else.

        The number of steps is left out where the learning rate does not depend on it, so that a
        training with a constant rate may go on for longer.
        """
        left_out = _PLACES | _HOUSEKEEPING
        if self.schedule == "constant":
            left_out = left_out | {"steps", "epochs"}
        if self.epochs is None:
            left_out = left_out | _EPOCHS
        identity = self.model_dump(mode="json", exclude=left_out)
        return identity | {"micro-batches per step": self.chunks}

    @model_validator(mode="before")
    @classmethod
    def _with_length(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("steps") is values.get("epochs") is None:
            return {**values, "steps": _STEPS}
        return values

    @model_validator(mode="after")
    def _of_one_length(self) -> TrainingConfig:
        if self.steps is not None and self.epochs is not None:
            raise CalcarineError(
                f"steps ({self.steps}) and epochs ({self.epochs}) both set the length of a "
                "training; give one of them, and set the other to null."
            )
        if self.epochs is None and self.warmup_epochs:
            raise CalcarineError(
                f"warmup_epochs ({self.warmup_epochs}) belongs to a training in epochs, and this "
                "one has steps; set it to 0 and give warmup_steps."
            )
        if self.warmup_epochs and self.warmup_steps:
            raise CalcarineError("Give warmup_steps or warmup_epochs, and set the other to 0.")
        if self.epochs is not None and self.warmup_epochs > self.epochs:
            raise CalcarineError(
                f"warmup_epochs is {self.warmup_epochs}, more than all {self.epochs} epochs; lower "
                "it."
            )
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> TrainingConfig:
        if self.batch_size % self.chunks:
            raise CalcarineError(
                f"A batch of {self.batch_size} cannot be cut evenly into {self.chunks} "
                f"micro-batches (accumulate {self.accumulate} x devices {self.devices} x nodes "
                f"{self.nodes}); choose a batch_size that {self.chunks} divides."
            )
        # Where the length is in epochs, for_rows checks again.
        last = math.inf if self.steps is None else self.steps
        if self.warmup_steps > last:
            raise CalcarineError(
                f"warmup_steps is {self.warmup_steps}, more than all {self.steps} steps; lower it."
            )
        if self.min_lr > self.lr:
            raise CalcarineError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}; lower it.")
        if self.chooses and (self.validate_every is None or self.validate_every > last):
            up_to = "" if self.steps is None else f" up to {self.steps}"
            raise CalcarineError(
                "select 'best' and patience go by the validation loss; "
                f"set validate_every to a number of steps{up_to}."
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
        0 to ``config.n_steps - 1``.
    config : TrainingConfig
        ``lr``, ``min_lr``, ``warmup_steps``, ``steps`` and ``schedule`` are used.

    Returns
    -------
    float
        Learning rate of all parameters.

    Examples
    --------
    >>> from calcarine.training import TrainingConfig, learning_rate
    >>> config = TrainingConfig(steps=100, warmup_steps=10, lr=0.001)
    >>> [round(learning_rate(step, config), 6) for step in (0, 9, 55)]
    [0.0001, 0.001, 0.0005]
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / (config.n_steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def ended_by(config: TrainingConfig, done: int, best_step: int | None) -> str | None:
    """Return what ends a training after ``done`` steps: "steps", "patience" or None."""
    if done >= config.n_steps:
        return "steps"
    if config.patience is None or config.validate_every is None or best_step is None:
        return None
    without_better = (done - best_step) // config.validate_every
    return "patience" if without_better >= config.patience else None
