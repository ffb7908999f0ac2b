"""Results of checking a folder, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["CheckResult", "verdict"]

Status = Literal["ok", "note", "missing", "wrong"]


@dataclass(frozen=True)
class CheckResult:
    """One row of a check.

    Attributes
    ----------
    what
        File or property, in the data set's own words.
    status
        ``"ok"``; ``"note"`` (worth knowing, nothing to mend); ``"missing"``;
        ``"wrong"``.
    found
        What is there: shape, count, range.
    expected
        What is known of the official data, empty where nothing is.
    advice
        For what is missing or wrong: where it comes from or what to do.
    """

    what: str
    status: Status
    found: str = ""
    expected: str = ""
    advice: str = ""


def verdict(findings: Sequence[CheckResult]) -> str:
    """Summarise the results in one sentence."""
    count = {status: sum(f.status == status for f in findings) for status in ("missing", "wrong")}
    if not any(count.values()):
        return f"All {len(findings)} checks passed."
    parts = [f"{number} {status}" for status, number in count.items() if number]
    return f"{' and '.join(parts)} of {len(findings)} checks; their advice says what to do."
