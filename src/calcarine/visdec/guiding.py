"""Second phase of Vis-Dec: pictures guide the fMRI encoder (Sun et al. 2023, section 3.2)."""

from __future__ import annotations

import torch
from torch import nn

from calcarine.visdec.augmentation import augment_vectors
from calcarine.visdec.fmri_autoencoder import FMRIAutoencoder
from calcarine.visdec.image_autoencoder import ImageAutoencoder
from calcarine.visdec.losses import reconstruction_loss
from calcarine.visdec.masking import Masking, draw_masking, no_masking
from calcarine.visdec.patches import PatchedVectors
from calcarine.visdec.settings import Augmentation, GuideLoss
from calcarine.visdec.stimulus_vectors import StimulusVectors
from calcarine.visdec.transformer_blocks import CrossBlock, initialise

__all__ = ["CrossModalGuiding", "CrossModalNetwork"]


class CrossModalNetwork(nn.Module):
    """fMRI and image autoencoders with cross-attention between encoders and decoders.

    Parameters
    ----------
    fmri : FMRIAutoencoder
    image : ImageAutoencoder
        Its encoder is frozen.
    layers, direction
        See :class:`GuideLoss`.

    Notes
    -----
    fMRI tokens are mapped to the width of image tokens, pass the cross-attention blocks, and are
    mapped back and added to the tokens of the encoder (``D_F(h + CA_F(Q, K, V))``, section 3.2).
    The map back starts at 0, so training starts from the first phase.
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

    def freeze_unused(self, config: GuideLoss) -> None:
        """Freeze the side without a weight in the loss, because it would receive no gradient."""
        fmri = (self.fmri_cross, self.fmri_back, *self.fmri.decoder_parts)
        image = (self.image_cross, self.image_back, self.image.model.decoder)
        for weight, parts in ((config.gamma_fmri, fmri), (config.gamma_image, image)):
            for part in parts if not weight else ():
                part.requires_grad_(False)

    def predict_fmri(
        self, vectors: PatchedVectors, pixels: torch.Tensor, ratio: float, draw: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict all fMRI patches from some of them and the whole picture.

        Returns the prediction and the masked patches.
        """
        masking = draw_masking(vectors.valid, ratio, draw)
        own = self.fmri.encoder(vectors, masking)
        context = self.image.encode(pixels, self._whole(pixels))
        x = self.to_image(own.tokens)
        for block in self.fmri_cross:
            x = block(x, context, own.mask)
        return self.fmri.decode(own.tokens + self.fmri_back(x), vectors, masking), masking.hidden

    def predict_image(
        self, vectors: PatchedVectors, pixels: torch.Tensor, ratio: float, draw: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict all picture patches from some of them and the whole fMRI vector.

        Returns the prediction and the masked patches.
        """
        masking = draw_masking(self._whole(pixels).visible >= 0, ratio, draw)
        own = self.image.encode(pixels, masking)
        encoded = self.fmri.encoder(vectors)
        context = self.to_image(encoded.tokens)
        x = own
        for block in self.image_cross:
            x = block(x, context, None, encoded.mask)
        return self.image.decode(own + self.image_back(x), masking), masking.hidden

    def _whole(self, pixels: torch.Tensor) -> Masking:
        valid = torch.ones(len(pixels), self.image.n_patches, dtype=torch.bool)
        return no_masking(valid.to(pixels.device))


class CrossModalGuiding(nn.Module):
    """Training task of the second phase.

    Parameters
    ----------
    network : CrossModalNetwork
        The network to train.
    train : pair of StimulusVectors and tensor
        Vectors of training stimuli, and their pictures from :meth:`ImageAutoencoder.pixels`.
    validation : pair of StimulusVectors and tensor, optional
        The same of stimuli whose loss is recorded, if any are held out.
    config : GuideLoss, optional
        Weights and maskings.
    augmentation : Augmentation, optional
        Random changes of the input vectors.
    """

    def __init__(
        self,
        network: CrossModalNetwork,
        train: tuple[StimulusVectors, torch.Tensor],
        validation: tuple[StimulusVectors, torch.Tensor] | None = None,
        config: GuideLoss | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config or GuideLoss()
        self.augmentation = augmentation or Augmentation()
        if self.config.partners == "shuffled":
            stimuli, pixels = train
            train = stimuli, pixels[_other_rows(len(pixels))]
        self._train, self._validation = train, validation

    @property
    def n_train(self) -> int:
        return len(self._train[0])

    @property
    def n_validation(self) -> int:
        return 0 if self._validation is None else len(self._validation[0])

    def training_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the weighted sum of both reconstruction losses, and each of them."""
        stimuli, pixels = self._train
        target = stimuli.draw(rows, generator)
        changed = augment_vectors(target, self.augmentation, generator)
        return self._losses(target, changed, pixels[rows], generator)

    def validation_loss(
        self, rows: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the same for validation stimuli, without augmentation.

        The losses with ``, shuffled`` in their names are those of the same stimuli with the other
        modality of another stimulus, under the same masks. What guidance transfers is how much
        lower the losses of the true pairs are.
        """
        assert self._validation is not None
        stimuli, pixels = self._validation
        target, images = stimuli.mean(rows), pixels[rows]
        state = generator.get_state()
        total, parts = self._losses(target, target, images, generator)
        generator.set_state(state)
        _, shuffled = self._losses(target, target, images, generator, shift=1)
        return total, parts | {f"{name}, shuffled": loss for name, loss in shuffled.items()}

    def _losses(
        self,
        target: PatchedVectors,
        inputs: PatchedVectors,
        pixels: torch.Tensor,
        generator: torch.Generator,
        shift: int = 0,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return losses; with a shift, each row has the other modality of a row before it."""
        c, network = self.config, self.network
        device = network.to_image.weight.device
        target, inputs, pixels = target.to(device), inputs.to(device), pixels.to(device)
        parts: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=device)
        # A side with weight 0 is not computed; the ablation uses that.
        if c.gamma_fmri:
            others = pixels.roll(shift, 0)
            predicted, hidden = network.predict_fmri(inputs, others, c.fmri_mask, generator)
            parts["fmri"] = reconstruction_loss(predicted.float(), target.values, hidden)
            total = total + c.gamma_fmri * parts["fmri"]
        if c.gamma_image:
            brains = inputs.rows(torch.arange(len(inputs), device=device).roll(shift))
            predicted, hidden = network.predict_image(brains, pixels, c.image_mask, generator)
            patches = network.image.patches(pixels)
            parts["image"] = reconstruction_loss(predicted.float(), patches, hidden)
            total = total + c.gamma_image * parts["image"]
        return total, parts


def _other_rows(count: int) -> torch.Tensor:
    """Return another row for each row, the same in every training."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    others = torch.empty_like(order)
    others[order] = order.roll(1)
    return others
