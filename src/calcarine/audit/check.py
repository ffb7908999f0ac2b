"""What a check of an audit is, what it may say, and the register of all checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

from calcarine.audit.findings import Finding
from calcarine.evaluation.registry import enter

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
    settle: ClassVar[str]

    @abstractmethod
    def look(self, inputs: AuditInputs) -> Finding:
        """Answer the question from what is there."""


CHECKS: dict[str, type[Check]] = {}
_C = TypeVar("_C", bound=type[Check])


def register_check(check: _C) -> _C:
    """Class decorator that makes a check known under its name."""
    enter(CHECKS, "checks", check.name, check)
    return check


def inconclusive(lacking: str) -> Finding:
    """The finding of a check that lacks what it needs."""
    return Finding("inconclusive", lacking)
