"""Second phase of Vis-Dec: pictures guide the fMRI encoder (Sun et al. 2023, section 3.2)."""

from __future__ import annotations

import torch
from torch import nn

from calcarine.visdec.augmentation import augment_vectors
from calcarine.visdec.fmri_autoencoder import FMRIAutoencoder
from calcarine.visdec.image_autoencoder import ImageAutoencoder
from calcarine.visdec.losses import reconstruction_loss
from calcarine.visdec.masking import draw_masking, no_masking
from calcarine.visdec.pairs import StimulusVectors
from calcarine.visdec.patches import PatchedVectors
from calcarine.visdec.settings import Augmentation, GuidanceLoss
from calcarine.visdec.transformer_blocks import CrossBlock, initialise

__all__ = ["CrossModalGuidance", "CrossModalNetwork"]


class CrossModalNetwork(nn.Module):
    """fMRI and image autoencoders that listen to each other before they decode.

    Parameters
    ----------
    fmri, image
        Autoencoders; the body of the image's is frozen.
    layers, direction
        See :class:`GuidanceLoss`.

    Notes
    -----
    fMRI tokens are brought to the image's width, pass the cross-attention blocks, and come back
    as a change that is added to the encoder's own tokens (``D_F(h + CA_F(Q, K, V))``, section
    3.2). The way back begins at 0, so that training sets out from the first phase.
    """

    def __init__(
        self, fmri: FMRIAutoencoder, image: ImageAutoencoder, layers: int, direction: str
    ) -> None:
        super().__init__()
        self.fmri, self.image = fmri, image
        narrow, wide = fmri.config.dim, image.width
        self.to_image = nn.Linear(narrow, wide)
        self.fmri_cross, self.image_cross = (
            nn.ModuleList(
                [CrossBlock(wide, image.heads, 4.0, direction) for _ in range(layers // 2)]
            )
            for _ in range(2)
        )
        for part in (self.to_image, self.fmri_cross, self.image_cross):
            initialise(part)
        self.fmri_back, self.image_back = nn.Linear(wide, narrow), nn.Linear(wide, wide)
        for back in (self.fmri_back, self.image_back):
            nn.init.zeros_(back.weight)
            nn.init.zeros_(back.bias)

    def freeze_unused(self, config: GuidanceLoss) -> None:
        """Take the gradients from a side whose loss has no weight, for it would get none."""
        fmri = (self.fmri_cross, self.fmri_back, *self.fmri.decoder_parts)
        image = (self.image_cross, self.image_back, self.image.model.decoder)
        for weight, parts in ((config.gamma_fmri, fmri), (config.gamma_image, image)):
            for part in parts if not weight else ():
                part.requires_grad_(False)

    def predict_fmri(
        self, vectors: PatchedVectors, pixels: torch.Tensor, ratio: float, draw: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Guess of all fMRI patches from a part of them and the whole picture; what was hidden."""
        masking = draw_masking(vectors.valid, ratio, draw)
        own = self.fmri.encoder(vectors, masking)
        support = self.image.encode(pixels, self._whole(pixels))
        x = self.to_image(own.tokens)
        for block in self.fmri_cross:
            x = block(x, support, own.mask)
        return self.fmri.decode(own.tokens + self.fmri_back(x), vectors, masking), masking.hidden

    def predict_image(
        self, vectors: PatchedVectors, pixels: torch.Tensor, ratio: float, draw: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Guess of all picture patches from a part of them and the whole fMRI; what was hidden."""
        masking = draw_masking(self._whole(pixels).visible >= 0, ratio, draw)
        own = self.image.encode(pixels, masking)
        support = self.fmri.encoder(vectors)
        told = self.to_image(support.tokens)
        x = own
        for block in self.image_cross:
            x = block(x, told, None, support.mask)
        return self.image.decode(own + self.image_back(x), masking), masking.hidden

    def _whole(self, pixels: torch.Tensor):  # type: ignore[no-untyped-def]
        valid = torch.ones(len(pixels), self.image.n_patches, dtype=torch.bool)
        return no_masking(valid.to(pixels.device))


class CrossModalGuidance(nn.Module):
    """What the second phase trains, and on what.

    Parameters
    ----------
    network
    train, validation
        Vectors of training stimuli.
    train_pixels, validation_pixels
        Their pictures, as :meth:`ImageAutoencoder.pixels` gives them.
    config, augmentation
    """

    def __init__(
        self,
        network: CrossModalNetwork,
        train: StimulusVectors,
        validation: StimulusVectors,
        train_pixels: torch.Tensor,
        validation_pixels: torch.Tensor,
        config: GuidanceLoss | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config or GuidanceLoss()
        self.augmentation = augmentation or Augmentation()
        self._train, self._validation = (train, train_pixels), (validation, validation_pixels)

    @property
    def n_train(self) -> int:
        return len(self._train[0])

    @property
    def n_validation(self) -> int:
        return len(self._validation[0])

    def training_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted sum of both reconstruction losses, and each of them."""
        stimuli, pixels = self._train
        truth = stimuli.draw(rows, generator)
        seen = augment_vectors(truth, self.augmentation, generator)
        return self._losses(truth, seen, pixels[rows], generator)

    def validation_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The same on validation stimuli."""
        stimuli, pixels = self._validation
        truth = stimuli.mean(rows)
        return self._losses(truth, truth, pixels[rows], generator)

    def _losses(
        self,
        truth: PatchedVectors,
        seen: PatchedVectors,
        pixels: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        c, network = self.config, self.network
        device = network.to_image.weight.device
        truth, seen, pixels = truth.to(device), seen.to(device), pixels.to(device)
        parts: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=device)
        # A side whose weight is 0 is not computed: that is how the ablation leaves it out.
        if c.gamma_fmri:
            guess, hidden = network.predict_fmri(seen, pixels, c.fmri_mask, generator)
            parts["fmri"] = reconstruction_loss(guess.float(), truth.values, hidden)
            total = total + c.gamma_fmri * parts["fmri"]
        if c.gamma_image:
            guess, hidden = network.predict_image(seen, pixels, c.image_mask, generator)
            target = network.image.patches(pixels)
            parts["image"] = reconstruction_loss(guess.float(), target, hidden)
            total = total + c.gamma_image * parts["image"]
        return total, parts
