"""The table of trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calcarine.datasets.provider import natural
from calcarine.errors import CalcarineError
from calcarine.stimuli.tables import read_rows

__all__ = ["read_trials", "texts_table"]


def texts_table(path: Path, what: str, known: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of a table as text; see `calcarine.stimuli.tables.read_rows`.

    Raises
    ------
    CalcarineError
        If the file is no such table or is empty.
    """
    return read_rows(path, what, known)


def read_trials(path: Path) -> pd.DataFrame:
    """Stimulus of each trial, and its session where the table has it.

    Returns
    -------
    DataFrame
        ``stimulus`` (text) and, where known, ``session`` (whole number; other
        names are numbered from 1 in natural order), in order of presentation.

    Raises
    ------
    CalcarineError
        If a column is missing or a trial names no stimulus.
    """
    table = texts_table(path, "table of trials", ("stimulus", "session", "betas"))
    if "stimulus" not in table.columns:
        raise CalcarineError(
            f"The table of trials {path} has no column stimulus; it has {', '.join(table.columns)}."
        )
    empty = (table["stimulus"] == "").to_numpy()
    if empty.any():
        raise CalcarineError(
            f"{path}: trial {int(np.argmax(empty)) + 1} names no stimulus; a table of trials lists "
            "the trials that have betas, one a row."
        )
    found = pd.DataFrame({"stimulus": table["stimulus"]})
    if "session" in table.columns:
        found["session"] = _numbers(table["session"], path)
    return found


def _numbers(sessions: pd.Series, path: Path) -> list[int]:
    names = sorted(set(sessions), key=natural)
    if names[0] == "":
        raise CalcarineError(f"{path}: a trial has no session; fill the column or leave it out.")
    if all(name.isdecimal() and len(name) < 10 for name in names):
        # 1 and 01 are one session.
        return [int(name) for name in sessions]
    place = {name: number for number, name in enumerate(names, 1)}
    return [place[name] for name in sessions]
