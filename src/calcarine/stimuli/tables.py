"""The one reader of text tables, as spreadsheets, R and pandas write them."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from calcarine.errors import DamagedFileError, MissingFileError

__all__ = ["read_rows", "read_text"]

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
# Beginnings of workbooks, which programs save by the name of a table.
_BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1")


def read_text(path: str | Path, what: str) -> str:
    """Read a text file in UTF-8, in UTF-16, or (with a warning) in Windows-1252.

    Parameters
    ----------
    path : str or Path
    what : str
        Name for errors, such as "table of trials".

    Returns
    -------
    str

    Raises
    ------
    CalcarineError
        If the file is missing or no text.

    Warns
    -----
    UserWarning
        If the text is read as Windows-1252, where accents may come out wrong.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        kind = MissingFileError if isinstance(error, FileNotFoundError) else DamagedFileError
        raise kind(f"The {what} {path} cannot be read ({reason}).") from None
    if content.startswith(_BINARY):
        raise DamagedFileError(
            f"The {what} {path} is a workbook or another binary file; save it as CSV (UTF-8)."
        )
    encoding = _utf(content)
    no_text = DamagedFileError(f"The {what} {path} cannot be read as text; save it as CSV (UTF-8).")
    if encoding is None and b"\0" in content:
        raise no_text
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise DamagedFileError(
                f"The {what} {path} cannot be read as text in {encoding.upper()}; save it as CSV "
                "(UTF-8)."
            ) from None
        text = content.decode("cp1252", errors="replace")
        warnings.warn(
            f"The {what} {path} is not in UTF-8 and was read as Windows-1252 (Western European); "
            "save it as UTF-8 if letters with accents look wrong.",
            stacklevel=3,
        )
    if "\0" in text:
        raise no_text
    return text.removeprefix("\ufeff")


def _utf(content: bytes) -> str | None:
    """Return the UTF encoding of a text from its first bytes; None for other encodings."""
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if marked is not None or len(content) < 4:
        return marked
    # Without a mark, every other byte of Western headings is zero, and no other byte.
    zeros = [part.count(0) / len(part) for part in (content[:40:2], content[1:40:2])]
    if max(zeros) < 0.9 or min(zeros) > 0:
        return None
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"


def read_rows(
    path: str | Path, what: str, known: Sequence[str] = (), *, needed: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a table with a header line as text, so that ids keep their zeros.

    Separators are commas, semicolons, tabs or bars, whichever the headings have.  Blank lines,
    blanks around cells, and a first column without a heading that only numbers or names the rows
    are left out.

    Parameters
    ----------
    path : str or Path
    what : str
        Name for errors, such as "table of trials".
    known : sequence of str
        Columns that are found whatever their case: ``Stimulus`` is ``stimulus``.
    needed : sequence of str
        Columns that must be there.

    Returns
    -------
    DataFrame
        Of text, at least one row.

    Raises
    ------
    CalcarineError
        If the file is missing, no table, has no rows, rows of unequal length, two columns of one
        name, or lacks a needed column.
    """
    path = Path(path)
    text = read_text(path, what)
    given = re.match(r"sep=(.)\r?\n", text)
    if given:  # written by Excel, for Excel
        text = text[given.end() :]
    wanted = {name.lower() for name in (*known, *needed)}
    separator = given[1] if given else _separator(text, path, wanted)
    rows = _cells(text, separator, path, what)
    names, *body = rows if rows else [[]]
    names, body = _without_row_names(names, body)
    names = [_heading(name, names, (*needed, *known)) for name in names]
    if not body or len(set(names)) < len(names):
        problem = "has no rows" if not body else "has two columns of one name"
        raise DamagedFileError(f"The {what} {path} {problem}; its columns are {', '.join(names)}.")
    for number, row in enumerate(body, start=1):
        if len(row) != len(names):
            raise DamagedFileError(
                f"The {what} {path} has rows of unequal length: row {number} has {len(row)} cells "
                f"for {len(names)} columns."
            )
    missing = [name for name in needed if name not in names]
    if missing:
        apart = _SEPARATORS.get(separator, repr(separator))
        raise DamagedFileError(
            f"The {what} {path} has no column {' and no column '.join(missing)}; its columns, "
            f"separated by {apart}, are {', '.join(names)}."
        )
    return pd.DataFrame(body, columns=names, dtype=str)


def _separator(text: str, path: Path, wanted: set[str]) -> str:
    """Return the separator of the headers that yields the needed columns, else the most columns."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    usual = "\t" if path.suffix.lower() == ".tsv" else ","

    def worth(separator: str) -> tuple[int, int, bool]:
        cells = next(csv.reader([line], delimiter=separator), [])
        names = {cell.strip().lower() for cell in cells}
        return len(names & wanted), len(cells), separator == usual

    try:
        return max(_SEPARATORS, key=worth)
    except csv.Error:
        return usual


def _cells(text: str, separator: str, path: Path, what: str) -> list[list[str]]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise DamagedFileError(
            f"The {what} {path} cannot be read as a table ({error}); look at its quotation marks."
        ) from None
    stripped = [[cell.strip() for cell in row] for row in rows]
    return [row for row in stripped if any(row)]


def _without_row_names(
    names: list[str], body: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Drop a column of row names, as pandas and R write it, and empty last columns."""
    if body and all(len(row) == len(names) + 1 for row in body):
        # R's write.table gives the row names no heading; a separator may also end every line.
        last = all(row[-1] == "" for row in body)
        body = [row[:-1] if last else row[1:] for row in body]
    while names and names[-1] == "" and all(row[len(names) - 1 :] in ([], [""]) for row in body):
        body = [row[: len(names) - 1] for row in body]
        names = names[:-1]
    if len(names) > 1 and names[0] in ("", "Unnamed: 0"):
        names, body = names[1:], [row[1:] for row in body]
    return names, body


def _heading(name: str, names: Sequence[str], known: Sequence[str]) -> str:
    same = [column for column in known if column.lower() == name.lower()]
    return same[0] if same and same[0] not in names else name
