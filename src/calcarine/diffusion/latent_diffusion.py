"""One class over autoencoder, text encoder, U-Net and scheduler.

The bundled mini model and Stable Diffusion v1 take the same road.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.diffusion.autoencoder import Autoencoder, Key, Progress, batches, tell
from calcarine.diffusion.checkpoints import digest_folder
from calcarine.diffusion.loading import load_parts, model_folder
from calcarine.diffusion.noise import gaussian_noise
from calcarine.errors import CalcarineError

_SHORT_OF_MEMORY = 8e9


class LatentDiffusion:
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
        self.autoencoder = Autoencoder(vae)
        self.text_encoder = text_encoder.eval().requires_grad_(False)
        self.unet = unet.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self.name = name
        self.digest = digest
        self._check()

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
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if dtype == torch.float16 and target.type == "cpu":
            raise CalcarineError("float16 is for GPUs and there is none; choose float32.")
        place = model_folder(source, tokenizer, config, ema, cache)
        own = None if autoencoder is None else Autoencoder.from_pretrained(autoencoder, dtype)
        if own is not None:
            own.check_replaces(place / "vae" / "config.json")
        other = None if own is None else own.vae
        vae, text, words, unet, scheduler = load_parts(place, dtype, other)
        digest = digest_folder(place)
        if own is not None:
            digest = f"{digest}+{own.digest}"
        if dtype != torch.float32:
            digest = f"{digest}-{str(dtype).removeprefix('torch.')}"
        model = cls(vae, text, words, unet, scheduler, str(source), digest)
        return model.to(target)

    def to(self, device: torch.device) -> LatentDiffusion:
        """Move all networks to ``device``; where a GPU is short of memory, attend in slices."""
        for part in (self.vae, self.text_encoder, self.unet):
            part.to(device)
        if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < _SHORT_OF_MEMORY:
            self.unet.set_attention_slice("auto")
        return self

    def _check(self) -> None:
        wide = self.text_encoder.config.hidden_size
        if self.unet.config.cross_attention_dim != wide:
            raise CalcarineError(
                f"The U-Net listens to contexts of width {self.unet.config.cross_attention_dim}, "
                f"the text encoder gives {wide}: these parts are not of one model."
            )
        if self.unet.config.in_channels != self.vae.config.latent_channels:
            raise CalcarineError(
                f"The U-Net takes {self.unet.config.in_channels} latent channels, the autoencoder "
                f"gives {self.vae.config.latent_channels}: these parts are not of one model."
            )

    @property
    def vae(self) -> Any:
        """Autoencoder of diffusers."""
        return self.autoencoder.vae

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def downscale(self) -> int:
        """Pixels per latent position along one side (8 in Stable Diffusion)."""
        return self.autoencoder.downscale

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures the U-Net was made for."""
        return int(self.unet.config.sample_size) * self.downscale

    @property
    def context_shape(self) -> tuple[int, int]:
        """Tokens and width of one text conditioning c (77 x 768 in Stable Diffusion v1)."""
        return self._context_length, int(self.text_encoder.config.hidden_size)

    @property
    def _context_length(self) -> int:
        limit = int(self.text_encoder.config.max_position_embeddings)
        return min(limit, int(self.tokenizer.model_max_length))

    def encode(
        self,
        images: NDArray[np.uint8],
        batch_size: int = 32,
        progress: Progress | None = None,
        sample: Sequence[Key] | None = None,
        seed: int = 42,
    ) -> NDArray[np.float32]:
        """Pictures to latents; see :meth:`calcarine.diffusion.Autoencoder.encode`."""
        return self.autoencoder.encode(images, batch_size, progress, sample, seed)

    def decode(
        self,
        latents: NDArray[np.float32],
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Latents to pictures; see :meth:`calcarine.diffusion.Autoencoder.decode`."""
        return self.autoencoder.decode(latents, batch_size, progress)

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

    @torch.inference_mode()
    def add_noise(
        self,
        latents: NDArray[np.float32],
        keys: Sequence[tuple[str, int]],
        *,
        strength: float,
        steps: int = 50,
        seed: int = 42,
    ) -> NDArray[np.float32]:
        """Latents noised to ``strength``, as the start of image-to-image generation."""
        times = self._times(steps, strength)
        z = torch.from_numpy(np.ascontiguousarray(latents))
        if len(times) == 0:
            return z.numpy().copy()
        noise = gaussian_noise(keys, tuple(z.shape[1:]), seed)
        return np.asarray(self.scheduler.add_noise(z, noise, times[:1].repeat(len(z))).numpy())

    def count_steps(self, steps: int, strength: float) -> int:
        """How many of ``steps`` denoising steps a strength leaves."""
        return len(self._times(steps, strength))

    def _times(self, steps: int, strength: float) -> torch.Tensor:
        if not 0 <= strength <= 1:
            raise CalcarineError(f"strength is {strength}; it lies between 0 (keep z) and 1.")
        if not 1 <= steps <= self.scheduler.config.num_train_timesteps:
            raise CalcarineError(f"steps is {steps}; it lies between 1 and 1000.")
        self.scheduler.set_timesteps(steps)
        kept = min(int(steps * strength), steps)
        return torch.as_tensor(self.scheduler.timesteps)[steps - kept :]

    @torch.inference_mode()
    def generate(
        self,
        context: NDArray[np.float32],
        keys: Sequence[tuple[str, int]],
        start: NDArray[np.float32] | None = None,
        *,
        strength: float = 0.8,
        guidance: float = 5.0,
        steps: int = 50,
        seed: int = 42,
        batch_size: int = 32,
        progress: Progress | None = None,
        after_step: Callable[[torch.Tensor], None] | None = None,
    ) -> NDArray[np.float32]:
        """Denoise under a context: c (no ``start``) or z_c (from ``start``).

        Parameters
        ----------
        context : float32 array of shape (n, tokens, width)
            Text conditioning, one per picture.
        keys : sequence of n (stimulus id, sample index)
            Whose noise each picture gets.
        start : float32 array of shape (n, channels, h, w), optional
            Latents to begin from. Without them generation begins from noise.
        strength : float
            Share of the steps that is run when there is a ``start`` (0.8 in the paper).
        guidance : float
            Classifier-free guidance scale (5 in the paper); 1 turns it off.
        steps : int
            DDIM steps of the whole schedule (50 in the paper).
        after_step : callable, optional
            Given the latents of a batch after each of its steps.

        Returns
        -------
        float32 array of shape (n, channels, h, w)

        Notes
        -----
        Source: Takagi & Nishimoto 2023, section 3.3; strength and steps count as in diffusers'
        image-to-image pipeline.
        """
        if len(keys) != len(context) or (start is not None and len(start) != len(context)):
            raise CalcarineError(
                f"generate got {len(context)} contexts, {len(keys)} keys and "
                f"{'no' if start is None else len(start)} starts; their numbers must agree."
            )
        if context.shape[1:] != self.context_shape:
            raise CalcarineError(
                f"The context has shape {context.shape[1:]}; this model takes {self.context_shape}."
            )
        empty = torch.from_numpy(self.embed_text([""])).to(self.device, self.dtype)
        side = int(self.unet.config.sample_size)
        shape = (int(self.unet.config.in_channels), side, side)
        parts = []
        for batch in batches(len(context), batch_size):
            names = list(keys[batch])
            if start is None:
                times = self._times(steps, 1.0)
                x = gaussian_noise(names, shape, seed) * float(self.scheduler.init_noise_sigma)
            else:
                times = self._times(steps, strength)
                noised = self.add_noise(
                    start[batch], names, strength=strength, steps=steps, seed=seed
                )
                x = torch.from_numpy(noised)
            told = torch.from_numpy(np.ascontiguousarray(context[batch]))
            told = told.to(self.device, self.dtype)
            x = self._denoise(
                x.to(self.device, self.dtype), times, told, empty, guidance, after_step
            )
            parts.append(x.float().cpu().numpy())
            tell(progress, len(names))
        return np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)

    def _denoise(
        self,
        x: torch.Tensor,
        times: torch.Tensor,
        context: torch.Tensor,
        empty: torch.Tensor,
        guidance: float,
        after_step: Callable[[torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        guided = guidance != 1
        both = torch.cat([empty.expand(len(x), -1, -1), context]) if guided else context
        for t in times:
            entering = torch.cat([x, x]) if guided else x
            entering = self.scheduler.scale_model_input(entering, t)
            guess = self.unet(entering, t.to(self.device), encoder_hidden_states=both).sample
            if guided:
                free, told = guess.chunk(2)
                guess = free + guidance * (told - free)
            x = self.scheduler.step(guess, t, x).prev_sample
            if after_step is not None:
                after_step(x)
        return x
