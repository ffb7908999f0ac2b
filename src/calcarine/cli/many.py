"""Command ``calcarine many``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calcarine.cli._jobs import print_jobs, refuse_other_engines
from calcarine.cli._options import (
    DaskAddress,
    JobOptions,
    Settings,
    SlurmJobs,
    Store,
    Workers,
    with_flags,
)
from calcarine.errors import CalcarineError, SettingError

__all__ = ["many"]


def many(
    file: Annotated[
        Path, typer.Argument(help="YAML file with subjects, presets and settings of the runs.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs; the same folder resumes. By default runs/FILE."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the runs and what each would take."),
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Show where each run is.")] = False,
    sbatch: Annotated[
        bool, typer.Option("--sbatch", help="Print a batch script for SLURM that does the runs.")
    ] = False,
    workers: Workers = 1,
    dask: DaskAddress = None,
    slurm: SlurmJobs = 0,
    job: JobOptions = None,
    store: Store = None,
    settings: Settings = None,
) -> None:
    """Do the runs of several subjects and presets, and write one page about all of them."""
    from calcarine.cli.table import print_table
    from calcarine.experiment.many_runs import ManyRuns
    from calcarine.experiment.progress import ConsoleProgress
    from calcarine.experiment.run_plan import HEADINGS, Plan

    refuse_other_engines(slurm, job, workers, dask)
    if dry_run + status + sbatch + bool(slurm) > 1:
        raise SettingError("Give one of --dry-run, --status, --sbatch and --slurm.")
    runs = ManyRuns(file, out or Path("runs") / file.stem, with_flags(settings, store))
    if sbatch:
        print(runs.batch_script())
        return
    if dry_run:
        rows = [
            (
                *(run.name, run.subject or "the first", run.label, str(run.folder)),
                *(plan.rows()[-1][2:] if isinstance(plan, Plan) else (str(plan), "", "")),
            )
            for run, plan in zip(runs.runs, runs.plans(ConsoleProgress()), strict=True)
        ]
        print_table(runs.title, ("run", "subject", "preset", "folder", *HEADINGS[2:]), rows)
        return
    if slurm:
        command = ["many", str(file.absolute()), "--out", str(runs.out.absolute())]
        command += [part for text in with_flags(settings, store) for part in ("--set", text)]
        print_jobs(command, runs.out / "jobs", slurm, job)
        return
    states = runs.states() if status else runs.run(ConsoleProgress(), workers, dask)
    headings = ("run", "state", "stage", "hours", "reason")
    cells = [(s.name, s.state, s.stage, f"{s.hours:.2f}", s.reason) for s in states]
    print_table(runs.title, headings, cells)
    if status:
        return
    print(f"Page: {runs.out / 'many.html'}")
    failed = [state.name for state in states if state.state == "failed"]
    if failed:
        raise CalcarineError(
            f"{len(failed)} of {len(states)} runs failed ({', '.join(failed)}); the same command "
            "tries them again."
        )
