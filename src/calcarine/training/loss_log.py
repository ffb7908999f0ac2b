"""Losses of every step as CSV; a resumed training continues it from its checkpoint."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from calcarine.errors import CalcarineError
from calcarine.files import write_text
from calcarine.training.tensor_trees import cannot_write

__all__ = ["CsvLog"]


class CsvLog:
    """Rows of numbers, one a step, in a file with a header.

    Parameters
    ----------
    path : Path
        Read if it exists.
    step : int
        Rows of later steps are removed, because these steps will be repeated.
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
        """Append a row with the names of the first row, and flush it to the file."""
        lines = [[repr(value) for value in row.values()]]
        if self._names is None:
            self._names = list(row)
            lines.insert(0, self._names)
        if list(row) != self._names:
            raise CalcarineError(
                f"The losses of a step are named {', '.join(row)}, and those of earlier steps "
                f"{', '.join(self._names)}; use the same names in every step."
            )
        try:
            if self._file is None:
                self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115
            csv.writer(self._file, lineterminator="\n").writerows(lines)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def sync(self) -> None:
        """Write the rows to the disk itself."""
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
