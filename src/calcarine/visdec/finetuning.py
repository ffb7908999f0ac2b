"""Third phase of Vis-Dec: the diffusion model learns to listen to the brain (section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from calcarine.errors import CalcarineError
from calcarine.visdec.augmentation import augment_vectors
from calcarine.visdec.conditioner import Conditioner, ConditionerOutput
from calcarine.visdec.pairs import StimulusVectors
from calcarine.visdec.patches import PatchedVectors
from calcarine.visdec.settings import Augmentation, FinetuneLoss

__all__ = ["DiffusionFinetuning"]


class DiffusionFinetuning(nn.Module):
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
    contexts
        Of training and validation stimuli, each (stimulus, tokens, width); what conditions are
        aligned with.

    Notes
    -----
    The loss is the mean squared error of what the U-Net predicts (noise or velocity) at times
    drawn evenly over the batch. With ``align`` or ``latent`` it is the part ``diffusion`` of the
    total; the parts of these names are mean squared distances over the variance in training.
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
        config: FinetuneLoss | None = None,
        augmentation: Augmentation | None = None,
        contexts: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.conditioner, self.unet = conditioner, unet
        self.config = config or FinetuneLoss()
        self.augmentation = augmentation or Augmentation()
        kind = scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise CalcarineError(
                f"This diffusion model predicts '{kind}'; models that predict noise (epsilon) or "
                "velocity (v_prediction) can be trained."
            )
        self._velocity = kind == "v_prediction"
        self._alphas = scheduler.alphas_cumprod.float()
        if (contexts is None) != (self.config.align == 0):
            raise CalcarineError("Contexts are given where align is above 0, and only there.")
        told = contexts or (None, None)
        self._train = train, train_latents, told[0]
        self._validation = validation, validation_latents, told[1]
        if contexts is not None:
            self._spread = _spread(contexts[0])
            if not self._spread > 0:
                raise CalcarineError(
                    "All training stimuli have the same text, so there is nothing to align with; "
                    "set align to 0."
                )
        self._latent_spread = _spread(train_latents)
        if self.config.latent and not self._latent_spread > 0:
            raise CalcarineError(
                "All training stimuli have the same latent, so there is none to tell; set latent "
                "to 0."
            )

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
        vectors = self._train[0].draw(rows, generator)
        vectors = augment_vectors(vectors, self.augmentation, generator)
        return self._loss(vectors, self._train, rows, generator, self.config.drop_condition)

    def validation_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The same on validation stimuli, always conditioned."""
        vectors = self._validation[0].mean(rows)
        return self._loss(vectors, self._validation, rows, generator, 0.0)

    def _loss(
        self,
        vectors: PatchedVectors,
        targets: tuple[StimulusVectors, torch.Tensor, torch.Tensor | None],
        rows: torch.Tensor,
        generator: torch.Generator,
        drop: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        latents, contexts = targets[1][rows], targets[2]
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
        condition = whole = self.conditioner(vectors.to(device))
        if drop:
            condition = self.conditioner.without(condition, left_out.to(device))
        guess = self._guess(noisy.to(device), times.to(device), condition)
        loss = F.mse_loss(guess.float(), target.to(device))
        parts = {"diffusion": loss}
        if contexts is not None:
            own = contexts[rows].to(device)
            away = F.mse_loss(whole.context.float(), own) / self._spread
            parts["align"] = away
            loss = loss + self.config.align * away
        if whole.latent is not None and self.config.latent:
            away = F.mse_loss(whole.latent.float(), latents.to(device)) / self._latent_spread
            parts["latent"] = away
            loss = loss + self.config.latent * away
        return loss, parts if len(parts) > 1 else {}

    def _guess(
        self, noisy: torch.Tensor, times: torch.Tensor, condition: ConditionerOutput
    ) -> torch.Tensor:
        told = {} if condition.time is None else {"class_labels": condition.time}
        return self.unet(noisy, times, encoder_hidden_states=condition.context, **told).sample


def _spread(targets: torch.Tensor) -> float:
    """Variance over stimuli, averaged over all that is told of one."""
    return float(targets.var(0, correction=0).mean())
