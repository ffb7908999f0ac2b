"""Progress of long work, shown on the terminal or silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "Progress", "RichProgress"]

Advance = Callable[[int], None]


class Progress:
    """Silent progress; the base of what the command line shows."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Count ``total`` units of work called ``label``."""
        yield lambda count: None

    def say(self, text: str) -> None:
        """Show one line of text."""


class RichProgress(Progress):
    """Bars with remaining time on the terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
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
        self._console.print(text, highlight=False)
