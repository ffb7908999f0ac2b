"""Responses of brains to stimuli: one module a data set, behind one registry."""

from calcarine.datasets.core import BrainDataset, Responses, Split
from calcarine.datasets.registry import DatasetInfo, available, info, load

__all__ = ["BrainDataset", "DatasetInfo", "Responses", "Split", "available", "info", "load"]
