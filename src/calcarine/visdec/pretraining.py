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
    """Training task of the first phase.

    Parameters
    ----------
    autoencoder : FMRIAutoencoder
        The network to train.
    train : PatchedVectors
        Vectors without stimuli.
    validation : PatchedVectors, optional
        Vectors whose loss is recorded, if any are held out.
    config : ContrastLoss, optional
        Weights and form of the losses.
    augmentation : Augmentation, optional
        Random changes of the input; the targets are the unchanged vectors.
    """

    def __init__(
        self,
        autoencoder: FMRIAutoencoder,
        train: PatchedVectors,
        validation: PatchedVectors | None = None,
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
        return 0 if self._validation is None else len(self._validation)

    def training_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total loss of some training vectors, and its parts."""
        target = self._train.rows(rows)
        changed = augment_vectors(target, self.augmentation, generator)
        return self._losses(target, changed, rows, generator)

    def validation_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total loss of some validation vectors, without augmentation."""
        assert self._validation is not None
        target = self._validation.rows(rows)
        return self._losses(target, target, rows, generator)

    def _losses(
        self,
        target: PatchedVectors,
        inputs: PatchedVectors,
        rows: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device = self.autoencoder.mask_token.device
        target, inputs = target.to(device), inputs.to(device)
        # Both maskings of a vector go through the network as one batch.
        twice = PatchedVectors(inputs.values.repeat(2, 1, 1), inputs.valid.repeat(2, 1))
        masking = draw_masking(twice.valid, self.config.mask_ratio, generator)
        first, second = self.autoencoder(twice, masking).chunk(2)
        hidden_first, hidden_second = masking.hidden.chunk(2)
        return contrast_losses(
            (first, second),
            target.values,
            (hidden_first, hidden_second),
            target.valid,
            self.config,
            rows,
        )
