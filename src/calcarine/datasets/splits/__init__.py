"""Splits of stimuli: the artefact, its makers and the checks of likeness between sides."""

from calcarine.datasets.splits.split import Split

__all__ = ["Split"]
