"""Autoencoder, U-Net and scheduler behind one class, for contexts of any origin."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.devices import BatchSizes
from calcarine.diffusion._parts import add_axis, check_channels, latent_side, rescale_guided
from calcarine.diffusion.autoencoder import (
    Autoencoder,
    Progress,
    report_progress,
    stimulus_names,
)
from calcarine.diffusion.conditioning import (
    add_time_condition,
    freeze_except,
    make_denoising_conditions,
    time_embed_dim,
    trainable_parts,
)
from calcarine.diffusion.ddim_conversion import as_ddim
from calcarine.diffusion.finite_values import check_finite, finite_rows
from calcarine.diffusion.noise import Key, Keys, as_keys, gaussian_noise
from calcarine.diffusion.samplers import check_sampler, check_steps, make_stepper, timesteps
from calcarine.display import html_table
from calcarine.errors import SettingError, ShapeError
from calcarine.stimuli import StimulusSet, resize_images

__all__ = [
    "ConditionalDiffusion",
    "ModelNote",
    "add_time_condition",
    "freeze_except",
    "trainable_parts",
]

_RESCALE = 1.0


class ModelNote(UserWarning):
    """A model was changed, or not used as a whole, when it was loaded."""


class ConditionalDiffusion:
    """A latent diffusion model with a conditioned U-Net: autoencoder, U-Net and scheduler.

    Parameters
    ----------
    vae : AutoencoderKL, AutoencoderTiny or VQModel
        Autoencoder of diffusers.
    unet : UNet2DConditionModel
        U-Net of diffusers, with cross-attention to a context.
    scheduler : DDIMScheduler
        Or another scheduler of diffusers from the family of DDPM; DDIM takes over its noise
        schedule.
    name : str
        Name of the model in reports.
    digest : str
        Content hash of the weights, for provenance.

    Attributes
    ----------
    guidance_rescale : float
        Between 0 and 1: how far a guided prediction is rescaled to the spread of the conditional
        prediction (Lin et al. 2024, equations 14 to 16). Guidance makes predictions too large,
        most of all if the noise schedule ends with no signal at all. It is 1 for such models and
        0, as in the seed papers, for others.
    notes : tuple of str
        What was changed when the model was loaded, in sentences. Each was a warning too.

    Notes
    -----
    Input pictures are uint8 arrays ``(n, height, width, 3)``, output pictures float32 in [0, 1].
    Latents are float32 ``(n, channels, height / f, width / f)`` on the scale of the U-Net's input
    (posterior times ``scaling_factor``, 0.18215 in Stable Diffusion v1).

    Examples
    --------
    >>> from calcarine.diffusion import load_model
    >>> model = load_model("mini", device="cpu")
    >>> c = model.embed_captions(["a red balloon"])
    >>> model.generate(c, [("balloon", 0)], steps=2).shape
    (1, 4, 16, 16)
    >>> model.count_steps(50, strength=0.8)  # of 50 steps, from z with noise
    40
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
        self._batch_sizes = BatchSizes()
        ends_in_noise = bool(self.scheduler.config.get("rescale_betas_zero_snr", False))
        self.guidance_rescale = _RESCALE if ends_in_noise else 0.0
        self._side = latent_side(unet.config.sample_size)
        check_channels(unet.config, int(vae.config.latent_channels))

    def add_notes(self, notes: Sequence[str]) -> None:
        """Record changes to the model and warn about each of them once."""
        for note in notes:
            if note not in self.notes:
                self.notes += (note,)
                warnings.warn(note, ModelNote, stacklevel=3)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{type(self).__name__}({self.name!r}, {self.image_size} px, latents "
            f"{' x '.join(map(str, self.latent_shape))}, {dtype} on {self.device})"
        )

    def _repr_html_(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return html_table(
            type(self).__name__,
            {
                "model": self.name,
                "pictures": f"{self.image_size} x {self.image_size} px",
                "latents": " x ".join(map(str, self.latent_shape)),
                "precision": dtype,
                "device": str(self.device),
            },
        )

    def to(self, device: torch.device | str) -> Self:
        """Move all networks to a device."""
        for part in self._networks:
            part.to(device)
        return self

    @property
    def _networks(self) -> tuple[Any, ...]:
        return self.vae, self.unet

    @property
    def vae(self) -> Any:
        """The autoencoder, as diffusers has it."""
        return self.autoencoder.vae

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        device: torch.device = next(self.unet.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the U-Net."""
        dtype: torch.dtype = next(self.unet.parameters()).dtype
        return dtype

    @property
    def downscale(self) -> int:
        """Number of pixels per latent position along one side (8 in Stable Diffusion)."""
        return self.autoencoder.downscale

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures that the U-Net was trained on."""
        return self._side * self.downscale

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents that the U-Net was trained on."""
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
        images: NDArray[np.uint8] | StimulusSet,
        batch_size: int = 32,
        progress: Progress | None = None,
        sample: Keys | None = None,
        seed: int = 42,
        ids: Sequence[str] | None = None,
    ) -> NDArray[np.float32]:
        """Encode pictures to latents; see :meth:`calcarine.diffusion.Autoencoder.encode`.

        The pictures of a `StimulusSet` are resized to the model's image size first.
        """
        if isinstance(images, StimulusSet):
            ids = images.ids if ids is None else ids
            images = resize_images(images.images(), self.image_size)
        return self.autoencoder.encode(images, batch_size, progress, sample, seed, ids)

    def decode(
        self,
        latents: NDArray[np.float32],
        batch_size: int = 32,
        progress: Progress | None = None,
        ids: Sequence[str] | None = None,
    ) -> NDArray[np.float32]:
        """Decode latents to pictures; see :meth:`calcarine.diffusion.Autoencoder.decode`."""
        return self.autoencoder.decode(latents, batch_size, progress, ids)

    @torch.inference_mode()
    def add_noise(
        self,
        latents: NDArray[np.float32],
        keys: Keys,
        *,
        strength: float,
        steps: int = 50,
        seed: int = 42,
    ) -> NDArray[np.float32]:
        """Add noise to latents, as at the start of image-to-image generation.

        Parameters
        ----------
        latents : float32 array of shape (n, channels, h, w) or (channels, h, w)
        keys, strength, steps, seed
            See `generate`.

        Returns
        -------
        float32 array shaped as ``latents``
        """
        if np.ndim(latents) == 3:
            several = np.asarray(latents)[None]
            noised = self.add_noise(several, keys, strength=strength, steps=steps, seed=seed)
            return np.asarray(noised[0])
        times = timesteps(self.scheduler, steps, strength)
        check_steps(steps, strength)
        z = torch.from_numpy(np.ascontiguousarray(latents))
        if len(times) == 0:
            return z.numpy().copy()
        noise = gaussian_noise(as_keys(keys), tuple(z.shape[1:]), seed)
        first = torch.tensor(times[:1]).repeat(len(z))
        return np.asarray(self.scheduler.add_noise(z, noise, first).numpy())

    def count_steps(self, steps: int, strength: float) -> int:
        """Return the number of the ``steps`` denoising steps that remain at a strength."""
        return len(timesteps(self.scheduler, steps, strength))

    @torch.inference_mode()
    def generate(
        self,
        context: NDArray[np.float32],
        keys: Keys,
        start: NDArray[np.float32] | None = None,
        *,
        strength: float = 0.8,
        guidance: float = 5.0,
        steps: int = 50,
        seed: int = 42,
        batch_size: int = 32,
        progress: Progress | None = None,
        after_step: Callable[[torch.Tensor], None] | None = None,
        before_batch: Callable[[slice], None] | None = None,
        empty: NDArray[np.float32] | None = None,
        time_condition: NDArray[np.float32] | None = None,
        empty_time_condition: NDArray[np.float32] | None = None,
        sampler: str = "ddim",
    ) -> NDArray[np.float32]:
        """Denoise under a context, from noise (method c) or from latents (method z_c).

        Parameters
        ----------
        context : float32 array of shape (n, tokens, width) or (tokens, width)
            Conditioning of each picture. A model with a text encoder takes as many tokens as the
            text encoder gives (`LatentDiffusion.context_shape`), unless you give ``empty``.
        keys : sequence of n stimulus ids, or of n (stimulus id, sample index)
            Determine the noise of each picture, together with ``seed``. An id alone means sample 0.
        start : float32 array of shape (n, channels, h, w), optional
            Latents to start from; noise by default.
        strength : float
            With ``start``, the share of the steps that is run (0.8 in the paper); 0 returns the
            start unchanged.
        guidance : float
            Scale of classifier-free guidance (5 in the paper); 1 turns it off.
        steps : int
            Number of steps of the whole schedule (50 in the paper).
        seed : int
            Seed of the noise.
        batch_size : int
            Number of pictures per batch; changes speed and memory only. If the memory of a GPU
            is too small, batches are smaller.
        progress : callable, optional
            Receives the number of pictures of each finished batch.
        after_step : callable, optional
            Receives the latents of a batch after each evaluation of the U-Net.
        before_batch : callable, optional
            Receives the rows of a batch before its first step; a batch that did not fit into
            memory begins again with fewer rows.
        empty : float32 array of shape (tokens, width) or (1, tokens, width), optional
            Unconditional context for guidance; the empty text by default. Models without a text
            encoder have no default. One token stands for any number of equal tokens.
        time_condition : float32 array of shape (n, time_embed_dim), optional
            Added to the time embedding; zeros by default. Call
            :func:`calcarine.diffusion.add_time_condition` on the U-Net first.
        empty_time_condition : float32 array of shape (time_embed_dim,), optional
            Unconditional time condition for guidance; zeros by default.
        sampler : {"ddim", "plms"}
            The model's own scheduler, or pseudo linear multi-step, which evaluates the U-Net once
            more than there are steps.

        Returns
        -------
        float32 array of shape (n, channels, h, w)
            Denoised latents; without the first axis for one context of shape (tokens, width).

        Raises
        ------
        ShapeError
            If numbers or shapes disagree.
        SettingError
            If an unconditional context is missing, the sampler does not fit the model's noise
            schedule, or a strength above 0 leaves no step.
        CalcarineError
            If latents or predictions become infinite or NaN; with stimulus and step.

        Notes
        -----
        The networks compute in the model's precision. Latents and the steps of the scheduler are
        float32 in any case.

        Source: Takagi & Nishimoto (2023), section 3.3. Strength and steps have the meaning of
        diffusers' image-to-image pipeline. Time conditions: Chen et al. (2023, MinD-Vis),
        section 3.3.

        Examples
        --------
        >>> import calcarine as ca
        >>> model = ca.LatentDiffusion.from_pretrained("mini")
        >>> c = model.embed_captions("a red balloon")
        >>> picture = model.decode(model.generate(c, "balloon", steps=5))
        >>> picture.shape
        (64, 64, 3)
        """
        single = np.ndim(context) == 2
        if single:
            context, start = np.asarray(context)[None], add_axis(start, 3)
            time_condition = add_axis(time_condition, 1)
        names = as_keys(keys)
        if len(names) != len(context) or (start is not None and len(start) != len(context)):
            raise ShapeError(
                f"generate received {len(context)} contexts, {len(names)} keys and "
                f"{'no' if start is None else len(start)} starts; give equal numbers."
            )
        check_sampler(sampler, self.scheduler)
        self._check_context(context, empty)
        guided = guidance != 1
        if guided and empty is None:
            empty = self._default_empty()
        conditions = make_denoising_conditions(
            self.unet, context, empty, time_condition, empty_time_condition, guided=guided
        )

        def denoise(rows: slice) -> NDArray[np.float32]:
            if before_batch is not None:
                before_batch(rows)
            first = None if start is None else start[rows]
            x, times = self._first_latents(names[rows], first, strength, steps, seed)
            own = stimulus_names([stimulus for stimulus, _ in names[rows]])
            check_finite(finite_rows(x), "latents to start from", torch.float32, own)
            stepper, times = make_stepper(sampler, self.scheduler, steps, times)
            inputs = conditions.for_batch(rows, self.device, self.dtype)
            x, lost = self._denoise(x, stepper, times, inputs, guidance, after_step)
            at = [f"at denoising step {step + 1} of {len(times)}" for step in lost.tolist()]
            check_finite(lost < 0, "predictions or latents", self.dtype, own, at)
            return np.asarray(x.cpu().numpy())

        shape = (guided, self.latent_shape if start is None else start.shape[1:], context.shape[1:])
        parts = []
        for part in self._batch_sizes.run(denoise, len(context), batch_size, "denoising", shape):
            parts.append(part)
            report_progress(progress, len(part))
        if not parts:
            return np.zeros((0, *self.latent_shape), np.float32)
        return np.asarray(parts[0][0]) if single else np.concatenate(parts)

    def _first_latents(
        self,
        keys: Sequence[Key],
        start: NDArray[np.float32] | None,
        strength: float,
        steps: int,
        seed: int,
    ) -> tuple[torch.Tensor, list[int]]:
        """Return the latents that denoising starts from, and its timesteps."""
        if start is None:
            times = timesteps(self.scheduler, steps, 1.0)
            x = gaussian_noise(keys, self.latent_shape, seed)
            return x * float(self.scheduler.init_noise_sigma), times
        times = timesteps(self.scheduler, steps, strength)
        noised = self.add_noise(start, list(keys), strength=strength, steps=steps, seed=seed)
        return torch.from_numpy(noised), times

    def _check_context(
        self, context: NDArray[np.float32], empty: NDArray[np.float32] | None
    ) -> None:
        """Check more of a context than its width; for subclasses."""

    def _default_empty(self) -> NDArray[np.float32]:
        raise SettingError(
            "This model has no text encoder, so guidance needs an unconditional context: give it "
            "as empty, or set guidance to 1."
        )

    def _denoise(
        self,
        x: torch.Tensor,
        stepper: Any,
        times: list[int],
        inputs: dict[str, torch.Tensor],
        guidance: float,
        after_step: Callable[[torch.Tensor], None] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do all steps of a batch.

        Returns the latents in float32 and, for each, the first step (counted from 0) after which
        it or its prediction was not finite, or -1; both on the device of the U-Net.
        """
        x = x.to(self.device).float()
        on_device = torch.tensor(times).to(self.device)
        lost = torch.full((len(x),), -1).to(self.device)
        guided = guidance != 1
        for step, t in enumerate(times):
            both = stepper.scale_model_input(torch.cat([x, x]) if guided else x, t)
            predicted = self.unet(both.to(self.dtype), on_device[step], **inputs).sample.float()
            if guided:
                unconditional, conditional = predicted.chunk(2)
                predicted = unconditional + guidance * (conditional - unconditional)
                if self.guidance_rescale:
                    predicted = rescale_guided(predicted, conditional, self.guidance_rescale)
            x = stepper.step(predicted, t, x).prev_sample
            # Kept on the device: to ask for it at each step would wait for the GPU.
            broken = ~(finite_rows(predicted) & finite_rows(x)) & (lost < 0)
            lost = torch.where(broken, step, lost)
            if after_step is not None:
                after_step(x)
        return x, lost
