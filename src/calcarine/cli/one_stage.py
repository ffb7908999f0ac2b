"""Running one stage of a run, for the commands of single stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calcarine.experiment.config import Experiment
    from calcarine.experiment.workspace import Workspace


def stage(path: Path, name: str, experiment: Experiment | None = None) -> Workspace:
    """Open a run, or begin one, and run one of its stages."""
    from calcarine.experiment import run_stage
    from calcarine.experiment.progress import RichProgress
    from calcarine.experiment.run_directory import opened_run
    from calcarine.experiment.workspace import Workspace

    with opened_run(path, experiment) as run:
        work = Workspace(run, RichProgress())
        run_stage(work, name)
        return work
