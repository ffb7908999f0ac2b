"""Experiments: their configuration, their stages and the folders of their runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.experiment.config import Experiment
    from calcarine.experiment.load_config import load_experiment
    from calcarine.experiment.runner import run_experiment, run_stage
    from calcarine.experiment.stages import STAGES

__all__ = ["STAGES", "Experiment", "load_experiment", "run_experiment", "run_stage"]

# Imported when they are used: running needs torch, and settings do not.
_MODULES = {
    "STAGES": "stages",
    "Experiment": "config",
    "load_experiment": "load_config",
    "run_experiment": "runner",
    "run_stage": "runner",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
