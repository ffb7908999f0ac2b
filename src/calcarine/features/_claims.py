"""Pieces of work that several processes share through a folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT_SECONDS = 0.2


class Claims:
    """Who does which piece: a file a piece, made by whoever begins it.

    Parameters
    ----------
    folder
        Shared by the processes; made when missing.

    Notes
    -----
    A claim of a process that no longer runs on this machine is free again.
    Claims from other machines are waited for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own = f"{socket.gethostname()} {os.getpid()}"

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
                if self._done(number).exists():
                    continue
                try:
                    yield number
                    self._done(number).touch()
                finally:
                    (self._folder / f"{number}.claim").unlink(missing_ok=True)
            if not waiting or not self._folder.exists():
                return
            time.sleep(_WAIT_SECONDS)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Only one process is inside at any time."""
        lock = self._folder / "lock"
        while self._folder.exists() and not self._take(lock):
            time.sleep(_WAIT_SECONDS)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

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
        try:
            owner = path.read_text()
        except FileNotFoundError:
            return self._take(path)
        host, _, number = owner.partition(" ")
        if host != socket.gethostname() or not number.isdigit() or _runs(int(number)):
            return False
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        aside.unlink(missing_ok=True)
        return self._take(path)


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
