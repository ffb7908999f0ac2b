"""Processes that train together, started here or by a launcher."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from calcarine.errors import CalcarineError, one_line
from calcarine.training.handed_task import join_handed
from calcarine.training.launched import Leader, launch
from calcarine.training.training_config import TrainingConfig

__all__ = ["first_of_several", "launched_processes", "other_processes", "starts_processes"]

_OWN_LAUNCHERS = ("fork", "spawn", "notebook")
_GROUP = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
# In seconds. The second is for a process that failed and tidies up before it says so.
_PATIENCE, _GRACE, _ENDING = 20.0, 15.0, 60.0


def starts_processes(config: TrainingConfig) -> bool:
    """Return whether `train` itself starts a process for each further device.

    Not where another program has started the processes, and not with the strategies by which
    Lightning forks or spawns all of them.
    """
    known = "LOCAL_RANK" in os.environ or launch() is not None
    by_lightning = any(name in config.strategy for name in _OWN_LAUNCHERS)
    return config.devices > 1 and config.nodes == 1 and not known and not by_lightning


@contextmanager
def first_of_several(config: TrainingConfig) -> Iterator[None]:
    """Make this process the first of a group, which Lightning then takes as it is."""
    before = {name: os.environ.get(name) for name in _GROUP}
    threads = torch.get_num_threads()
    _enter_group(config, 0, _free_port())
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def other_processes(config: TrainingConfig, file: Path) -> Iterator[None]:
    """Start the other processes of a group and end them with this one.

    Nothing but the training runs in them.

    Parameters
    ----------
    config : TrainingConfig
    file : Path
        The training; see :func:`calcarine.training.handed_task.handed_over`.

    Raises
    ------
    CalcarineError
        If one of them fails.
    """
    port = os.environ["MASTER_PORT"]
    members = [_Member(config, rank, port, file) for rank in range(1, config.devices)]
    ended = threading.Event()
    threading.Thread(target=_watch, args=(members, ended), daemon=True).start()
    try:
        with _explained(lambda: _failure(members, _GRACE)):
            yield
        for member in members:
            member.process.join(_ENDING)
    finally:
        ended.set()
        for member in members:
            if member.process.is_alive():
                member.process.kill()
            member.process.join()


@contextmanager
def launched_processes(config: TrainingConfig, file: Path, leader: Leader) -> Iterator[None]:
    """Let the processes that a launcher started train along.

    Raises
    ------
    CalcarineError
        If there are not as many as devices, or one of them fails.
    """
    total = config.devices * config.nodes
    if total != leader.size:
        raise CalcarineError(
            f"The settings train on {total} devices ({config.devices} of each of {config.nodes} "
            f"nodes), and {leader.size} processes were started; start one for each device, or "
            "change devices and nodes."
        )
    leader.hand_over(file)
    with _explained(lambda: leader.failure(_GRACE)):
        yield


@contextmanager
def _explained(failure: Callable[[], str | None]) -> Iterator[None]:
    """Raise the reason of another process where this one only sees a broken connection."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:
        if reason := failure():
            raise CalcarineError(reason) from error
        raise


class _Member:
    """Another process of the group."""

    def __init__(self, config: TrainingConfig, rank: int, port: str, file: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._rank = rank
        self._lock = threading.Lock()  # two threads ask why it failed
        self._said: str | None = None
        self.process = context.Process(
            target=_train_along, args=(config, rank, port, file, sender), daemon=True
        )
        self.process.start()
        sender.close()

    def failure(self) -> str | None:
        """Return a sentence if the process has failed."""
        with self._lock:
            if wait([self.process.sentinel], 0):
                self.process.join()  # its pipes are closed a moment before its status is known
            code = self.process.exitcode
            if not code:
                return None
            if self._said is None:
                self._said = _received(self._receiver)
        if code < 0:
            reason = f"it was ended by {_signal_name(-code)}"
        else:
            reason = self._said or f"it ended with status {code}"
        return (
            f"The process that trains on device {self._rank} failed: {reason.rstrip('.')}. Start "
            "again to resume from the last checkpoint."
        )


def _received(receiver: Connection) -> str:
    try:
        return str(receiver.recv()) if receiver.poll() else ""
    except EOFError:
        return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _failure(members: list[_Member], timeout: float) -> str | None:
    wait([member.process.sentinel for member in members], timeout)
    return next((reason for member in members if (reason := member.failure())), None)


def _watch(members: list[_Member], ended: threading.Event) -> None:
    """End this process if another one has failed and it waits for that one without end."""
    while not ended.wait(1):
        failed = _failure(members, 0)
        if failed and not ended.wait(_PATIENCE):
            # Communication between GPUs cannot be interrupted from here.
            print(f"calcarine: {failed}", file=sys.stderr, flush=True)
            os._exit(1)


def _train_along(
    config: TrainingConfig, rank: int, port: str, file: Path, sender: Connection
) -> None:
    """Train as one of the other processes, which ends with the first one."""
    parent: Any = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _enter_group(config, rank, port)
    try:
        join_handed(file)
    except (KeyboardInterrupt, SystemExit):
        return  # the signal reached the first process too, which reports it
    except BaseException as error:
        sender.send(one_line(error))
        sender.close()
        os._exit(1)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _enter_group(config: TrainingConfig, rank: int, port: str) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(config.devices),
    }
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if config.accelerator == "cpu" or not on_gpu:
        torch.set_num_threads(max(1, torch.get_num_threads() // config.devices))


def _free_port() -> str:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return str(chosen.getsockname()[1])
