"""Experiments: configuration, run directory and stages."""

from calcarine.experiment.config import Experiment, load_experiment
from calcarine.experiment.stages import STAGES, run_experiment, run_stage

__all__ = ["STAGES", "Experiment", "load_experiment", "run_experiment", "run_stage"]
