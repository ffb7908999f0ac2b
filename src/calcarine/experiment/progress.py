"""Progress of long work: bars on a terminal, plain lines elsewhere, or silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Advance", "ConsoleProgress", "Progress"]

Advance = Callable[[int], None]

# Seconds: a log shows soon that the work has begun, and does not grow without end.
_FIRST_LINE, _LATER_LINES, _CLOSEST = 60.0, 180.0, 60.0
# A run that resumes finds its earlier work at once, which says nothing about the speed.
_RESUMED = 5.0
_CHECK = 5.0


class Progress:
    """Silent progress; the base of what the command line shows.

    Attributes
    ----------
    shown : bool
        Whether somebody reads it.
    """

    shown = False

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Count ``total`` units of work called ``label``."""
        yield lambda count: None

    def say(self, text: str) -> None:
        """Show one line of text."""


class ConsoleProgress(Progress):
    """Progress on standard error.

    On a terminal, bars with the remaining time. Elsewhere, as in the log of a batch job, a plain
    line after a minute and then every three minutes, also while nothing is finished.

    Parameters
    ----------
    console : rich.console.Console, optional
        Standard error by default.
    clock : callable
        Returns the time in seconds.
    """

    shown = True

    def __init__(self, console: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._clock = clock
        # Not Console.is_terminal, which variables of the environment can force.
        self._bars = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._written = -_CLOSEST
        self._lock = threading.Lock()

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        if self._bars:
            with self._bar(label, total) as advance:
                yield advance
            return
        lines = _Lines(label, total, self._clock, self._write)
        with _called_regularly(lines.write_if_due):
            yield lines.advance
        lines.finish()

    @contextmanager
    def _bar(self, label: str, total: int) -> Iterator[Advance]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(label, total=total)
            yield lambda count: bars.advance(task, count)
            if not bars.tasks[0].completed:  # everything existed before
                bars.update(task, completed=total)

    def say(self, text: str) -> None:
        with self._lock:
            self._print(text)

    def _write(self, text: str) -> bool:
        """Print a line about progress unless one was printed shortly before."""
        with self._lock:
            now = self._clock()
            if now - self._written < _CLOSEST:
                return False
            self._written = now
            self._print(text)
            return True

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=not self._bars)


class _Lines:
    """The lines about one piece of work.

    Parameters
    ----------
    label, total
        See `Progress.track`.
    clock : callable
        Returns the time in seconds.
    write : callable
        Prints a line and returns whether it did.
    """

    def __init__(
        self, label: str, total: int, clock: Callable[[], float], write: Callable[[str], bool]
    ) -> None:
        self._label, self._total, self._clock, self._write = label, total, clock, write
        self._done = 0
        self._start = clock()
        self._due = self._start + _FIRST_LINE
        # Time and work from which the speed is measured: those of the line before the last one.
        self._marks = [(self._start, 0)]
        self._lock = threading.RLock()

    def advance(self, count: int) -> None:
        """Count units of work that are finished."""
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._start < _RESUMED:
                self._marks = [(now, self._done)]
            self.write_if_due()

    def write_if_due(self) -> None:
        """Write a line if it is time for one."""
        with self._lock:
            now = self._clock()
            if now < self._due or not self._total:
                return
            if self._write(f"{self._label}: {self._done} of {self._total}, {self._left(now)}"):
                self._due = now + _LATER_LINES
                self._marks = [*self._marks[-1:], (now, self._done)]

    def finish(self) -> None:
        """Write that work which took some time is finished."""
        passed = self._clock() - self._start
        if self._total and passed >= _FIRST_LINE:
            self._write(f"{self._label}: finished in {_duration(passed)}")

    def _left(self, now: float) -> str:
        since, before = self._marks[0]
        if self._done <= before or now <= since:
            return "time left not known yet"
        seconds = (self._total - self._done) * (now - since) / (self._done - before)
        return f"{_duration(max(0.0, seconds))} left"


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


@contextmanager
def _called_regularly(function: Callable[[], None]) -> Iterator[None]:
    """Call a function every few seconds from a thread, however long the work takes."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(_CHECK):
            function()

    thread = threading.Thread(target=repeat, name="progress lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
