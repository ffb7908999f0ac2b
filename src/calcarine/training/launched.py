"""A command that srun or torchrun starts several times: the first does it, the others take part.

A light import: torch waits until there is something to train.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from typing import NamedTuple

from calcarine.errors import CalcarineError, one_line
from calcarine.training.handed_task import join_handed

__all__ = ["Launch", "Leader", "follow", "launch", "leader", "leading"]

_LONGEST_START, _LONGEST_END, _BETWEEN_TRIES = 600.0, 60.0, 0.2  # seconds
_LOWEST_PORT, _N_PORTS = 20_000, 10_000
_leader: Leader | None = None


class Launch(NamedTuple):
    """Place of this process among those that a launcher started.

    Attributes
    ----------
    rank, size : int
        Number of this process, and of all of them.
    host : str
        Where the first one runs.
    port : int
        Where it talks to the others.
    """

    rank: int
    size: int
    host: str
    port: int

    @property
    def key(self) -> bytes:
        """Key that both ends of a connection have, so that no other job is taken for this one."""
        return f"calcarine {self.host} {self.port} {self.size}".encode()


def launch() -> Launch | None:
    """Return this process among several that srun or torchrun started; None if it is the only one.

    In a batch script of SLURM, outside srun, a command runs once whatever the job has asked for.
    """
    env = os.environ
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        number = int(env.get("SLURM_JOB_ID", "0")) * 7 + int(env.get("SLURM_STEP_ID", "0"))
        return Launch(
            int(env["SLURM_PROCID"]),
            int(env["SLURM_STEP_NUM_TASKS"]),
            _first_node(),
            _LOWEST_PORT + number % _N_PORTS,
        )
    if "RANK" in env and int(env.get("WORLD_SIZE", "1")) > 1:
        port = int(env.get("MASTER_PORT", "29500"))
        host = env.get("MASTER_ADDR", "127.0.0.1")
        return Launch(int(env["RANK"]), int(env["WORLD_SIZE"]), host, port + 1)
    return None


def _first_node() -> str:
    if os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1":
        return "127.0.0.1"
    from lightning.fabric.plugins.environments import SLURMEnvironment

    return str(SLURMEnvironment().main_address)


def leader() -> Leader | None:
    """Return what leads the other processes, in the first one of several."""
    return _leader


class Leader:
    """The first of several processes, which hands trainings to the others."""

    def __init__(self, launch: Launch) -> None:
        self.size = launch.size
        self._others: list[Connection] = []
        self._run: str | None = None
        self._came = threading.Condition()
        self._closed = False
        host = "" if launch.host != "127.0.0.1" else launch.host
        try:
            self._listener = Listener((host, launch.port), authkey=launch.key, backlog=launch.size)
        except OSError as error:
            raise CalcarineError(
                f"The {launch.size} processes of this command talk through port {launch.port}, "
                f"which cannot be opened ({error.strerror}); start again, or train on one device."
            ) from error
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while len(self._others) < self.size - 1:
            try:
                connection = self._listener.accept()
            except (AuthenticationError, EOFError, OSError):
                if self._closed:
                    return
                time.sleep(_BETWEEN_TRIES)
                continue  # a program that is not one of the others
            with self._came:
                if self._run is not None:
                    _try_to_send(connection, {"run": self._run})
                self._others.append(connection)
                self._came.notify_all()

    def hand_over(self, file: Path) -> None:
        """Let the other processes join the training in a file of `handed_over`."""
        if not self._all_came(_LONGEST_START):
            raise CalcarineError(
                f"Only {len(self._others) + 1} of the {self.size} processes that were started "
                "came; look at the messages of the launcher."
            )
        message = json.dumps({"training": str(file.resolve())}).encode()
        for connection in self._others:
            connection.send_bytes(message)

    def announce(self, run: Path) -> None:
        """Let the other processes take part in a run, those too that come later."""
        with self._came:
            self._run = str(run.resolve())
            for connection in self._others:
                _try_to_send(connection, {"run": self._run})

    def _all_came(self, timeout: float) -> bool:
        with self._came:
            return self._came.wait_for(lambda: len(self._others) == self.size - 1, timeout)

    def failure(self, timeout: float) -> str | None:
        """Return a sentence if another process has failed."""
        ready = wait(self._others, timeout)
        for connection in self._others:
            if connection in ready:
                try:
                    reason = json.loads(connection.recv_bytes())["failed"]
                except (EOFError, OSError):
                    reason = "it ended"
                return (
                    f"One of the {self.size} processes failed: {reason.rstrip('.')}. Start again "
                    "to resume from the last checkpoint."
                )
        return None

    def close(self) -> None:
        """Let the other processes end, those too that come late to a short command."""
        self._all_came(_LONGEST_END)
        for connection in self._others:
            _try_to_send(connection, {"end": True})
        self._closed = True
        self._listener.close()


def _try_to_send(connection: Connection, message: dict[str, object]) -> None:
    """Send a message that a process which has ended does not need."""
    with suppress(OSError):
        connection.send_bytes(json.dumps(message).encode())


@contextmanager
def leading(launch: Launch) -> Iterator[None]:
    """Lead the other processes while a block runs."""
    global _leader
    _leader = Leader(launch)
    try:
        yield
    finally:
        _leader.close()
        _leader = None


def follow(launch: Launch, take_part: Callable[[Path], None]) -> int:
    """Join the trainings of the first process until it ends, and take part in its runs.

    Parameters
    ----------
    launch : Launch
    take_part : callable
        Receives the folder of a run that the first process leads, in a thread; returns when the
        run ends.

    Returns
    -------
    int
        Exit status.
    """
    connection = _connect(launch)
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return 1  # the first process ended, and says why
        if "run" in message:
            arguments = launch, take_part, Path(message["run"])
            threading.Thread(target=_take_part, args=arguments, daemon=True).start()
            continue
        if "training" not in message:
            return 0
        try:
            join_handed(Path(message["training"]))
        except (KeyboardInterrupt, SystemExit) as stop:
            return int(getattr(stop, "code", 130) or 0)
        except Exception as error:
            said = one_line(error)
            _try_to_send(connection, {"failed": said})
            print(f"calcarine: process {launch.rank}: {said}", file=sys.stderr, flush=True)
            return 1


def _take_part(launch: Launch, take_part: Callable[[Path], None], run: Path) -> None:
    """Take part in a run, on the GPU of this process; others do the work if it cannot."""
    try:
        import torch

        if (gpus := torch.cuda.device_count()) > 1:
            local = os.environ.get("SLURM_LOCALID") or os.environ.get("LOCAL_RANK") or "0"
            torch.cuda.set_device(int(local) % gpus)
        take_part(run)
    except Exception as error:
        said = one_line(error)
        print(f"calcarine: process {launch.rank}: {said}", file=sys.stderr, flush=True)


def _connect(launch: Launch) -> Connection:
    began = time.monotonic()
    while True:
        try:
            return Client((launch.host, launch.port), authkey=launch.key)
        except (OSError, EOFError) as error:
            if time.monotonic() - began > _LONGEST_START:
                raise CalcarineError(
                    f"Process {launch.rank} does not reach the first one at {launch.host}, port "
                    f"{launch.port}; let the nodes of a job talk to each other."
                ) from error
            time.sleep(_BETWEEN_TRIES)
