"""What a check of an audit is, what it may say, and the register of all checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

from calcarine.audit.findings import Finding
from calcarine.evaluation.registry import register_class

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs


class Check(ABC):
    """One question about a claimed score.

    Attributes
    ----------
    name : str
        In the register and in files.
    title : str
        For people.
    question : str
        In one sentence.
    settle : str
        What would settle it, where it cannot be told or is disputed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    evidence_needed: ClassVar[str]

    @abstractmethod
    def run(self, inputs: AuditInputs) -> Finding:
        """Answer the question from what is there."""


CHECKS: dict[str, type[Check]] = {}
_C = TypeVar("_C", bound=type[Check])


def register_check(check: _C) -> _C:
    """Class decorator that makes a check known under its name."""
    register_class(CHECKS, "checks", check.name, check)
    return check


def inconclusive(missing: str) -> Finding:
    """The finding of a check that lacks what it needs."""
    return Finding("inconclusive", missing)
