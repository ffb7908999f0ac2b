"""Taking part in a run that another process leads.

The first process that opens a run leads it: it runs the stages one after the other. Others do
pieces of the stages that can be shared, and one of them leads when the first is gone. Pieces and
their results do not depend on who does them, so a run ends with the same files either way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from calcarine.devices import tf32_products
from calcarine.errors import CalcarineError, SettingError, need_extra, one_line
from calcarine.experiment.config import Experiment
from calcarine.experiment.out_of_memory import explain_memory
from calcarine.experiment.progress import Progress
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.stages import STAGES, run_keys
from calcarine.experiment.workspace import Workspace
from calcarine.files.locks import is_locked

__all__ = ["run_to_join", "start_on_dask", "start_workers", "take_part"]

_SLURM = "slurm"
_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 30.0
_START_SECONDS = 2.0  # between taking the lock of a run and allowing others to take part


def run_to_join(path: Path, experiment: Experiment) -> RunDirectory | None:
    """Return the run of a folder that another process leads, if it is the same experiment.

    Parameters
    ----------
    path : Path
        Folder of the run.
    experiment : Experiment
        Settings of this process; only the device may be another one.

    Returns
    -------
    RunDirectory or None
        With the device of this process; None if the other process does something else.
    """
    if not _wait_until_led(path):
        return None
    run = RunDirectory(path)
    compute = run.experiment.compute.model_copy(update={"device": experiment.compute.device})
    run.experiment = run.experiment.model_copy(update={"compute": compute})
    same = run.experiment.model_dump(mode="json") == experiment.model_dump(mode="json")
    return run if same else None


def _wait_until_led(path: Path) -> bool:
    """Wait a moment for the process that opens a run; return whether others may take part."""
    end = time.monotonic() + _START_SECONDS
    while not RunDirectory.is_led_at(path) and time.monotonic() < end:
        time.sleep(0.1)
    return RunDirectory.is_led_at(path)


def take_part(
    run: RunDirectory, progress: Progress | None = None, *, while_led: bool = False
) -> None:
    """Do pieces of the stages of a run, until the process that leads it has ended.

    Parameters
    ----------
    run : RunDirectory
    progress : Progress, optional
        Silent by default.
    while_led : bool
        Return already when the other process has no more work to share, for one that waits for
        this.

    Raises
    ------
    CalcarineError
        If data, models or files are not those of the process that leads, or a piece cannot be
        done.
    """
    work: Workspace | None = None
    shared = set()
    while is_locked(run.path) and not (while_led and not RunDirectory.is_led_at(run.path)):
        for about in run.shared_stages():
            opened = about["stage"], about["time"]
            if opened in shared:
                continue
            # Not before a stage is open: what "auto" means is decided by then.
            work = work or Workspace(run, progress)
            _share(work, about["stage"], about["key"])
            shared.add(opened)
        time.sleep(_POLL_SECONDS)


def _share(work: Workspace, name: str, key: str) -> None:
    stage = STAGES[name]
    if run_keys(work).get(name) != key:
        raise SettingError(
            f"The run {work.run.path} has other data, another model or other files in the process "
            f"that leads it than here, so this process cannot share its stage '{name}'; use the "
            "same files and the same version of calcarine everywhere."
        )
    assert stage.share is not None
    with explain_memory(work.config, stage), tf32_products(work.config.compute.tf32):
        stage.share(work)


@contextmanager
def start_workers(run: RunDirectory, count: int, progress: Progress) -> Iterator[None]:
    """Let further processes of this machine take part in a run while a block runs.

    Where there are several GPUs, each process has its own. What the processes print stands in
    ``.shared/worker-N.log`` of the run until the block ends.

    Parameters
    ----------
    run : RunDirectory
        A run that this process leads.
    count : int
        Number of processes besides this one.
    progress : Progress
        Says which of them ended with an error.
    """
    if not count:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    each = max(1, threads // (count + 1))
    torch.set_num_threads(each)
    logs = [run.shared / f"worker-{number}.log" for number in range(1, count + 1)]
    processes = []
    for number, log in enumerate(logs, 1):
        command = [sys.executable, "-m", __name__, str(run.path), str(os.getpid())]
        with open(log, "w", encoding="utf-8") as stream:
            processes.append(
                subprocess.Popen(
                    command, stdout=stream, stderr=stream, env=_environment(number, each)
                )
            )
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for number, (process, log) in enumerate(zip(processes, logs, strict=True), 1):
            if process.poll() is None:
                process.terminate()
                process.wait()
            else:
                lines = log.read_text(encoding="utf-8").strip().splitlines()
                reason = lines[-1] if lines else f"exit status {process.returncode}"
                progress.say(f"Worker {number} ended early, and others did its work: {reason}")
            log.unlink(missing_ok=True)


@contextmanager
def start_on_dask(
    run: RunDirectory, address: str | None, progress: Progress, jobs: int = 1
) -> Iterator[None]:
    """Let all workers of a Dask cluster take part in a run while it is led in a block.

    Parameters
    ----------
    run : RunDirectory
        A run that this process is about to lead, in a folder that all workers see.
    address : str, optional
        Of the scheduler, as ``tcp://node1:8786``; ``"slurm"`` for a cluster of SLURM jobs as the
        configuration of dask-jobqueue describes them; None for no cluster.
    progress : Progress
        Says which of the workers ended with an error.
    jobs : int
        Number of SLURM jobs. The run does not wait for them; each takes part when it starts.

    Raises
    ------
    CalcarineError
        If Dask is not installed, no scheduler answers, or it has no workers.
    """
    if address is None:
        yield
        return
    need_extra("cluster", "distributed")
    distributed: Any = import_module("distributed")  # without types
    if address == _SLURM:
        with (
            _slurm_cluster(jobs) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
            _given_to_all(client, _place(run)) as given,
        ):
            yield
            _say_errors(given, progress)
        return
    try:
        client = distributed.Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"No Dask scheduler answers at {address} ({one_line(error).rstrip('.')}); give its "
            "address, for example tcp://node1:8786."
        ) from error
    with client:
        names = list(client.run(os.getpid))
        if not names:
            raise SettingError(f"The Dask scheduler at {address} has no workers; start some.")
        path = _place(run)
        options = {"pure": False, "allow_other_workers": True}
        tasks = [client.submit(_take_part_at, path, workers=[name], **options) for name in names]
        try:
            yield
        finally:
            # A worker that was killed may not come again.
            with client.as_current(), suppress(TimeoutError):
                distributed.wait(tasks, timeout=_ANSWER_SECONDS)
            _say_errors(dict(zip(names, tasks, strict=True)), progress)


@contextmanager
def _given_to_all(client: Any, path: str) -> Iterator[dict[str, Any]]:
    """Let each worker of a cluster take part once, whenever its job starts, while a block runs."""
    tasks: dict[str, Any] = {}
    end = threading.Event()

    def give() -> None:
        while not end.wait(_POLL_SECONDS):
            for name in set(client.scheduler_info(n_workers=-1)["workers"]) - set(tasks):
                tasks[name] = client.submit(_take_part_at, path, workers=[name], pure=False)

    thread = threading.Thread(target=give, daemon=True)
    thread.start()
    try:
        yield tasks
    finally:
        end.set()
        thread.join()


def _say_errors(tasks: Mapping[str, Any], progress: Progress) -> None:
    for name, task in tasks.items():
        if task.status == "error":
            progress.say(
                f"The Dask worker {name} ended early, and others did its work: "
                f"{one_line(task.exception()).rstrip('.')}"
            )


def _slurm_cluster(jobs: int) -> Any:
    """Start a Dask cluster whose workers are jobs of SLURM."""
    need_extra("cluster", "dask_jobqueue")
    try:
        cluster = import_module("dask_jobqueue").SLURMCluster()
        cluster.scale(jobs=jobs)
    except (ValueError, OSError, RuntimeError, TypeError) as error:
        raise SettingError(
            f"dask-jobqueue cannot start jobs ({one_line(error).rstrip('.')}); describe them in "
            "~/.config/dask/jobqueue.yaml (section jobqueue.slurm: cores, memory, queue) and call "
            "this where sbatch exists."
        ) from error
    return cluster


def _place(run: RunDirectory) -> str:
    return str(run.path.resolve())


def _take_part_at(path: str) -> None:
    """Take part in a run that another process is about to lead."""
    if _wait_until_led(Path(path)):
        take_part(RunDirectory(Path(path)), while_led=True)


def _environment(number: int, threads: int) -> dict[str, str]:
    """Return the environment of a worker: its threads, and its GPU where there are several."""
    import torch

    changed = {"OMP_NUM_THREADS": str(threads)}
    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        changed["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % gpus]
    return {**os.environ, **changed}


def _end_with(parent: int) -> None:
    """End this process when its parent has ended."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(0)


def _main(path: str, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        take_part(RunDirectory(Path(path)))
    except CalcarineError as error:
        print(error, flush=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
