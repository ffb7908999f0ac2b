"""Lightning's trainer, without its messages, and with signals that end after a whole step."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calcarine.errors import CalcarineError, SettingError
from calcarine.training.launched import launch
from calcarine.training.training_config import TrainingConfig

__all__ = ["make_trainer", "process_rank", "quiet", "signals_to"]

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def make_trainer(config: TrainingConfig, folder: Path, checkpointing: Any, done: int) -> Any:
    """Make Lightning's trainer with the checkpoints of this package and no other output."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.accelerators import CPUAccelerator
    from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from calcarine.training.callbacks import SafetensorsIO

    plugins: list[Any] = [SafetensorsIO()]
    launched = launch() is not None
    if config.nodes > 1 and not launched:
        raise SettingError(
            f"The training is on {config.nodes} nodes, and this command runs on one; start it with "
            "srun or torchrun, once for each device, or set nodes to 1."
        )
    if config.devices * config.nodes == 1 or not launched:
        # Lightning would wait for as many processes as a SLURM job has reserved.
        plugins.append(LightningEnvironment())
    elif SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    accelerator, _, index = config.accelerator.partition(":")
    if index and config.devices > 1:
        raise SettingError(
            f"The training is on {config.devices} devices, and {config.accelerator} is one of "
            "them; choose cuda instead, or 1 device."
        )
    try:
        trainer = Trainer(
            accelerator=accelerator,
            devices=[int(index)] if index else config.devices,
            num_nodes=config.nodes,
            strategy=_strategy(config),
            precision=_PRECISIONS[config.precision],  # type: ignore[arg-type]
            max_epochs=1,
            limit_val_batches=0,
            callbacks=[checkpointing],
            plugins=plugins,
            logger=_loggers(config, folder, done),
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        raise CalcarineError(
            f"Lightning cannot train this way ({' '.join(str(error).split()).rstrip('.')}); "
            "change accelerator, devices, nodes, strategy, precision or loggers."
        ) from error
    if config.precision == "16" and isinstance(trainer.accelerator, CPUAccelerator):
        raise CalcarineError("A CPU cannot train in precision 16; choose bf16 or 32.")
    return trainer


def _strategy(config: TrainingConfig) -> str:
    # In a notebook Lightning would choose to fork, which a process with threads should not.
    several = config.devices * config.nodes > 1
    return "ddp" if several and config.strategy == "auto" else config.strategy


def _loggers(config: TrainingConfig, folder: Path, done: int) -> list[Any]:
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    loggers: list[Any] = []
    if "tensorboard" in config.loggers:
        loggers.append(
            TensorBoardLogger(folder, name="tensorboard", version="", purge_step=done + 1)
        )
    if "wandb" in config.loggers:
        loggers.append(WandbLogger(save_dir=folder, name=folder.name))
    return loggers


def process_rank() -> int:
    """Return the rank of this process before there is a trainer; 0 is the first."""
    with quiet():
        from lightning.fabric.utilities import rank_zero
    return getattr(rank_zero.rank_zero_only, "rank", 0) or 0


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's banners, tips and warnings."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "torch.distributed")
    loggers = [logging.getLogger(name) for name in names]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(lightning|torch)\b.*")
        import lightning.pytorch  # noqa: F401 - sets levels when it is imported

        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def signals_to(receive: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, receive)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
