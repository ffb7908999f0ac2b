"""The settings of Vis-Dec (Sun et al. 2023)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from calcarine.training import TrainingConfig
from calcarine.visdec.settings import Augmentation, ContrastLoss, FinetuneLoss, GuidanceLoss

__all__ = [
    "EncoderConfig",
    "FinetuneConfig",
    "GuideConfig",
    "PoolConfig",
    "PretrainConfig",
    "VisDecConfig",
]

_TRIALS = (
    "What stands for a stimulus in a step: one of its trials, the mean of all of them, or the mean "
    "of a random part of them."
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def _as_text(value: Any) -> Any:
    """Subjects may have numbers for names, as HCP's."""
    return str(value) if isinstance(value, int) else value


class PoolConfig(_Section):
    """One source of unlabelled vectors."""

    source: Literal["own", "rest", "hcp", "dataset", "test"] = Field(
        "own",
        description="own: training responses of the subject. rest: the simulated subject at rest. "
        "hcp: visual cortex at rest of HCP. dataset: training responses of another data set or "
        "subject. test: test responses of the subject, without their stimuli (transductive).",
    )
    name: str | None = Field(None, description="Name of another data set.")
    data: str | None = Field(None, description="Folder of another data set's files, or of HCP's.")
    subject: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None, description="Subject of the source; by default all of HCP, else the first."
    )
    roi: str = Field("all", description="Region of another data set; several joined as A+B.")
    n: int = Field(2400, ge=120, description="Number of vectors of the simulated rest.")

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class EncoderConfig(_Section):
    """Shape of the masked autoencoder of voxel vectors."""

    patch: int = Field(16, ge=1, description="Voxels of a patch.")
    dim: int = Field(1024, ge=2, description="Width of the encoder.")
    depth: int = Field(24, ge=1, description="Transformer blocks of the encoder.")
    heads: int = Field(16, ge=1, description="Attention heads of the encoder.")
    mlp_ratio: float = Field(
        1.0, gt=0, description="Width of the blocks' hidden layer, in units of the block's width."
    )
    decoder_dim: int = Field(512, ge=2, description="Width of the decoder.")
    decoder_depth: int = Field(8, ge=1, description="Transformer blocks of the decoder.")
    decoder_heads: int = Field(16, ge=1, description="Attention heads of the decoder.")
    embedding: Literal["shared", "own"] = Field(
        "shared",
        description="Patches share the weights that embed them, or each has its own, which fits "
        "one subject only.",
    )


class PretrainConfig(_Section):
    """First phase: contrastive masked pre-training on unlabelled vectors."""

    enabled: bool = Field(True, description="Run this phase.")
    start: str | None = Field(
        None, description="Published weights (a file) or your own (a folder) to start from."
    )
    pool: list[PoolConfig] = Field(
        [PoolConfig()], min_length=1, description="Sources of unlabelled vectors."
    )
    loss: ContrastLoss = Field(ContrastLoss(), description="Losses and masking of this phase.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes of the vectors.")
    training: TrainingConfig = Field(TrainingConfig(), description="Training of this phase.")

    @model_validator(mode="after")
    def _has_negatives(self) -> PretrainConfig:
        contrasted = self.loss.self_contrast or self.loss.cross_contrast
        if contrasted and self.training.micro_batch < 2:
            raise ValueError(
                "contrasts are within a micro-batch, which holds one sample here; accumulate less "
                "or take a larger batch_size"
            )
        return self


class GuideConfig(_Section):
    """Second phase: pictures guide the fMRI encoder."""

    enabled: bool = Field(True, description="Run this phase.")
    image_autoencoder: str = Field(
        "mini",
        description="Masked autoencoder of images: mini, a folder or a name on the Hugging Face "
        "hub.",
    )
    image_decoder_depth: int | None = Field(
        None, ge=1, description="Blocks of the image decoder that are kept; by default all."
    )
    fmri_decoder_depth: int | None = Field(
        None, ge=1, description="Blocks of the fMRI decoder that are kept; by default all."
    )
    loss: GuidanceLoss = Field(GuidanceLoss(), description="Losses and masking of this phase.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes of the vectors.")
    trials: Literal["one", "mean", "random"] = Field("random", description=_TRIALS)
    training: TrainingConfig = Field(TrainingConfig(), description="Training of this phase.")


class FinetuneConfig(_Section):
    """Third phase: the fMRI encoder conditions the diffusion model."""

    enabled: bool = Field(
        True, description="Train this phase; false takes a published model (start) as it is."
    )
    start: str | None = Field(
        None, description="Published model of this phase, a file, to start from."
    )
    loss: FinetuneLoss = Field(FinetuneLoss(), description="Losses and condition of this phase.")
    augmentation: Augmentation = Field(Augmentation(), description="Random changes of the vectors.")
    trials: Literal["one", "mean", "random"] = Field("random", description=_TRIALS)
    training: TrainingConfig = Field(TrainingConfig(), description="Training of this phase.")
    strength: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the noise that sampling starts from: 1 is pure noise, as in the "
        "paper; below 1 the predicted latent with so much noise.",
    )
    guidance: float = Field(
        1.0, ge=0, description="Scale of guidance in sampling; 1 is none, as in the paper."
    )
    sampler: Literal["ddim", "plms"] = Field("ddim", description="Sampler of the denoising.")
    steps: int = Field(50, ge=1, le=1000, description="Steps of the denoising.")
    samples: int = Field(5, ge=1, description="Samples of each stimulus.")

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
                "below strength 1 sampling starts from a predicted latent, which is not trained; "
                "raise loss.latent above 0, or set strength to 1"
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


class VisDecConfig(_Section):
    """Vis-Dec, in its three phases: pretrain, guide, finetune."""

    enabled: bool = Field(False, description="Train Vis-Dec and decode with it.")
    model: str | None = Field(
        None,
        description="Diffusion model that is conditioned on fMRI; by default generation.model.",
    )
    roi: str = Field(
        "all", description="Voxels that the encoder reads: a region, several joined as A+B, or all."
    )
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of training stimuli that validate and do not train."
    )
    seed: int = Field(2022, ge=0, description="Seed that draws the validation stimuli.")
    scale: Literal["voxel", "all"] = Field(
        "voxel",
        description="Scale responses by mean and SD of each voxel, or by one mean and SD of all "
        "voxels as the published code does.",
    )
    allow_transductive: bool = Field(
        False, description="Allow test responses in the pool of the pre-training."
    )
    encoder: EncoderConfig = Field(EncoderConfig(), description="Shape of the fMRI autoencoder.")
    pretrain: PretrainConfig = Field(PretrainConfig(), description="First phase.")
    guide: GuideConfig = Field(GuideConfig(), description="Second phase.")
    finetune: FinetuneConfig = Field(FinetuneConfig(), description="Third phase.")

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
