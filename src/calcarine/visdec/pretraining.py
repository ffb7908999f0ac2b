"""First phase of Vis-Dec: contrastive masked pre-training (Sun et al. 2023, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn

from calcarine.visdec.augmentation import augment_vectors
from calcarine.visdec.fmri_autoencoder import FMRIAutoencoder
from calcarine.visdec.losses import contrast_losses
from calcarine.visdec.masking import draw_masking
from calcarine.visdec.patches import PatchedVectors
from calcarine.visdec.settings import Augmentation, ContrastLoss

__all__ = ["ContrastPretraining"]


class ContrastPretraining(nn.Module):
    """What the first phase trains, and on what.

    Parameters
    ----------
    autoencoder
    train, validation
        Unlabelled vectors; validation vectors choose nothing but are watched.
    config
    augmentation
        Of what the network sees; it must tell the vectors as they were.
    """

    def __init__(
        self,
        autoencoder: FMRIAutoencoder,
        train: PatchedVectors,
        validation: PatchedVectors,
        config: ContrastLoss | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.config = config or ContrastLoss()
        self.augmentation = augmentation or Augmentation()
        self._train, self._validation = train, validation

    @property
    def n_train(self) -> int:
        return len(self._train)

    @property
    def n_validation(self) -> int:
        return len(self._validation)

    def training_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Total and its parts on some of the training vectors."""
        truth = self._train.rows(rows)
        seen = augment_vectors(truth, self.augmentation, generator)
        return self._losses(truth, seen, rows, generator)

    def validation_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Total and its parts on some of the validation vectors, which are not augmented."""
        truth = self._validation.rows(rows)
        return self._losses(truth, truth, rows, generator)

    def _losses(
        self,
        truth: PatchedVectors,
        seen: PatchedVectors,
        rows: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device = self.autoencoder.mask_token.device
        truth, seen = truth.to(device), seen.to(device)
        # Both maskings of a vector go through the network as one batch.
        twice = PatchedVectors(seen.values.repeat(2, 1, 1), seen.valid.repeat(2, 1))
        masking = draw_masking(twice.valid, self.config.mask_ratio, generator)
        first, second = self.autoencoder(twice, masking).chunk(2)
        hidden_first, hidden_second = masking.hidden.chunk(2)
        return contrast_losses(
            (first, second),
            truth.values,
            (hidden_first, hidden_second),
            truth.valid,
            self.config,
            rows,
        )
