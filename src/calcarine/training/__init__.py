"""Training by steps that resumes exactly, on any number of devices.

The settings are a light import; torch and Lightning are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.training.batches import StepBatches, make_generator, split_validation
    from calcarine.training.engine import train
    from calcarine.training.result import TrainingResult
    from calcarine.training.training_config import TrainingConfig, learning_rate

__all__ = [
    "StepBatches",
    "TrainingConfig",
    "TrainingResult",
    "learning_rate",
    "make_generator",
    "split_validation",
    "train",
]

_MODULES = {
    "StepBatches": "batches",
    "TrainingConfig": "training_config",
    "TrainingResult": "result",
    "learning_rate": "training_config",
    "make_generator": "batches",
    "split_validation": "batches",
    "train": "engine",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
