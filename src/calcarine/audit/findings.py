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

    Examples
    --------
    >>> from calcarine.audit import EvidenceTable
    >>> table = EvidenceTable(("test picture", "training picture"), (("img3", "img71"),))
    >>> len(table.rows)
    1
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

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import EvidenceImage
    >>> EvidenceImage(np.zeros((8, 8, 3), np.uint8), "test: img3").caption
    'test: img3'
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

    Examples
    --------
    >>> from calcarine.audit import Finding
    >>> finding = Finding("suspicious", "There are 8 test stimuli.", {"test stimuli": 8})
    >>> finding.verdict, finding.numbers
    ('suspicious', {'test stimuli': 8})
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
