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

from calcarine.diffusion.checkpoints import check_folder, digest_folder, locate
from calcarine.diffusion.noise import gaussian_noise
from calcarine.errors import CalcarineError

Progress = Callable[[int], None]


class LatentDiffusion:
    """A text-conditioned latent diffusion model.

    Parameters
    ----------
    vae, text_encoder, tokenizer, unet, scheduler
        Components as diffusers' ``StableDiffusionPipeline`` has them.
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
        self.vae = vae.eval().requires_grad_(False)
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
    ) -> LatentDiffusion:
        """Load a model.

        Parameters
        ----------
        source : str or Path
            ``"mini"`` (bundled), a folder in diffusers' format, or a hub id.
        device : optional
            Default: CUDA where there is one, else the CPU.
        dtype : torch.dtype
            float32; float16 is for GPUs.

        Raises
        ------
        CalcarineError
            If parts are missing, truncated or pickled.
        """
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        place = locate(source)
        if isinstance(place, str):
            place = _download(place)
        check_folder(place)
        options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": True}
        options["low_cpu_mem_usage"] = False  # True needs accelerate, which is no dependency
        _quiet()
        try:
            vae = AutoencoderKL.from_pretrained(place, subfolder="vae", **options)
            unet = UNet2DConditionModel.from_pretrained(place, subfolder="unet", **options)
            text = CLIPTextModel.from_pretrained(
                place / "text_encoder", dtype=dtype, use_safetensors=True, local_files_only=True
            )
            tokenizer = CLIPTokenizer.from_pretrained(place / "tokenizer", local_files_only=True)
            scheduler = DDIMScheduler.from_pretrained(place, subfolder="scheduler")
        except CalcarineError:
            raise
        except Exception as error:
            first = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            raise CalcarineError(f"The model in {place} could not be loaded: {first}") from error
        model = cls(vae, text, tokenizer, unet, scheduler, str(source), digest_folder(place))
        target = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return model.to(torch.device(target))

    def to(self, device: torch.device) -> LatentDiffusion:
        """Move all networks to ``device``."""
        for part in (self.vae, self.text_encoder, self.unet):
            part.to(device)
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
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def downscale(self) -> int:
        """Pixels per latent position along one side (8 in Stable Diffusion)."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

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

    @torch.inference_mode()
    def encode(
        self,
        images: NDArray[np.uint8],
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Pictures to latents z: the mode of the posterior, scaled (no sampling).

        Parameters
        ----------
        images : uint8 array of shape (n, height, width, 3)
            Height and width must be multiples of ``downscale``.

        Returns
        -------
        float32 array of shape (n, channels, height / downscale, width / downscale)
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise CalcarineError(
                f"encode takes uint8 pictures of shape (n, height, width, 3), not {images.dtype} "
                f"of shape {images.shape}."
            )
        if images.shape[1] % self.downscale or images.shape[2] % self.downscale:
            raise CalcarineError(
                f"Pictures of {images.shape[1]} x {images.shape[2]} px cannot be encoded: both "
                f"sides must be multiples of {self.downscale}; resize them first."
            )
        factor = float(self.vae.config.scaling_factor)
        shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)
        parts = []
        for batch in _batches(len(images), batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[batch])).permute(0, 3, 1, 2)
            pixels = (pixels.float() / 127.5 - 1).to(self.device, self.dtype)
            mode = self.vae.encode(pixels).latent_dist.mode()
            parts.append(((mode - shift) * factor).float().cpu().numpy())
            _tell(progress, len(pixels))
        if not parts:
            side = self.unet.config.sample_size
            return np.zeros((0, self.unet.config.in_channels, side, side), np.float32)
        return np.concatenate(parts)

    @torch.inference_mode()
    def decode(
        self,
        latents: NDArray[np.float32],
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Latents ``(n, channels, h, w)`` to pictures ``(n, height, width, 3)`` in [0, 1]."""
        factor = float(self.vae.config.scaling_factor)
        shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)
        parts = []
        for batch in _batches(len(latents), batch_size):
            z = torch.from_numpy(np.ascontiguousarray(latents[batch])).to(self.device, self.dtype)
            pixels = self.vae.decode(z / factor + shift).sample.float()
            parts.append(((pixels + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy())
            _tell(progress, len(z))
        side = self.image_size
        return np.concatenate(parts) if parts else np.zeros((0, side, side, 3), np.float32)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str], batch_size: int = 256) -> NDArray[np.float32]:
        """Texts to text-encoder states of shape ``(n, tokens, width)``."""
        parts = []
        for batch in _batches(len(texts), batch_size):
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
        for batch in _batches(len(context), batch_size):
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
            x = self._denoise(x.to(self.device, self.dtype), times, told, empty, guidance, after_step)
            parts.append(x.float().cpu().numpy())
            _tell(progress, len(names))
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


def _quiet() -> None:
    """Keep loading bars of transformers off the terminal."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _batches(count: int, size: int) -> list[slice]:
    if size < 1:
        raise CalcarineError(f"batch_size is {size}; it must be 1 or more.")
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def _tell(progress: Progress | None, count: int) -> None:
    if progress is not None:
        progress(count)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*/*.json", "*/*.txt", "vae/*.safetensors", "unet/*.safetensors"]
    patterns += ["text_encoder/*.safetensors"]
    try:
        return Path(
            snapshot_download(
                name, allow_patterns=patterns, ignore_patterns=["*fp16*", "*non_ema*", "safety*"]
            )
        )
    except Exception as error:
        raise CalcarineError(
            f"The model '{name}' is not in the cache and could not be downloaded "
            f"({type(error).__name__}); check the name and the network, or give a folder."
        ) from error
