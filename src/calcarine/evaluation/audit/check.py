"""What a check of an audit is, what it may say, and the register of all checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from calcarine.evaluation.register import enter

if TYPE_CHECKING:
    from calcarine.evaluation.audit.material import Material

Verdict = Literal["passed", "failed", "suspicious", "cannot be told"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Table:
    """A small table of evidence.

    Parameters
    ----------
    columns : tuple of str
    rows : tuple of tuple of str
    caption : str
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of evidence with what stands below it.

    Parameters
    ----------
    picture : uint8 array of shape (height, width, 3)
    caption : str
    """

    picture: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True, eq=False)
class Finding:
    """What a check found.

    Parameters
    ----------
    verdict : {"passed", "failed", "suspicious", "cannot be told"}
    sentence : str
        What was found, in one or two sentences.
    numbers : dict of str to float, int, str or None
        The evidence in numbers, by what they are.
    tables : tuple of Table
    pictures : tuple of tuple of Shown
        Rows of pictures.
    """

    verdict: Verdict
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    pictures: tuple[tuple[Shown, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.verdict} is no verdict")


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
    def look(self, material: Material) -> Finding:
        """Answer the question from what is there."""


CHECKS: dict[str, type[Check]] = {}
_C = TypeVar("_C", bound=type[Check])


def register_check(check: _C) -> _C:
    """Class decorator that makes a check known under its name."""
    enter(CHECKS, "checks", check.name, check)
    return check


def untold(lacking: str) -> Finding:
    """The finding of a check that lacks what it needs."""
    return Finding("cannot be told", lacking)
