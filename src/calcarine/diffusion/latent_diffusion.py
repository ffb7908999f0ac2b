"""A latent diffusion model under text: text encoder and tokenizer beside the rest.

The bundled mini model and Stable Diffusion v1 take the same road.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.diffusion.autoencoder import Autoencoder, batches, check_finite
from calcarine.diffusion.conditional import ConditionalDiffusion
from calcarine.diffusion.loading import digest_as, load_parts, model_folder, target_device
from calcarine.diffusion.model_folder import digest_folder
from calcarine.errors import CalcarineError


class LatentDiffusion(ConditionalDiffusion):
    """A text-conditioned latent diffusion model.

    Parameters
    ----------
    vae, text_encoder, tokenizer, unet, scheduler
        Components as diffusers' ``StableDiffusionPipeline`` has them; ``AutoencoderTiny`` may
        stand for the autoencoder.
    name : str
        How the model is called in reports.
    digest : str
        Content hash of the weights, for provenance.

    Notes
    -----
    Pictures are uint8 arrays ``(n, height, width, 3)`` going in and float32 in [0, 1] coming
    out. Latents are float32 ``(n, channels, height / f, width / f)`` on the scale that the U-Net
    sees (posterior times ``scaling_factor``, 0.18215 in Stable Diffusion v1).
    """

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        name: str = "custom",
        digest: str = "",
    ) -> None:
        super().__init__(vae, unet, scheduler, name, digest)
        self.text_encoder = text_encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        wide = self.text_encoder.config.hidden_size
        if unet.config.cross_attention_dim != wide:
            raise CalcarineError(
                f"The U-Net listens to contexts of width {unet.config.cross_attention_dim}, "
                f"the text encoder gives {wide}: these parts are not of one model."
            )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "mini",
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        autoencoder: str | Path | None = None,
        tokenizer: str | Path | None = None,
        config: str | Path | None = None,
        ema: bool = True,
        cache: str | Path | None = None,
    ) -> LatentDiffusion:
        """Load a model.

        Parameters
        ----------
        source : str or Path
            ``"mini"`` (bundled), a folder in diffusers' format, a hub id, or the original single
            ``.ckpt`` or ``.safetensors`` file of Stable Diffusion v1, which is converted once.
        device : optional
            Default: CUDA where there is one, else the CPU.
        dtype : torch.dtype
            float32; float16 is for GPUs.
        autoencoder : str or Path, optional
            Another one in place of the model's own; see
            :meth:`calcarine.diffusion.Autoencoder.from_pretrained`.
        tokenizer, config, ema, cache
            For single files; see :func:`calcarine.diffusion.original.converted_folder`.

        Raises
        ------
        CalcarineError
            If parts are missing, truncated or pickled, or float16 is asked for on a CPU.
        """
        target = target_device(device, dtype)
        place = model_folder(source, tokenizer, config, ema, cache)
        own = None if autoencoder is None else Autoencoder.from_pretrained(autoencoder, dtype)
        if own is not None:
            own.check_replaces(place / "vae" / "config.json")
        other = None if own is None else own.vae
        (vae, text, words, unet, scheduler), notes = load_parts(place, dtype, other)
        digest = digest_folder(place)
        if own is not None:
            digest = f"{digest}+{own.digest}"
        model = cls(vae, text, words, unet, scheduler, str(source), digest_as(digest, dtype))
        model.add_notes(notes)
        return model.to(target)

    @property
    def _networks(self) -> tuple[Any, ...]:
        return self.vae, self.text_encoder, self.unet

    @property
    def context_shape(self) -> tuple[int, int]:
        """Tokens and width of one text conditioning c (77 x 768 in Stable Diffusion v1)."""
        return self._context_length, int(self.text_encoder.config.hidden_size)

    @property
    def _context_length(self) -> int:
        limit = int(self.text_encoder.config.max_position_embeddings)
        return min(limit, int(self.tokenizer.model_max_length))

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str], batch_size: int = 256) -> NDArray[np.float32]:
        """Texts to text-encoder states of shape ``(n, tokens, width)``."""
        parts = []
        for batch in batches(len(texts), batch_size):
            ids = self.tokenizer(
                list(texts[batch]),
                padding="max_length",
                max_length=self._context_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            states = self.text_encoder(ids.to(self.device)).last_hidden_state
            check_finite(states, "states of the text encoder", states.dtype)
            parts.append(states.float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, *self.context_shape), np.float32)

    def embed_captions(
        self, captions: Sequence[Sequence[str]], batch_size: int = 256
    ) -> NDArray[np.float32]:
        """Text conditioning c: the mean of the states over each stimulus's captions.

        Source: Takagi & Nishimoto 2023, section 3.2.
        """
        bare = [i for i, texts in enumerate(captions) if not texts]
        if bare:
            raise CalcarineError(
                f"Stimulus number {bare[0]} has no caption ({len(bare)} such); c needs one or more."
            )
        unique = sorted({text for texts in captions for text in texts})
        states = self.embed_text(unique, batch_size)
        index = {text: i for i, text in enumerate(unique)}
        rows = [states[[index[t] for t in texts]].mean(0) for texts in captions]
        return np.stack(rows) if rows else np.zeros((0, *self.context_shape), np.float32)

    def _check_context(
        self, context: NDArray[np.float32], empty: NDArray[np.float32] | None
    ) -> None:
        # Whoever says what no condition looks like gives no text, and so any number of tokens.
        if empty is None and context.shape[1:] != self.context_shape:
            raise CalcarineError(
                f"The context has shape {context.shape[1:]}; this model takes {self.context_shape}."
            )

    def _default_empty(self) -> NDArray[np.float32]:
        return self.embed_text([""])
