"""How often the audit finds planted mistakes, and how often it finds what is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import calcarine.audit.selftest.injected_copies
import calcarine.audit.selftest.injected_errors  # noqa: F401 (they register)
from calcarine.audit.binomial import share
from calcarine.audit.runner import audit, checks
from calcarine.audit.selftest.cases import CASES, SelfTestCase

FLAGS = ("failed", "suspicious")
# What "most seeds" means: some checks are tests on few stimuli, which luck can hide.
_MOST = 0.75


@dataclass(frozen=True)
class Detection:
    """What the audit said of one mistake over seeds.

    Parameters
    ----------
    planted : SelfTestCase
    n : int
        Seeds.
    flagged : int
        Times that the check for it failed or was suspicious; of an honest pipeline, times that
        any check was that may not flag it.
    inconclusive : int
        Times that the check said it cannot be told.
    also : dict of str to int
        Other checks that failed or were suspicious, with how often.
    """

    case: SelfTestCase
    n: int
    flagged: int
    inconclusive: int
    also: dict[str, int]

    @property
    def right(self) -> bool:
        """Whether the audit said what it must.

        A mistake is found in at least three of four seeds, one that no output shows is never
        judged, and an honest pipeline is never flagged.
        """
        if not self.case.check:
            return self.flagged == 0
        if self.case.hidden:
            return self.inconclusive == self.n
        return self.flagged >= _MOST * self.n

    def row(self) -> tuple[str, str, str, str, str]:
        """For a table: mistake, check, how often, interval, and what else was flagged."""
        low, high = share(self.flagged, self.n)
        text = f"{self.flagged} of {self.n}"
        if self.case.hidden:
            text += f"; inconclusive: {self.inconclusive} of {self.n}"
        also = ", ".join(f"{name} {times}" for name, times in self.also.items())
        allowed = " and ".join(self.case.allowed)
        requested = self.case.check or (f"any but {allowed}" if allowed else "any")
        return (
            self.case.name,
            requested,
            text,
            f"{low:.0%} to {high:.0%}",
            also,
        )


def _asked(case: SelfTestCase) -> list[str]:
    """All checks, the slow one of claimed numbers only where it is at stake."""
    slow = "numbers-from-pictures"
    return [name for name in checks() if name != slow or case.numbers or case.check == slow]


HEADINGS = ("planted", "check", "flagged", "95 % interval", "other checks that flagged")


def detect(
    seeds: Sequence[int],
    case: Sequence[SelfTestCase] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Detection]:
    """Plant each mistake with each seed and audit the outcome.

    Parameters
    ----------
    seeds : sequence of int
    planted : sequence of SelfTestCase, optional
        All by default.
    progress : callable, optional
        Called with the name of each mistake.

    Returns
    -------
    list of Detection
    """
    result = []
    for each in CASES if case is None else case:
        if progress is not None:
            progress(each.name)
        hits = inconclusive = 0
        also: dict[str, int] = dict.fromkeys(checks(), 0)
        for seed in seeds:
            findings = audit(each.make(seed), _asked(each)).findings
            flagged = [name for name, f in findings.items() if f.verdict in FLAGS]
            wrong = set(flagged) - set(each.allowed)
            hits += each.check in flagged if each.check else bool(wrong)
            inconclusive += bool(each.check) and findings[each.check].verdict == "inconclusive"
            for name in flagged:
                also[name] += name != each.check
        others = {name: times for name, times in also.items() if times}
        result.append(Detection(each, len(seeds), int(hits), int(inconclusive), others))
    return result
