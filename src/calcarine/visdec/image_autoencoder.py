"""Masked autoencoder of pictures: transformers' ViT-MAE with maskings of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calcarine.checkpoints import check_loaded
from calcarine.errors import CalcarineError, out_of_memory
from calcarine.stimuli import resize_images
from calcarine.visdec.masking import Masking

__all__ = ["MINI", "ImageAutoencoder", "new_image_autoencoder"]

MINI = Path(__file__).parent / "mini_mae"
# Of ImageNet, which published ViT-MAE networks were trained with.
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageAutoencoder(nn.Module):
    """ViT-MAE whose body is frozen and whose decoder may train.

    Parameters
    ----------
    model
        ``ViTMAEForPreTraining`` of transformers.
    decoder_depth
        Keep the first blocks of the decoder only (6 of 8 in Vis-Dec); all if None.
    """

    def __init__(self, model: Any, decoder_depth: int | None = None) -> None:
        super().__init__()
        layers = model.decoder.decoder_layers
        if decoder_depth is not None:
            if not 1 <= decoder_depth <= len(layers):
                raise CalcarineError(
                    f"The image decoder has {len(layers)} blocks, so {decoder_depth} of them "
                    "cannot be kept."
                )
            model.decoder.decoder_layers = layers[:decoder_depth]
        self.model = model
        model.vit.requires_grad_(False)
        model.decoder.decoder_pos_embed.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, source: str | Path = "mini", decoder_depth: int | None = None
    ) -> ImageAutoencoder:
        """Load a ViT-MAE.

        Parameters
        ----------
        source
            ``"mini"`` (bundled, of 64-px scenes and digits), a folder in transformers' format, or
            a hub id such as ``facebook/vit-mae-base``, which Vis-Dec uses.

        Raises
        ------
        CalcarineError
            If there is none, or its weights are pickled or do not fit its configuration.
        """
        from transformers import ViTMAEForPreTraining
        from transformers.utils import logging

        logging.disable_progress_bar()
        place = MINI if str(source) == "mini" else source
        try:
            loaded: Any = ViTMAEForPreTraining.from_pretrained(
                place,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the info, and refused below
            )
        except Exception as error:
            if out_of_memory(error):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CalcarineError(
                f"The image autoencoder '{source}' could not be loaded ({lines[0]}); give 'mini', "
                "a folder with config.json and model.safetensors, or a hub id such as "
                "facebook/vit-mae-base."
            ) from error
        model, info = loaded
        check_loaded(info, place)
        return cls(model, decoder_depth)

    @property
    def width(self) -> int:
        """Of the encoder's tokens (768 in ViT-base)."""
        return int(self.model.config.hidden_size)

    @property
    def heads(self) -> int:
        """Attention heads of the encoder."""
        return int(self.model.config.num_attention_heads)

    @property
    def n_patches(self) -> int:
        """Patches of a picture."""
        return int(self.model.vit.embeddings.patch_embeddings.num_patches)

    def pixels(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Pictures (n, height, width, 3) at the size and scale that the network was trained on."""
        resized = resize_images(images, int(self.model.config.image_size))
        scaled = torch.from_numpy(np.ascontiguousarray(resized)).permute(0, 3, 1, 2).float() / 255
        return (scaled - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_SD).view(3, 1, 1)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the decoder must tell: shape (batch, patches, pixels of a patch times 3)."""
        target = self.model.patchify(pixels)
        if self.model.config.norm_pix_loss:
            spread = target.var(-1, keepdim=True)
            target = (target - target.mean(-1, keepdim=True)) / (spread + 1e-6).sqrt()
        return target

    def encode(self, pixels: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Class token and visible patches, shape (batch, 1 + kept, width)."""
        kept, n = masking.visible.shape[1], self.n_patches
        # transformers keeps int(n (1 - ratio)) patches, those with the least noise.
        self.model.config.mask_ratio = 1 - (kept + 0.5) / n
        return self.model.vit(pixels, noise=_ranks(masking, n)).last_hidden_state

    def decode(self, tokens: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Guess of all patches from encoded tokens."""
        restore = _ranks(masking, self.n_patches).argsort(1).argsort(1)
        return self.model.decoder(tokens, restore).logits


def _ranks(masking: Masking, n: int) -> torch.Tensor:
    """Noise that puts the visible patches first, in their order."""
    ranks = n + torch.arange(n, device=masking.visible.device, dtype=torch.float32)
    ranks = ranks.expand(len(masking.visible), -1).clone()
    order = torch.arange(masking.visible.shape[1], device=ranks.device, dtype=torch.float32)
    return ranks.scatter(1, masking.visible, order.expand(len(ranks), -1))


def new_image_autoencoder(**config: Any) -> ImageAutoencoder:
    """A ViT-MAE with random weights; arguments as of ``ViTMAEConfig``."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(ViTMAEConfig(**config))
    if not bool(model.decoder.decoder_pos_embed.any()):
        # Some versions of transformers leave the decoder's fixed positions at 0.
        model.decoder.initialize_weights(model.vit.embeddings.patch_embeddings.num_patches)
    return ImageAutoencoder(model)
