"""Third phase of Vis-Dec: fine-tuning of the diffusion model (Sun et al. 2023, section 3.3)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from calcarine.errors import SettingError
from calcarine.visdec.augmentation import augment_vectors
from calcarine.visdec.conditioner import Conditioner, ConditionerOutput
from calcarine.visdec.patches import PatchedVectors
from calcarine.visdec.settings import Augmentation, FinetuneLoss
from calcarine.visdec.stimulus_vectors import StimulusVectors

__all__ = ["DiffusionFinetuning", "FinetuningData"]


class FinetuningData(NamedTuple):
    """Stimuli of the third phase.

    Attributes
    ----------
    vectors : StimulusVectors
        Vectors of training stimuli.
    latents : float32 tensor of shape (n, channels, h, w)
        Latents of these stimuli, on the scale of the U-Net's input.
    contexts : tensor of shape (n, tokens, width), optional
        Contexts of the text of these stimuli, for the loss ``align``.
    """

    vectors: StimulusVectors
    latents: torch.Tensor
    contexts: torch.Tensor | None = None


class DiffusionFinetuning(nn.Module):
    """Training task of the third phase.

    Parameters
    ----------
    conditioner : Conditioner
        The conditioner to train.
    unet, scheduler
        U-Net and scheduler of diffusers. Choose the weights of the U-Net to train beforehand, with
        :func:`calcarine.diffusion.conditional.freeze_except`.
    train : FinetuningData
    validation : FinetuningData, optional
        Stimuli whose loss is recorded, if any are held out.
    config : FinetuneLoss, optional
        Losses and condition.
    augmentation : Augmentation, optional
        Random changes of the input vectors.

    Notes
    -----
    The loss is the mean squared error of the U-Net's prediction (noise or velocity) at times that
    are spread evenly over the batch. With ``align`` or ``latent``, it is the part ``diffusion`` of
    the total; the parts ``align`` and ``latent`` are mean squared distances, divided by the
    variance over training stimuli.
    """

    def __init__(
        self,
        conditioner: Conditioner,
        unet: Any,
        scheduler: Any,
        train: FinetuningData,
        validation: FinetuningData | None = None,
        config: FinetuneLoss | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.conditioner, self.unet = conditioner, unet
        self.config = config or FinetuneLoss()
        self.augmentation = augmentation or Augmentation()
        kind = scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise SettingError(
                f"This diffusion model predicts '{kind}'; choose a model that predicts noise "
                "(epsilon) or velocity (v_prediction)."
            )
        self._velocity = kind == "v_prediction"
        self._alphas = scheduler.alphas_cumprod.float()
        self._train, self._validation = train, validation
        for part in (train, validation or train):
            if (part.contexts is None) != (self.config.align == 0):
                raise SettingError("Give contexts if align is above 0, and only there.")
        if train.contexts is not None:
            self._spread = _spread(train.contexts)
            if not self._spread > 0:
                raise SettingError(
                    "All training stimuli have the same text, so there is nothing to align with; "
                    "set align to 0."
                )
        self._latent_spread = _spread(train.latents)
        if self.config.latent and not self._latent_spread > 0:
            raise SettingError(
                "All training stimuli have the same latent, so there is nothing to predict; set "
                "latent to 0."
            )

    @property
    def n_train(self) -> int:
        return len(self._train.vectors)

    @property
    def n_validation(self) -> int:
        return 0 if self._validation is None else len(self._validation.vectors)

    def learning_rate_factor(self, name: str) -> float:
        """Return the learning rate of a parameter over that of the new layers."""
        if name.startswith("unet."):
            return self.config.unet_rate
        return self.config.encoder_rate if name.startswith("conditioner.encoder.") else 1.0

    def training_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total loss of some training stimuli, and its parts."""
        vectors = self._train.vectors.draw(rows, generator)
        vectors = augment_vectors(vectors, self.augmentation, generator)
        return self._loss(vectors, self._train, rows, generator, self.config.drop_condition)

    def validation_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the same for validation stimuli, always with condition."""
        assert self._validation is not None
        vectors = self._validation.vectors.mean(rows)
        return self._loss(vectors, self._validation, rows, generator, 0.0)

    def _loss(
        self,
        vectors: PatchedVectors,
        targets: FinetuningData,
        rows: torch.Tensor,
        generator: torch.Generator,
        drop: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        latents, contexts = targets.latents[rows], targets.contexts
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
        predicted = self._predict(noisy.to(device), times.to(device), condition)
        loss = F.mse_loss(predicted.float(), target.to(device))
        parts = {"diffusion": loss}
        if contexts is not None:
            own = contexts[rows].to(device)
            distance = F.mse_loss(whole.context.float(), own) / self._spread
            parts["align"] = distance
            loss = loss + self.config.align * distance
        if whole.latent is not None and self.config.latent:
            distance = F.mse_loss(whole.latent.float(), latents.to(device)) / self._latent_spread
            parts["latent"] = distance
            loss = loss + self.config.latent * distance
        return loss, parts if len(parts) > 1 else {}

    def _predict(
        self, noisy: torch.Tensor, times: torch.Tensor, condition: ConditionerOutput
    ) -> torch.Tensor:
        time = {} if condition.time is None else {"class_labels": condition.time}
        output = self.unet(noisy, times, encoder_hidden_states=condition.context, **time)
        predicted: torch.Tensor = output.sample
        return predicted


def _spread(targets: torch.Tensor) -> float:
    """Return the variance over stimuli, averaged over dimensions."""
    return float(targets.var(0, correction=0).mean())
