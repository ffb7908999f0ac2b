"""The finding of a check: a verdict, a sentence, numbers, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from calcarine.display import html_table, text_table

__all__ = ["VERDICTS", "EvidenceImage", "EvidenceTable", "Finding", "Verdict"]

Verdict = Literal["passed", "failed", "suspicious", "inconclusive"]


VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""What a check may conclude."""


@dataclass(frozen=True)
class EvidenceTable:
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
class EvidenceImage:
    """A picture of evidence and its caption.

    Parameters
    ----------
    picture : uint8 array of shape (height, width, 3)
    caption : str
    """

    picture: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True, eq=False, repr=False)
class Finding:
    """The result of one check.

    Parameters
    ----------
    verdict : {"passed", "failed", "suspicious", "inconclusive"}
    sentence : str
        The result in one or two sentences.
    numbers : dict of str to float, int, str or None
        Numbers that support the verdict, by their description.
    tables : tuple of EvidenceTable
    pictures : tuple of tuple of EvidenceImage
        Rows of pictures.
    """

    verdict: Verdict
    sentence: str
    numbers: dict[str, Any] = field(default_factory=dict)
    tables: tuple[EvidenceTable, ...] = ()
    pictures: tuple[tuple[EvidenceImage, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"{self.verdict!r} is not a verdict; use one of {', '.join(VERDICTS)}."
            )

    def __repr__(self) -> str:
        return text_table(f"{self.verdict}: {self.sentence}", self.numbers)

    def _repr_html_(self) -> str:
        return html_table(f"{self.verdict}: {self.sentence}", self.numbers)
