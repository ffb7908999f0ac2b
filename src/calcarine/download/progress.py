"""Progress of a download: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
from typing import Any, Protocol, Self

__all__ = ["DownloadProgress", "NoProgress", "PrintedProgress"]


class DownloadProgress(Protocol):
    """Receives the progress of a download, from several threads."""

    def at(self, path: str, done: int, total: int | None) -> None:
        """Report that ``done`` of ``total`` bytes of a file are on disk."""

    def say(self, text: str) -> None:
        """Report an event in one sentence."""

    def whole(self, path: str) -> None:
        """Report that a file is complete."""


class NoProgress:
    """Shows nothing."""

    def at(self, path: str, done: int, total: int | None) -> None: ...

    def say(self, text: str) -> None: ...

    def whole(self, path: str) -> None: ...


class PrintedProgress:
    """Bytes, speed and remaining time of each file.

    Within a ``with`` block on a terminal, a bar for each active file and one for all. Elsewhere,
    one line for each complete file, and regular lines about a long one.

    Parameters
    ----------
    sizes : dict of str to int, optional
        Bytes of each file where known, for the bar of all.
    have : int
        Bytes of all files that are on disk already.
    pause : float
        Seconds between two lines about the same file.
    console : rich.console.Console, optional
        Standard output by default.
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(
        self,
        sizes: dict[str, int | None] | None = None,
        have: int = 0,
        pause: float = 30.0,
        console: Any = None,
        clock: Any = None,
    ) -> None:
        from rich import progress
        from rich.console import Console

        self.pause = pause
        self._console = console or Console()
        self._numbers = (
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        self._bars = progress.Progress(
            "{task.description}",
            progress.BarColumn(),
            *self._numbers,
            console=self._console,
            get_time=clock,
            speed_estimate_period=pause,
            disable=not self._console.is_terminal,
        )
        known = [size for size in (sizes or {}).values() if size is not None]
        total = sum(known) if len(known) == len(sizes or {}) else None
        self._all = self._bars.add_task("all files", total=total, completed=have)
        self._files: dict[str, Any] = {}
        self._written: dict[str, float] = {}
        self._lock = threading.Lock()

    def at(self, path: str, done: int, total: int | None) -> None:
        with self._lock:
            if path not in self._files:
                name = path if len(path) <= 40 else "..." + path[-37:]
                number = self._bars.add_task(name, total=total, completed=done)
                self._files[path] = next(task for task in self._bars.tasks if task.id == number)
                self._written[path] = self._bars.get_time()
            file = self._files[path]
            self._bars.update(self._all, advance=done - file.completed)
            self._bars.update(file.id, completed=done, total=total)
            if self._bars.disable and self._bars.get_time() - self._written[path] >= self.pause:
                self._written[path] = self._bars.get_time()
                size, speed, left = (column.render(file).plain for column in self._numbers)
                self._print(f"{path}: {size}, {speed}" + (f", {left} left" if left else ""))

    def say(self, text: str) -> None:
        with self._lock:
            self._print(text)

    def whole(self, path: str) -> None:
        with self._lock:
            if path in self._files:
                self._bars.update(self._files[path].id, visible=False)
            if self._bars.disable:
                self._print(f"{path}: whole")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()
