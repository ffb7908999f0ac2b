"""Training by steps: continued exactly, on any number of devices. Lightning is imported late."""

from __future__ import annotations

from calcarine.networks.training.batches import StepBatches, make_generator, split_validation
from calcarine.networks.training.config import TrainingConfig, learning_rate
from calcarine.networks.training.engine import train
from calcarine.networks.training.result import TrainingResult

__all__ = [
    "StepBatches",
    "TrainingConfig",
    "TrainingResult",
    "learning_rate",
    "make_generator",
    "split_validation",
    "train",
]
