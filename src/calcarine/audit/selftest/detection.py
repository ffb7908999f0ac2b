"""Count how often the audit detects injected errors and how often it flags valid pipelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import calcarine.audit.selftest.injected_copies
import calcarine.audit.selftest.injected_errors
import calcarine.audit.selftest.valid_pipelines  # noqa: F401 (registers the cases)
from calcarine.audit.binomial import proportion_interval
from calcarine.audit.runner import audit, list_checks
from calcarine.audit.selftest.cases import CASES, SelfTestCase

__all__ = ["HEADINGS", "Detection", "detect"]

FLAGS = ("failed", "suspicious")
HEADINGS = ("simulated pipeline", "check", "flagged", "95 % interval", "other checks that flagged")
"""Headings of the table of detections."""
# Smallest detection rate; some checks are tests on few stimuli, which can miss an error.
_LEAST_RATE = 0.75
_SLOW = "numbers-from-pictures"


@dataclass(frozen=True)
class Detection:
    """Verdicts of the audit on one case, over seeds.

    Parameters
    ----------
    case : SelfTestCase
    n : int
        Number of seeds.
    flagged : int
        For an injected error: how often its check failed or was suspicious. For a valid pipeline:
        how often any check did that is not allowed to.
    inconclusive : int
        How often the check of the error was inconclusive.
    also : dict of str to int
        Other checks that failed or were suspicious, and how often.

    Examples
    --------
    >>> from calcarine.audit.selftest import CASES, HEADINGS, Detection
    >>> detection = Detection(CASES[0], n=20, flagged=19, inconclusive=1, also={})
    >>> HEADINGS[2:4], detection.row()[2:4]
    (('flagged', '95 % interval'), ('19 of 20', '75% to 100%'))
    """

    case: SelfTestCase
    n: int
    flagged: int
    inconclusive: int
    also: dict[str, int]

    @property
    def right(self) -> bool:
        """Whether the audit is right on this case.

        An injected error must be flagged in at least three of four seeds, an undetectable one must
        always be inconclusive, and a valid pipeline must never be flagged.
        """
        if not self.case.check:
            return self.flagged == 0
        if self.case.undetectable:
            return self.inconclusive == self.n
        return self.flagged >= _LEAST_RATE * self.n

    def row(self) -> tuple[str, str, str, str, str]:
        """Return a table row under `HEADINGS`."""
        low, high = proportion_interval(self.flagged, self.n)
        text = f"{self.flagged} of {self.n}"
        if self.case.undetectable:
            text += f"; inconclusive: {self.inconclusive} of {self.n}"
        also = ", ".join(f"{name} {times}" for name, times in self.also.items())
        allowed = " and ".join(self.case.allowed)
        check = self.case.check or (f"any except {allowed}" if allowed else "any")
        return self.case.name, check, text, f"{low:.0%} to {high:.0%}", also


def _checks_of(case: SelfTestCase) -> list[str]:
    """Return the checks to run: all, with the slow one only for cases that concern it."""
    return [name for name in list_checks() if name != _SLOW or case.numbers or case.check == _SLOW]


def detect(
    seeds: Sequence[int],
    cases: Sequence[SelfTestCase] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Detection]:
    """Simulate each case with each seed, audit it, and count the verdicts.

    Parameters
    ----------
    seeds : sequence of int
    cases : sequence of SelfTestCase, optional
        All by default.
    progress : callable, optional
        Called with the name of each case.

    Returns
    -------
    list of Detection

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet
    >>> from calcarine.audit.selftest import SelfTestCase, detect
    >>> def copies(seed):
    ...     images = np.random.default_rng(seed).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    ...     pictures = PictureSet.of(["a", "b", "c", "d"], images)
    ...     return AuditInputs("copies", pictures, pictures)
    >>> case = SelfTestCase("copies of the ground truth", "truth-copies", copies)
    >>> [detection.flagged for detection in detect([0], [case])]  # doctest: +SKIP
    [1]
    """
    result = []
    for case in CASES if cases is None else cases:
        if progress is not None:
            progress(case.name)
        hits = inconclusive = 0
        also: dict[str, int] = dict.fromkeys(list_checks(), 0)
        for seed in seeds:
            findings = audit(case.make(seed), _checks_of(case)).findings
            flagged = [name for name, f in findings.items() if f.verdict in FLAGS]
            wrong = set(flagged) - set(case.allowed)
            hits += case.check in flagged if case.check else bool(wrong)
            inconclusive += bool(case.check) and findings[case.check].verdict == "inconclusive"
            for name in flagged:
                also[name] += name != case.check
        others = {name: times for name, times in also.items() if times}
        result.append(Detection(case, len(seeds), int(hits), int(inconclusive), others))
    return result
