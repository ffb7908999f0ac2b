"""The session of a rater: the current trial, and answers to it."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from calcarine.study.design import PRACTICE
from calcarine.study.store import Study

__all__ = ["NotOpenError", "RaterAnswer", "answer", "consent", "image_file", "progress", "state"]

_TRIAL = (
    "SELECT t.*, q.part, a.choice FROM trials t JOIN questions q ON q.id = t.question "
    "LEFT JOIN answers a ON a.trial = t.id "
)
# The current trial, and the next one, for which the page preloads pictures.
_OPEN = _TRIAL + "WHERE t.rater = ? AND a.trial IS NULL ORDER BY t.position LIMIT 2"


@dataclass(frozen=True)
class RaterAnswer:
    """One answer as the page sends it.

    Attributes
    ----------
    trial : str
        Random key of the trial.
    choice : {"left", "right"}
    client_ms : float
        Response time without pauses, in milliseconds.
    paused_ms : float
        Duration of pauses, in milliseconds.
    input : {"key", "mouse", "touch"}
    """

    trial: str
    choice: str
    client_ms: float
    paused_ms: float
    input: str


class NotOpenError(Exception):
    """The trial is not the current one of the rater; ``known``: whether it belongs to the rater."""

    def __init__(self, known: bool) -> None:
        self.known = known


def state(con: sqlite3.Connection, rater: sqlite3.Row) -> dict[str, Any]:
    """Return what the page shows now, without information about the pictures.

    Parameters
    ----------
    con : sqlite3.Connection
        In a transaction, because showing the trial is recorded.
    rater : sqlite3.Row

    Returns
    -------
    dict
        ``phase`` is "consent", "trial" or "done".
    """
    if rater["consented"] is None:
        return {"phase": "consent"}
    waiting = con.execute(_OPEN, (rater["id"],)).fetchall()
    if not waiting:
        return {"phase": "done"}
    current = waiting[0]
    practice = current["part"] == PRACTICE
    done, total = _progress(con, rater["id"], practice)
    now = time.time()
    con.execute(
        "INSERT INTO shown VALUES (?, ?, ?, 1) "
        "ON CONFLICT (trial) DO UPDATE SET last = excluded.last, times = times + 1",
        (current["id"], now, now),
    )
    return {
        "phase": "trial",
        "practice": practice,
        "done": done,
        "total": total,
        "trial": current["key"],
        "images": _tokens(current),
        "ahead": [token for row in waiting[1:] for token in _tokens(row).values()],
    }


def consent(con: sqlite3.Connection, rater: sqlite3.Row) -> None:
    """Record the consent of the rater; the first time counts."""
    con.execute(
        "UPDATE raters SET consented = coalesce(consented, ?) WHERE id = ?",
        (time.time(), rater["id"]),
    )


def answer(con: sqlite3.Connection, rater: sqlite3.Row, given: RaterAnswer) -> dict[str, Any]:
    """Record an answer to the current trial.

    Parameters
    ----------
    con : sqlite3.Connection
        In a transaction, which is committed before the rater gets a response.
    rater : sqlite3.Row
    given : RaterAnswer

    Returns
    -------
    dict
        ``recorded``: the recorded side, which is the first one that was sent; ``feedback`` for
        practice trials, else None.

    Raises
    ------
    NotOpenError
        If the trial is not the current one and has no answer.
    """
    row = con.execute(
        _TRIAL + "WHERE t.key = ? AND t.rater = ?", (given.trial, rater["id"])
    ).fetchone()
    if row is None or rater["consented"] is None:
        raise NotOpenError(known=False)
    recorded = row["choice"]
    if recorded is None:
        current = con.execute(_OPEN, (rater["id"],)).fetchone()
        if current["id"] != row["id"]:
            raise NotOpenError(known=True)
        recorded = given.choice
        _record(con, row["id"], given)
    right = (recorded == "left") == bool(row["first_left"])
    feedback = ("right" if right else "wrong") if row["part"] == PRACTICE else None
    return {"recorded": recorded, "feedback": feedback}


def image_file(con: sqlite3.Connection, rater: sqlite3.Row, token: str) -> str | None:
    """Return the file name of a picture in the current or next trial of the rater, else None."""
    if rater["consented"] is None:
        return None
    for row in con.execute(_OPEN, (rater["id"],)).fetchall():
        for side, value in _tokens(row).items():
            if value == token:
                return _file(con, row, side)
    return None


def progress(study: Study) -> list[tuple[str, int, int]]:
    """Return pseudonym, number of answers and number of trials of every rater."""
    with study.connection() as con:
        return [
            (row["name"], row["answered"], row["total"])
            for row in con.execute(
                "SELECT r.name, count(t.id) AS total, count(a.trial) AS answered FROM raters r "
                "JOIN trials t ON t.rater = r.id LEFT JOIN answers a ON a.trial = t.id "
                "GROUP BY r.id ORDER BY r.id"
            )
        ]


def _record(con: sqlite3.Connection, trial: int, given: RaterAnswer) -> None:
    now = time.time()
    shown = con.execute("SELECT last FROM shown WHERE trial = ?", (trial,)).fetchone()
    con.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            trial,
            given.choice,
            given.client_ms,
            given.paused_ms,
            1000 * max(0.0, now - (shown["last"] if shown else now)),
            given.input,
            now,
        ),
    )


def _progress(con: sqlite3.Connection, rater: int, practice: bool) -> tuple[int, int]:
    row = con.execute(
        "SELECT count(a.trial) AS done, count(*) AS total FROM trials t "
        "JOIN questions q ON q.id = t.question LEFT JOIN answers a ON a.trial = t.id "
        "WHERE t.rater = ? AND (q.part = ?) = ?",
        (rater, PRACTICE, practice),
    ).fetchone()
    return row["done"], row["total"]


def _tokens(trial: sqlite3.Row) -> dict[str, str]:
    return {side: trial[f"{side}_token"] for side in ("original", "left", "right")}


def _file(con: sqlite3.Connection, trial: sqlite3.Row, side: str) -> str:
    first = (side == "left") == bool(trial["first_left"])
    column = "original_image" if side == "original" else f"{'first' if first else 'second'}_image"
    row = con.execute(
        f"SELECT i.file FROM questions q JOIN images i ON i.id = q.{column} WHERE q.id = ?",
        (trial["question"],),
    ).fetchone()
    return str(row["file"])
