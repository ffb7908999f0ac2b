"""The settings of an experiment, section by section.

Every setting has a default and a description; ``calcarine settings`` prints them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from calcarine.experiment.config_section import REGION, Section
from calcarine.experiment.embeddings_config import EmbeddingsConfig
from calcarine.experiment.visdec_config import VisDecConfig

__all__ = [
    "ComputeConfig",
    "DatasetConfig",
    "DecoderConfig",
    "EncodingConfig",
    "EvaluationConfig",
    "Experiment",
    "FeaturesConfig",
    "GenerationConfig",
    "RidgeConfig",
    "RoiConfig",
    "SearchConfig",
    "check_denoises",
]

# Names of spaces that the model gives, which files must not take.
_OWN_SPACES = ("z", "c", "z_c", "labels")


def check_denoises(steps: int, strength: float, name: str) -> None:
    """Refuse a strength above 0 that leaves no step, so that c would not be used.

    Parameters
    ----------
    steps : int
        Steps of the whole denoising.
    strength : float
        Share of the noise, from 0 to 1.
    name : str
        The setting that the strength comes from.

    Raises
    ------
    ValueError
        If no step is left.
    """
    if strength > 0 and int(steps * strength) < 1:
        raise ValueError(
            f"of {steps} steps strength {strength:g} leaves no denoising step ({name}); raise one "
            "of them"
        )


class DatasetConfig(Section):
    """The brain data: data set, subject and splits."""

    name: str = Field("simulated", description="Data set; 'calcarine datasets list' shows them.")
    subject: str | None = Field(None, description="Subject; by default the first of the data set.")
    data: str | None = Field(None, description="Folder of the data set's files.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of this data set; 'calcarine datasets info NAME' lists them.",
    )
    split: str | None = Field(
        None,
        description="JSON file or name of one split; by default all splits of the data set.",
    )
    folds: int | None = Field(
        None, ge=1, description="Use only the first so many splits; by default all."
    )
    zscore_sessions: bool = Field(
        True,
        description="Keep responses z-scored in each session; false undoes the z-scoring.",
    )


class ComputeConfig(Section):
    """Where networks compute and how precisely, and where features are kept."""

    device: str = Field(
        "auto",
        description="Device of all networks: auto, cpu, cuda, cuda:N or mps; auto: CUDA, else MPS, "
        "else the CPU. Changes no key of a result.",
    )
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="Precision of the diffusion model; auto: bfloat16 or float16 on a GPU that is "
        "fast in it, else float32, and float32 with Vis-Dec. Kept for the whole run.",
    )
    tf32: bool = Field(
        False,
        description="Round float32 products of the diffusion model and of Vis-Dec's training to "
        "TF32 on CUDA, which is faster.",
    )
    check: bool = Field(
        True,
        description="Refuse a run that by its plan does not fit into the memory or on the disk.",
    )
    store: str | None = Field(
        default_factory=lambda: os.environ.get("CALCARINE_STORE") or None,
        validate_default=True,
        description="Folder of features that runs share; by default that of the environment "
        "variable CALCARINE_STORE, or without it the run's own. Changes no key of a result.",
    )

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError("choose auto, cpu, cuda, cuda:N (N counts GPUs from 0) or mps")
        return value

    @field_validator("store")
    @classmethod
    def _holds_from_everywhere(cls, value: str | None) -> str | None:
        # A run may be continued from another folder.
        return None if value is None else str(Path(value).expanduser().absolute())


class RoiConfig(Section):
    """Regions of the brain that the decoders read."""

    z: str | None = Field(
        None,
        description=f"Region that predicts z: {REGION}. By default early, or all without it.",
    )
    c: str | None = Field(
        None,
        description=f"Region that predicts c: {REGION}. By default ventral, or that of z "
        "without it.",
    )
    pixels: str | None = Field(
        None,
        description=f"Region that predicts pixels directly: {REGION}. By default that of z.",
    )


class FeaturesConfig(Section):
    """How z and c of the stimuli are made."""

    picture: Literal["image", "semantic_map"] = Field(
        "image", description="What z encodes: the image or its semantic map."
    )
    text: Literal["captions", "categories"] = Field(
        "captions", description="What c encodes: the captions or the category names."
    )
    posterior: Literal["mode", "sample"] = Field(
        "mode",
        description="z is the mode of the autoencoder's posterior, or a sample from it.",
    )
    resize: Literal["bicubic", "lanczos"] = Field(
        "bicubic", description="Filter that resizes images for z."
    )


class _PenaltyGrid(Section):
    """A section with penalties between two ends."""

    alpha_min: float = Field(1e-2, gt=0, description="Smallest penalty.")
    alpha_max: float = Field(1e8, gt=0, description="Largest penalty.")

    @model_validator(mode="after")
    def _ends_are_in_order(self) -> Self:
        if self.alpha_min > self.alpha_max:
            raise ValueError(
                f"alpha_min is {self.alpha_min:g} and alpha_max {self.alpha_max:g}; set alpha_min "
                "to the smaller of the two"
            )
        return self


class RidgeConfig(_PenaltyGrid):
    """Ridge regression from responses to z, c and pixels."""

    n_alphas: int = Field(
        21, ge=2, le=200, description="Number of penalties between the two, evenly spaced in log10."
    )
    n_folds: int = Field(
        5, ge=2, description="Folds inside the training data that choose the penalty."
    )
    enabled: bool = Field(
        True, description="Decode z and c by ridge regression, or by the decoder in decoder.name."
    )
    alphas: list[Annotated[float, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="Penalties themselves, in place of alpha_min, alpha_max and n_alphas.",
    )
    intercept: bool = Field(True, description="Fit an intercept.")
    grouped: bool = Field(
        True,
        description="Keep repeats of a stimulus in one fold; false lets them straddle folds.",
    )


class DecoderConfig(Section):
    """Which decoder predicts z and c."""

    name: str = Field(
        "ridge",
        description="Decoder of z and c: ridge, or one that is registered "
        "(calcarine.decoding.register_decoder).",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of a registered decoder; those of ridge are the settings ridge.*.",
    )

    @model_validator(mode="after")
    def _has_options_of_its_own(self) -> DecoderConfig:
        if self.name == "ridge" and self.options:
            raise ValueError("the options of the decoder ridge are the settings ridge.*; use those")
        return self


class SearchConfig(Section):
    """Choosing strength and guidance inside the training data of each split."""

    enabled: bool | Literal["auto"] = Field(
        "auto",
        description="Choose strength and guidance; auto: with several splits that have at least "
        "2 x n_stimuli training stimuli each.",
    )
    strengths: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.2, 0.4, 0.6, 0.8], min_length=1, description="Strengths to choose from, 0 to 1."
    )
    guidances: list[Annotated[float, Field(ge=0)]] = Field(
        [1.0, 2.0, 5.0], min_length=1, description="Guidance scales to choose from."
    )
    n_stimuli: int = Field(30, ge=5, description="Training stimuli on which the choice is made.")
    steps: int = Field(20, ge=1, description="Denoising steps while choosing.")

    @field_validator("enabled", mode="before")
    @classmethod
    def _is_a_choice(cls, value: Any) -> Any:
        if isinstance(value, bool) or value == "auto":
            return value
        raise ValueError("choose true, false or auto")


class GenerationConfig(Section):
    """How pictures are made from decoded latents (defaults: Takagi & Nishimoto 2023)."""

    model: str = Field(
        "mini",
        description="Diffusion model: mini, a folder, a single-file checkpoint, a registered "
        "generator or a name on the Hugging Face hub.",
    )
    autoencoder: str | None = Field(
        None, description="Autoencoder in place of the model's own: taesd or a folder."
    )
    tokenizer: str | None = Field(
        None, description="Folder of the tokenizer, for a single-file checkpoint."
    )
    latent_size: int | None = Field(
        None,
        ge=8,
        description="Side in pixels at which z is made; by default 320 for 512-pixel models and "
        "the model's own size for others.",
    )
    strength: float = Field(
        0.8, ge=0, le=1, description="Share of the noise that z gets before denoising, 0 to 1."
    )
    guidance: float = Field(5.0, ge=0, description="Scale of classifier-free guidance; 1 is none.")
    guidance_rescale: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share by which guided noise is rescaled, 0 to 1; by default 1 for models that "
        "end in pure noise and 0 for others.",
    )
    steps: int = Field(50, ge=1, le=1000, description="Steps of the whole denoising.")
    samples: int = Field(5, ge=1, description="Samples of each stimulus that are scored.")
    candidates: int = Field(
        0,
        ge=0,
        description="Samples of z_c of which the closest to the decoded z is kept; 0: none.",
    )
    seed: int = Field(42, ge=0, description="Seed of the noise.")
    batch_size: int = Field(
        32,
        ge=1,
        description="Stimuli that are processed at once, fewer where a GPU's memory is too small; "
        "changes no result.",
    )
    through_image: bool = Field(
        True, description="Decode z to an image and encode that again before noise is added."
    )
    z_empty_text: bool = Field(
        False, description="Also make pictures of z that pass the U-Net with the empty text."
    )
    search: SearchConfig = Field(
        SearchConfig(), description="Choice of strength and guidance in the training data."
    )

    @model_validator(mode="after")
    def _denoises(self) -> GenerationConfig:
        check_denoises(self.steps, self.strength, "generation.strength")
        return self


class EvaluationConfig(Section):
    """Scores, their intervals and the audit."""

    protocols: list[str] = Field(
        ["calcarine"], min_length=1, description="Protocols of scoring, by name; docs/protocols.md."
    )
    weights: str | None = Field(
        None, description="Folder of the weights of the protocols' networks."
    )
    n_boot: int = Field(2000, ge=100, description="Bootstrap resamples of intervals.")
    n_permutations: int = Field(2000, ge=100, description="Shuffles of permutation tests.")
    seed: int = Field(0, ge=0, description="Seed of resamples and shuffles.")
    audit: bool = Field(True, description="Check whether the scores are real.")
    direct_ridge: bool = Field(True, description="Also decode pixels directly, as a baseline.")
    ceilings: bool = Field(
        True, description="Also make pictures from the true z and c, the ceiling of each method."
    )
    ceiling_samples: int = Field(1, ge=1, description="Samples of each stimulus for ceilings.")


class EncodingConfig(_PenaltyGrid):
    """Voxel-wise encoding models (Takagi & Nishimoto 2023, section 3.4)."""

    enabled: bool = Field(False, description="Fit encoding models in this run.")
    analyses: list[Literal["latents", "noise", "denoising_stages", "blocks"]] = Field(
        ["latents", "noise", "denoising_stages", "blocks"],
        description="Comparisons: latents (z, c and z_c), noise levels, stages of the denoising, "
        "blocks of the U-Net; may be empty where there are extra feature spaces.",
    )
    roi: str = Field("all", description=f"Voxels to predict: {REGION}.")
    train: Literal["means", "weighted", "trials"] = Field(
        "means",
        description="Fit means over repeats, means weighted by the number of repeats, or single "
        "trials.",
    )
    strengths: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.2, 0.4, 0.6, 0.8], min_length=1, description="Noise levels of z_c, above 0 to 1."
    )
    blocks: list[str] | None = Field(
        None,
        description="Blocks of the U-Net; by default the first and last on the way down, the "
        "middle, and the first and last on the way up.",
    )
    extra_feature_spaces: list[str] = Field(
        default_factory=list,
        description="Further feature spaces: labels, net:NETWORK:LAYER, hf:MODEL:LAYER:POOL, "
        "z_c@STRENGTH, or your own array as NAME=FILE.",
    )
    n_components: int = Field(
        6400, ge=1, description="Principal components that wider feature spaces are reduced to."
    )
    n_alphas: int = Field(
        21, ge=1, description="Number of penalties between the two, evenly spaced in log10."
    )
    n_folds: int = Field(5, ge=2, description="Folds of training stimuli that choose the penalty.")
    fdr_alpha: float = Field(
        0.05, gt=0, lt=1, description="False discovery rate over voxels (Benjamini-Hochberg)."
    )
    null_distribution: Literal["exact", "simulated"] = Field(
        "exact",
        description="Null distribution of correlations: the exact one, or simulated Gaussian "
        "vectors.",
    )
    n_permutations: int = Field(
        0, ge=0, description="Shuffles for the family-wise p of a voxel; 0 leaves it out."
    )
    n_boot: int = Field(1000, ge=100, description="Bootstrap resamples of intervals.")

    @property
    def feature_files(self) -> dict[str, str]:
        """Files of your own feature spaces, by name of the space."""
        return dict(text.split("=", 1) for text in self.extra_feature_spaces if "=" in text)

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Names of all further feature spaces."""
        return tuple(text.partition("=")[0] for text in self.extra_feature_spaces)

    @model_validator(mode="after")
    def _names_feature_files(self) -> EncodingConfig:
        for name, file in self.feature_files.items():
            if not re.fullmatch(r"[A-Za-z][\w.-]*", name) or name in _OWN_SPACES or not file:
                raise ValueError(
                    f"'{name}={file}' is not NAME=FILE; the name of your own features begins with "
                    "a letter, has letters, digits, '_', '-' and '.', and is not "
                    f"{', '.join(_OWN_SPACES[:-1])} or {_OWN_SPACES[-1]}"
                )
        if len(set(self.extra_names)) < len(self.extra_names):
            raise ValueError("extra_feature_spaces names a feature space twice; leave one out")
        return self

    @model_validator(mode="after")
    def _compares_something(self) -> EncodingConfig:
        if not (self.analyses or self.extra_feature_spaces):
            raise ValueError("choose at least one of analyses or one of extra_feature_spaces")
        return self

    @model_validator(mode="after")
    def _permutations_can_be_significant(self) -> EncodingConfig:
        if self.n_permutations and (1 + self.n_permutations) * self.fdr_alpha < 1:
            raise ValueError(
                f"with {self.n_permutations} permutations no p can be as low as "
                f"{self.fdr_alpha:g}; set n_permutations to 0 or at least "
                f"{math.ceil(1 / self.fdr_alpha) - 1}"
            )
        return self


