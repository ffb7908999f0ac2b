"""The YAML file that describes a subject, read and validated."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calcarine.brain.scaling import ZScore
from calcarine.datasets._numpy_files import reason
from calcarine.errors import DamagedFileError, SettingError

__all__ = [
    "LEAVE_ONE_OUT",
    "Atlas",
    "BidsPart",
    "Description",
    "Folds",
    "Fraction",
    "read_description",
    "validated",
]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
FILE = "calcarine.yaml"
LEAVE_ONE_OUT = "leave-one-out"


class _DescriptionPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Atlas(_DescriptionPart):
    """Regions as integer labels in one volume."""

    file: str = Field(min_length=1)
    labels: dict[str, int | list[int]] = Field(min_length=1)


class Fraction(_DescriptionPart):
    """A share of the stimuli, drawn at random."""

    fraction: float = Field(gt=0, lt=1)
    seed: int = Field(0, ge=0)


class Folds(_DescriptionPart):
    """Folds of stimuli; each stimulus is in the test of one."""

    folds: int | None = Field(None, ge=2, description="how many; one a group with by, by default")
    by: Literal["category", "session"] | None = Field(None, description="held out whole")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _how_many(self) -> Folds:
        if self.folds is None and self.by is None:
            raise ValueError("give folds, such as {folds: 10}, or by")
        return self


class BidsPart(_DescriptionPart):
    """Where time series and events are, and how responses are estimated."""

    derivatives: str = Field(min_length=1, description="folder that fMRIPrep wrote")
    raw: str | None = Field(None, description="folder with the events; derivatives by default")
    task: str | None = None
    space: str | None = None
    stimulus: str | None = Field(None, description="column of the events that names the picture")
    nuisance: list[str] = Field([], description="trial types that are modelled but are not trials")
    ignore: list[str] = Field([], description="trial types that are left out, as rest")
    confounds: list[str] = ["motion", "cosine"]
    method: Literal["lsa", "lss", "mean"] = "lsa"
    hrf: Literal["glover", "spm", "boxcar"] = "glover"
    high_pass: float = Field(1 / 128, gt=0)
    delay: float = Field(5.0, ge=0)
    session: Literal["ses", "run"] | None = None
    duration: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="seconds of trials whose duration is n/a"
    )
    late_trials: Literal["refuse", "drop"] = Field(
        "refuse", description="trials that begin after the end of their run"
    )
    runs_without_bold: Literal["refuse", "drop"] = Field(
        "refuse", description="runs that have events and no preprocessed time series"
    )


class Description(_DescriptionPart):
    """A description of one subject; paths are relative to the folder of the YAML file."""

    name: str = Field("own", pattern=_NAME)
    subject: str = Field(pattern=_NAME)
    betas: str | list[str] | None = None
    trials: str | list[str] | None = None
    bids: BidsPart | None = None
    layout: Literal["trials-first", "trials-last"] | None = None
    betas_axes: Literal["numpy", "matlab"] | None = Field(
        None, description="axis order of betas in HDF5 files"
    )
    voxel_order: Literal["numpy", "matlab"] | None = Field(
        None, description="order of rows of voxels in the volume of the mask"
    )
    mask: str | None = None
    rois: dict[Annotated[str, Field(min_length=1)], str] | Atlas = Field(default_factory=dict)
    images: str = Field(min_length=1)
    first_image: int = Field(0, ge=0, description="number of an array's first picture")
    captions: str | None = None
    test: str | float | Fraction | Folds
    scale: float = Field(1.0, allow_inf_nan=False)
    units: str = ""
    zscore: ZScore = "session"

    @model_validator(mode="after")
    def _one_source(self) -> Description:
        if self.bids is None and (self.betas == [] or not self.trials):
            raise ValueError("give betas and trials, or bids")
        if self.bids is not None and (self.betas or self.trials):
            raise ValueError("give either betas and trials, or bids, not both")
        if self.scale == 0:
            raise ValueError("a scale of 0 would leave nothing")
        if isinstance(self.test, float) and not 0 < self.test < 1:
            raise ValueError(
                "test is a fraction between 0 and 1, a file, 'repeated', 'leave-one-out', or folds "
                "as {folds: 10}"
            )
        return self

    def with_subject(self, subject: str | None) -> Description:
        """Raise unless the description is of the given subject.

        Raises
        ------
        CalcarineError
            If it is about another one.
        """
        if subject is not None and subject != self.subject:
            raise SettingError(
                f"The description is of subject {self.subject}, not of {subject}; give the file "
                f"of {subject}, or name it {subject}.yaml in the data folder."
            )
        return self


def read_description(path: Path) -> Description:
    """Read a description from a YAML file.

    Raises
    ------
    CalcarineError
        With one sentence for the first mistake.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # yaml meets wrong dates and depths with errors of many kinds
        raise DamagedFileError(f"{path} cannot be read as YAML ({reason(error)}).") from error
    return validated(tree, str(path))


def validated(tree: object, where: str) -> Description:
    """Return a description from a mapping; ``where`` is for the errors."""
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise SettingError(f"{where} must hold keys and values, such as 'subject: s01'.")
    try:
        return Description.model_validate(_without_union(tree))
    except ValidationError as error:
        raise SettingError(f"{where}: {_sentence(error)}.") from error
    except (RecursionError, OverflowError) as error:
        raise SettingError(f"{where} nests too deeply or holds too large a number.") from error


def _without_union(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace parts of two possible kinds by the kind that they look like.

    Otherwise a mistake in them is reported once for each kind.
    """
    result = dict(tree)
    rois = tree.get("rois")
    if isinstance(rois, dict) and ("labels" in rois or _is_atlas(rois)):
        result["rois"] = Atlas.model_validate(rois)
    test = tree.get("test")
    if isinstance(test, dict):
        kind = Fraction if _is_fraction(test) else Folds
        result["test"] = kind.model_validate(test)
    return result


def _is_atlas(rois: dict[Any, Any]) -> bool:
    """Return whether regions are meant as an atlas with a misspelt key ``labels``."""
    return "file" in rois and any(isinstance(value, dict) for value in rois.values())


def _is_fraction(test: dict[Any, Any]) -> bool:
    """Return whether a key of a test is meant as ``fraction``, not as ``folds`` or ``by``."""
    return any(difflib.get_close_matches(str(key), ["fraction"], cutoff=0.7) for key in test)


def _sentence(error: ValidationError) -> str:
    # A misspelt key is also a missing one; the misspelling is what the user can fix.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    kinds: tuple[type[_DescriptionPart], ...] = (Atlas, Fraction, Folds)
    model: type[_DescriptionPart] = next(
        (m for m in kinds if m.__name__ == error.title), Description
    )
    place = ".".join(str(part) for part in first["loc"] if not _kind(part))
    if first["type"] == "extra_forbidden":
        key, inside = str(first["loc"][-1]), model
        if first["loc"][0] == "bids":
            inside = BidsPart
        known = list(inside.model_fields)
        near = difflib.get_close_matches(key.lower(), known, 1)
        hint = f"the most similar one is '{near[0]}'" if near else f"there are {', '.join(known)}"
        return f"there is no key '{place}'; {hint}"
    if first["type"] == "missing":
        return f"the key '{place}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if "pattern" in first["type"]:
        message = "letters, digits, dots, dashes and underscores only, please"
    return f"the key '{place}' is wrong: {message}" if place else message


def _kind(part: object) -> bool:
    """Return whether a part of an error's location is pydantic's name of a kind, not a key."""
    text = str(part)
    return "[" in text or text in ("str", "float", "int", "Atlas", "Fraction", "Folds", "list")
