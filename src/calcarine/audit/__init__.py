"""Check whether a reported decoding score is real.

`audit` runs every registered check on an `AuditInputs`, which `inputs_from_folders` makes from
anybody's files, and returns an `Audit`. A check that lacks its inputs is inconclusive and names the
evidence it needs. Add a check with `register_check`, or from your own package under the entry-point
group ``calcarine.audit_checks``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.audit.check import (
        CHECKS,
        Check,
        register_check,
    )
    from calcarine.audit.findings import (
        VERDICTS,
        EvidenceImage,
        EvidenceTable,
        Finding,
    )
    from calcarine.audit.folders import (
        inputs_from_folders,
    )
    from calcarine.audit.inputs import (
        AuditInputs,
        DecoderChoices,
        FitStatistics,
        PictureSet,
        Prediction,
        ReportedScore,
        SampleChoice,
        TrialTable,
    )
    from calcarine.audit.reported_scores import (
        read_numbers,
    )
    from calcarine.audit.runner import (
        Audit,
        audit,
        list_checks,
    )

# Where each public name is defined: a name is imported when it is first used, so that
# importing one module of this package imports nothing heavy.
_SOURCES = {
    "CHECKS": "check",
    "VERDICTS": "findings",
    "Audit": "runner",
    "AuditInputs": "inputs",
    "Check": "check",
    "EvidenceImage": "findings",
    "EvidenceTable": "findings",
    "Finding": "findings",
    "FitStatistics": "inputs",
    "PictureSet": "inputs",
    "Prediction": "inputs",
    "ReportedScore": "inputs",
    "SampleChoice": "inputs",
    "DecoderChoices": "inputs",
    "TrialTable": "inputs",
    "audit": "runner",
    "inputs_from_folders": "folders",
    "list_checks": "runner",
    "read_numbers": "reported_scores",
    "register_check": "check",
}

__all__ = [
    "CHECKS",
    "VERDICTS",
    "Audit",
    "AuditInputs",
    "Check",
    "DecoderChoices",
    "EvidenceImage",
    "EvidenceTable",
    "Finding",
    "FitStatistics",
    "PictureSet",
    "Prediction",
    "ReportedScore",
    "SampleChoice",
    "TrialTable",
    "audit",
    "inputs_from_folders",
    "list_checks",
    "read_numbers",
    "register_check",
]


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
