"""Pieces of work that several processes share through a folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_WAIT_SECONDS = 0.2
_WARN_SECONDS = 30.0


class WorkQueue:
    """Distribute numbered pieces of work over processes: a lock file and a done mark a piece.

    The operating system holds the locks, so a piece that a killed process had claimed is free
    again at once.

    Parameters
    ----------
    folder : Path
        Shared by the processes; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Taking a lock makes its folder again, so that the folder alone does not say whether
        # another process has finished and removed it.
        self._begun = folder / "begun"
        self._begun.touch()
        self._waited, self._warned = 0.0, False

    def work(self, count: int) -> Iterator[int]:
        """Yield the pieces to do in this process, until all are done by some process.

        A piece counts as done when the caller asks for the next one.

        Parameters
        ----------
        count : int
            Number of pieces.

        Yields
        ------
        int
            Number of a piece.
        """
        while True:
            waiting = False
            for number in range(count):
                if self._done(number).exists():
                    continue
                with self._locked(f"{number}.lock") as locked:
                    if not locked:
                        waiting = True
                    elif not self._done(number).exists():
                        yield number
                        self._done(number).touch()
            if not waiting or not self._begun.exists():
                return
            self._wait()

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Let one process at a time run a block; a folder that was removed needs no lock."""
        while True:
            with self._locked("all.lock") as locked:
                if locked or not self._begun.exists():
                    yield
                    return
            self._wait()

    def forget(self) -> None:
        """Mark all pieces as not done."""
        for file in self._folder.glob("*.done"):
            file.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        """Try to hold a lock; False if another process holds it or has removed the folder."""
        lock = FileLock(self._folder / name, blocking=False)
        try:
            if self._begun.exists():
                lock.acquire()
        except (Timeout, FileNotFoundError):
            pass
        try:
            yield lock.is_locked and self._begun.exists()
        finally:
            lock.release()

    def _wait(self) -> None:
        """Sleep a moment; warn once after a long wait."""
        time.sleep(_WAIT_SECONDS)
        self._waited += _WAIT_SECONDS
        if not self._warned and self._waited >= _WARN_SECONDS:
            self._warned = True
            warnings.warn(
                "Waiting for another process, which extracts features of the same stimuli "
                f"(locks in {self._folder}).",
                stacklevel=2,
            )

    def _done(self, number: int) -> Path:
        return self._folder / f"{number}.done"
