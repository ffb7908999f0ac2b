"""Autoencoder, U-Net and scheduler behind one class, under contexts of any origin."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.diffusion.autoencoder import (
    Autoencoder,
    Key,
    Progress,
    batches,
    check_finite,
    tell,
)
from calcarine.diffusion.conditioning import (
    DenoisingConditions,
    add_time_condition,
    freeze_except,
    make_denoising_conditions,
    time_embed_dim,
    trainable_parts,
)
from calcarine.diffusion.noise import gaussian_noise
from calcarine.diffusion.samplers import begin, check_sampler, check_steps, timesteps
from calcarine.diffusion.schedulers import as_ddim
from calcarine.errors import CalcarineError

__all__ = [
    "ConditionalDiffusion",
    "ModelNote",
    "add_time_condition",
    "freeze_except",
    "trainable_parts",
]

_RESCALE = 1.0


class ModelNote(UserWarning):
    """Something that a user must know of how a model was read."""


class ConditionalDiffusion:
    """A latent diffusion model whose U-Net listens to a context.

    Attributes
    ----------
    guidance_rescale : float
        Between 0 and 1: how far a guided guess is brought back to the spread of the guess under
        the context (Lin et al. 2024, equations 14 to 16). Guidance makes guesses too large, most
        of all where the noise schedule ends with no signal at all. So it is 1 for such models
        and 0, as the seed papers have it, for others.

    notes : tuple of str
        What was changed when the model was read, in sentences; each was a warning too.

    Parameters
    ----------
    vae
        Autoencoder of diffusers: ``AutoencoderKL``, ``AutoencoderTiny`` or ``VQModel``.
    unet : UNet2DConditionModel
    scheduler : DDIMScheduler
        Or another one of diffusers of DDPM's family, whose noise schedule DDIM takes over.
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
        self, vae: Any, unet: Any, scheduler: Any, name: str = "custom", digest: str = ""
    ) -> None:
        self.autoencoder = Autoencoder(vae)
        self.unet = unet.eval().requires_grad_(False)
        self.scheduler, notes = as_ddim(scheduler, name)
        self.notes: tuple[str, ...] = ()
        self.add_notes(notes)
        self.name = name
        self.digest = digest
        ends_in_noise = bool(self.scheduler.config.get("rescale_betas_zero_snr", False))
        self.guidance_rescale = _RESCALE if ends_in_noise else 0.0
        self._side = _latent_side(unet.config.sample_size)
        _check_channels(unet.config, int(vae.config.latent_channels))

    def add_notes(self, notes: Sequence[str]) -> None:
        """Keep what a user must know of how the model was read, and warn of it once."""
        for note in notes:
            if note not in self.notes:
                self.notes += (note,)
                warnings.warn(note, ModelNote, stacklevel=3)

    def to(self, device: torch.device) -> Self:
        """Move all networks to ``device``."""
        for part in self._networks:
            part.to(device)
        return self

    @property
    def _networks(self) -> tuple[Any, ...]:
        return self.vae, self.unet

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
        return self._side * self.downscale

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents the U-Net was made for."""
        return int(self.unet.config.in_channels), self._side, self._side

    @property
    def context_width(self) -> int:
        """Width of a token of the context (768 in Stable Diffusion v1)."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def time_embed_dim(self) -> int:
        """Width of the time embedding, and so of a time condition."""
        return time_embed_dim(self.unet)

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
    def add_noise(
        self,
        latents: NDArray[np.float32],
        keys: Sequence[Key],
        *,
        strength: float,
        steps: int = 50,
        seed: int = 42,
    ) -> NDArray[np.float32]:
        """Latents noised to ``strength``, as the start of image-to-image generation."""
        times = timesteps(self.scheduler, steps, strength)
        check_steps(steps, strength)
        z = torch.from_numpy(np.ascontiguousarray(latents))
        if len(times) == 0:
            return z.numpy().copy()
        noise = gaussian_noise(keys, tuple(z.shape[1:]), seed)
        return np.asarray(self.scheduler.add_noise(z, noise, times[:1].repeat(len(z))).numpy())

    def count_steps(self, steps: int, strength: float) -> int:
        """How many of ``steps`` denoising steps a strength leaves."""
        return len(timesteps(self.scheduler, steps, strength))

    @torch.inference_mode()
    def generate(
        self,
        context: NDArray[np.float32],
        keys: Sequence[Key],
        start: NDArray[np.float32] | None = None,
        *,
        strength: float = 0.8,
        guidance: float = 5.0,
        steps: int = 50,
        seed: int = 42,
        batch_size: int = 32,
        progress: Progress | None = None,
        after_step: Callable[[torch.Tensor], None] | None = None,
        empty: NDArray[np.float32] | None = None,
        time_condition: NDArray[np.float32] | None = None,
        empty_time_condition: NDArray[np.float32] | None = None,
        sampler: str = "ddim",
    ) -> NDArray[np.float32]:
        """Denoise under a context: c (no ``start``) or z_c (from ``start``).

        Parameters
        ----------
        context : float32 array of shape (n, tokens, width)
            Conditioning, one per picture. Where it is text, tokens are those of the text encoder
            (`LatentDiffusion.context_shape`) unless ``empty`` is given.
        keys : sequence of n (stimulus id, sample index)
            Whose noise each picture gets.
        start : float32 array of shape (n, channels, h, w), optional
            Latents to begin from. Without them generation begins from noise.
        strength : float
            Share of the steps that is run when there is a ``start`` (0.8 in the paper); 0 returns
            the start as it is.
        guidance : float
            Classifier-free guidance scale (5 in the paper); 1 turns it off.
        steps : int
            Steps of the whole schedule (50 in the paper).
        after_step : callable, optional
            Given the latents of a batch after each time that the U-Net was asked.
        empty : float32 array of shape (tokens, width) or (1, tokens, width), optional
            The context without condition, for guidance: by default the empty text; a model
            without text has no default. One token stands for any number of equal ones.
        time_condition : float32 array of shape (n, time_embed_dim), optional
            Added to the time embedding; zeros by default. The U-Net must have been prepared by
            `add_time_condition`.
        empty_time_condition : float32 array of shape (time_embed_dim,), optional
            Its counterpart without condition, for guidance; zeros by default.
        sampler : {"ddim", "plms"}
            The model's own scheduler, or pseudo linear multi-step, which asks the U-Net once more
            than there are steps.

        Returns
        -------
        float32 array of shape (n, channels, h, w)

        Raises
        ------
        CalcarineError
            If numbers or shapes disagree, an empty context is needed, the sampler does not fit
            the model's noise schedule, or a strength above 0 leaves no step.

        Notes
        -----
        Source: Takagi & Nishimoto 2023, section 3.3; strength and steps count as in diffusers'
        image-to-image pipeline. Time conditions: Chen et al. 2023 (MinD-Vis), section 3.3.
        """
        if len(keys) != len(context) or (start is not None and len(start) != len(context)):
            raise CalcarineError(
                f"generate got {len(context)} contexts, {len(keys)} keys and "
                f"{'no' if start is None else len(start)} starts; their numbers must agree."
            )
        check_sampler(sampler, self.scheduler)
        self._check_context(context, empty)
        guided = guidance != 1
        if guided and empty is None:
            empty = self._default_empty()
        told = make_denoising_conditions(
            self.unet, context, empty, time_condition, empty_time_condition, guided=guided
        )
        parts = []
        for batch in batches(len(context), batch_size):
            names = list(keys[batch])
            if start is None:
                times = timesteps(self.scheduler, steps, 1.0)
                x = gaussian_noise(names, self.latent_shape, seed)
                x = x * float(self.scheduler.init_noise_sigma)
            else:
                times = timesteps(self.scheduler, steps, strength)
                noised = self.add_noise(
                    start[batch], names, strength=strength, steps=steps, seed=seed
                )
                x = torch.from_numpy(noised)
            stepper, times = begin(sampler, self.scheduler, steps, times)
            x = x.to(self.device, self.dtype)
            x = self._denoise(x, stepper, times, told, batch, guidance, after_step)
            check_finite(x, "denoised latents", self.dtype)
            parts.append(x.float().cpu().numpy())
            tell(progress, len(names))
        return np.concatenate(parts) if parts else np.zeros((0, *self.latent_shape), np.float32)

    def _check_context(
        self, context: NDArray[np.float32], empty: NDArray[np.float32] | None
    ) -> None:
        """For models that ask more of a context than its width."""

    def _default_empty(self) -> NDArray[np.float32]:
        raise CalcarineError(
            "This model has no text encoder, so guidance needs the context without condition: give "
            "it as empty, or set guidance to 1."
        )

    def _denoise(
        self,
        x: torch.Tensor,
        stepper: Any,
        times: torch.Tensor,
        conditions: DenoisingConditions,
        rows: slice,
        guidance: float,
        after_step: Callable[[torch.Tensor], None] | None,
    ) -> torch.Tensor:
        told = conditions.for_batch(rows, self.device, self.dtype)
        for t in times:
            entering = torch.cat([x, x]) if conditions.guided else x
            entering = stepper.scale_model_input(entering, t)
            guess = self.unet(entering, t.to(self.device), **told).sample
            if conditions.guided:
                free, bound = guess.chunk(2)
                guess = free + guidance * (bound - free)
                if self.guidance_rescale:
                    guess = _rescaled(guess, bound, self.guidance_rescale)
            x = stepper.step(guess, t, x).prev_sample
            if after_step is not None:
                after_step(x)
        return x


