"""Making splits of stimuli, saving them, and checking how similar their sides are."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.splits.duplicate_search import DuplicateReport, find_duplicates
    from calcarine.splits.folds import group_folds, leave_one_out, random_folds
    from calcarine.splits.split_files import find_split, read_split, save_splits
    from calcarine.splits.split_rules import (
        category_holdout,
        cluster_holdout,
        minimum_distance,
        out_of_distribution,
        random_split,
    )
    from calcarine.splits.stimulus_pool import SplitWithPartners

__all__ = [
    "DuplicateReport",
    "SplitWithPartners",
    "category_holdout",
    "cluster_holdout",
    "find_duplicates",
    "find_split",
    "group_folds",
    "leave_one_out",
    "minimum_distance",
    "out_of_distribution",
    "random_folds",
    "random_split",
    "read_split",
    "save_splits",
]

_MODULES = {
    "DuplicateReport": "duplicate_search",
    "find_duplicates": "duplicate_search",
    "group_folds": "folds",
    "leave_one_out": "folds",
    "random_folds": "folds",
    "find_split": "split_files",
    "read_split": "split_files",
    "save_splits": "split_files",
    "category_holdout": "split_rules",
    "cluster_holdout": "split_rules",
    "minimum_distance": "split_rules",
    "out_of_distribution": "split_rules",
    "random_split": "split_rules",
    "SplitWithPartners": "stimulus_pool",
}


def __getattr__(name: str) -> Any:
    # Modules are imported when they are first used, so that importing the package is fast.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
