"""The configuration of one experiment."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calcarine.errors import CalcarineError
from calcarine.experiment import config_visdec
from calcarine.experiment.config_visdec import VisDecConfig


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def check_denoises(steps: int, strength: float, name: str) -> None:
    """Raise a sentence where a strength above 0 leaves no step, so that c would not be used."""
    if strength > 0 and int(steps * strength) < 1:
        raise ValueError(
            f"of {steps} steps strength {strength:g} leaves none ({name}); raise one of them"
        )


class DatasetConfig(_Part):
    """Which brain data."""

    name: str = "simulated"
    subject: str | None = None
    data: str | None = Field(None, description="folder of the data set's files")
    options: dict[str, Any] = Field(default_factory=dict)
    split: str | None = Field(
        None, description="a split's JSON file or name; all splits of the data set by default"
    )
    folds: int | None = Field(None, ge=1, description="only the first folds; all by default")
    zscore_sessions: bool = Field(True, description="False takes the z-scoring of sessions back")


class RoiConfig(_Part):
    """Regions that predict z, c and, directly, pixels. Empty: early and ventral, or all."""

    z: str | None = None
    c: str | None = None
    pixels: str | None = None


class FeaturesConfig(_Part):
    """What z and c are made of."""

    picture: Literal["image", "semantic_map"] = "image"
    text: Literal["captions", "categories"] = "captions"
    posterior: Literal["mode", "sample"] = "mode"
    resize: Literal["bicubic", "lanczos"] = "bicubic"


class RidgeConfig(_Part):
    """Grid of penalties (powers of ten, or a list) and folds inside the training data."""

    alpha_min: float = -2.0
    alpha_max: float = 8.0
    n_alphas: int = Field(21, ge=2, le=200)
    n_folds: int = Field(5, ge=2)
    enabled: bool = Field(True, description="decode z and c by ridge")
    alphas: list[Annotated[float, Field(ge=0)]] | None = Field(None, min_length=1)
    intercept: bool = True
    grouped: bool = Field(True, description="False lets repeats of a stimulus straddle folds")


class SearchConfig(_Part):
    """Choosing strength and guidance inside the training data of each fold."""

    enabled: bool | Literal["auto"] = "auto"
    strengths: list[Annotated[float, Field(ge=0, le=1)]] = Field([0.2, 0.4, 0.6, 0.8], min_length=1)
    guidances: list[Annotated[float, Field(ge=0)]] = Field([1.0, 2.0, 5.0], min_length=1)
    n_stimuli: int = Field(30, ge=5)
    steps: int = Field(20, ge=1)


class GenerationConfig(_Part):
    """How pictures are made from decoded latents (defaults: Takagi & Nishimoto 2023)."""

    model: str = "mini"
    autoencoder: str | None = Field(None, description="another in its place: 'taesd' or a folder")
    tokenizer: str | None = Field(None, description="folder of it, for a single-file model")
    precision: Literal["float32", "float16"] = Field("float32", description="float16: GPUs only")
    latent_size: int | None = Field(
        None, ge=8, description="px at which z is made; 320 for 512-px models, else the model's own"
    )
    strength: float = Field(0.8, ge=0, le=1)
    guidance: float = Field(5.0, ge=0)
    guidance_rescale: float | None = Field(
        None, ge=0, le=1, description="share; by default 1 for models that end in pure noise"
    )
    steps: int = Field(50, ge=1, le=1000)
    samples: int = Field(5, ge=1)
    candidates: int = Field(0, ge=0, description="samples of z_c from which the brain chooses one")
    seed: int = Field(42, ge=0)
    batch_size: int = Field(32, ge=1)
    through_image: bool = True
    z_empty_text: bool = Field(False, description="also z through the U-Net with the empty text")
    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _denoises(self) -> GenerationConfig:
        check_denoises(self.steps, self.strength, "generation.strength")
        return self


class EvaluationConfig(_Part):
    """Scores and their intervals."""

    protocols: list[str] = Field(
        ["calcarine"], min_length=1, description="metrics by name; see docs/protocols.md"
    )
    weights: str | None = Field(None, description="folder of the weights of their networks")
    n_boot: int = Field(2000, ge=100)
    n_permutations: int = Field(2000, ge=100)
    seed: int = Field(0, ge=0)
    audit: bool = Field(True, description="say whether the scores are real")
    direct_ridge: bool = True
    ceilings: bool = True
    ceiling_samples: int = Field(1, ge=1)


class EncodingConfig(_Part):
    """Voxel-wise encoding (Takagi & Nishimoto 2023, section 3.4)."""

    enabled: bool = False
    analyses: list[Literal["latents", "noise", "stages", "blocks"]] = Field(
        ["latents", "noise", "stages", "blocks"], min_length=1
    )
    roi: str = "all"
    train: Literal["means", "weighted", "trials"] = Field(
        "means", description="fit means over repeats, these by their number, or single trials"
    )
    strengths: list[Annotated[float, Field(gt=0, le=1)]] = Field([0.2, 0.4, 0.6, 0.8], min_length=1)
    blocks: list[str] | None = Field(None, description="of the U-Net; two down, mid, two up")
    extra_feature_spaces: list[str] = Field(
        default_factory=list, description="further feature spaces"
    )
    n_components: int = Field(6400, ge=1)
    alpha_min: float = Field(-2.0, description="log10 of the smallest penalty")
    alpha_max: float = Field(8.0, description="log10 of the largest")
    n_alphas: int = Field(21, ge=1)
    n_folds: int = Field(5, ge=2, description="over training stimuli, to choose penalties")
    fdr_alpha: float = Field(0.05, gt=0, lt=1, description="of false discoveries over voxels")
    null_distribution: Literal["exact", "simulated"] = "exact"
    n_permutations: int = Field(0, ge=0)
    n_boot: int = Field(1000, ge=100)

    @model_validator(mode="after")
    def _permutations_can_be_significant(self) -> EncodingConfig:
        if self.n_permutations and (1 + self.n_permutations) * self.fdr_alpha < 1:
            raise ValueError(
                f"with {self.n_permutations} permutations no p can be as low as "
                f"{self.fdr_alpha:g}; set n_permutations to 0 or at least "
                f"{math.ceil(1 / self.fdr_alpha) - 1}"
            )
        return self


class Experiment(_Part):
    """Everything that decides what a run computes."""

    name: str = "experiment"
    preset: str | None = None
    dataset: DatasetConfig = DatasetConfig()
    roi: RoiConfig = RoiConfig()
    features: FeaturesConfig = FeaturesConfig()
    ridge: RidgeConfig = RidgeConfig()
    generation: GenerationConfig = GenerationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    encoding: EncodingConfig = EncodingConfig()
    visdec: VisDecConfig = VisDecConfig()

    @property
    def makes_latents(self) -> bool:
        """Whether z and c of the stimuli are made; Vis-Dec alone does not need them."""
        return self.ridge.enabled or self.encoding.enabled

    def chooses_settings(self, n_train: Sequence[int]) -> bool:
        """Whether strength and guidance are chosen inside the training data.

        Parameters
        ----------
        n_train : sequence of int
            Number of training stimuli of each split.
        """
        search = self.generation.search
        if not self.ridge.enabled:
            return False
        if search.enabled == "auto":
            return len(n_train) > 1 and min(n_train) >= 2 * search.n_stimuli
        return search.enabled

    @model_validator(mode="after")
    def _encodes_denoised_latents(self) -> Experiment:
        if self.encoding.enabled and "noise" in self.encoding.analyses:
            for strength in self.encoding.strengths:
                check_denoises(self.generation.steps, strength, "encoding.strengths")
        return self


_PAPER: dict[str, Any] = {
    "model": "CompVis/stable-diffusion-v1-4",
    "strength": 0.8,
    "guidance": 5.0,
    "steps": 50,
    "samples": 5,
    "z_empty_text": True,
    "search": {"enabled": False},
}
# What the paper took of its data set: regions of `streams` uncut by nsdgeneral, sessions 1 to 37,
# the whole brain where voxels are encoded, and the identification by networks.
_ON_NSD: dict[str, Any] = {
    "dataset": {"options": {"mask": "streams", "sessions": 37}},
    "evaluation": {"protocols": ["calcarine", "takagi"]},
}
_OF_DATASET: dict[tuple[str, str], dict[str, Any]] = {
    ("takagi2023", "nsd"): {
        **_ON_NSD,
        "dataset": {"options": {"mask": "brain+streams", "sessions": 37}},
    },
    ("takagi2023-compat", "nsd"): _ON_NSD,
}
_OF_ANY_DATASET = {"zscore_sessions"}
_SIMULATED: dict[str, Any] = {
    "name": "simulated",
    "subject": "subj01",
    "options": {"n_train": 900, "n_test": 40},
}
PRESETS: dict[str, dict[str, Any]] = {
    "takagi": {
        "name": "takagi",
        "generation": {"candidates": 5},
    },
    # The settings of the paper with decoders as they should be, and with those of its code.
    "takagi2023": {
        "name": "takagi2023",
        "features": {"resize": "lanczos"},
        "generation": {**_PAPER, "candidates": 5},
        "encoding": {"enabled": True, "train": "trials"},
    },
    "encoding": {"name": "encoding", "encoding": {"enabled": True}},
    "takagi2023-compat": {
        "name": "takagi2023-compat",
        "dataset": {"zscore_sessions": False},
        "features": {"resize": "lanczos", "posterior": "sample"},
        "ridge": {
            "alphas": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0],
            "intercept": False,
            "grouped": False,
        },
        "generation": _PAPER,
    },
    "visdec2023": {
        "name": "visdec2023",
        "ridge": {"enabled": False},
        "visdec": config_visdec.PAPER,
    },
    "visdec-mini": {
        "name": "visdec-mini",
        "dataset": _SIMULATED,
        "generation": {"samples": 2, "steps": 30, "search": {"enabled": False}},
        "visdec": config_visdec.MINI,
    },
    "demo": {
        "name": "demo",
        "dataset": _SIMULATED,
        "generation": {"samples": 2, "steps": 30, "search": {"enabled": False}},
        "evaluation": {"ceiling_samples": 1},
    },
}


def load_experiment(
    preset: str | None = None,
    file: Path | None = None,
    settings: Sequence[str] = (),
    **dataset: Any,
) -> Experiment:
    """Configuration from a preset or a YAML file, changed by ``key=value`` settings.

    Parameters
    ----------
    preset : str, optional
        Name in ``PRESETS``.
    file : Path, optional
        YAML with the same keys as :class:`Experiment`; may name a ``preset`` to start from.
    settings : sequence of str
        Such as ``generation.strength=0.6``; the value is read as YAML.
    **dataset
        ``name``, ``data`` and ``subject`` of the data set, where not None.

    Raises
    ------
    CalcarineError
        For unknown keys, values and presets, each by name.
    """
    tree: dict[str, Any] = _read_yaml(file) if file is not None else {}
    preset = preset or tree.get("preset")
    given = {key: str(value) for key, value in dataset.items() if value is not None}
    wanted = _merge(tree, {"dataset": given} if given else {})
    for setting in settings:
        wanted = _merge(wanted, _setting(setting))
        if setting.startswith(("generation.strength=", "generation.guidance=")):
            # Who names a strength wants that strength, not one chosen inside the training data.
            wanted = _merge({"generation": {"search": {"enabled": False}}}, wanted)
    tree = wanted
    if preset is not None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise CalcarineError(
                f"There is no preset '{preset}'; there are: {', '.join(sorted(PRESETS))}."
            )
        base = {**PRESETS[preset], "preset": preset}
        if _dataset_name(wanted, base) != _dataset_name(base):
            # What was named of one data set means nothing in another; how to treat any stays.
            told = base.get("dataset", {})
            base = {**base, "dataset": {k: v for k, v in told.items() if k in _OF_ANY_DATASET}}
        base = _merge(base, _OF_DATASET.get((preset, _dataset_name(wanted, base)), {}))
        tree = {**wanted, "preset": preset} if _is_whole(wanted) else _merge(base, wanted)
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise CalcarineError(f"There is no setting '{place}'{_near(first['loc'])}.") from error
        reason = first["msg"].removeprefix("Value error, ")
        if not place:
            raise CalcarineError(f"Settings do not go together: {reason}.") from error
        raise CalcarineError(f"The setting '{place}' is wrong: {reason}.") from error


def _is_whole(tree: dict[str, Any]) -> bool:
    """Whether all parts are there, as in a run's own file, whose settings nothing is added to."""
    return set(Experiment.model_fields) <= set(tree)


