"""Commands ``calcarine demo``, ``run`` and ``init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli._experiments import experiment_and_folder
from calcarine.cli._jobs import print_jobs, refuse_other_engines
from calcarine.cli._options import (
    DaskAddress,
    DataFolder,
    DatasetName,
    ExperimentFile,
    JobOptions,
    Out,
    PresetName,
    Settings,
    SlurmJobs,
    Store,
    SubjectName,
    Transductive,
    Workers,
    with_flags,
)
from calcarine.cli._print import print_result

__all__ = ["demo", "init", "run"]


def demo(
    out: Annotated[Path, typer.Option(help="Output folder; the same folder resumes.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Simulate a brain that sees pictures, decode it, and write a report."""
    from calcarine.experiment import load_experiment, run_experiment
    from calcarine.experiment.progress import ConsoleProgress

    print_result(run_experiment(load_experiment("demo"), out, ConsoleProgress()).path)


def run(
    file: ExperimentFile = None,
    preset: PresetName = None,
    dataset: DatasetName = None,
    data: DataFolder = None,
    subject: SubjectName = None,
    out: Out = None,
    allow_transductive: Transductive = False,
    workers: Workers = 1,
    dask: DaskAddress = None,
    slurm: SlurmJobs = 0,
    job: JobOptions = None,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Run a whole experiment, from the features to the report."""
    from calcarine.experiment import run_experiment
    from calcarine.experiment.progress import ConsoleProgress

    refuse_other_engines(slurm, job, workers, dask)
    experiment, out = experiment_and_folder(
        "run",
        file,
        preset,
        out,
        with_flags(settings, store, allow_transductive),
        name=dataset,
        data=data,
        subject=subject,
    )
    if slurm:
        from calcarine.experiment.runner import start_run

        print_jobs(
            ["run", str(out.absolute())],
            out / "jobs",
            slurm,
            job,
            lambda: start_run(experiment, out, resumes=True),
        )
        return
    print_result(
        run_experiment(experiment, out, ConsoleProgress(), workers=workers, dask=dask).path
    )


def init(
    out: Annotated[Path, typer.Argument(help="New output folder.")],
    preset: PresetName = "takagi",
    dataset: DatasetName = None,
    data: DataFolder = None,
    subject: SubjectName = None,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Make the folder of a run without running it, to run its stages one by one."""
    from calcarine.experiment import load_experiment
    from calcarine.experiment.runner import start_run

    experiment = load_experiment(
        preset, None, with_flags(settings, store), name=dataset, data=data, subject=subject
    )
    print(f"Wrote {start_run(experiment, out).path / 'experiment.yaml'}")
