"""All checks of one claim, and the file of their findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import calcarine.audit.checks  # noqa: F401 (registers the checks)
from calcarine.audit.check import CHECKS, Check
from calcarine.audit.findings import VERDICTS, Finding, Verdict
from calcarine.audit.inputs import AuditInputs
from calcarine.errors import CalcarineError
from calcarine.files import write_text

FORMAT = "calcarine audit 1"
ORDER = (
    "split-leaks",
    "repeats-over-folds",
    "near-duplicates",
    "statistics-from-test",
    "transductive-prediction",
    "pretraining-on-test",
    "choices-on-test",
    "chosen-stimuli",
    "best-of-samples",
    "truth-copies",
    "pixel-blends",
    "retrieval",
    "numbers-from-pictures",
    "score-by-distance",
    "dimension-collapse",
    "ignores-the-brain",
)


@dataclass(frozen=True, eq=False)
class Audit:
    """Findings of all checks of one claim.

    Parameters
    ----------
    inputs : AuditInputs
    findings : dict of str to Finding
        By the name of the check, in order.
    """

    inputs: AuditInputs
    findings: dict[str, Finding]

    def count(self, verdict: Verdict) -> int:
        """How many checks ended so."""
        return sum(result.verdict == verdict for result in self.findings.values())

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return self.count("failed") > 0

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        counts = {verdict: self.count(verdict) for verdict in VERDICTS}
        rest = (
            f"Of {len(self.findings)} checks {counts['passed']} passed, {counts['failed']} failed; "
            f"suspicious: {counts['suspicious']}, inconclusive: {counts['inconclusive']}."
        )
        if counts["failed"]:
            titles = [
                CHECKS[name].title for name, f in self.findings.items() if f.verdict == "failed"
            ]
            return f"Not as claimed: {'; '.join(titles)}. {rest}"
        if counts["suspicious"]:
            return f"No check failed, but there are open questions. {rest}"
        if counts["passed"] < len(self.findings) / 2:
            return f"Nothing speaks against it, but little could be looked at. {rest}"
        return f"Nothing that was looked at speaks against it. {rest}"

    def content(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        from calcarine import __version__

        inputs = self.inputs
        return {
            "format": FORMAT,
            "calcarine": __version__,
            "title": inputs.title,
            "simulated": inputs.simulated,
            "n_test": len(inputs),
            "n_train": None if inputs.train is None else len(inputs.train),
            "samples": inputs.recon.samples,
            "given": list(inputs.given),
            "outcome": self.sentence,
            "verdicts": {verdict: self.count(verdict) for verdict in VERDICTS},
            "checks": [
                {
                    "name": name,
                    "title": CHECKS[name].title,
                    "question": CHECKS[name].question,
                    "verdict": result.verdict,
                    "finding": result.sentence,
                    "numbers": {key: _plain(value) for key, value in result.numbers.items()},
                    "tables": [
                        {
                            "caption": table.caption,
                            "columns": list(table.columns),
                            "rows": [list(row) for row in table.rows],
                        }
                        for table in result.tables
                    ],
                    "settle": CHECKS[name].evidence_needed,
                }
                for name, result in self.findings.items()
            ],
        }

    def write(self, path: Path) -> None:
        """Write the findings as JSON, whole or not at all."""
        write_text(path, json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n")


def audit(
    inputs: AuditInputs,
    only: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Audit:
    """Ask every check.

    Parameters
    ----------
    inputs : AuditInputs
    only : sequence of str, optional
        Names of checks; all by default.
    progress : callable, optional
        Called with the title of each check before it looks.

    Returns
    -------
    Audit

    Raises
    ------
    CalcarineError
        If there is no check of a name.
    """
    names = checks() if only is None else list(only)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise CalcarineError(f"There is no check {unknown[0]!r}; there are: {', '.join(checks())}.")
    result = {}
    for name in names:
        check: Check = CHECKS[name]()
        if progress is not None:
            progress(check.title)
        result[name] = check.run(inputs)
    return Audit(inputs, result)


def checks() -> list[str]:
    """Names of all checks, in the order of the page; added ones come last."""
    return [*ORDER, *(name for name in CHECKS if name not in ORDER)]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
