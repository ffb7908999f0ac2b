"""A latent diffusion model that is conditioned on text.

The bundled mini model and Stable Diffusion v1 use the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.devices import resolve_device, resolve_precision
from calcarine.diffusion.autoencoder import Autoencoder
from calcarine.diffusion.conditional import ConditionalDiffusion
from calcarine.diffusion.finite_values import check_finite, finite_rows
from calcarine.diffusion.loading import (
    digest_as,
    load_parts,
    loading_errors,
    model_folder,
)
from calcarine.diffusion.model_folder import digest_folder
from calcarine.errors import SettingError, ShapeError

__all__ = ["LatentDiffusion"]


class LatentDiffusion(ConditionalDiffusion):
    """A text-conditioned latent diffusion model.

    Parameters
    ----------
    vae, text_encoder, tokenizer, unet, scheduler
        Components of diffusers' ``StableDiffusionPipeline``; ``AutoencoderTiny`` can replace the
        autoencoder.
    name : str
        Name of the model in reports.
    digest : str
        Content hash of the weights, for provenance.

    Notes
    -----
    Input pictures are uint8 arrays ``(n, height, width, 3)``, output pictures float32 in [0, 1].
    Latents are float32 ``(n, channels, height / f, width / f)`` on the scale of the U-Net's input
    (posterior times ``scaling_factor``, 0.18215 in Stable Diffusion v1). One picture, latent or
    context without the first axis gives a result without it.

    Examples
    --------
    >>> import calcarine as ca
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> stimuli = ca.StimulusSet.from_scenes(seed=0, indices=range(2))
    >>> z = model.encode(stimuli.images())
    >>> z.shape
    (2, 4, 16, 16)
    >>> model.decode(z).shape
    (2, 64, 64, 3)
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
            raise SettingError(
                f"The U-Net takes contexts of width {unet.config.cross_attention_dim} and the text "
                f"encoder gives width {wide}: these parts are not of one model."
            )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "mini",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = torch.float32,
        *,
        autoencoder: str | Path | None = None,
        tokenizer: str | Path | None = None,
        config: str | Path | None = None,
        ema: bool = True,
        cache: str | Path | None = None,
        weights: bool = True,
    ) -> LatentDiffusion:
        """Load a model.

        Parameters
        ----------
        source : str or Path
            ``"mini"`` (bundled), a folder in diffusers' format, a hub id, or the original single
            ``.ckpt`` or ``.safetensors`` file of Stable Diffusion v1, which is converted once.
        device : str or torch.device, optional
            See :func:`calcarine.devices.resolve_device`; by default a GPU if there is one.
        dtype : str or torch.dtype
            See :func:`calcarine.devices.resolve_precision`; by default float32.
        autoencoder : str or Path, optional
            Autoencoder that replaces the model's own; see
            :meth:`calcarine.diffusion.Autoencoder.from_pretrained`.
        tokenizer, config, ema, cache
            For single files; see :func:`calcarine.diffusion.sd1_conversion.converted_folder`.
        weights : bool
            False reads no weights: sizes, digest and notes of the model can be read, and it
            computes nothing.

        Raises
        ------
        MissingFileError
            If there is no such model, or a part of it is missing.
        DamagedFileError
            If a part is truncated, or pickled and therefore unsafe to read.
        SettingError
            If the device is missing, or float16 is chosen on a CPU.
        """
        target = resolve_device(device)
        dtype = resolve_precision(dtype, target)
        place = model_folder(source, tokenizer, config, ema, cache)
        own = None if autoencoder is None else Autoencoder.from_pretrained(autoencoder, dtype)
        if own is not None:
            own.check_replaces(place / "vae" / "config.json")
        other = None if own is None else own.vae
        (vae, text, words, unet, scheduler), notes = load_parts(place, dtype, other, weights)
        digest = digest_folder(place)
        if own is not None:
            digest = f"{digest}+{own.digest}"
        model = cls(vae, text, words, unet, scheduler, str(source), digest_as(digest, dtype))
        model.add_notes(notes)
        if not weights:
            return model
        model.to(target)
        # Some mistakes in a config only show when the network runs.
        with loading_errors(place / "text_encoder"):
            model.embed_text("")
        return model

    @property
    def _networks(self) -> tuple[Any, ...]:
        return self.vae, self.text_encoder, self.unet

    @property
    def context_shape(self) -> tuple[int, int]:
        """Number of tokens and width of one c (77 x 768 in Stable Diffusion v1)."""
        return self._context_length, int(self.text_encoder.config.hidden_size)

    @property
    def _context_length(self) -> int:
        limit = int(self.text_encoder.config.max_position_embeddings)
        return min(limit, int(self.tokenizer.model_max_length))

    @torch.inference_mode()
    def embed_text(self, texts: str | Sequence[str], batch_size: int = 256) -> NDArray[np.float32]:
        """Embed texts with the text encoder.

        Parameters
        ----------
        texts : str or sequence of n str
            One text, or several.
        batch_size : int
            Number of texts per batch.

        Returns
        -------
        float32 array of shape (n, tokens, width)
            Last hidden states; without the first axis for one text.
        """
        if isinstance(texts, str):
            return np.asarray(self.embed_text([texts], batch_size)[0])

        def embed(rows: slice) -> NDArray[np.float32]:
            own = list(texts[rows])
            ids = self.tokenizer(
                own,
                padding="max_length",
                max_length=self._context_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            states, finite = self._text_states(ids)
            names = [f"the text {text!r}" for text in own]
            check_finite(finite, "states of the text encoder", self.text_encoder.dtype, names)
            return np.asarray(states.cpu().numpy())

        parts = [*self._batch_sizes.run(embed, len(texts), batch_size, "texts")]
        return np.concatenate(parts) if parts else np.zeros((0, *self.context_shape), np.float32)

    def _text_states(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 states of tokens, and whether each text's are finite, on the device."""
        states = self.text_encoder(ids.to(self.device)).last_hidden_state.float()
        return states, finite_rows(states)

    def embed_captions(
        self, captions: str | Sequence[str | Sequence[str]], batch_size: int = 256
    ) -> NDArray[np.float32]:
        """Embed the captions of stimuli: the text conditioning c.

        Parameters
        ----------
        captions : str, or sequence of n str or sequences of str
            One caption of one stimulus, or for each stimulus its caption or captions, over which
            the states are averaged.
        batch_size : int
            Number of texts per batch.

        Returns
        -------
        float32 array of shape (n, tokens, width)
            Without the first axis for one caption.

        Raises
        ------
        ShapeError
            If a stimulus has no caption.

        Notes
        -----
        Source: Takagi & Nishimoto (2023), section 3.2.

        Examples
        --------
        >>> import calcarine as ca
        >>> model = ca.LatentDiffusion.from_pretrained("mini")
        >>> model.embed_captions("a red balloon").shape == model.context_shape
        True
        >>> len(model.embed_captions(["a red balloon", ("two dogs", "dogs on a lawn")]))
        2
        """
        if isinstance(captions, str):
            return np.asarray(self.embed_captions([captions], batch_size)[0])
        captions = [(texts,) if isinstance(texts, str) else texts for texts in captions]
        bare = [i for i, texts in enumerate(captions) if not texts]
        if bare:
            raise ShapeError(
                f"{len(bare)} stimuli have no caption, first number {bare[0]}; give every stimulus "
                "at least one."
            )
        unique = sorted({text for texts in captions for text in texts})
        states = self.embed_text(unique, batch_size)
        index = {text: i for i, text in enumerate(unique)}
        rows = [states[[index[t] for t in texts]].mean(0) for texts in captions]
        return np.stack(rows) if rows else np.zeros((0, *self.context_shape), np.float32)

    def _check_context(
        self, context: NDArray[np.float32], empty: NDArray[np.float32] | None
    ) -> None:
        # With an unconditional context of its own, a context is no text and has any length.
        if empty is None and context.shape[1:] != self.context_shape:
            raise ShapeError(
                f"The context has shape {context.shape[1:]}; this model takes {self.context_shape}."
            )

    def _default_empty(self) -> NDArray[np.float32]:
        return self.embed_text([""])
