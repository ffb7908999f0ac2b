"""Pieces of work that several processes share through a folder."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT_SECONDS = 0.2
_TELL_SECONDS = 30.0
_EMPTY_SECONDS = 10.0


class Claims:
    """Who does which piece: a file a piece, made by whoever begins it.

    Parameters
    ----------
    folder
        Shared by the processes; made when missing.

    Notes
    -----
    A claim of a process that no longer runs on this machine is free again.
    Claims from other machines are waited for; a warning names them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own = f"{socket.gethostname()} {os.getpid()}"
        self._waited, self._told = 0.0, False

    def work(self, count: int) -> Iterator[int]:
        """Numbers of pieces to do here, until all are done here or elsewhere.

        A piece counts as done when the caller asks for the next one.
        """
        while True:
            waiting = False
            for number in range(count):
                if self._done(number).exists():
                    continue
                if not self._take(self._folder / f"{number}.claim"):
                    waiting = True
                    continue
                try:
                    if not self._done(number).exists():
                        yield number
                        self._done(number).touch()
                finally:
                    (self._folder / f"{number}.claim").unlink(missing_ok=True)
            if not waiting or not self._folder.exists():
                return
            self._wait()

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Only one process is inside at any time."""
        lock = self._folder / "lock"
        while self._folder.exists() and not self._take(lock):
            self._wait()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    def _wait(self) -> None:
        """A moment; after many, say whom one waits for on another machine."""
        time.sleep(_WAIT_SECONDS)
        self._waited += _WAIT_SECONDS
        if self._told or self._waited < _TELL_SECONDS:
            return
        for file in [*self._folder.glob("*.claim"), *self._folder.glob("lock")]:
            owner = _owner(file)
            if owner and owner[0] != socket.gethostname():
                self._told = True
                warnings.warn(
                    f"Waiting for process {owner[1]} on {owner[0]}, which extracts features of the "
                    f"same stimuli; if it no longer runs, delete {file}.",
                    stacklevel=2,
                )
                return

    def forget(self) -> None:
        """Everything is to be done again."""
        for file in self._folder.glob("*.done"):
            file.unlink(missing_ok=True)

    def _done(self, number: int) -> Path:
        return self._folder / f"{number}.done"

    def _take(self, path: Path) -> bool:
        try:
            with open(path, "x") as file:
                file.write(self._own)
            return True
        except FileExistsError:
            return self._steal(path)
        except FileNotFoundError:
            return False

    def _steal(self, path: Path) -> bool:
        """Take over the claim of a process that died; only one taker succeeds."""
        owner = _owner(path)
        if owner is None:
            return self._take(path)
        host, number = owner
        # Its maker may have been killed between making and writing it.
        abandoned = not number and _age(path) > _EMPTY_SECONDS
        dead = host == socket.gethostname() and number.isdigit() and not _runs(int(number))
        if not (abandoned or dead):
            return False
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        aside.unlink(missing_ok=True)
        return self._take(path)


def _owner(path: Path) -> tuple[str, str] | None:
    """Machine and process that made a claim; None where it is gone."""
    try:
        host, _, number = path.read_text().partition(" ")
    except FileNotFoundError:
        return None
    return host, number


def _age(path: Path) -> float:
    """Seconds since a file was made; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _runs(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
