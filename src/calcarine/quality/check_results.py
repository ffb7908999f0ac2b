"""Results of checking a folder of data: `CheckResult`, one row of a table."""

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
    what : str
        File or property, in the data set's own words.
    status : Status
        ``"ok"``; ``"note"`` (worth knowing, nothing to fix); ``"missing"``;
        ``"wrong"``.
    found : str
        What is there: shape, count, range.
    expected : str
        What is known of the official data, or empty.
    advice : str
        For what is missing or wrong: where it comes from or what to do.

    Examples
    --------
    >>> from calcarine.quality import CheckResult
    >>> advice = "Download it again."
    >>> result = CheckResult("betas.npy", "wrong", "(700, 20)", "(750, 20)", advice)
    >>> result.status, result.found, result.expected
    ('wrong', '(700, 20)', '(750, 20)')
    """

    what: str
    status: Status
    found: str = ""
    expected: str = ""
    advice: str = ""


def verdict(results: Sequence[CheckResult]) -> str:
    """Summarise the results in one sentence."""
    count = {status: sum(f.status == status for f in results) for status in ("missing", "wrong")}
    if not any(count.values()):
        return f"All {len(results)} checks passed."
    parts = [f"{number} {status}" for status, number in count.items() if number]
    return f"{' and '.join(parts)} of {len(results)} checks; the last column says what to do."
