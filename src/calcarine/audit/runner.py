"""Run all checks of an audit and write their findings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import calcarine.audit.checks  # noqa: F401 (registers the checks)
from calcarine.audit.check import CHECKS
from calcarine.audit.findings import VERDICTS, Finding, Verdict
from calcarine.audit.inputs import AuditInputs
from calcarine.display import html_table, listed, text_table
from calcarine.files import write_text
from calcarine.files.registries import find_entry, load_entry_points

__all__ = ["ENTRY_POINTS", "FORMAT", "ORDER", "Audit", "audit", "list_checks"]

ENTRY_POINTS = "calcarine.audit_checks"
"""Group under which other packages register checks."""

FORMAT = "calcarine audit 1"
_FLAGS = ("failed", "suspicious")
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


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """Findings of all checks of one set of reconstructions.

    Parameters
    ----------
    inputs : AuditInputs
    findings : dict of str to Finding
        By the name of the check, in the order of the page.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> ids = [str(i) for i in range(12)]
    >>> pictures = PictureSet.of(ids, images)
    >>> result = audit(AuditInputs("copies", pictures, pictures), only=["truth-copies"])
    >>> result.failed, result.count("failed")
    (True, 1)
    """

    inputs: AuditInputs
    findings: dict[str, Finding]

    def __repr__(self) -> str:
        counts: dict[str, object] = {verdict: self.count(verdict) for verdict in VERDICTS}
        flagged = [name for name, f in self.findings.items() if f.verdict in _FLAGS]
        return text_table(self._title(), counts | ({"flagged": listed(flagged)} if flagged else {}))

    def _repr_html_(self) -> str:
        rows = {name: f"{f.verdict}: {f.sentence}" for name, f in self.findings.items()}
        return html_table(self._title(), rows)

    def _title(self) -> str:
        return f"Audit of {self.inputs.title}, {len(self.inputs)} test stimuli"

    def count(self, verdict: Verdict) -> int:
        """Return how many checks have a verdict."""
        return sum(result.verdict == verdict for result in self.findings.values())

    @property
    def failed(self) -> bool:
        """Return whether any check failed."""
        return self.count("failed") > 0

    @property
    def sentence(self) -> str:
        """Return the outcome in one or two sentences."""
        counts = {verdict: self.count(verdict) for verdict in VERDICTS}
        rest = f"{len(self.findings)} checks: " + ", ".join(
            f"{count} {verdict}" for verdict, count in counts.items()
        )
        rest += "."
        if counts["failed"]:
            titles = [
                CHECKS[name].title for name, f in self.findings.items() if f.verdict == "failed"
            ]
            return f"Problems found: {'; '.join(titles)}. {rest}"
        if counts["suspicious"]:
            return f"No check failed, but some findings need an explanation. {rest}"
        if counts["passed"] < len(self.findings) / 2:
            return f"No problem found, but most checks lack the inputs that they need. {rest}"
        return f"No problem found. {rest}"

    def content(self) -> dict[str, Any]:
        """Return everything except the pictures, ready for JSON."""
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
                    "evidence_needed": CHECKS[name].evidence_needed,
                }
                for name, result in self.findings.items()
            ],
        }

    def write(self, path: Path) -> None:
        """Write the findings as JSON, atomically."""
        write_text(path, json.dumps(self.content(), indent=1, ensure_ascii=False) + "\n")


def audit(
    inputs: AuditInputs,
    only: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Audit:
    """Run checks on a set of reconstructions.

    Parameters
    ----------
    inputs : AuditInputs
        From `inputs_from_folders`, or made from arrays.
    only : sequence of str, optional
        Names of the checks to run, from `list_checks`; all by default.
    progress : callable, optional
        Called with the title of each check before it runs.

    Returns
    -------
    Audit

    Raises
    ------
    SettingError
        If no check has a name in ``only``.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> ids = [str(i) for i in range(12)]
    >>> inputs = AuditInputs("my decoder", PictureSet.of(ids, images), PictureSet.of(ids, images))
    >>> audit(inputs, only=["truth-copies"]).findings["truth-copies"].verdict
    'failed'
    """
    known = list_checks()
    chosen = {name: find_entry(CHECKS, "check", name) for name in (known if only is None else only)}
    result = {}
    for name, make_check in chosen.items():
        check = make_check()
        if progress is not None:
            progress(check.title)
        result[name] = check.run(inputs)
    return Audit(inputs, result)


def list_checks() -> list[str]:
    """Return the names of all checks in the order of the page, other packages' checks last.

    Examples
    --------
    >>> from calcarine.audit import list_checks
    >>> list_checks()[:3]
    ['split-leaks', 'repeats-over-folds', 'near-duplicates']
    """
    load_entry_points(ENTRY_POINTS)
    return [*ORDER, *(name for name in CHECKS if name not in ORDER)]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