class Experiment(Section):
    """Everything that decides what a run computes.

    Examples
    --------
    >>> from calcarine.experiment import load_experiment
    >>> experiment = load_experiment("takagi", settings=["generation.samples=1"])
    >>> experiment.generation.samples, experiment.dataset.name
    (1, 'simulated')
    """

    name: str = Field("experiment", description="Name of the experiment, part of folder names.")
    preset: str | None = Field(
        None, description="Preset that the settings start from; 'calcarine presets' lists them."
    )
    dataset: DatasetConfig = Field(DatasetConfig(), description="The brain data.")
    compute: ComputeConfig = Field(
        default_factory=ComputeConfig, description="Device, precision and store of features."
    )
    roi: RoiConfig = Field(RoiConfig(), description="Regions that the decoders read.")
    features: FeaturesConfig = Field(FeaturesConfig(), description="How z and c are made.")
    decoder: DecoderConfig = Field(DecoderConfig(), description="The decoder of z and c.")
    ridge: RidgeConfig = Field(RidgeConfig(), description="Decoding by ridge regression.")
    generation: GenerationConfig = Field(
        GenerationConfig(), description="How pictures are made from decoded latents."
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="Scores and audit.")
    embeddings: EmbeddingsConfig = Field(
        EmbeddingsConfig(), description="Decoded features of stimuli, and retrieval by them."
    )
    encoding: EncodingConfig = Field(EncodingConfig(), description="Voxel-wise encoding models.")
    visdec: VisDecConfig = Field(VisDecConfig(), description="Vis-Dec, in its three phases.")

    @property
    def makes_latents(self) -> bool:
        """Whether the run makes z and c of the stimuli; Vis-Dec alone does not need them."""
        return self.ridge.enabled or self.encoding.enabled

    @property
    def uses_latents(self) -> bool:
        """Whether z or c of stimuli decide a result of the run."""
        targets = self.embeddings.targets
        return self.makes_latents or any(target.space in ("z", "c") for target in targets)

    @property
    def decodes_by_own_class(self) -> bool:
        """Whether a registered class decodes z and c; it sees the whole data set."""
        return self.ridge.enabled and self.decoder.name != "ridge"

    def chooses_settings(self, n_train: Sequence[int]) -> bool:
        """Return whether strength and guidance are chosen inside the training data.

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
