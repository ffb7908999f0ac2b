"""Readers of data sets: one module or package a data set, behind one registry."""

from calcarine.datasets.registry import available, info, load

__all__ = ["available", "info", "load"]
