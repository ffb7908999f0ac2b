"""The settings of Vis-Dec in a run: those of `VisDecSettings`, and its data and models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from calcarine.experiment.config_section import Section
from calcarine.visdec.settings import FinetuneSettings, PretrainSettings, VisDecSettings

__all__ = [
    "FinetuneConfig",
    "PoolConfig",
    "PretrainConfig",
    "VisDecConfig",
]


def _as_text(value: Any) -> Any:
    """Subjects may have numbers for names, as HCP's."""
    return str(value) if isinstance(value, int) else value


class PoolConfig(Section):
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


class PretrainConfig(PretrainSettings):
    """First phase: contrastive masked pre-training on unlabelled vectors."""

    start: str | None = Field(
        None, description="Published weights (a file) or your own (a folder) to start from."
    )
    pool: list[PoolConfig] = Field(
        [PoolConfig()], min_length=1, description="Sources of unlabelled vectors."
    )


class FinetuneConfig(FinetuneSettings):
    """Third phase: the fMRI encoder conditions the diffusion model."""

    enabled: bool = Field(
        True, description="Train this phase; false takes a published model (start) as it is."
    )
    start: str | None = Field(
        None, description="Published model of this phase, a file, to start from."
    )
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


class VisDecConfig(VisDecSettings):
    """Vis-Dec, in its three phases: pretrain, guide, finetune."""

    enabled: bool = Field(False, description="Train Vis-Dec and decode with it.")
    model: str | None = Field(
        None,
        description="Diffusion model that is conditioned on fMRI; by default generation.model.",
    )
    roi: str = Field(
        "all", description="Voxels that the encoder reads: a region, several joined as A+B, or all."
    )
    allow_transductive: bool = Field(
        False, description="Allow test responses in the pool of the pre-training."
    )
    pretrain: PretrainConfig = Field(PretrainConfig(), description="First phase.")
    finetune: FinetuneConfig = Field(FinetuneConfig(), description="Third phase.")

    def runs(self, phase: str) -> bool:
        """Return whether a phase is part of the run.

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
