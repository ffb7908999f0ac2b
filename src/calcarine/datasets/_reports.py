"""Findings of checks: collected up to what stops them, and counts against known ones."""

from __future__ import annotations

from collections.abc import Iterable

from calcarine.datasets.quality.findings import Finding
from calcarine.errors import CalcarineError

__all__ = ["collected", "compared"]


def collected(report: Iterable[Finding], what: str, advice: str) -> list[Finding]:
    """All findings of a report; an error that stops it becomes the last one.

    Parameters
    ----------
    report
        Findings as they come.
    what, advice
        Of the finding that an error becomes.
    """
    found: list[Finding] = []
    try:
        for finding in report:
            found.append(finding)  # noqa: PERF402 -- what came before an error stays
    except CalcarineError as error:
        found.append(Finding(what, "wrong", str(error), "", advice))
    return found


def compared(what: str, number: float, known: float) -> Finding:
    """A count against the published one; another count is worth a note."""
    if abs(number - known) < 1e-6:
        return Finding(what, "ok", f"{number:g}", f"{known:g}")
    return Finding(what, "note", f"{number:g}", f"{known:g}", "other than published: a part of it?")
