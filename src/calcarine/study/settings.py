"""Settings of a study, which are fixed when it is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from calcarine.study.wording import CONSENT, QUESTION

__all__ = ["MethodPair", "StudySettings"]


class MethodPair(BaseModel):
    """One comparison, which is made on every original.

    Attributes
    ----------
    name : str
        Name in tables, for example "z_c vs z" or "identification: z_c".
    kind : {"method", "identification"}
        Whether two methods are compared on the same original, or one method on the shown and on
        another original.
    first, second : str
        Methods; for identification both are the same, and ``first`` belongs to the shown original.

    Examples
    --------
    >>> from calcarine.study import MethodPair
    >>> pair = MethodPair(name="z_c vs z", kind="method", first="z_c", second="z")
    >>> pair.name
    'z_c vs z'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["method", "identification"]
    first: str
    second: str


class StudySettings(BaseModel):
    """Settings of a study, which are fixed when it is made.

    Attributes
    ----------
    catch_minimum : float
        Smallest share of correct catch trials; raters with less are excluded.
    finished_minimum : float
        Smallest share of answered trials; raters with less are excluded.
    alpha : float
        Family-wise significance level of the tests.
    simulated : bool or None
        Whether the brain was simulated; None if not stated.

    Examples
    --------
    >>> from calcarine.study import MethodPair, StudySettings
    >>> pair = MethodPair(name="z_c vs z", kind="method", first="z_c", second="z")
    >>> settings = StudySettings(title="My study", comparisons=(pair,), originals=("img1", "img2"))
    >>> settings.question.endswith("?")
    True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    question: str = QUESTION
    consent: str = CONSENT
    seed: int = 0
    size: int = Field(256, ge=32, le=1024)
    practice: int = Field(4, ge=0, le=50)
    catch: int = Field(8, ge=0, le=200)
    catch_minimum: float = Field(0.8, ge=0, le=1)
    finished_minimum: float = Field(0.5, ge=0, le=1)
    rest_every: int = Field(40, ge=1)
    alpha: float = Field(0.01, gt=0, lt=1)
    simulated: bool | None = None
    comparisons: tuple[MethodPair, ...]
    originals: tuple[str, ...]
    left_out: dict[str, str] = {}
    provenance: tuple[dict[str, Any], ...] = ()
    created: str = ""
    calcarine: str = ""
