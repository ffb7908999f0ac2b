"""Command ``calcarine plan``."""

from __future__ import annotations

from calcarine.cli._experiments import experiment_and_folder
from calcarine.cli._options import (
    DataFolder,
    DatasetName,
    ExperimentFile,
    Out,
    PresetName,
    Settings,
    Store,
    SubjectName,
    with_flags,
)

__all__ = ["plan"]


def plan(
    file: ExperimentFile = None,
    preset: PresetName = None,
    dataset: DatasetName = None,
    data: DataFolder = None,
    subject: SubjectName = None,
    out: Out = None,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Print what a run would compute, with time, memory and disk, and run nothing."""
    from calcarine.cli.table import print_table
    from calcarine.experiment.progress import ConsoleProgress
    from calcarine.experiment.run_plan import HEADINGS, plan_experiment

    experiment, out = experiment_and_folder(
        "plan",
        file,
        preset,
        out,
        with_flags(settings, store),
        name=dataset,
        data=data,
        subject=subject,
    )
    made = plan_experiment(experiment, out, ConsoleProgress())
    if not made.stages:
        print(f"{out} is finished; nothing is left to compute.")
        return
    print_table(f"{experiment.name}, networks in {made.device}", HEADINGS, made.rows())
    made.check()
