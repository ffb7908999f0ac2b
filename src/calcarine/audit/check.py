"""The base class of the checks of an audit, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

from calcarine.audit.findings import Finding
from calcarine.files.registries import register_entry

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs

__all__ = ["CHECKS", "Check", "inconclusive", "register_check"]


class Check(ABC):
    """One question about reported reconstructions or scores.

    Attributes
    ----------
    name : str
        Name in the registry and in files.
    title : str
        Name for people.
    question : str
        The question in one sentence.
    evidence_needed : str
        The evidence that would answer the question if the check is inconclusive or disputed.

    Examples
    --------
    >>> from calcarine.audit import Check, Finding, register_check
    >>> @register_check
    ... class EnoughStimuli(Check):
    ...     name = "enough-stimuli"
    ...     title = "Number of test stimuli"
    ...     question = "Are there at least 20 test stimuli?"
    ...     evidence_needed = "More test stimuli."
    ...
    ...     def run(self, inputs):
    ...         verdict = "passed" if len(inputs) >= 20 else "suspicious"
    ...         return Finding(verdict, f"There are {len(inputs)} test stimuli.")
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    evidence_needed: ClassVar[str]

    @abstractmethod
    def run(self, inputs: AuditInputs) -> Finding:
        """Answer the question from the inputs that are given.

        Parameters
        ----------
        inputs : AuditInputs

        Returns
        -------
        Finding
        """


CHECKS: dict[str, type[Check]] = {}
"""Classes of checks by name, in the order in which they are registered."""
_C = TypeVar("_C", bound=type[Check])


def register_check(check: _C) -> _C:
    """Register a check under its name; use it as a class decorator.

    Parameters
    ----------
    check : type of Check

    Returns
    -------
    type of Check
        The same class.

    Raises
    ------
    SettingError
        If another check has this name.
    """
    register_entry(CHECKS, "checks", check.name, check)
    return check


def inconclusive(reason: str) -> Finding:
    """Return the finding of a check that lacks its inputs."""
    return Finding("inconclusive", reason)
