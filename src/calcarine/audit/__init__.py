"""Whether a claimed decoding score is real: checks of anybody's reconstructions.

`audit` asks every registered check about a `AuditInputs`. What is not given cannot be checked, and
each check says what would settle it. A new check is one class under `register_check`.
"""

from __future__ import annotations

from calcarine.audit.check import CHECKS, Check, register_check
from calcarine.audit.findings import VERDICTS, EvidenceImage, EvidenceTable, Finding
from calcarine.audit.inputs import (
    AuditInputs,
    FitStatistics,
    PictureSet,
    Prediction,
    ReportedScore,
    SampleChoice,
    Selection,
    TrialTable,
)
from calcarine.audit.reported_scores import read_numbers
from calcarine.audit.runner import Audit, audit, checks

__all__ = [
    "CHECKS",
    "VERDICTS",
    "Audit",
    "AuditInputs",
    "Check",
    "EvidenceImage",
    "EvidenceTable",
    "Finding",
    "FitStatistics",
    "PictureSet",
    "Prediction",
    "ReportedScore",
    "SampleChoice",
    "Selection",
    "TrialTable",
    "audit",
    "checks",
    "read_numbers",
    "register_check",
]
