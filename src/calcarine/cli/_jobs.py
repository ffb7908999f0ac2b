"""Submitting commands as jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calcarine.cli._options import options_from

__all__ = ["print_jobs"]


def print_jobs(command: Sequence[str], logs: Path, count: int, options: list[str] | None) -> None:
    """Submit jobs that call a command of calcarine, and print their ids.

    Parameters
    ----------
    command, logs, count
        See `calcarine.experiment.slurm_jobs.submit_jobs`.
    options : list of str, optional
        Parameters of the jobs, each ``KEY=VALUE``.
    """
    from calcarine.experiment.slurm_jobs import submit_jobs

    jobs = submit_jobs(command, logs, count, options_from(options))
    print(f"Submitted {len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}")
    print(f"They write what they print into {logs}.")
