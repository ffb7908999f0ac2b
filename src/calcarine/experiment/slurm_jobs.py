"""Jobs of a SLURM cluster that take part in runs, submitted by submitit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from calcarine.errors import SettingError, need_extra

__all__ = ["submit_jobs"]


def submit_jobs(
    command: Sequence[str], logs: Path, count: int, options: Mapping[str, Any] | None = None
) -> list[Any]:
    """Submit jobs that all call the same command of calcarine, and so share its work.

    Parameters
    ----------
    command : sequence of str
        Arguments of ``calcarine``.
    logs : Path
        Folder for what the jobs print, which all nodes see.
    count : int
        Number of jobs.
    options : mapping of str to object, optional
        Parameters of submitit, such as ``timeout_min``, ``mem_gb``, ``cpus_per_task``,
        ``gpus_per_node`` and ``slurm_partition``; and ``cluster``, which is ``"slurm"`` by default
        and may be ``"local"`` for processes of this machine.

    Returns
    -------
    list of submitit.Job

    Raises
    ------
    CalcarineError
        If submitit is not installed, there is no SLURM, or an option is unknown.
    """
    need_extra("cluster", "submitit")
    submitit: Any = import_module("submitit")  # without types
    settings = dict(options or {})
    cluster = settings.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=str(logs), cluster=cluster)
    except (RuntimeError, ValueError) as error:
        raise SettingError(
            f"Jobs cannot be submitted to '{cluster}' here ({_line(error)}); call this on a login "
            "node of the cluster, or give --job cluster=local for processes of this machine."
        ) from error
    try:
        executor.update_parameters(**settings)
    except (TypeError, ValueError, AssertionError, NameError) as error:
        raise SettingError(f"submitit refuses the options of the jobs: {_line(error)}.") from error
    call = [sys.executable, "-m", "calcarine", *command]
    with executor.batch():
        return [executor.submit(subprocess.run, call, check=True) for _ in range(count)]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