def _latent_side(size: Any) -> int:
    """Side of the latents from the ``sample_size`` of a U-Net: a number, or two equal ones."""
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if not sides or len(set(sides)) > 1 or not isinstance(sides[0], int):
        raise CalcarineError(
            f"The U-Net's config.json has the sample_size {size}; it must be one number, or two "
            "equal ones, for pictures here are square."
        )
    return int(sides[0])


def _check_channels(unet: Any, latent: int) -> None:
    takes, gives = int(unet.in_channels), int(unet.out_channels)
    if takes != latent:
        more = ", or the U-Net needs further pictures (inpainting, depth, upscaling)"
        raise CalcarineError(
            f"The U-Net takes {takes} latent channels, the autoencoder gives {latent}: these parts "
            f"are not of one model{more if takes > latent else ''}."
        )
    if gives != takes:
        raise CalcarineError(
            f"The U-Net predicts {gives} channels for latents of {takes}, as models with learned "
            "variances do; choose a model with as many."
        )


def _rescaled(guess: torch.Tensor, bound: torch.Tensor, share: float) -> torch.Tensor:
    """A guided guess with, to some share, the spread of the guess under the context."""
    axes = tuple(range(1, guess.ndim))
    spread = bound.std(axes, keepdim=True) / guess.std(axes, keepdim=True)
    return guess * (share * spread + 1 - share)