def _near(place: tuple[int | str, ...]) -> str:
    """The setting that is likely meant, or those there are in its part."""
    part: type[BaseModel] = Experiment
    for name in place[:-1]:
        field = part.model_fields.get(str(name))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return ""
        part = kind
    known = list(part.model_fields)
    near = difflib.get_close_matches(str(place[-1]).lower(), known, 1)
    return f"; did you mean {near[0]}" if near else f"; there are {', '.join(known)}"


def _dataset_name(*trees: dict[str, Any]) -> str:
    """Name of the data set in the first of ``trees`` that gives one."""
    for tree in trees:
        part = tree.get("dataset")
        if isinstance(part, dict) and "name" in part:
            return str(part["name"])
    return DatasetConfig().name


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CalcarineError(f"There is no experiment file {file}.") from error
    except Exception as error:  # yaml has errors of many kinds for tags and dates
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CalcarineError(f"{file} cannot be read as YAML: {reason}.") from error
    if not isinstance(tree, dict):
        raise CalcarineError(f"{file} must hold keys and values, such as 'preset: takagi'.")
    return tree


def _setting(text: str) -> dict[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise CalcarineError(f"'{text}' is no setting; write key=value, as generation.steps=50.")
    try:
        content: Any = yaml.safe_load(value)
    except Exception as error:  # yaml has errors of many kinds for tags and dates
        raise CalcarineError(f"The value in '{text}' cannot be read.") from error
    for part in reversed(key.split(".")):
        content = {part: content}
    return dict(content)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merge(result[key], value)
        else:
            result[key] = value
    return result
