"""Results of checks of data folders: collecting them, and comparing counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.brain.scaling import ZScore, describe_scaling, scaling_plan
from calcarine.datasets._data_files import is_simulated
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult

__all__ = [
    "check_finite_voxels",
    "collect_results",
    "compare_count",
    "compare_text",
    "count_constant",
    "scaling_result",
    "simulated_result",
]


def collect_results(report: Iterable[CheckResult], what: str, advice: str) -> list[CheckResult]:
    """Collect the results of a check; an error that stops it becomes the last one.

    Parameters
    ----------
    report : iterable of CheckResult
        Results as they come.
    what, advice : str
        Name of the result that an error becomes.
    """
    results: list[CheckResult] = []
    try:
        for result in report:
            results.append(result)  # noqa: PERF402 -- what came before an error stays
    except CalcarineError as error:
        results.append(CheckResult(what, "wrong", str(error), "", advice))
    return results


def compare_count(what: str, number: float, known: float) -> CheckResult:
    """Compare a count with the published one; a difference is a note."""
    return _against(what, f"{number:g}", f"{known:g}", abs(number - known) < 1e-6, "published")


def compare_text(what: str, found: str, known: str, reference: str) -> CheckResult:
    """Compare a text with a known one; a difference is a note."""
    return _against(what, found, known, found == known, reference)


def _against(what: str, found: str, known: str, same: bool, reference: str) -> CheckResult:
    if same:
        return CheckResult(what, "ok", found, known)
    return CheckResult(what, "note", found, known, f"differs from {reference}: a part of it?")


def scaling_result(
    what: str, sessions: ArrayLike, trains: Sequence[NDArray[np.bool_]], zscore: ZScore = "session"
) -> CheckResult:
    """Report which trials scale the sessions; a note unless they are their own training trials.

    Parameters
    ----------
    what : str
        Name of the result.
    sessions, trains, zscore
        See `calcarine.brain.scaling.describe_scaling`.

    Raises
    ------
    CalcarineError
        If there are too few trials to scale by, so that loading would refuse.
    """
    result = describe_scaling(zscore, sessions, trains)
    if zscore == "session-all":
        advice = "Test responses give means and scales; the audit of a run says so."
        return CheckResult(what, "note", result, "", advice)
    plans = [scaling_plan(sessions, train, zscore) for train in trains]
    if zscore == "session" and any("training" in plan.values() for plan in plans):
        return CheckResult(
            what, "note", result, "", "See zscore in docs/own-data.md for other methods."
        )
    return CheckResult(what, "ok", result)


def check_finite_voxels(what: str, values: NDArray[Any], advice: str) -> list[CheckResult]:
    """Return a result if voxels (columns of ``values``) hold NaN or infinity."""
    lost = int((~np.isfinite(values)).any(0).sum())
    if not lost:
        return []
    return [CheckResult(what, "wrong", f"{lost} voxels with NaN or infinity", "none", advice)]


def count_constant(values: NDArray[Any]) -> int:
    """Return how many columns of ``values`` never change."""
    return int((values.max(0) == values.min(0)).sum())


def simulated_result(place: Path) -> list[CheckResult]:
    """Return a note if the files in a folder were written by ``fake``."""
    if not is_simulated(place):
        return []
    return [CheckResult("SIMULATED.txt", "note", "simulated content, nothing measured")]
