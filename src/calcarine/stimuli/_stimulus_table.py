"""Reading the table that describes a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError, SettingError
from calcarine.files import parse_json
from calcarine.files.parquet import read_parquet
from calcarine.stimuli.tables import read_rows, read_text

__all__ = ["cell_texts", "read_table"]

_COLUMNS = ("id", "file", "caption", "captions", "category", "categories", "semantic_map")
_READERS = (".csv", ".tsv", ".json", ".parquet")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV, TSV, JSON (list of records) or parquet table with ids kept as text."""
    if not path.is_file():
        raise MissingFileError(
            f"The table {path} does not exist; give the path of a stimulus table."
        )
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise SettingError(
            f"The table {path} ends in {suffix or 'nothing'}; use one of {', '.join(_READERS)}."
        )
    try:
        table = _read(path, suffix)
    except CalcarineError:
        raise
    except (ValueError, OSError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"The table {path} cannot be read: {error}.") from error
    missing = [name for name in ("id", "file") if name not in table.columns]
    if missing:
        raise DamagedFileError(
            f"The table {path} has no column {' and no column '.join(missing)}; "
            f"its columns are {', '.join(map(str, table.columns)) or 'none'}."
        )
    if table.empty:
        raise DamagedFileError(f"The table {path} has no rows; list one picture a row.")
    return table


def _read(path: Path, suffix: str) -> pd.DataFrame:
    if suffix == ".json":
        return pd.DataFrame.from_records(parse_json(read_text(path, "table")))
    if suffix == ".parquet":
        return read_parquet(path)
    return read_rows(path, "table", _COLUMNS)


def cell_texts(row: dict[str, Any], singular: str, plural: str) -> tuple[str, ...]:
    """Return all texts of a row in columns ``singular``, ``plural``, ``singular_1`` and so on.

    A cell is one text, texts separated by ``|``, or a list.
    """
    results: list[str] = []
    for name, value in row.items():
        if name in (singular, plural) or str(name).startswith(f"{singular}_"):
            results.extend(_texts(value))
    return tuple(results)


def _texts(value: Any) -> list[str]:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return []
    parts = str(value).split("|") if isinstance(value, str | int | float) else map(str, value)
    return [part.strip() for part in parts if part.strip()]
