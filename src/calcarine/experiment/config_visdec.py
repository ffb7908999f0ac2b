"""Configuration of the second system, Vis-Dec (Sun et al. 2023)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from calcarine.training import TrainingConfig
from calcarine.visdec.augmentation import Augmentation
from calcarine.visdec.cross_modal import GuidanceLoss
from calcarine.visdec.finetuning import FinetuneLoss
from calcarine.visdec.losses import ContrastLoss

PHASES = ("pretrain", "guide", "finetune")
"""Phases of Vis-Dec, in their order."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def _as_text(value: Any) -> Any:
    """Numbers of subjects are names, as HCP's."""
    return str(value) if isinstance(value, int) else value


class PoolConfig(_Part):
    """One source of unlabelled vectors.

    ``own``: training responses of the subject. ``rest``: the simulated subject at rest. ``hcp``:
    resting visual cortex of HCP. ``dataset``: training responses of another data set or subject.
    ``test``: test responses of the subject, without their stimuli (transductive).
    """

    source: Literal["own", "rest", "hcp", "dataset", "test"] = "own"
    name: str | None = Field(None, description="of another data set")
    data: str | None = Field(None, description="folder of its files, or of HCP's")
    subject: Annotated[str | None, BeforeValidator(_as_text)] = None
    roi: str = Field("all", description="of another data set")
    n: int = Field(2400, ge=120, description="samples of simulated rest")

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class EncoderConfig(_Part):
    """Shape of the masked autoencoder of voxel vectors."""

    patch: int = Field(16, ge=1)
    dim: int = Field(1024, ge=2)
    depth: int = Field(24, ge=1)
    heads: int = Field(16, ge=1)
    mlp_ratio: float = Field(1.0, gt=0)
    decoder_dim: int = Field(512, ge=2)
    decoder_depth: int = Field(8, ge=1)
    decoder_heads: int = Field(16, ge=1)
    embedding: Literal["shared", "own"] = Field(
        "shared", description="own: weights of each patch's own, for one subject"
    )


class PretrainConfig(_Part):
    """First phase: contrast."""

    enabled: bool = True
    start: str | None = Field(None, description="published or own weights to begin from")
    pool: list[PoolConfig] = Field([PoolConfig()], min_length=1)
    loss: ContrastLoss = ContrastLoss()
    augmentation: Augmentation = Augmentation()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _has_negatives(self) -> PretrainConfig:
        contrasted = self.loss.self_contrast or self.loss.cross_contrast
        if contrasted and self.training.micro_batch < 2:
            raise ValueError(
                "contrasts are within a micro-batch, which holds one sample here; accumulate less "
                "or take a larger batch_size"
            )
        return self


class GuideConfig(_Part):
    """Second phase: attend."""

    enabled: bool = True
    image_autoencoder: str = "mini"
    image_decoder_depth: int | None = Field(None, ge=1)
    fmri_decoder_depth: int | None = Field(None, ge=1)
    loss: GuidanceLoss = GuidanceLoss()
    augmentation: Augmentation = Augmentation()
    trials: Literal["one", "mean", "random"] = "random"
    training: TrainingConfig = TrainingConfig()


