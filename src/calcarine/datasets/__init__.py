"""Responses of brains to stimuli: one module a data set, behind one registry."""

from calcarine.datasets.core import BrainDataset, Responses
from calcarine.datasets.registry import DatasetInfo, available, info, load
from calcarine.datasets.splits import Split

__all__ = ["BrainDataset", "DatasetInfo", "Responses", "Split", "available", "info", "load"]
