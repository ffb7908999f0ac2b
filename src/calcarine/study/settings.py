"""What is fixed when a study is made, and stays fixed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

QUESTION = "Which of the two pictures is more like the original?"
CONSENT = (
    "Taking part is voluntary. You may stop at any time by closing the page, without giving a "
    "reason. Stored are: which picture you choose, how long it takes, and whether you use a key, "
    "a mouse or a finger. Your name, your address and your device are not stored."
)


class MethodPair(BaseModel):
    """One question that is asked about every original.

    Attributes
    ----------
    name : str
        As in the tables, such as "z_c vs z" or "identification: z_c".
    kind : {"method", "identification"}
        Two methods for the same original, or one method for this and for another original.
    first, second : str
        Methods; the same one for identification, where ``first`` is of the shown original.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["method", "identification"]
    first: str
    second: str


class StudySettings(BaseModel):
    """Everything that was settled at ``make``.

    Attributes
    ----------
    catch_minimum : float
        A rater with a smaller share of right answers in catch trials is excluded.
    finished_minimum : float
        A rater who answered a smaller share of all trials is excluded.
    alpha : float
        Family-wise level of the tests.
    simulated : bool or None
        Whether the brain was simulated; None when nobody said.
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
