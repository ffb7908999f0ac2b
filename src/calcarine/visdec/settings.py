"""Settings of Vis-Dec: its losses, its three phases, and the whole; a light import without torch.

What a run of an experiment adds to them is in `calcarine.experiment.visdec_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calcarine.errors import CalcarineError, SettingError
from calcarine.training import TrainingConfig
from calcarine.visdec.presets import PRESETS

__all__ = [
    "Augmentation",
    "ContrastLoss",
    "EncoderSettings",
    "FinetuneLoss",
    "FinetuneSettings",
    "GuideLoss",
    "GuideSettings",
    "PretrainSettings",
    "VisDecSettings",
    "merge_settings",
]


@dataclass(frozen=True)
class Augmentation:
    """How much vectors are changed before a network sees them.

    Attributes
    ----------
    noise : float
        SD of Gaussian noise, in SDs of z-scored responses.
    drop : float
        Share of voxels that are set to 0, their mean. (The published code means to do so with .2
        and, by an index of the wrong axis, drops none.)
    gain : float
        SD of the logarithm of a factor for a whole vector.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    noise: Annotated[
        float, Field(description="SD of added Gaussian noise, in SDs of z-scored responses.")
    ] = 0.0
    drop: Annotated[float, Field(description="Share of voxels that are set to 0, their mean.")] = (
        0.0
    )
    gain: Annotated[
        float,
        Field(description="SD of the logarithm of a random factor for each whole vector."),
    ] = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0 or self.gain < 0 or not 0 <= self.drop < 1:
            raise CalcarineError(
                "Augmentation takes noise and gain of 0 or more and drop below 1; they are "
                f"{self.noise}, {self.gain} and {self.drop}."
            )


@dataclass(frozen=True)
class ContrastLoss:
    """Weights of the three losses of pre-training and how the contrasts are formed.

    Attributes
    ----------
    reconstruction, self_contrast, cross_contrast : float
        Weights; 0 leaves a loss out.
    mask_ratio : float
        Share of patches that are masked, in each of the two maskings.
    temperature : float
        Temperature of both contrasts.
    form : {"paper", "code"}
        ``"paper"``: both masked branches are contrasted with the true vectors, as the paper's
        figure shows. ``"code"``: only the first is, and both contrasts are halved.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    reconstruction: Annotated[
        float, Field(description="Weight of the reconstruction loss; 0 leaves it out.")
    ] = 1.0
    self_contrast: Annotated[
        float,
        Field(
            description="Weight of the contrast between a vector and its reconstruction; 0 leaves "
            "it out."
        ),
    ] = 1.0
    cross_contrast: Annotated[
        float,
        Field(
            description="Weight of the contrast between the two reconstructions of a vector; 0 "
            "leaves it out."
        ),
    ] = 0.5
    mask_ratio: Annotated[
        float, Field(description="Share of patches that are masked, in each of the two maskings.")
    ] = 0.75
    temperature: Annotated[float, Field(description="Temperature of both contrasts.")] = 0.1
    form: Annotated[
        Literal["paper", "code"],
        Field(
            description="paper: both masked branches are contrasted with the true vectors. code: "
            "only the first is, and both contrasts are halved."
        ),
    ] = "paper"

    def __post_init__(self) -> None:
        if self.form not in ("paper", "code"):
            raise CalcarineError(f"The form of the contrast is paper or code, not {self.form}.")
        if self.temperature <= 0:
            raise CalcarineError(f"The temperature must be above 0, not {self.temperature}.")
        _check_mask("mask_ratio", self.mask_ratio)
        weights = (self.reconstruction, self.self_contrast, self.cross_contrast)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise CalcarineError(
                "Weights of losses are numbers from 0, and at least one is above 0; they are "
                f"{weights}."
            )


@dataclass(frozen=True)
class GuideLoss:
    """Weights, maskings and depth; the defaults are the paper's best (its Table 2, row 14).

    Attributes
    ----------
    gamma_fmri, gamma_image : float
        Weights of the two reconstruction losses.
    fmri_mask, image_mask : float
        Shares of patches that are masked.
    layers : int
        Cross-attention blocks, half of them on each side (6 in the paper).
    direction : {"paper", "code"}
        Which side gives the queries; see
        :class:`calcarine.visdec.transformer_blocks.CrossBlock`.
    partners : {"own", "shuffled"}
        The pictures that guide: of the stimuli themselves, or, as a control of what pairs teach,
        of other training stimuli, one fixed for each.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    gamma_fmri: Annotated[
        float, Field(description="Weight of the reconstruction loss of fMRI patches.")
    ] = 0.25
    gamma_image: Annotated[
        float, Field(description="Weight of the reconstruction loss of image patches.")
    ] = 1.5
    fmri_mask: Annotated[float, Field(description="Share of fMRI patches that are masked.")] = 0.75
    image_mask: Annotated[float, Field(description="Share of image patches that are masked.")] = 0.5
    layers: Annotated[
        int, Field(description="Number of cross-attention blocks, half of them on each side.")
    ] = 6
    direction: Annotated[
        Literal["paper", "code"],
        Field(
            description="Which side gives the queries of cross-attention: as the paper describes "
            "it, or as the published code does."
        ),
    ] = "paper"
    partners: Annotated[
        Literal["own", "shuffled"],
        Field(
            description="Pictures that guide: those of the stimuli, or those of other stimuli, as "
            "a control."
        ),
    ] = "own"

    def __post_init__(self) -> None:
        if self.layers < 2 or self.layers % 2:
            raise CalcarineError(
                f"Cross-attention has as many blocks on each side: layers is even, not "
                f"{self.layers}."
            )
        _check_mask("fmri_mask", self.fmri_mask)
        _check_mask("image_mask", self.image_mask)
        gammas = (self.gamma_fmri, self.gamma_image)
        if not all(0 <= gamma < float("inf") for gamma in gammas) or not any(gammas):
            raise CalcarineError("gamma_fmri and gamma_image are numbers from 0, and not both 0.")


