"""Unblinded answers, as rows and as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calcarine.errors import CalcarineError
from calcarine.files import write_text
from calcarine.study.design import CATCH, MAIN, PRACTICE
from calcarine.study.store import Study, StudyDatabaseError

__all__ = ["AnswerRow", "export_answers", "read_answers"]


@dataclass(frozen=True)
class AnswerRow:
    """One answer, unblinded.

    Attributes
    ----------
    rater : str
        Pseudonym.
    position : int
        Position of the trial among all trials of the rater, from 0.
    part : {"practice", "catch", "main"}
    comparison, kind : str
        Name and kind of the comparison; for practice and catch trials the part.
    original : str
        Id of the original.
    first, second, second_of : str
        Methods of the two candidates, and the original of the second candidate.
    first_left : bool
    choice : {"left", "right"}
    first_chosen : bool
        Whether the first candidate was chosen; in identification, practice and catch trials this
        is the correct answer.
    client_ms, paused_ms, server_ms : float
        Response time and pauses by the clock of the page; time since the trial was last sent by
        the clock of the server.
    input : {"key", "mouse", "touch"}
    times_shown : int
        More than 1 if the rater returned to this trial.
    answered : str
        Time of the answer in UTC.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, read_answers
    >>> answers = read_answers(Study(Path("study")))  # doctest: +SKIP
    >>> [(row.rater, row.choice, row.client_ms) for row in answers]  # doctest: +SKIP
    """

    rater: str
    position: int
    part: str
    comparison: str
    kind: str
    original: str
    first: str
    second: str
    second_of: str
    first_left: bool
    choice: str
    first_chosen: bool
    client_ms: float
    paused_ms: float
    server_ms: float
    input: str
    times_shown: int
    answered: str


_ROWS = """
SELECT r.name AS rater, t.position, q.part, q.comparison, o.original, f.method AS first,
       s.method AS second, s.original AS second_of, t.first_left, a.choice, a.client_ms,
       a.paused_ms, a.server_ms, a.input, coalesce(h.times, 0) AS times_shown, a.answered
FROM answers a JOIN trials t ON t.id = a.trial JOIN raters r ON r.id = t.rater
JOIN questions q ON q.id = t.question JOIN images o ON o.id = q.original_image
JOIN images f ON f.id = q.first_image JOIN images s ON s.id = q.second_image
LEFT JOIN shown h ON h.trial = t.id
ORDER BY r.id, t.position
"""


def read_answers(study: Study) -> list[AnswerRow]:
    """Read all answers in the order of raters and trials.

    Parameters
    ----------
    study : Study

    Returns
    -------
    list of AnswerRow

    Raises
    ------
    StudyDatabaseError
        If a row of the database is invalid.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, read_answers
    >>> answers = read_answers(Study(Path("study")))  # doctest: +SKIP
    >>> [answer.first_chosen for answer in answers if answer.part == "catch"]  # doctest: +SKIP
    """
    with study.connection() as con:
        result = con.execute(_ROWS).fetchall()
    try:
        return [_row(study, dict(row)) for row in result]
    except (IndexError, TypeError, ValueError, OverflowError, OSError) as error:
        raise StudyDatabaseError(study.database, error) from error


def _row(study: Study, result: dict[str, Any]) -> AnswerRow:
    if result["part"] not in (MAIN, CATCH, PRACTICE):
        raise ValueError(f"{result['part']!r} is not a part of a study")
    for name in ("client_ms", "paused_ms", "server_ms"):
        if not isinstance(result[name], float):
            raise TypeError(f"{result[name]!r} is no time")
    main = result["part"] == MAIN
    comparison = study.settings.comparisons[result["comparison"]] if main else None
    left = bool(result["first_left"])
    result.update(
        comparison=comparison.name if comparison else result["part"],
        kind=comparison.kind if comparison else result["part"],
        first_left=left,
        first_chosen=(result["choice"] == "left") == left,
        answered=datetime.fromtimestamp(result["answered"], UTC).isoformat(timespec="milliseconds"),
    )
    return AnswerRow(**result)


def export_answers(study: Study, out: Path) -> int:
    """Write the answers as CSV, one line for each answer.

    Parameters
    ----------
    study : Study
    out : Path
        Path of the file; its columns are those of `AnswerRow` and ``simulated``.

    Returns
    -------
    int
        Number of answers.

    Raises
    ------
    CalcarineError
        If there is no answer yet.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, export_answers
    >>> export_answers(Study(Path("study")), Path("answers.csv"))  # doctest: +SKIP
    180
    """
    rows = read_answers(study)
    if not rows:
        raise CalcarineError(f"{study.path} has no answers yet; send the links to the raters.")
    simulated = {True: "yes", False: "no", None: "not stated"}[study.settings.simulated]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(field.name for field in fields(AnswerRow)), "simulated"])
    for row in rows:
        writer.writerow([_cell(value) for value in asdict(row).values()] + [simulated])
    write_text(Path(out), text.getvalue())
    return len(rows)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return round(value, 1) if isinstance(value, float) else value
