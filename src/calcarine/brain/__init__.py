"""Responses of a brain to stimuli, how they were recorded, and who trains and who tests."""

from __future__ import annotations

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo, DatasetReader
from calcarine.brain.responses import Responses
from calcarine.brain.split import Split

__all__ = ["BrainDataset", "DatasetInfo", "DatasetReader", "Responses", "Split"]
