"""Settings of the three phases of Vis-Dec: pretrain, guide, finetune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calcarine.errors import SettingError
from calcarine.training import TrainingConfig
from calcarine.visdec.settings import Augmentation, ContrastLoss, FinetuneLoss, GuidanceLoss

__all__ = [
    "PRESETS",
    "EncoderSettings",
    "FinetuneSettings",
    "GuideSettings",
    "PretrainSettings",
    "VisDecSettings",
    "merge_settings",
]

Trials = Literal["one", "mean", "random"]
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
    loss: GuidanceLoss = Field(GuidanceLoss(), description="Losses and masking.")
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
        0.1, gt=0, lt=1, description="Share of training stimuli that validate and do not train."
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
    """Return nested settings with changes; neither argument is changed."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[name] = merge_settings(old, value)
        else:
            merged[name] = value
    return merged


PRESETS: dict[str, dict[str, Any]] = {
    # Trains in minutes on a laptop.
    "mini": {
        "encoder": {
            "patch": 32,
            "dim": 128,
            "depth": 2,
            "heads": 4,
            "decoder_dim": 96,
            "decoder_depth": 1,
            "decoder_heads": 4,
            "embedding": "own",
        },
        "pretrain": {
            "augmentation": {"drop": 0.1},
            "training": {
                "steps": 800,
                "batch_size": 64,
                "lr": 2e-3,
                "warmup_steps": 100,
                "validate_every": 200,
            },
        },
        "guide": {
            "augmentation": {"drop": 0.1},
            "training": {
                "steps": 200,
                "batch_size": 32,
                "lr": 5e-4,
                "warmup_steps": 30,
                "validate_every": 50,
            },
        },
        "finetune": {
            "loss": {"align": 1.0, "latent": 1.0},
            "augmentation": {"noise": 0.2, "drop": 0.1},
            "training": {
                "steps": 400,
                "batch_size": 24,
                "lr": 2e-3,
                "warmup_steps": 50,
                "validate_every": 100,
            },
            "strength": 0.8,
            "guidance": 2.0,
            "steps": 30,
        },
    },
    # The paper and its documented command (140, 60 and 700 epochs).
    "paper": {
        "pretrain": {
            "training": {
                "steps": 76_000,
                "batch_size": 250,
                "lr": 2.5e-4,
                "warmup_steps": 21_800,
                "weight_decay": 0.05,
                "clip": 0.8,
                "precision": "16",
            },
        },
        "guide": {
            "image_autoencoder": "facebook/vit-mae-base",
            "image_decoder_depth": 6,
            "fmri_decoder_depth": 6,
            "training": {
                "steps": 4_500,
                "batch_size": 16,
                "lr": 5.3e-5,
                "warmup_steps": 150,
                "precision": "16",
            },
        },
        "finetune": {
            "loss": {"drop_condition": 0.0, "tokens": 77, "begin": "random"},
            "training": {
                "steps": 105_000,
                "batch_size": 8,
                "lr": 5.3e-5,
                "schedule": "constant",
                "clip": 0.5,
                "weight_decay": 0.01,
                "betas": [0.9, 0.999],
            },
            "sampler": "plms",
            "steps": 250,
        },
    },
}
"""Settings of Vis-Dec by name."""
