"""The table of trials of a description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calcarine.datasets._data_files import natural_key
from calcarine.errors import DamagedFileError
from calcarine.stimuli.tables import read_rows

__all__ = ["read_trials", "texts_table"]


def texts_table(path: Path, what: str, known: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of a table as text; see `calcarine.stimuli.tables.read_rows`.

    Raises
    ------
    CalcarineError
        If the file is not such a table or is empty.
    """
    return read_rows(path, what, known)


def read_trials(paths: Path | Sequence[Path]) -> pd.DataFrame:
    """Return the stimulus of each trial, and its session if known.

    Parameters
    ----------
    paths : Path or sequence of Path
        A table, or several: then each is one session where they have no
        column ``session`` of their own.

    Returns
    -------
    DataFrame
        ``stimulus`` (text); where known, ``session`` (whole number; other
        names are numbered from 1 in natural order); where the table has them,
        ``betas`` (one file per trial); in order of presentation.

    Raises
    ------
    CalcarineError
        If a column is missing, a trial names no stimulus, or a session is
        spread over several tables.
    """
    listed = [paths] if isinstance(paths, Path) else list(paths)
    tables = [_one_table(path) for path in listed]
    whole = pd.concat(tables, ignore_index=True)
    for name in ("session", "betas"):
        lacking = [
            path for path, table in zip(listed, tables, strict=True) if name not in table.columns
        ]
        if name in whole.columns and lacking:
            raise DamagedFileError(f"{lacking[0]} has no column {name}, and other tables have one.")
    if len(tables) > 1:
        if "session" not in whole.columns:
            numbers = np.arange(1, len(tables) + 1)
            return whole.assign(session=np.repeat(numbers, [len(table) for table in tables]))
        _check_apart(listed, tables)
    if "session" in whole.columns:
        whole["session"] = _numbers(whole["session"], listed[0])
    return whole


def _check_apart(paths: Sequence[Path], tables: Sequence[pd.DataFrame]) -> None:
    where: dict[str, Path] = {}
    for path, table in zip(paths, tables, strict=True):
        for session in table["session"].unique():
            if where.setdefault(session, path) != path:
                raise DamagedFileError(
                    f"{where[session]} and {path} both hold trials of session {session}; number "
                    "the sessions throughout, or leave the column out: each table is then one."
                )


def _one_table(path: Path) -> pd.DataFrame:
    """Return the columns ``stimulus``, ``session`` and ``betas`` of one table, as text."""
    table = texts_table(path, "table of trials", ("stimulus", "session", "betas"))
    if "stimulus" not in table.columns:
        raise DamagedFileError(
            f"The table of trials {path} has no column 'stimulus'; its columns are "
            f"{', '.join(table.columns)}."
        )
    empty = (table["stimulus"] == "").to_numpy()
    if empty.any():
        raise DamagedFileError(
            f"{path}: trial {int(np.argmax(empty)) + 1} names no stimulus; a table of trials lists "
            "the trials that have betas, one a row."
        )
    return table[[name for name in ("stimulus", "session", "betas") if name in table.columns]]


def _numbers(sessions: pd.Series, path: Path) -> list[int]:
    names = sorted(set(sessions), key=natural_key)
    if names[0] == "":
        raise DamagedFileError(f"{path}: a trial has no session; fill the column or leave it out.")
    if all(name.isdecimal() and len(name) < 10 for name in names):
        # 1 and 01 are one session.
        return [int(name) for name in sessions]
    place = {name: number for number, name in enumerate(names, 1)}
    return [place[name] for name in sessions]
