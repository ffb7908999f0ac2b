"""Processes that train together, started here or by a launcher."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from calcarine.errors import CalcarineError
from calcarine.training.launched import Leader, launch
from calcarine.training.training_config import TrainingConfig

__all__ = ["first_of_several", "launched_processes", "other_processes", "starts_processes"]

_OWN_LAUNCHERS = ("fork", "spawn", "notebook")
_GROUP = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
_PATIENCE = 20.0  # seconds
_ENDING = 60.0
_GRACE = 15.0  # for a process that failed and tidies up


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
    _enter_group(config, 0, _free_port())
    threads = torch.get_num_threads()
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
def other_processes(config: TrainingConfig, folder: Path, handed: Any) -> Iterator[None]:
    """Start the other processes of a group and end them with this one.

    They receive the task as it is here, so that nothing but the training runs twice.

    Parameters
    ----------
    config : TrainingConfig
    folder : Path
        Folder of the training, where the task is handed over.
    handed : tuple
        Function that trains along, and its arguments; they must pickle.

    Raises
    ------
    CalcarineError
        If the task cannot be handed over, or a process fails.
    """
    with _written(folder, handed) as file:
        yield from _with_members(config, file)


def _with_members(config: TrainingConfig, file: Path) -> Iterator[None]:
    port = os.environ["MASTER_PORT"]
    context = multiprocessing.get_context("spawn")
    members = []
    for rank in range(1, config.devices):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(config, rank, port, str(file), sender, _tf32()), daemon=True
        )
        process.start()
        sender.close()
        members.append(_Member(rank, process, receiver))
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(members, ended), daemon=True)
    watch.start()
    try:
        yield
        for member in members:
            member.process.join(_ENDING)
    except (CalcarineError, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        # Where another process has failed, this one only sees that the connection broke.
        wait([member.process.sentinel for member in members], timeout=_GRACE)
        failed = [reason for member in members if (reason := member.failure())]
        if failed:
            raise CalcarineError(failed[0]) from error
        raise
    finally:
        ended.set()
        for member in members:
            if member.process.is_alive():
                member.process.kill()
            member.process.join()


@contextmanager
def launched_processes(
    config: TrainingConfig, folder: Path, handed: Any, leader: Leader
) -> Iterator[None]:
    """Let the processes that a launcher started train along.

    Parameters and errors as of :func:`other_processes`.
    """
    total = config.devices * config.nodes
    if total != leader.size:
        raise CalcarineError(
            f"The settings train on {total} devices ({config.devices} of each of {config.nodes} "
            f"nodes), and {leader.size} processes were started; start one for each device, or "
            "change devices and nodes."
        )
    with _written(folder, handed) as file:
        leader.hand_over(file)
        try:
            yield
        except (CalcarineError, KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            if failed := leader.failure(timeout=_GRACE):
                raise CalcarineError(failed) from error
            raise


@contextmanager
def _written(folder: Path, handed: Any) -> Iterator[Path]:
    """Yield a file that holds a task, for other processes."""
    file = folder / "task.part"
    try:
        try:
            torch.save(handed, file, pickle_protocol=5)
        except OSError:
            raise
        except Exception as error:
            raise CalcarineError(
                f"This task cannot be handed to the processes of further devices ({error}); set "
                "strategy to ddp_fork, or devices to 1."
            ) from error
        yield file
    finally:
        file.unlink(missing_ok=True)


class _Member:
    """Another process of the group."""

    def __init__(self, rank: int, process: Any, receiver: Connection) -> None:
        self.rank, self.process, self._receiver = rank, process, receiver
        self._reason: str | None = None
        self._lock = threading.Lock()  # two threads ask

    def failure(self) -> str | None:
        """Return a sentence if the process has failed."""
        with self._lock:
            code = self.process.exitcode
            if not code:
                return None
            if self._reason is None:
                try:
                    self._reason = self._receiver.recv() if self._receiver.poll() else ""
                except EOFError:
                    self._reason = ""
        reason = self._reason or f"it ended with status {code}"
        if code < 0:
            reason = f"it was ended by {_signal_name(-code)}"
        return (
            f"The process that trains on device {self.rank} failed: {reason.rstrip('.')}. Start "
            "again to resume from the last checkpoint."
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _watch(members: list[_Member], ended: threading.Event) -> None:
    """End this process if another one has failed and it waits for that one without end."""
    sentinels = [member.process.sentinel for member in members]
    while sentinels and not ended.is_set():
        for sentinel in wait(sentinels, timeout=1):
            sentinels.remove(sentinel)
        failed = [reason for member in members if (reason := member.failure())]
        if failed and not ended.wait(_PATIENCE):
            # Communication between GPUs cannot be interrupted from here.
            print(f"calcarine: {failed[0]}", file=sys.stderr, flush=True)
            os._exit(1)


def _tf32() -> tuple[bool, bool]:
    """Return whether TF32 is allowed in products and in convolutions; see `_work`."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _work(
    config: TrainingConfig,
    rank: int,
    port: str,
    file: str,
    sender: Connection,
    tf32: tuple[bool, bool],
) -> None:
    """Train as one of the other processes, in the precision of the first."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _enter_group(config, rank, port)
    try:
        join, arguments = torch.load(file, weights_only=False, map_location="cpu")
        join(*arguments)
    except (KeyboardInterrupt, SystemExit):
        pass  # the first process was interrupted as well, and tells it
    except BaseException as error:
        sender.send(" ".join(str(error).split()) or type(error).__name__)
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
