"""Jobs of a SLURM cluster that take part in runs, submitted by submitit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from calcarine.errors import SettingError, need_extra, one_line

__all__ = ["job_executor", "submit_jobs"]

_MINUTES = 1440


def job_executor(logs: Path, options: Mapping[str, Any] | None = None) -> Any:
    """Return what submits jobs; nothing is submitted yet.

    Parameters
    ----------
    logs : Path
        Folder for what the jobs print, which all nodes see.
    options : mapping of str to object, optional
        Parameters of submitit, such as ``timeout_min`` (1440 by default), ``mem_gb``,
        ``cpus_per_task``, ``gpus_per_node`` and ``slurm_partition``; and ``cluster``, which is
        ``"slurm"`` by default and may be ``"local"`` for processes of this machine.

    Returns
    -------
    submitit.AutoExecutor

    Raises
    ------
    CalcarineError
        If submitit is not installed, there is no SLURM, or an option is unknown.
    """
    need_extra("cluster", "submitit")
    submitit: Any = import_module("submitit")  # without types
    settings = dict(options or {})
    cluster = settings.pop("cluster", "slurm")
    if "slurm_time" not in settings:  # submitit's own default is five minutes
        settings.setdefault("timeout_min", _MINUTES)
    try:
        executor = submitit.AutoExecutor(folder=str(logs), cluster=cluster)
    except (RuntimeError, ValueError) as error:
        reason = one_line(error).rstrip(".")
        raise SettingError(
            f"Jobs cannot be submitted to '{cluster}' here ({reason}); call this on a login node "
            "of the cluster, or give --job cluster=local for processes of this machine."
        ) from error
    try:
        executor.update_parameters(**settings)
    except (TypeError, ValueError, AssertionError, NameError) as error:
        raise SettingError(
            f"submitit refuses the options of the jobs: {one_line(error).rstrip('.')}."
        ) from error
    return executor


def submit_jobs(executor: Any, command: Sequence[str], count: int) -> list[Any]:
    """Submit jobs that all call the same command of calcarine, and so share its work.

    Parameters
    ----------
    executor : submitit.AutoExecutor
        See `job_executor`.
    command : sequence of str
        Arguments of ``calcarine``.
    count : int
        Number of jobs.

    Returns
    -------
    list of submitit.Job

    Raises
    ------
    CalcarineError
        If SLURM refuses the jobs.
    """
    call = [sys.executable, "-m", "calcarine", *command]
    try:
        with executor.batch():
            return [executor.submit(subprocess.run, call, check=True) for _ in range(count)]
    except (RuntimeError, OSError, ValueError) as error:
        reason = one_line(error).rstrip(".")
        raise SettingError(
            f"The cluster refused the jobs: {reason}; check the options given by --job."
        ) from error
