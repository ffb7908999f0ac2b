"""Whether a claimed decoding score is real: checks of anybody's reconstructions.

`audit` asks every registered check about a `Material`. What is not given cannot be checked, and
each check says what would settle it. A new check is one class under `register_check`.
"""

from __future__ import annotations

from calcarine.audit.audit import Audit, audit, checks
from calcarine.audit.audit_inputs import (
    Choice,
    Material,
    Number,
    PictureSet,
    Prediction,
    Selection,
    Statistics,
    Trials,
)
from calcarine.audit.check import CHECKS, Check, register_check
from calcarine.audit.claimed_scores import read_numbers
from calcarine.audit.findings import VERDICTS, Finding, Shown, Table

__all__ = [
    "CHECKS",
    "VERDICTS",
    "Audit",
    "Check",
    "Choice",
    "Finding",
    "Material",
    "Number",
    "PictureSet",
    "Prediction",
    "Selection",
    "Shown",
    "Statistics",
    "Table",
    "Trials",
    "audit",
    "checks",
    "read_numbers",
    "register_check",
]
