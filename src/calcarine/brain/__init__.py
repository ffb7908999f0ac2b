"""Responses of a brain to stimuli: data sets, splits, and what describes them."""

from __future__ import annotations

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo, DatasetReader
from calcarine.brain.responses import Responses
from calcarine.brain.split import Split

__all__ = ["BrainDataset", "DatasetInfo", "DatasetReader", "Responses", "Split"]
