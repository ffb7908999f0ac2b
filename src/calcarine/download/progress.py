"""Progress of a download: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

__all__ = [
    "DownloadProgress",
    "NoProgress",
    "ProgressBars",
    "ProgressLines",
    "format_bytes",
    "progress_for",
]

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def format_bytes(size: int) -> str:
    """Return a number of bytes with three digits, in powers of 1000.

    Examples
    --------
    >>> format_bytes(999), format_bytes(1000), format_bytes(1_049_000_000)
    ('999 bytes', '1.00 kB', '1.05 GB')
    """
    if size < 1000:
        return f"{size} bytes"
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


class DownloadProgress(Protocol):
    """Receives the progress of a download, from several threads."""

    def at(self, path: str, done: int, total: int | None) -> None:
        """Report that ``done`` of ``total`` bytes of a file are on disk."""

    def say(self, text: str) -> None:
        """Report an event in one sentence."""

    def whole(self, path: str) -> None:
        """Report that a file is complete."""


class NoProgress:
    """Shows nothing; a context manager as the others."""

    def at(self, path: str, done: int, total: int | None) -> None: ...

    def say(self, text: str) -> None: ...

    def whole(self, path: str) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class ProgressLines(NoProgress):
    """One line for each complete file, and regular lines about a long one.

    Parameters
    ----------
    pause : float
        Seconds between two lines about the same file.
    write, clock : callable
        Where lines go and the time is from.
    """

    def __init__(
        self,
        pause: float = 30.0,
        write: Callable[[str], Any] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pause, self.write, self.clock = pause, write, clock
        self._last: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def at(self, path: str, done: int, total: int | None) -> None:
        with self._lock:
            now = self.clock()
            then, before = self._last.setdefault(path, (now, done))
            if now - then < self.pause:
                return
            self._last[path] = (now, done)
            speed = max(0.0, (done - before) / (now - then))
            left = ""
            if total and speed:
                left = f", about {_duration((total - done) / speed)} left"
            share = f" of {format_bytes(total)} ({100 * done // total} %)" if total else ""
            self.write(f"{path}: {format_bytes(done)}{share}, {format_bytes(int(speed))}/s{left}")

    def say(self, text: str) -> None:
        with self._lock:
            self.write(text)

    def whole(self, path: str) -> None:
        with self._lock:
            self.write(f"{path}: whole")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


class ProgressBars(NoProgress):
    """Bars with bytes, speed and remaining time: one for all files, one for each active file.

    Parameters
    ----------
    sizes : dict of str to int, optional
        Bytes of each file where known, for the bar of all.
    have : int
        Bytes of all files that are on disk already.
    console : object
        Of rich; standard output if left out.
    """

    def __init__(self, sizes: dict[str, int | None], have: int = 0, console: Any = None) -> None:
        from rich import progress

        self._shown = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=console,
        )
        known = [size for size in sizes.values() if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        self._all = self._shown.add_task("all files", total=total, completed=have)
        self._have = have
        self._tasks: dict[str, Any] = {}
        self._done: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._lock = threading.Lock()

    def at(self, path: str, done: int, total: int | None) -> None:
        with self._lock:
            if path not in self._tasks:
                name = path if len(path) <= 40 else "..." + path[-37:]
                self._tasks[path] = self._shown.add_task(name, total=total)
                self._first[path] = done
            self._done[path] = done
            self._shown.update(self._tasks[path], completed=done, total=total)
            new = sum(self._done[key] - self._first[key] for key in self._done)
            self._shown.update(self._all, completed=self._have + new)

    def say(self, text: str) -> None:
        self._shown.console.print(text, markup=False, highlight=False)

    def whole(self, path: str) -> None:
        with self._lock:
            if path in self._tasks:
                self._shown.update(self._tasks[path], visible=False)

    def start(self) -> None:
        self._shown.start()

    def stop(self) -> None:
        self._shown.stop()


def progress_for(
    terminal: bool, sizes: dict[str, int | None], have: int
) -> ProgressLines | ProgressBars:
    """Return bars for a terminal, plain lines otherwise."""
    return ProgressBars(sizes, have) if terminal else ProgressLines()
