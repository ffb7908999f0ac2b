"""Findings of checks: collected up to what stops them, and counts against known ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.brain.scaling import ZScore, describe_scaling, scaling_plan
from calcarine.datasets._data_files import is_simulated
from calcarine.errors import CalcarineError
from calcarine.quality.findings import CheckResult

__all__ = [
    "collected",
    "compared",
    "constant",
    "matched",
    "not_finite",
    "scaling_finding",
    "simulated_note",
]


def collected(report: Iterable[CheckResult], what: str, advice: str) -> list[CheckResult]:
    """All findings of a report; an error that stops it becomes the last one.

    Parameters
    ----------
    report
        Findings as they come.
    what, advice
        Of the finding that an error becomes.
    """
    found: list[CheckResult] = []
    try:
        for finding in report:
            found.append(finding)  # noqa: PERF402 -- what came before an error stays
    except CalcarineError as error:
        found.append(CheckResult(what, "wrong", str(error), "", advice))
    return found


def compared(what: str, number: float, known: float) -> CheckResult:
    """A count against the published one; another count is worth a note."""
    return _against(what, f"{number:g}", f"{known:g}", abs(number - known) < 1e-6, "published")


def matched(what: str, found: str, known: str, whose: str) -> CheckResult:
    """What was found, in words, against what is known; another is worth a note."""
    return _against(what, found, known, found == known, whose)


def _against(what: str, found: str, known: str, same: bool, whose: str) -> CheckResult:
    if same:
        return CheckResult(what, "ok", found, known)
    return CheckResult(what, "note", found, known, f"other than {whose}: a part of it?")


def scaling_finding(
    what: str, sessions: ArrayLike, trains: Sequence[NDArray[np.bool_]], zscore: ZScore = "session"
) -> CheckResult:
    """By which trials sessions are scaled, a note where not by their own training trials.

    Parameters
    ----------
    what
        Of the finding.
    sessions, trains, zscore
        See `calcarine.brain.scaling.describe_scaling`.

    Raises
    ------
    CalcarineError
        If there are too few trials to scale by, so that loading would refuse.
    """
    found = describe_scaling(zscore, sessions, trains)
    if zscore == "session-all":
        advice = "Test responses give means and scales; the audit of a run says so."
        return CheckResult(what, "note", found, "", advice)
    plans = [scaling_plan(sessions, train, zscore) for train in trains]
    if zscore == "session" and any("training" in plan.values() for plan in plans):
        return CheckResult(
            what, "note", found, "", "docs/own-data.md shows other settings of zscore."
        )
    return CheckResult(what, "ok", found)


def not_finite(what: str, values: NDArray[Any], advice: str) -> list[CheckResult]:
    """A finding if voxels, the columns of ``values``, hold NaN or infinity."""
    lost = int((~np.isfinite(values)).any(0).sum())
    if not lost:
        return []
    return [CheckResult(what, "wrong", f"{lost} voxels with NaN or infinity", "none", advice)]


def constant(values: NDArray[Any]) -> int:
    """How many columns of ``values`` never change."""
    return int((values.max(0) == values.min(0)).sum())


def simulated_note(place: Path) -> list[CheckResult]:
    """A note if the data root, or that of a file, was written by ``fake``."""
    if not is_simulated(place):
        return []
    return [CheckResult("SIMULATED.txt", "note", "simulated content, nothing measured")]
