"""Training by steps: continued exactly, on any number of devices. Lightning is imported late."""

from __future__ import annotations

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
