"""Command ``calcarine plan``."""

from __future__ import annotations

from pathlib import Path

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
from calcarine.errors import SettingError

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
    from calcarine.experiment import load_experiment
    from calcarine.experiment.plan import HEADINGS, plan_experiment
    from calcarine.experiment.progress import ConsoleProgress

    if file is None and preset is None:
        raise SettingError("Nothing to plan: give --preset takagi or the path of a YAML file.")
    if file is not None and file.is_dir():
        file, out = file / "experiment.yaml", out or file
    experiment = load_experiment(
        preset, file, with_flags(settings, store), name=dataset, data=data, subject=subject
    )
    out = out or Path("runs") / f"{experiment.name}-{experiment.dataset.name}"
    made = plan_experiment(experiment, out, ConsoleProgress())
    if not made.stages:
        print(f"{out} is finished; nothing is left to compute.")
        return
    print_table(f"{experiment.name}, networks in {made.device}", HEADINGS, made.rows())
    if experiment.compute.check:
        made.check()
