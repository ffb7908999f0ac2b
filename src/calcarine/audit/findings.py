"""What a check of an audit says: a verdict, a sentence, numbers, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["passed", "failed", "suspicious", "inconclusive"]


VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


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
    verdict : {"passed", "failed", "suspicious", "inconclusive"}
    sentence : str
        What was found, in one or two sentences.
    numbers : dict of str to float, int, str or None
        The evidence in numbers, by what they are.
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
            raise ValueError(f"{self.verdict} is no verdict")
