"""Masked autoencoder of pictures: ViT-MAE of transformers, with maskings of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calcarine.checkpoints import check_loaded, read_checkpoint
from calcarine.diffusion.model_folder import download
from calcarine.errors import CalcarineError, MissingFileError, SettingError, out_of_memory
from calcarine.stimuli import resize_images
from calcarine.visdec.masking import Masking

__all__ = ["MINI", "ImageAutoencoder", "new_image_autoencoder"]

MINI = Path(__file__).parent / "mini_mae"
_SAFE, _PICKLE = "model*.safetensors", "pytorch_model.bin"
# Of ImageNet, for published ViT-MAE networks.
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageAutoencoder(nn.Module):
    """ViT-MAE with a frozen encoder and a decoder that can be trained.

    Parameters
    ----------
    model : ViTMAEForPreTraining
        Network of transformers.
    decoder_depth : int, optional
        Number of blocks of the decoder to keep (6 of 8 in Vis-Dec); all by default.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.visdec import ImageAutoencoder
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(2)).images()
    >>> autoencoder = ImageAutoencoder.from_pretrained("mini")
    >>> patches = autoencoder.patches(autoencoder.pixels(pictures))
    >>> patches.shape[1] == autoencoder.n_patches
    True
    """

    def __init__(self, model: Any, decoder_depth: int | None = None) -> None:
        super().__init__()
        layers = model.decoder.decoder_layers
        if decoder_depth is not None:
            if not 1 <= decoder_depth <= len(layers):
                raise SettingError(
                    f"The image decoder has {len(layers)} blocks, so {decoder_depth} of them "
                    f"cannot be kept; choose 1 to {len(layers)}."
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
        source : str or Path
            ``"mini"`` (bundled, trained on scenes and digits of 64 px), a folder in transformers'
            format, or a hub id such as ``facebook/vit-mae-base``, which Vis-Dec uses. Weights are
            read from ``model.safetensors``; where there is only ``pytorch_model.bin``, its tensors
            are read and nothing in it is run.
        decoder_depth : int, optional
            Number of blocks of the decoder to keep; all by default.

        Raises
        ------
        CalcarineError
            If there is no such model, or its weights do not fit its configuration or hold more
            than tensors.
        """
        place = _folder(source)
        try:
            model, info = _load(place)
        except Exception as error:
            if out_of_memory(error):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CalcarineError(
                f"The image autoencoder '{source}' could not be loaded ({lines[0].rstrip('.')}); "
                "give 'mini', a folder with config.json and model.safetensors or "
                "pytorch_model.bin, or a hub id such as facebook/vit-mae-base."
            ) from error
        check_loaded(info, place)
        return cls(model, decoder_depth)

    @property
    def width(self) -> int:
        """Width of the encoder's tokens (768 in ViT-base)."""
        return int(self.model.config.hidden_size)

    @property
    def heads(self) -> int:
        """Number of attention heads of the encoder."""
        return int(self.model.config.num_attention_heads)

    @property
    def n_patches(self) -> int:
        """Number of patches of a picture."""
        return int(self.model.vit.embeddings.patch_embeddings.num_patches)

    def pixels(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Resize and scale pictures (n, height, width, 3) as the network was trained."""
        resized = resize_images(images, int(self.model.config.image_size))
        scaled = torch.from_numpy(np.ascontiguousarray(resized)).permute(0, 3, 1, 2).float() / 255
        return (scaled - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_SD).view(3, 1, 1)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the targets of the decoder, shape (batch, patches, pixels of a patch times 3)."""
        target: torch.Tensor = self.model.patchify(pixels)
        if self.model.config.norm_pix_loss:
            spread = target.var(-1, keepdim=True)
            target = (target - target.mean(-1, keepdim=True)) / (spread + 1e-6).sqrt()
        return target

    def encode(self, pixels: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Encode the visible patches, with class token: shape (batch, 1 + kept, width)."""
        kept, n = masking.visible.shape[1], self.n_patches
        # transformers keeps the int(n (1 - ratio)) patches with the least noise.
        self.model.config.mask_ratio = 1 - (kept + 0.5) / n
        tokens: torch.Tensor = self.model.vit(pixels, noise=_ranks(masking, n)).last_hidden_state
        return tokens

    def decode(self, tokens: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Predict all patches from encoded tokens."""
        restore = _ranks(masking, self.n_patches).argsort(1).argsort(1)
        predicted: torch.Tensor = self.model.decoder(tokens, restore).logits
        return predicted


def _ranks(masking: Masking, n: int) -> torch.Tensor:
    """Return noise that sorts the visible patches first, in order."""
    ranks = n + torch.arange(n, device=masking.visible.device, dtype=torch.float32)
    ranks = ranks.expand(len(masking.visible), -1).clone()
    order = torch.arange(masking.visible.shape[1], device=ranks.device, dtype=torch.float32)
    return ranks.scatter(1, masking.visible, order.expand(len(ranks), -1))


def _folder(source: str | Path) -> Path:
    """Return the folder of a model; one of the hub is downloaded if it is not in the cache."""
    place = MINI if str(source) == "mini" else Path(source)
    if place.exists() or len(Path(source).parts) != 2:
        return place
    try:
        place = download(str(source), ["config.json", _SAFE, "model.safetensors.index.json"])
        # facebook/vit-mae-base was published before safetensors.
        return place if list(place.glob(_SAFE)) else download(str(source), ["config.json", _PICKLE])
    except MissingFileError as error:
        raise CalcarineError(
            f"The image autoencoder '{source}' could not be loaded: {error}"
        ) from error


def _load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return a network with the weights of a folder, and what transformers says of them."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # check_loaded refuses them
    }
    if list(folder.glob(_SAFE)) or not (folder / _PICKLE).is_file():
        loaded: Any = ViTMAEForPreTraining.from_pretrained(folder, use_safetensors=True, **options)
    else:
        content = read_checkpoint(folder / _PICKLE)
        weights = {name: w for name, w in content.items() if isinstance(w, torch.Tensor)}
        loaded = ViTMAEForPreTraining.from_pretrained(
            None, config=ViTMAEConfig.from_pretrained(folder), state_dict=weights, **options
        )
    model, info = loaded
    return model, dict(info)


def new_image_autoencoder(**config: Any) -> ImageAutoencoder:
    """Make a ViT-MAE with random weights; the arguments are those of ``ViTMAEConfig``."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(ViTMAEConfig(**config))
    if not bool(model.decoder.decoder_pos_embed.any()):
        # Some versions of transformers leave the fixed positions of the decoder at 0.
        model.decoder.initialize_weights(model.vit.embeddings.patch_embeddings.num_patches)
    return ImageAutoencoder(model)
