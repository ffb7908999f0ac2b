"""What the sections of an experiment's settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["REGION", "Section"]

REGION = "a region of the data set, several joined as A+B, or all"
"""What a setting of a region can be, for descriptions."""


class Section(BaseModel):
    """A section that refuses unknown settings and checks changed ones."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