@dataclass(frozen=True)
class FinetuneLoss:
    """How the conditioned diffusion model is trained.

    Attributes
    ----------
    drop_condition : float
        Share of samples that train without condition, so that guidance is possible (0 in the
        paper, which samples without guidance).
    time_condition : bool
        Also add the condition to the time embedding ("double conditioning").
    tokens : int, optional
        Number of tokens of the context; that of the model's own text by default (77 in the paper).
    begin : {"empty", "random"}
        ``"empty"``: contexts start at that of the empty text, where the model has text;
        ``"random"``: as in the published code.
    align : float
        Weight of the distance from contexts to the model's own contexts of the stimuli's text, in
        units of their variance. The denoising loss alone teaches a conditioner slowly which
        context belongs to which response; this loss teaches it directly. 0 in the paper, which
        uses no text.
    latent : float
        Weight of the distance from the predicted latent to the stimulus' own, in units of their
        variance; sampling may then start from the predicted latent, noised to a strength, as
        Takagi & Nishimoto start from z. 0 in the paper, which starts from noise.
    encoder_rate, unet_rate : float
        Learning rates of the fMRI encoder and of the U-Net, over that of the new layers between
        them; 1 in the paper.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is an error

    drop_condition: Annotated[
        float,
        Field(
            description="Share of samples that train without condition, which guidance needs; 0 in "
            "the paper."
        ),
    ] = 0.1
    time_condition: Annotated[
        bool, Field(description="Add the condition to the time embedding too.")
    ] = True
    tokens: Annotated[
        int | None,
        Field(description="Tokens of the context; by default as many as the model's text has."),
    ] = None
    begin: Annotated[
        Literal["empty", "random"],
        Field(
            description="Where contexts start: at the context of the empty text, or at random as "
            "in the published code."
        ),
    ] = "empty"
    align: Annotated[
        float,
        Field(
            description="Weight of the distance from contexts to those of the stimuli's text, in "
            "units of their variance; 0 in the paper."
        ),
    ] = 0.0
    latent: Annotated[
        float,
        Field(
            description="Weight of the distance from the predicted latent to the stimulus' own, in "
            "units of their variance; 0 in the paper."
        ),
    ] = 0.0
    encoder_rate: Annotated[
        float,
        Field(description="Learning rate of the fMRI encoder, as a multiple of training.lr."),
    ] = 1.0
    unet_rate: Annotated[
        float, Field(description="Learning rate of the U-Net, as a multiple of training.lr.")
    ] = 1.0

    def __post_init__(self) -> None:
        for name in ("encoder_rate", "unet_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise CalcarineError(f"{name} is above 0, not {getattr(self, name)}.")
        for name in ("align", "latent"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise CalcarineError(f"The weight {name} is 0 or more, not {getattr(self, name)}.")
        if self.tokens is not None and self.tokens < 1:
            raise CalcarineError(
                f"tokens is 1 or more, or null for those of the model's text, not {self.tokens}."
            )
        if not 0 <= self.drop_condition < 1:
            raise CalcarineError(
                f"drop_condition is at least 0 and below 1, not {self.drop_condition}."
            )


def _check_mask(name: str, share: float) -> None:
    """Refuse a share of masked patches that hides none or all."""
    if not 0 < share < 1:
        raise CalcarineError(f"{name} is the share of masked patches, above 0 and below 1.")


Trials = Literal["one", "mean", "random"]
_ALTERNATIVES = {"steps": "epochs", "epochs": "steps"}
_TRIALS = (
    "What stands for a stimulus in a step: one of its trials, the mean of all of them, or the mean "
    "of a random part of them."
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderSettings(_Section):
    """Shape of the masked autoencoder of voxel vectors."""

    patch: int = Field(16, ge=1, description="Voxels of a patch.")
    dim: int = Field(1024, ge=2, description="Width of the encoder.")
    depth: int = Field(24, ge=1, description="Transformer blocks of the encoder.")
    heads: int = Field(16, ge=1, description="Attention heads of the encoder.")
    mlp_ratio: float = Field(1.0, gt=0, description="Hidden width over width of the blocks.")
    decoder_dim: int = Field(512, ge=2, description="Width of the decoder.")
    decoder_depth: int = Field(8, ge=1, description="Transformer blocks of the decoder.")
    decoder_heads: int = Field(16, ge=1, description="Attention heads of the decoder.")
    embedding: Literal["shared", "own"] = Field(
        "shared",
        description="Patches share the weights that embed them, or each has its own, which fits "
        "one subject only.",
    )


class PretrainSettings(_Section):
    """First phase: contrastive masked pre-training on vectors without stimuli."""

    enabled: bool = Field(True, description="Run this phase.")
    loss: ContrastLoss = Field(ContrastLoss(), description="Losses and masking.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes of vectors.")
    training: TrainingConfig = Field(TrainingConfig(), description="Training of this phase.")

    @model_validator(mode="after")
    def _has_negatives(self) -> Self:
        contrasted = self.loss.self_contrast or self.loss.cross_contrast
        if self.enabled and contrasted and self.training.micro_batch < 2:
            raise ValueError(
                "contrasts are within a micro-batch, which holds one sample here; accumulate less "
                "or choose a larger batch_size"
            )
        return self


class GuideSettings(_Section):
    """Second phase: pictures guide the fMRI encoder."""

    enabled: bool = Field(True, description="Run this phase.")
    image_autoencoder: str = Field(
        "mini",
        description="Masked autoencoder of images: mini, a folder, or a name on the Hugging Face "
        "hub.",
    )
    image_decoder_depth: int | None = Field(
        None, ge=1, description="Blocks of the image decoder to keep; all by default."
    )
    fmri_decoder_depth: int | None = Field(
        None, ge=1, description="Blocks of the fMRI decoder to keep; all by default."
    )
    loss: GuideLoss = Field(GuideLoss(), description="Losses and masking.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes of vectors.")
    trials: Trials = Field("random", description=_TRIALS)
    training: TrainingConfig = Field(TrainingConfig(), description="Training of this phase.")


class FinetuneSettings(_Section):
    """Third phase: the fMRI encoder conditions the diffusion model."""

    loss: FinetuneLoss = Field(FinetuneLoss(), description="Losses and condition.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes of vectors.")
    trials: Trials = Field("random", description=_TRIALS)
    training: TrainingConfig = Field(TrainingConfig(), description="Training of this phase.")
    strength: float = Field(
        1.0,
        gt=0,
        le=1,
        description="1 starts sampling from noise, as in the paper; below 1 it starts from the "
        "predicted latent, noised to this strength.",
    )
    guidance: float = Field(1.0, ge=0, description="Scale of guidance in sampling; 1 is none.")
    sampler: Literal["ddim", "plms"] = Field("ddim", description="Sampler.")
    steps: int = Field(50, ge=1, le=1000, description="Steps of the denoising.")

    @model_validator(mode="after")
    def _can_be_sampled(self) -> Self:
        if int(self.steps * self.strength) < 1:
            raise ValueError(
                f"of {self.steps} steps strength {self.strength:g} leaves no denoising step; raise "
                "one of them"
            )
        if self.strength < 1 and not self.loss.latent:
            raise ValueError(
                "below strength 1 sampling starts from a predicted latent, which is not trained; "
                "raise loss.latent above 0, or set strength to 1"
            )
        if self.guidance != 1 and not self.loss.drop_condition:
            raise ValueError(
                "guidance needs a model that was also trained without condition; raise "
                "loss.drop_condition above 0, or set guidance to 1"
            )
        return self


class VisDecSettings(_Section):
    """Settings of Vis-Dec in its three phases.

    Examples
    --------
    >>> from calcarine.visdec import VisDecSettings
    >>> VisDecSettings.from_preset("mini").encoder.patch
    32
    >>> VisDecSettings.from_preset("mini", {"guide": {"enabled": False}}).guide.enabled
    False
    """

    validation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of training stimuli that validate and do not train; 0 trains on all.",
    )
    seed: int = Field(2022, ge=0, description="Seed that draws the validation stimuli.")
    scale: Literal["voxel", "all"] = Field(
        "voxel",
        description="Scale responses by mean and SD of each voxel, or by one mean and SD of all "
        "voxels, as the published code does.",
    )
    encoder: EncoderSettings = Field(EncoderSettings(), description="Shape of the autoencoder.")
    pretrain: PretrainSettings = Field(PretrainSettings(), description="First phase.")
    guide: GuideSettings = Field(GuideSettings(), description="Second phase.")
    finetune: FinetuneSettings = Field(FinetuneSettings(), description="Third phase.")

    @model_validator(mode="after")
    def _can_validate(self) -> Self:
        if self.validation:
            return self
        for name in ("pretrain", "guide", "finetune"):
            phase = getattr(self, name)
            training = phase.training
            if getattr(phase, "enabled", True) and (training.chooses or training.validate_every):
                raise ValueError(
                    f"select 'best', patience and validate_every of {name}.training need "
                    "validation stimuli, and there are none: set validation above 0, for example "
                    "to 0.1, or leave the three out"
                )
        return self

    @classmethod
    def from_preset(cls, name: str, changes: Mapping[str, Any] | None = None) -> VisDecSettings:
        """Return the settings of a preset, with changes.

        Parameters
        ----------
        name : {"mini", "paper"}
            "mini" trains in minutes on a laptop with the bundled model; "paper" has the settings
            of Sun et al. (2023).
        changes : mapping, optional
            Nested settings, such as ``{"pretrain": {"training": {"steps": 100}}}``.

        Raises
        ------
        SettingError
            If a preset or a setting does not exist, or a value does not fit.
        """
        if name not in PRESETS:
            raise SettingError(
                f"There are no Vis-Dec settings {name!r}; choose one of {', '.join(PRESETS)}."
            )
        return cls.from_mapping(merge_settings(PRESETS[name], changes or {}))

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> VisDecSettings:
        """Return settings from nested mappings; what is left out has its default.

        Raises
        ------
        SettingError
            If a setting does not exist or a value does not fit.
        """
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "of Vis-Dec"
            reason = first["msg"].removeprefix("Value error, ")
            raise SettingError(f"The setting {place} is wrong: {reason}.") from error


def merge_settings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes; neither argument is changed.

    Where the length of a training changes from epochs to steps, or back, the other one is unset.
    """
    merged = dict(base)
    for name, value in changes.items():
        other = _ALTERNATIVES.get(name)
        if other in merged and other not in changes and value is not None:
            merged[other] = None
        old = merged.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[name] = merge_settings(old, value)
        else:
            merged[name] = value
    return merged
