"""Training a task to its end, from wherever it was."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from calcarine.errors import CalcarineError, need_extra
from calcarine.training.result import TrainingResult, conclude, finished
from calcarine.training.trainer import (
    alone_again,
    make_trainer,
    process_rank,
    quiet,
    signals_to,
)
from calcarine.training.training_config import TrainingConfig, ended_by
from calcarine.training.training_folder import TrainingFolder, make_identity


def train(
    task: torch.nn.Module,
    config: TrainingConfig,
    folder: Path | str,
    *,
    provenance: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a task, or continue where an earlier call on the same folder was.

    However often it is interrupted, losses and weights are those of a training that was not (on
    the CPU to the last bit). A finished training returns at once. With ``schedule="constant"`` a
    finished training goes on when more steps are asked for; with a cosine more steps would be
    other learning rates from the first step on, so that is refused.

    Parameters
    ----------
    task : torch.nn.Module
        With ``training_loss(rows, generator)`` and ``validation_loss(rows, generator)``, which
        give the mean loss over the rows (int64 tensor, on the CPU) and its parts by name; and with
        ``n_train`` and ``n_validation``, the numbers of rows. The generator is the CPU's. Modules
        stay in the mode they are in (train or eval) except while validating. Its parameters are
        the selected ones when this returns.
    config : TrainingConfig
    folder : Path
        Made when missing; nothing is written elsewhere. In the end it holds
        ``weights.safetensors``, ``training.json``, ``log.csv`` (a row a step), ``validation.csv``.
    provenance : dict, optional
        Plain JSON that says what is trained on what (data, split, weights begun from); another
        one is another training.
    progress : callable, optional
        Called with a number of steps that are done, also those of earlier calls.
    say : callable, optional
        Takes a sentence, such as that a checkpoint is damaged; a warning by default.

    Returns
    -------
    TrainingResult

    Raises
    ------
    CalcarineError
        When the folder belongs to another training, has no whole checkpoint, or cannot be
        written; when a loss or gradient is not finite; when the devices are not there.
    KeyboardInterrupt
        After SIGINT, when the step at work is finished and saved (``SystemExit(143)`` after
        SIGTERM).

    Notes
    -----
    With ``strategy="ddp"`` Lightning starts the command again for every further device; those end
    here. Where the command's own process must stay the only one, use "ddp_spawn" or "ddp_fork".
    """
    need_extra("train", "lightning")
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
    found = place.newest("step")
    path, about = (found[0], found[1]["calcarine"]) if found else (None, {"step": 0})
    del found
    done = about["step"]
    if done > config.steps:
        raise CalcarineError(
            f"{place.checkpoints} is at step {done} already, past the {config.steps} asked for; "
            f"choose another folder, or delete {place.path} to begin anew."
        )
    if progress is not None and done:
        progress(done)
    if ended_by(config, done, about.get("best_step")) is not None:
        conclude(place, config)
        return
    with quiet(), torch.random.fork_rng():
        _fit(task, config, place, progress, path, done)


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

    module = TrainingModule(task, config, place.identity)
    trainer = make_trainer(config, place.path, CheckpointCallback(place, progress), done)
    with alone_again(trainer), signals_to(module.receive):
        try:
            trainer.fit(module, train_dataloaders=Steps(done, config.steps), ckpt_path=checkpoint)
        except SystemExit:
            # Lightning ends the process after a signal; here the caller decides.
            module.signals.append(signal.SIGINT)
        if module.signals:
            raise SystemExit(143) if module.signals[0] == signal.SIGTERM else KeyboardInterrupt


def _check(task: torch.nn.Module, config: TrainingConfig) -> None:
    if not any(parameter.requires_grad for parameter in task.parameters()):
        raise CalcarineError("All parameters of the task are frozen; leave some to be trained.")
    by_validation = config.select == "best" or config.patience is not None
    if by_validation and not task.n_validation:
        raise CalcarineError(
            "There are no validation samples to select or stop by; hold some out of the training "
            "data, or set select to last and patience to none."
        )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)
