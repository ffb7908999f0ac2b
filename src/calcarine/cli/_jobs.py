"""Submitting commands as jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calcarine.errors import SettingError

__all__ = ["print_jobs", "refuse_other_engines"]


def refuse_other_engines(slurm: int, job: list[str] | None, workers: int, dask: str | None) -> None:
    """Refuse options that would not be used together.

    Raises
    ------
    SettingError
        If jobs are submitted with workers of another kind, or have options and are not submitted.
    """
    if slurm and (workers > 1 or dask is not None):
        raise SettingError("Give one of --slurm, --workers and --dask.")
    if job and not slurm:
        raise SettingError("--job describes jobs; give their number with --slurm.")


def print_jobs(
    command: Sequence[str],
    logs: Path,
    count: int,
    options: list[str] | None,
    prepare: Callable[[], object] = lambda: None,
) -> None:
    """Submit jobs that call a command of calcarine, and print their ids.

    Parameters
    ----------
    command : sequence of str
        Arguments of ``calcarine``.
    logs : Path
        Folder for what the jobs print.
    count : int
        Number of jobs.
    options : list of str, optional
        Parameters of the jobs, each ``KEY=VALUE``.
    prepare : callable
        Called when it is known that jobs can be submitted, before they are.
    """
    from calcarine.experiment.slurm_jobs import job_executor, submit_jobs

    executor = job_executor(logs, _parsed(options))
    prepare()
    jobs = submit_jobs(executor, command, count)
    print(f"Submitted {len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}")
    print(f"They write what they print into {logs}.")


def _parsed(options: list[str] | None) -> dict[str, Any]:
    """Return options of jobs; whole numbers are numbers, and everything else is text."""
    parsed: dict[str, Any] = {}
    for text in options or ():
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise SettingError(f"'{text}' is no option of a job; write key=value, as mem_gb=32.")
        parsed[key] = int(value) if value.isdecimal() else value
    return parsed
