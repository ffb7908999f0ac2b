"""Third phase of Vis-Dec: the diffusion model learns to listen to the brain (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch import nn
from torch.nn import functional as F

from calcarine.errors import CalcarineError
from calcarine.networks.augment import Augmentation, augment_vectors
from calcarine.networks.conditioner import Condition, Conditioner
from calcarine.networks.pairs import StimulusVectors
from calcarine.networks.patches import PatchedVectors

__all__ = ["AdaptationConfig", "DiffusionAdaptation"]


@dataclass(frozen=True)
class AdaptationConfig:
    """How the conditioned diffusion model is trained.

    Attributes
    ----------
    drop_condition
        Share of samples that are told nothing, so that guidance is possible (0 in the paper,
        which samples without guidance).
    time_condition
        Also add the condition to the time embedding ("double conditioning").
    tokens
        Of the context; those of the model's own text where None (77 in the paper).
    begin
        ``"empty"``: contexts begin at that of the empty text, where the model has text;
        ``"random"``: as in the published code.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # a mistyped setting is told

    drop_condition: float = 0.1
    time_condition: bool = True
    tokens: int | None = None
    begin: Literal["empty", "random"] = "empty"

    def __post_init__(self) -> None:
        if not 0 <= self.drop_condition < 1:
            raise CalcarineError(
                f"drop_condition lies between 0 and below 1, not {self.drop_condition}."
            )


class DiffusionAdaptation(nn.Module):
    """What the third phase trains, and on what.

    Parameters
    ----------
    conditioner
    unet, scheduler
        Of diffusers; which of the U-Net's weights train is settled before, by
        :func:`calcarine.diffusion.conditional.freeze_except`.
    train, validation
        Vectors of training stimuli.
    train_latents, validation_latents
        float32 tensors, shape (stimulus, channels, h, w), on the scale that the U-Net sees.
    config, augmentation

    Notes
    -----
    The loss is the mean squared error of what the U-Net predicts (noise or velocity) at times
    drawn evenly over the batch.
    """

    def __init__(
        self,
        conditioner: Conditioner,
        unet: Any,
        scheduler: Any,
        train: StimulusVectors,
        validation: StimulusVectors,
        train_latents: torch.Tensor,
        validation_latents: torch.Tensor,
        config: AdaptationConfig | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.conditioner, self.unet = conditioner, unet
        self.config = config or AdaptationConfig()
        self.augmentation = augmentation or Augmentation()
        kind = scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise CalcarineError(
                f"This diffusion model predicts '{kind}'; models that predict noise (epsilon) or "
                "velocity (v_prediction) can be trained."
            )
        self._velocity = kind == "v_prediction"
        self._alphas = scheduler.alphas_cumprod.float()
        self._train, self._validation = (train, train_latents), (validation, validation_latents)

    @property
    def n_train(self) -> int:
        return len(self._train[0])

    @property
    def n_validation(self) -> int:
        return len(self._validation[0])

    def training_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean squared error of the U-Net on some training stimuli."""
        stimuli, latents = self._train
        vectors = augment_vectors(stimuli.draw(rows, generator), self.augmentation, generator)
        return self._loss(vectors, latents[rows], generator, self.config.drop_condition)

    def validation_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The same on validation stimuli, always conditioned."""
        stimuli, latents = self._validation
        return self._loss(stimuli.mean(rows), latents[rows], generator, 0.0)

    def _loss(
        self,
        vectors: PatchedVectors,
        latents: torch.Tensor,
        generator: torch.Generator,
        drop: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        n, device = len(latents), self.conditioner.empty.device
        # One draw shifts evenly spaced times, which makes the loss of a batch less noisy than
        # times drawn one by one (Kingma et al. 2021).
        shares = (
            torch.rand(1, generator=generator) + torch.randperm(n, generator=generator) / n
        ) % 1
        times = (shares * len(self._alphas)).long()
        noise = torch.randn(latents.shape, generator=generator)
        left_out = torch.rand(n, generator=generator) < drop
        a = self._alphas[times].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * latents if self._velocity else noise
        condition = self.conditioner(vectors.to(device))
        if drop:
            condition = self.conditioner.without(condition, left_out.to(device))
        guess = self._guess(noisy.to(device), times.to(device), condition)
        return F.mse_loss(guess.float(), target.to(device)), {}

    def _guess(
        self, noisy: torch.Tensor, times: torch.Tensor, condition: Condition
    ) -> torch.Tensor:
        told = {} if condition.time is None else {"class_labels": condition.time}
        return self.unet(noisy, times, encoder_hidden_states=condition.context, **told).sample
