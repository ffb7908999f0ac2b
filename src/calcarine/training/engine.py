"""Training a task to its end, from wherever it was."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from calcarine.errors import CalcarineError, need_extra
from calcarine.training.handed_task import handed_over
from calcarine.training.launched import leader
from calcarine.training.processes import (
    first_of_several,
    launched_processes,
    other_processes,
    starts_processes,
)
from calcarine.training.result import TrainingResult, finished, write_final_result
from calcarine.training.trainer import make_trainer, process_rank, quiet, signals_to
from calcarine.training.training_config import TrainingConfig, ended_by
from calcarine.training.training_folder import TrainingFolder, make_identity

__all__ = ["join_training", "train"]


def train(
    task: torch.nn.Module,
    config: TrainingConfig,
    folder: Path | str,
    *,
    provenance: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a task, or resume the training in a folder.

    An interrupted training that resumes has the same losses and weights as one that was not
    interrupted (on the CPU to the last bit). A finished training returns at once. With
    ``schedule="constant"`` a finished training can run for more steps. With a cosine schedule more
    steps would change the learning rate of every step, so they raise an error.

    Parameters
    ----------
    task : torch.nn.Module
        With the methods ``training_loss(rows, generator)`` and ``validation_loss(rows,
        generator)``, which return the mean loss over the rows (int64 tensor, on the CPU) and its
        parts by name; and with ``n_train`` and ``n_validation``, the numbers of rows. The
        generator is on the CPU. Modules keep their mode (train or eval) except in validation. A
        method ``learning_rate_factor(name)`` may give some parameters another learning rate. The
        task has the selected parameters afterwards.
    config : TrainingConfig
        Epochs become steps here, from ``task.n_train``.
    folder : str or Path
        Created if it does not exist; nothing is written elsewhere. It finally holds
        ``weights.safetensors``, ``training.json``, ``log.csv`` (one row per step) and
        ``validation.csv``.
    provenance : dict, optional
        Plain JSON that identifies data, split and initial weights. A folder with another
        provenance belongs to another training.
    progress : callable, optional
        Receives numbers of finished steps, including those of earlier calls.
    say : callable, optional
        Receives messages, for example that a checkpoint is damaged; by default they are warnings.

    Returns
    -------
    TrainingResult

    Raises
    ------
    CalcarineError
        If the folder belongs to another training, has no complete checkpoint, or cannot be
        written; if a loss or gradient is not finite; or if devices are missing.
    KeyboardInterrupt
        After SIGINT, once the current step is finished and saved (``SystemExit(143)`` after
        SIGTERM).

    Notes
    -----
    With several devices of one machine, this function starts a process for each further device
    and hands it the task, which must pickle; only the training runs in these processes. If one of
    them fails, so does the training, and a further call resumes from the last checkpoint. Where
    srun or torchrun has started the command ``calcarine`` once for each device, the first process
    hands the task to the others in the same way. A script of your own that they start calls this
    function in every process.

    Examples
    --------
    >>> import torch
    >>> from calcarine.training import TrainingConfig, train
    >>> class Line(torch.nn.Module):
    ...     n_train, n_validation = 20, 0
    ...
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.slope = torch.nn.Parameter(torch.zeros(()))
    ...
    ...     def training_loss(self, rows, generator):
    ...         return ((self.slope * rows - 2 * rows) ** 2).mean() / 100, {}
    >>> config = TrainingConfig(steps=100, batch_size=20, lr=0.1, accelerator="cpu")
    >>> result = train(Line(), config, "training")
    >>> result.steps, round(result.state["slope"].item())
    (100, 2)
    """
    need_extra("train", "lightning")
    config = config.for_rows(int(task.n_train))  # type: ignore[arg-type]
    _check(task, config)
    place = TrainingFolder(Path(folder), make_identity(task, config, provenance), say or _warn)
    result = finished(place, config)
    if result is not None and progress is not None:
        progress(result.steps)
    if result is None:
        _continue(task, config, place, progress)
        result = finished(place, config)
    assert result is not None
    task.load_state_dict(result.state, strict=False)
    return result


def _continue(
    task: torch.nn.Module,
    config: TrainingConfig,
    place: TrainingFolder,
    progress: Callable[[int], None] | None,
) -> None:
    if not process_rank():
        place.clean()
    newest = place.newest("step")
    path, about = (newest[0], newest[1]["calcarine"]) if newest else (None, {"step": 0})
    del newest  # frees its tensors
    done = about["step"]
    if done > config.n_steps:
        raise CalcarineError(
            f"{place.checkpoints} is at step {done} already, beyond the {config.n_steps} steps of "
            f"the settings; choose another folder, or delete {place.path} to start again."
        )
    if progress is not None and done:
        progress(done)
    if ended_by(config, done, about.get("best_step")) is not None:
        write_final_result(place, config)
        return
    with quiet(), torch.random.fork_rng():
        _fit(task, config, place, progress, path, done)


def join_training(
    task: torch.nn.Module,
    config: TrainingConfig,
    place: TrainingFolder,
    checkpoint: Path | None,
    done: int,
) -> None:
    """Train along with the process that started this one."""
    with quiet():
        _fit(task, config, place, None, checkpoint, done)


def _fit(
    task: torch.nn.Module,
    config: TrainingConfig,
    place: TrainingFolder,
    progress: Callable[[int], None] | None,
    checkpoint: Path | None,
    done: int,
) -> None:
    from calcarine.training.callbacks import CheckpointCallback
    from calcarine.training.loop import Steps, TrainingModule

    with ExitStack() as stack:
        first = leader()
        starts = first is None and starts_processes(config)
        if starts:
            stack.enter_context(first_of_several(config))
        module = TrainingModule(task, config, place.identity)
        trainer = make_trainer(config, place.path, CheckpointCallback(place, progress), done)
        leads = first is not None and config.devices * config.nodes > 1
        if starts or leads:
            arguments = (task, config, place.without_messages(), checkpoint, done)
            file = stack.enter_context(handed_over(place.path, join_training, arguments))
            others = (
                launched_processes(config, file, first) if first else other_processes(config, file)
            )
            stack.enter_context(others)
        stack.enter_context(signals_to(module.receive))
        try:
            trainer.fit(module, train_dataloaders=Steps(done, config.n_steps), ckpt_path=checkpoint)
        except SystemExit:
            # Lightning ends the process after a signal; here the caller decides.
            module.signals.append(signal.SIGINT)
        if module.signals:
            raise SystemExit(143) if module.signals[0] == signal.SIGTERM else KeyboardInterrupt


def _check(task: torch.nn.Module, config: TrainingConfig) -> None:
    if not any(parameter.requires_grad for parameter in task.parameters()):
        raise CalcarineError("All parameters of the task are frozen; unfreeze some.")
    if (config.chooses or config.validate_every) and not task.n_validation:
        raise CalcarineError(
            "There are no validation samples for select, patience or validate_every; hold some "
            "out of the training data, or set select to last and the other two to null."
        )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)
