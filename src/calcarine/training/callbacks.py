"""Logs, checkpoints and the end of a training, around its steps. Imports Lightning."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import CheckpointIO

from calcarine.training.loss_log import CsvLog
from calcarine.training.result import write_final_result
from calcarine.training.tensor_trees import load_tree, save_tree
from calcarine.training.training_config import ended_by, learning_rate
from calcarine.training.training_folder import TrainingFolder

__all__ = ["CheckpointCallback", "SafetensorsIO"]


class SafetensorsIO(CheckpointIO):
    """Stores Lightning's checkpoints as safetensors and JSON, without pickle."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        save_tree(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        tree: dict[str, Any] = load_tree(Path(path))
        return tree

    def remove_checkpoint(self, path: Any) -> None:
        for suffix in (".json", ".safetensors"):
            Path(path).with_suffix(suffix).unlink(missing_ok=True)


class CheckpointCallback(Callback):
    """Logs, validates, saves and stops after a step."""

    def __init__(self, folder: TrainingFolder, progress: Callable[[int], None] | None) -> None:
        self._folder, self._progress = folder, progress
        self._logs: dict[str, CsvLog] = {}

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self._began = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler would exit before the step is saved.
            signal.signal(signal.SIGTERM, module.receive)
        if trainer.is_global_zero:
            for kind, name in (("training", "log.csv"), ("validation", "validation.csv")):
                self._logs[kind] = CsvLog(self._folder.path / name, module.done)
        if module.config.select == "best":
            # The best step may be later than the checkpoint; it will be repeated identically.
            best = self._folder.best(module.best_step)
            if best is not None:
                module.best_step, module.best_loss = best["best_step"], best["best_loss"]
        trainer.strategy.barrier()

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        minutes = module.config.save_every_minutes
        module.due = minutes is not None and time.monotonic() - self._began >= 60 * minutes

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        config, done = module.config, module.done
        rate = learning_rate(done - 1, config)
        self._log(trainer, "training", {"step": done, "lr": rate, **module.losses})
        if config.validate_every and done % config.validate_every == 0 and module.task.n_validation:
            losses = module.validate()
            self._log(trainer, "validation", {"step": done, **losses})
            if module.best_loss is None or losses["loss"] < module.best_loss:
                module.best_step, module.best_loss = done, losses["loss"]
                if config.select == "best":
                    self._save(trainer, "best", done, 1)
        ended = ended_by(config, done, module.best_step) is not None
        trainer.should_stop = ended or module.stopping
        every = config.save_every_steps
        if trainer.should_stop or module.due or (every and done % every == 0):
            self._save(trainer, "step", done, config.keep)
            self._began = time.monotonic()
        if self._progress is not None and trainer.is_global_zero:
            self._progress(1)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        if trainer.is_global_zero and ended_by(module.config, module.done, module.best_step):
            write_final_result(self._folder, module.config)
        trainer.strategy.barrier()

    def teardown(self, trainer: Trainer, module: Any, stage: str) -> None:
        for log in self._logs.values():
            log.close()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self.teardown(trainer, module, "fit")

    def _log(self, trainer: Trainer, kind: str, row: dict[str, float]) -> None:
        if trainer.is_global_zero:
            self._logs[kind].write(row)
            values = {f"{kind}/{name}": value for name, value in row.items() if name != "step"}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=int(row["step"]))

    def _save(self, trainer: Trainer, kind: str, step: int, keep: int) -> None:
        for log in self._logs.values():
            log.sync()
        trainer.save_checkpoint(self._folder.place(kind, step), weights_only=kind == "best")
        if trainer.is_global_zero:
            self._folder.prune(kind, keep)
