"""Losses of every step as CSV that a continued training takes up where its checkpoint was."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from calcarine.errors import CalcarineError
from calcarine.files import write_text
from calcarine.training.tensor_trees import cannot_write


class CsvLog:
    """Rows of numbers, one a step, in a file with a header.

    Parameters
    ----------
    path : Path
        Read when it is there.
    step : int
        Rows of later steps are dropped, as these are about to be made again.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self._names: list[str] | None = None
        self._file: IO[str] | None = None
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        rows = [line for line in lines[1:] if _is_whole(line, step)]
        if rows:
            self._names = next(csv.reader(lines[:1]))
        write_text(path, "".join(lines[:1] + rows if rows else []))

    def write(self, row: dict[str, float]) -> None:
        """Append a row, which has the names of the first; it is in the file when this returns."""
        lines = [[repr(value) for value in row.values()]]
        if self._names is None:
            self._names = list(row)
            lines.insert(0, self._names)
        if list(row) != self._names:
            raise CalcarineError(
                f"The losses of a step are called {', '.join(row)}, and before they were called "
                f"{', '.join(self._names)}; name the same parts in every step."
            )
        try:
            if self._file is None:
                self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115
            csv.writer(self._file, lineterminator="\n").writerows(lines)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def sync(self) -> None:
        """Bring the rows to the disk itself."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def _is_whole(line: str, step: int) -> bool:
    first = line.split(",", 1)[0]
    return line.endswith("\n") and first.isdigit() and int(first) <= step
