"""Pieces of work that processes share through a folder, on one machine or on several."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from calcarine.files.local_files import write_text

__all__ = ["WorkQueue"]

_WAIT_SECONDS = 0.2
_WARN_SECONDS = 30.0
_BEAT_SECONDS = 10.0
_LEASE_SECONDS = 120.0  # clients of NFS may see a change only after a minute
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class WorkQueue:
    """Distribute numbered pieces of work over processes.

    A process takes a piece by creating the file of its lease, which only one process can, and
    gives signs of life by touching it. The piece of a process that was killed is free again: at
    once where a lock of the operating system tells so, else, as on a network file system without
    locks, when the file has not been touched for two minutes. Then a process that only seemed dead
    may do a piece a second time, so a piece must be one that may be repeated.

    Parameters
    ----------
    folder : Path
        Shared by the processes; made when missing. Where the folder that it lies in is missing,
        the work has ended, and no piece is left.
    what : str
        What another process does meanwhile, for the note after a long wait.
    lease : float
        Seconds without a sign of life after which a process of another machine counts as dead.
    """

    def __init__(self, folder: Path, what: str, lease: float = _LEASE_SECONDS) -> None:
        self._folder, self._what, self._lease_seconds = folder, what, lease
        # Taking a lock makes its folder again, so that the folder alone does not say whether
        # another process has finished and removed it.
        self._begun = folder / "begun"
        with suppress(FileNotFoundError):
            folder.mkdir(exist_ok=True)
            self._begun.touch()
        self._seen: dict[Path, tuple[int, float]] = {}
        self._remarks: dict[int, str] = {}
        self._waited, self._warned = 0.0, False

    def work(self, count: int, elsewhere: Callable[[int], None] | None = None) -> Generator[int]:
        """Yield the pieces to do in this process, until all are done by some process.

        A piece counts as done when the caller asks for the next one. Close the iterator where an
        error may end the loop (`contextlib.closing`), so that the piece is free at once.

        Parameters
        ----------
        count : int
            Number of pieces.
        elsewhere : callable, optional
            Receives the number of each piece that was done before, or by another process.

        Yields
        ------
        int
            Number of a piece.
        """
        left = list(range(count))
        while True:
            waiting = []
            for number in left:
                if not self._done(number).exists():
                    with self._leased(str(number)) as leased:
                        if not leased:
                            waiting.append(number)
                            continue
                        if not self._done(number).exists():
                            yield number
                            self._finish(number)
                            continue
                if elsewhere is not None:
                    elsewhere(number)
            left = waiting
            if not left or not self._begun.exists():
                return
            self._wait()

    def remark(self, number: int, text: str) -> None:
        """Keep a text with a piece of this process; `remarks` returns it when it is done."""
        self._remarks[number] = text

    def remarks(self) -> dict[int, str]:
        """Return the text of each piece that is done, by any process."""
        return {
            int(file.stem): file.read_text(encoding="utf-8")
            for file in sorted(self._folder.glob("*.done"))
        }

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Let one process at a time run a block; a folder that was removed needs no lease."""
        while True:
            with self._leased("all") as leased:
                if leased or not self._begun.exists():
                    yield
                    return
            self._wait()

    def forget(self, number: int | None = None) -> None:
        """Mark a piece as not done, or all."""
        for file in self._folder.glob("*.done" if number is None else f"{number}.done"):
            file.unlink(missing_ok=True)

    @contextmanager
    def _leased(self, name: str) -> Iterator[bool]:
        """Try to take a lease; False if a living process has it or the folder was removed."""
        taken = self._take(name)
        if taken is None:
            yield False
            return
        number, lock = taken
        stop = threading.Event()
        beat = threading.Thread(target=_touch, args=(self._lease(name, number), stop), daemon=True)
        beat.start()
        try:
            yield self._begun.exists()
        finally:
            stop.set()
            beat.join()
            self._give_back(name, number, lock)

    def _take(self, name: str) -> tuple[int, FileLock | None] | None:
        """Create the file of a lease: the first, or one more than an owner that died has."""
        number = 0
        while self._lease(name, number).exists():
            number += 1
        if number and not self._is_dead(self._lease(name, number - 1)):
            return None
        file = self._lease(name, number)
        lock = None
        try:
            lock = self._lock_of(file)
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except (Timeout, FileNotFoundError):
            return None
        except FileExistsError:
            if lock is not None:
                lock.release()
            return None
        with os.fdopen(handle, "w") as stream:
            stream.write(_machine())
        # Between the two an owner may have ended, and another process begun from the first again.
        lower = [self._lease(name, each) for each in range(number)]
        if any(each.exists() and not self._is_dead(each) for each in lower):
            file.unlink(missing_ok=True)
            if lock is not None:
                lock.release()
            return None
        return number, lock

    def _give_back(self, name: str, number: int, lock: FileLock | None) -> None:
        for each in range(number + 1):  # those of dead owners too
            self._lease(name, each).unlink(missing_ok=True)
        if lock is not None:
            lock.release()

    def _is_dead(self, file: Path) -> bool:
        """Return whether the owner of a lease has ended."""
        lock = None
        try:
            lock = self._lock_of(file)
            here = lock is not None and file.read_text() == _machine()
            touched = file.stat().st_mtime_ns
        except Timeout:
            return False
        except FileNotFoundError:  # given back meanwhile
            return False
        finally:
            if lock is not None:
                lock.release()
        if here:
            return True
        # Clocks of machines differ: only changes count, and time as this machine measures it.
        last, since = self._seen.setdefault(file, (touched, time.monotonic()))
        if touched != last:
            self._seen[file] = (touched, time.monotonic())
            return False
        return time.monotonic() - since > self._lease_seconds

    def _lock_of(self, file: Path) -> FileLock | None:
        """Take the lock that the owner of a lease holds; None where there are no locks.

        Raises
        ------
        Timeout
            If its owner lives.
        FileNotFoundError
            If the folder was removed.
        """
        if not self._begun.exists():
            raise FileNotFoundError(self._begun)
        lock = FileLock(f"{file}.lock", blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except (Timeout, FileNotFoundError):
            raise
        except (OSError, NotImplementedError):
            return None
        return lock

    def _lease(self, name: str, number: int) -> Path:
        return self._folder / f"{name}.lease.{number}"

    def _wait(self) -> None:
        """Sleep a moment; warn once after a long wait."""
        time.sleep(_WAIT_SECONDS)
        self._waited += _WAIT_SECONDS
        if not self._warned and self._waited >= _WARN_SECONDS:
            self._warned = True
            warnings.warn(
                f"Waiting for another process, {self._what} (leases in {self._folder}).",
                stacklevel=2,
            )

    def _finish(self, number: int) -> None:
        if self._begun.exists():  # else another process did this piece too, and ended the work
            write_text(self._done(number), self._remarks.pop(number, ""))

    def _done(self, number: int) -> Path:
        return self._folder / f"{number}.done"


def _touch(file: Path, stop: threading.Event) -> None:
    """Give signs of life until told to stop."""
    while not stop.wait(_BEAT_SECONDS):
        with suppress(OSError):
            os.utime(file)


@cache
def _machine() -> str:
    """Return what tells machines apart, and one machine before and after it was started anew."""
    with suppress(OSError):
        return f"{socket.gethostname()} {_BOOT.read_text().strip()}"
    return f"{socket.gethostname()} {uuid.getnode()}"
