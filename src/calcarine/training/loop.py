"""Optimiser step and validation, as Lightning calls them. Imports Lightning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule

from calcarine.errors import CalcarineError
from calcarine.training.batches import StepBatches, make_generator
from calcarine.training.training_config import TrainingConfig, learning_rate
from calcarine.training.training_folder import stored_state

__all__ = ["Steps", "TrainingModule"]

_TRAINING, _VALIDATION = 0, 1
_SMALLEST_SCALE = 1.0


class Steps:
    """Numbers of the remaining steps, counted from 0."""

    def __init__(self, done: int, total: int) -> None:
        self._steps = range(done, total)

    def __iter__(self) -> Any:
        return iter(self._steps)


class TrainingModule(LightningModule):
    """A task for Lightning: a batch is the number of a step, and a call does the whole step.

    Lightning provides devices, precision and distribution. Everything else depends on the step
    only, so its loops keep no state, and an interrupted step is repeated as a whole.
    """

    def __init__(
        self, task: torch.nn.Module, config: TrainingConfig, identity: dict[str, Any]
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        self.task, self.config, self._identity = task, config, identity
        self.batches = StepBatches(task.n_train, config.batch_size, config.seed)  # type: ignore
        self.done = 0
        self.best_step: int | None = None
        self.best_loss: float | None = None
        self.seconds = 0.0
        self.losses: dict[str, float] = {}
        self.signals: list[int] = []
        self.stopping, self.due = False, False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        factor_of = getattr(self.task, "learning_rate_factor", lambda name: 1.0)
        groups: dict[tuple[float, bool], dict[str, Any]] = {}
        for name, parameter in self.task.named_parameters():
            if not parameter.requires_grad:
                continue
            factor, is_vector = float(factor_of(name)), parameter.ndim <= 1
            decay = 0.0 if is_vector else self.config.weight_decay
            group = {"params": [], "weight_decay": decay, "factor": factor}
            groups.setdefault((factor, is_vector), group)["params"].append(parameter)
        filled = [groups[key] for key in sorted(groups)]
        # With precision 16 a fused optimiser unscales gradients itself, after they were clipped.
        fused = self.config.precision != "16" and _can_be_fused(self.task)
        return torch.optim.AdamW(
            filled, lr=self.config.lr, betas=self.config.betas, fused=fused or None
        )

    def training_step(self, step: int, _: int) -> None:
        """Do step ``step``: all micro-batches of this device, then the optimiser."""
        began = time.monotonic()
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, self.config)
        optimizer.zero_grad()
        n_chunks, world = self.config.chunks, self.trainer.world_size
        own = range(self.global_rank, n_chunks, world)
        losses: dict[int, dict[str, float]] = {}
        for index in own:
            wrapped: Any = self.trainer.model
            if world > 1:
                # Gradients are exchanged once per step, with the last micro-batch.
                wrapped.require_backward_grad_sync = index == own[-1]
            rows = self.batches.chunk(step, index, n_chunks)
            key = (self.config.seed, _TRAINING, step, index)
            loss, losses[index] = self._loss(self.task.training_loss, rows, key)
            self.manual_backward(loss / n_chunks * world)
        table = self._over_devices(losses, n_chunks)
        self._check_finite(table, step, lambda index: self.batches.chunk(step, index, n_chunks))
        optimizer.step()
        self.losses = {name: math.fsum(row) / n_chunks for name, row in table.items()}
        self.done = step + 1
        self.seconds += time.monotonic() - began

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which is unscaled here, and stop if it is not finite."""
        named = [(name, p.grad) for name, p in self.task.named_parameters() if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(one) for _, one in named]).norm()
        if not torch.isfinite(norm):
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None and scaler.get_scale() > _SMALLEST_SCALE:
                return  # the scaler skips this step and tries a smaller scale
            step = self.done
            broken = [name for name, gradient in named if not torch.isfinite(gradient).all()]
            raise CalcarineError(
                f"Training stopped at step {step + 1}: the gradient of {(broken or ['all'])[0]} is "
                f"not finite on rows {_some(self.batches.rows(step).tolist())}; check these "
                "samples or lower lr, and the last checkpoint is kept."
            )
        if self.config.clip is not None and norm > self.config.clip:
            for _, gradient in named:
                gradient.mul_(self.config.clip / norm)

    def validate(self) -> dict[str, float]:
        """Return mean losses over the validation rows, with the same random numbers every time."""
        n, size = int(self.task.n_validation), self.config.micro_batch  # type: ignore[arg-type]
        parts = torch.arange(n).split(size)  # type: ignore[no-untyped-call]
        own = range(self.global_rank, len(parts), self.trainer.world_size)
        modes = [(module, module.training) for module in self.task.modules()]
        self.task.eval()
        losses: dict[int, dict[str, float]] = {}
        try:
            with torch.no_grad(), self.trainer.precision_plugin.val_step_context():
                # A device without rows computes some, for the names of the losses.
                for index in own or [0]:
                    key = (self.config.seed, _VALIDATION, index)
                    _, losses[index] = self._loss(self.task.validation_loss, parts[index], key)
        finally:
            for module, mode in modes:
                module.training = mode
        if not own:
            losses[0] = dict.fromkeys(losses[0], 0.0)
        table = self._over_devices(losses, len(parts))
        self._check_finite(table, self.done - 1, lambda i: parts[i], " in validation")
        weights = [len(part) / n for part in parts]
        return {
            name: math.fsum(w * one for w, one in zip(weights, row, strict=True))
            for name, row in table.items()
        }

    def receive(self, number: int, _: Any) -> None:
        """End the training after the current step, or at once at a second signal."""
        self.signals.append(number)
        if len(self.signals) > 1:
            raise KeyboardInterrupt

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops")
        checkpoint["state_dict"] = stored_state(self.task)
        checkpoint["calcarine"] = {
            "identity": self._identity,
            "step": self.done,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "loss": self.losses.get("loss"),
            "seconds": self.seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {f"task.{name}": value for name, value in state.items()}
        about = checkpoint["calcarine"]
        self.done, self.seconds = about["step"], about["seconds"]
        self.best_step, self.best_loss = about["best_step"], about["best_loss"]
        self.losses = {"loss": about["loss"]}

    def _loss(
        self, function: Any, rows: torch.Tensor, key: tuple[int, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        generator = make_generator(*key)
        # Dropout takes no generator, so the global seed comes from the same key.
        torch.manual_seed(generator.initial_seed())
        loss, parts = function(rows, generator)
        named = {"loss": loss} | {name: part for name, part in parts.items() if name != "loss"}
        return loss, {name: _number(value) for name, value in named.items()}

    def _over_devices(self, losses: dict[int, dict[str, float]], n: int) -> dict[str, list[float]]:
        """Gather the losses of all micro-batches, and whether any device stops or saves."""
        names = list(next(iter(losses.values())))
        table = torch.zeros(len(names) + 2, n)
        for index, values in losses.items():
            table[:-2, index] = torch.tensor([values[name] for name in names])
        table[-2:, 0] = torch.tensor([float(bool(self.signals)), float(self.due)])
        if self.trainer.world_size > 1:
            table = self.trainer.strategy.reduce(table.to(self.device), reduce_op="sum").cpu()
        self.stopping, self.due = bool(table[-2, 0]), bool(table[-1, 0])
        return dict(zip(names, table[:-2].tolist(), strict=True))

    def _check_finite(
        self,
        table: dict[str, list[float]],
        step: int,
        rows: Callable[[int], torch.Tensor],
        where: str = "",
    ) -> None:
        for name in sorted(table, key=lambda name: name == "loss"):
            for index, value in enumerate(table[name]):
                if not math.isfinite(value):
                    part = "the loss" if name == "loss" else f"the part '{name}' of the loss"
                    raise CalcarineError(
                        f"Training stopped at step {step + 1}: {part}{where} is {value} on rows "
                        f"{_some(rows(index).tolist())}; check these samples or lower lr, and the "
                        "last checkpoint is kept."
                    )


def _can_be_fused(task: torch.nn.Module) -> bool:
    """Return whether a fused optimiser can update the parameters of a task."""
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in trained)


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _some(rows: list[int]) -> str:
    text = ", ".join(str(row) for row in rows[:8])
    return text if len(rows) <= 8 else f"{text}, ... ({len(rows)} in all)"