class FinetuneConfig(_Part):
    """Third phase: diffuse."""

    enabled: bool = Field(True, description="false takes the published start as it is")
    start: str | None = Field(None, description="published fine-tuned model to begin from")
    loss: FinetuneLoss = FinetuneLoss()
    augmentation: Augmentation = Augmentation()
    trials: Literal["one", "mean", "random"] = "random"
    training: TrainingConfig = TrainingConfig()
    strength: float = Field(
        1.0, gt=0, le=1, description="below 1: from the told latent, not from noise as in the paper"
    )
    guidance: float = Field(1.0, ge=0, description="of sampling; 1 is none, as in the paper")
    sampler: Literal["ddim", "plms"] = "ddim"
    steps: int = Field(50, ge=1, le=1000)
    samples: int = Field(5, ge=1)

    @property
    def aligned(self) -> bool:
        """Whether training also draws conditions to the text of stimuli."""
        return self.enabled and self.loss.align > 0

    @model_validator(mode="after")
    def _is_trained_or_given(self) -> FinetuneConfig:
        if not self.enabled and self.start is None:
            raise ValueError(
                "without training there must be a published model: give finetune.start"
            )
        if not self.enabled and self.guidance != 1:
            raise ValueError(
                "published models were trained under conditions alone, so they cannot be guided; "
                "set finetune.guidance to 1, or train on with finetune.enabled=true"
            )
        return self

    @model_validator(mode="after")
    def _has_a_latent(self) -> FinetuneConfig:
        if int(self.steps * self.strength) < 1:
            raise ValueError(
                f"of {self.steps} steps strength {self.strength:g} leaves none; raise one of them"
            )
        if self.strength < 1 and not self.loss.latent:
            raise ValueError(
                "below strength 1 sampling begins from a told latent, which is not trained; raise "
                "loss.latent above 0, or set strength to 1"
            )
        return self

    @model_validator(mode="after")
    def _can_be_guided(self) -> FinetuneConfig:
        if self.guidance != 1 and not self.loss.drop_condition:
            raise ValueError(
                "guidance needs a model that was also trained without condition; raise "
                "loss.drop_condition above 0, or set guidance to 1"
            )
        return self


class VisDecConfig(_Part):
    """pretrain, guide, finetune."""

    enabled: bool = False
    model: str | None = Field(None, description="diffusion model; that of generation by default")
    roi: str = "all"
    validation: float = Field(0.1, gt=0, lt=1, description="share of training stimuli")
    seed: int = Field(2022, ge=0)
    scale: Literal["voxel", "all"] = Field(
        "voxel", description="mean and SD of each voxel, or as published one of all"
    )
    allow_transductive: bool = Field(False, description="test responses may be pre-trained on")
    encoder: EncoderConfig = EncoderConfig()
    pretrain: PretrainConfig = PretrainConfig()
    guide: GuideConfig = GuideConfig()
    finetune: FinetuneConfig = FinetuneConfig()

    def runs(self, phase: str) -> bool:
        """Whether a phase is part of the run.

        The last phase is part of every run with Vis-Dec: without training it takes a published
        model as it is.
        """
        if not self.enabled:
            return False
        return phase == "finetune" or bool(getattr(self, phase).enabled)

    @property
    def transductive(self) -> bool:
        """Whether test responses reach the pre-training."""
        return self.pretrain.enabled and any(part.source == "test" for part in self.pretrain.pool)

    @model_validator(mode="after")
    def _begins_once(self) -> VisDecConfig:
        before = self.pretrain.start or (self.pretrain.enabled or self.guide.enabled)
        if self.finetune.start and before:
            raise ValueError(
                "finetune.start has an encoder of its own, so nothing is trained before; set "
                "visdec.pretrain.enabled=false and visdec.guide.enabled=false, and leave "
                "pretrain.start out"
            )
        return self

    @model_validator(mode="after")
    def _of_one_subject(self) -> VisDecConfig:
        if self.encoder.embedding == "own" and self.pretrain.enabled:
            strange = [p.source for p in self.pretrain.pool if p.source in ("hcp", "dataset")]
            if strange:
                raise ValueError(
                    f"patches with weights of their own (visdec.encoder.embedding) know the voxels "
                    f"of one subject, and the pool '{strange[0]}' has others; set it to shared"
                )
        return self

    @model_validator(mode="after")
    def _honest(self) -> VisDecConfig:
        if self.transductive and not self.allow_transductive:
            raise ValueError(
                "the pool holds test responses, which makes scores transductive; leave 'test' out, "
                "or give --allow-transductive (visdec.allow_transductive=true), which the report "
                "will say"
            )
        return self


PAPER: dict[str, Any] = {
    "enabled": True,
    "model": "model.ckpt",
    "pretrain": {
        "pool": ["own"],
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
}
"""Settings of the paper and its documented command (140, 60 and 700 epochs)."""

MINI: dict[str, Any] = {
    "enabled": True,
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
        "pool": ["rest", "own"],
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
        "samples": 2,
    },
}
"""Of a size for a laptop and the mini model."""
