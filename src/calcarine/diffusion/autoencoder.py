"""Autoencoders: pictures to latents and back, by Stable Diffusion's own network or by TAESD."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.checkpoints import check_safetensors, load_safetensors
from calcarine.devices import BatchSizes
from calcarine.diffusion.finite_values import check_finite, finite_rows
from calcarine.diffusion.loading import load_autoencoder
from calcarine.diffusion.model_folder import download
from calcarine.diffusion.noise import Keys, as_keys, gaussian_noise
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    SettingError,
    ShapeError,
    out_of_memory,
)
from calcarine.files import digest_file, read_json

__all__ = [
    "Autoencoder",
    "Progress",
    "report_progress",
    "stimulus_names",
]

Progress = Callable[[int], None]
"""Receives the number of items that were done since it was last called."""

TAESD_HUB = "madebyollin/taesd"
_PIXELS_AT_ONCE = 2**21


class Autoencoder:
    """Encoder and decoder of a latent diffusion model.

    Parameters
    ----------
    vae : AutoencoderKL, AutoencoderTiny or VQModel
        Autoencoder of diffusers.
    digest : str
        Content hash of the weights, if they do not belong to the model.

    Notes
    -----
    Latents have the scale of the U-Net's input: the posterior times ``scaling_factor`` (0.18215 in
    Stable Diffusion v1). TAESD produces latents of this scale itself. A ``VQModel`` encodes to the
    latent before quantisation, and quantises before it decodes.

    Examples
    --------
    >>> import calcarine as ca
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(2)).images()
    >>> model.autoencoder.encode(pictures).shape
    (2, 4, 16, 16)
    """

    def __init__(self, vae: Any, digest: str = "") -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.digest = digest
        self._batch_sizes = BatchSizes()

    @classmethod
    def from_pretrained(cls, source: str | Path, dtype: torch.dtype = torch.float32) -> Autoencoder:
        """Load an autoencoder without the rest of a model.

        Parameters
        ----------
        source : str or Path
            ``"taesd"`` (from the hub or its cache); a folder with TAESD's own files
            ``taesd_encoder.safetensors`` and ``taesd_decoder.safetensors``; or a folder in
            diffusers' format.
        dtype : torch.dtype
            Precision of the weights.

        Raises
        ------
        MissingFileError
            If there is no such folder, or a file is missing.
        DamagedFileError
            If a file is truncated or holds another network.
        """
        folder = Path(source)
        if str(source) == "taesd" and not folder.is_dir():
            folder = download(TAESD_HUB, ["taesd_encoder.safetensors", "taesd_decoder.safetensors"])
        if not folder.is_dir():
            raise MissingFileError(
                f"There is no autoencoder at '{source}': give 'taesd', a folder with "
                "taesd_encoder.safetensors and taesd_decoder.safetensors, or one in diffusers' "
                "format."
            )
        own = [folder / f"taesd_{half}.safetensors" for half in ("encoder", "decoder")]
        files = own if any(file.exists() for file in own) else sorted(folder.glob("*.safetensors"))
        for file in files or [folder / "diffusion_pytorch_model.safetensors"]:
            if not file.exists():
                raise MissingFileError(
                    f"The autoencoder folder {folder} has no {file.name}; copy it again."
                )
            check_safetensors(file)
        contents = b"".join(bytes.fromhex(digest_file(file)) for file in files)
        digest = hashlib.sha256(contents).hexdigest()
        try:
            vae = _taesd(*own) if files == own else load_autoencoder(folder, torch.float32)
        except CalcarineError:
            raise
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            if out_of_memory(error):
                raise
            raise DamagedFileError(
                f"The weights in {folder} are not those of an autoencoder; copy them again."
            ) from error
        return cls(vae if dtype == torch.float32 else vae.to(dtype), digest)

    def check_replaces(self, config: Path) -> None:
        """Raise unless latents have the shape of the latents of a model's own autoencoder.

        Parameters
        ----------
        config : Path
            ``config.json`` of the model's own autoencoder.

        Raises
        ------
        SettingError
            If this autoencoder makes latents of another shape.
        """
        try:
            about = read_json(config)
            own = 2 ** (len(about["block_out_channels"]) - 1), about["latent_channels"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DamagedFileError(
                f"{config} does not describe an autoencoder; copy the model again, whole."
            ) from error
        if own != (self.downscale, self.channels):
            raise SettingError(
                f"This autoencoder makes latents of {self.channels} channels and 1/{self.downscale}"
                f" of the picture's size, and the model's own {own[1]} channels and 1/{own[0]}; it "
                "cannot take its place, so choose another one (generation.autoencoder)."
            )

    @property
    def downscale(self) -> int:
        """Number of pixels per latent position along one side (8 in Stable Diffusion)."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def channels(self) -> int:
        """Number of channels of a latent (4 in Stable Diffusion)."""
        return int(self.vae.config.latent_channels)

    @property
    def _place(self) -> tuple[torch.device, torch.dtype]:
        weight = next(self.vae.parameters())
        return weight.device, weight.dtype

    @property
    def _scale(self) -> tuple[float, float]:
        shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)
        return float(self.vae.config.scaling_factor), shift

    @torch.inference_mode()
    def encode(
        self,
        images: NDArray[np.uint8],
        batch_size: int = 32,
        progress: Progress | None = None,
        sample: Keys | None = None,
        seed: int = 42,
        ids: Sequence[str] | None = None,
    ) -> NDArray[np.float32]:
        """Encode pictures to latents z: the mode of the posterior, or a sample of it.

        Parameters
        ----------
        images : uint8 array of shape (n, height, width, 3) or (height, width, 3)
            Height and width must be multiples of ``downscale``.
        batch_size : int
            Largest number of pictures per batch. Large pictures are encoded in smaller batches,
            and so are all if the memory of a GPU is too small.
        progress : callable, optional
            Receives the number of pictures of each batch.
        sample : sequence of n (stimulus id, sample index), optional
            Draw from the posterior, with noise that belongs to each key; the mode by default.
        seed : int
            Seed of this noise.
        ids : sequence of n str, optional
            Stimulus ids of the pictures, for error messages; by default those of ``sample``.

        Returns
        -------
        float32 array of shape (n, channels, height / downscale, width / downscale)
            Without the first axis for one picture.

        Raises
        ------
        ShapeError
            If pictures have another shape or type.
        CalcarineError
            If latents are not finite.
        """
        if np.ndim(images) == 3:
            one = self.encode(np.asarray(images)[None], batch_size, progress, sample, seed, ids)
            return np.asarray(one[0])
        self._check_pictures(images)
        drawn = None if sample is None else as_keys(sample)
        if drawn is not None and len(drawn) != len(images):
            raise ShapeError(
                f"encode received {len(images)} pictures and {len(drawn)} keys; give one key for "
                "each picture."
            )
        height, width = images.shape[1] // self.downscale, images.shape[2] // self.downscale
        names = stimulus_names(ids if ids is not None or drawn is None else [k for k, _ in drawn])

        def encode(rows: slice) -> NDArray[np.float32]:
            pixels = torch.from_numpy(np.ascontiguousarray(images[rows]))
            latents, finite = self._encoded(pixels, None if drawn is None else drawn[rows], seed)
            what = "latents of the encoder"
            check_finite(finite, what, self._place[1], names and names[rows])
            return np.asarray(latents.cpu().numpy())

        size = _at_once(batch_size, images.shape[1] * images.shape[2])
        parts = []
        for part in self._batch_sizes.run(encode, len(images), size, "encoding", (height, width)):
            parts.append(part)
            report_progress(progress, len(part))
        if not parts:
            return np.zeros((0, self.channels, height, width), np.float32)
        return np.concatenate(parts)

    def _encoded(
        self, pictures: torch.Tensor, keys: list[tuple[str, int]] | None, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode uint8 pictures of shape (n, height, width, 3) on the CPU.

        Returns float32 latents and whether each is finite, both on the device of the network.
        """
        device, dtype = self._place
        factor, shift = self._scale
        pixels = pictures.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = (self._latents(pixels.to(dtype), keys, seed).float() - shift) * factor
        return latents, finite_rows(latents)

    def _latents(
        self, pixels: torch.Tensor, keys: list[tuple[str, int]] | None, seed: int
    ) -> torch.Tensor:
        encoded = self.vae.encode(pixels)
        posterior = getattr(encoded, "latent_dist", None)
        if posterior is None:
            if keys is not None:
                raise SettingError(
                    "This autoencoder has no posterior to sample from; choose the posterior 'mode'."
                )
            return torch.as_tensor(encoded.latents)
        if keys is None:
            return torch.as_tensor(posterior.mode())
        # Another name, so that generation does not add the same noise for this key.
        names = [(f"posterior|{stimulus}", sample) for stimulus, sample in keys]
        noise = gaussian_noise(names, tuple(posterior.mean.shape[1:]), seed)
        return torch.as_tensor(posterior.mean + posterior.std * noise.to(posterior.mean))

    @torch.inference_mode()
    def decode(
        self,
        latents: NDArray[np.float32],
        batch_size: int = 32,
        progress: Progress | None = None,
        ids: Sequence[str] | None = None,
    ) -> NDArray[np.float32]:
        """Decode latents to pictures.

        Parameters
        ----------
        latents : float32 array of shape (n, channels, h, w) or (channels, h, w)
        batch_size, progress, ids
            As in `encode`.

        Returns
        -------
        float32 array of shape (n, height, width, 3)
            Pictures in [0, 1]; without the first axis for one latent.

        Raises
        ------
        ShapeError
            If latents have another shape.
        CalcarineError
            If latents or pictures hold values that are not finite, which would become black.
        """
        if np.ndim(latents) == 3:
            return np.asarray(self.decode(np.asarray(latents)[None], batch_size, progress, ids)[0])
        if np.ndim(latents) != 4 or latents.shape[1] != self.channels:
            raise ShapeError(
                f"decode takes latents of shape (n, {self.channels}, h, w), not "
                f"{np.shape(latents)}."
            )
        height, width = (side * self.downscale for side in latents.shape[2:])
        names = stimulus_names(ids)

        def decode(rows: slice) -> NDArray[np.float32]:
            z = torch.from_numpy(np.ascontiguousarray(latents[rows]))
            own = names and names[rows]
            check_finite(finite_rows(z), "latents", torch.float32, own)
            pictures, finite = self._decoded(z)
            check_finite(finite, "pictures of the decoder", self._place[1], own)
            return np.asarray(pictures.cpu().numpy())

        size = _at_once(batch_size, height * width)
        parts = []
        for part in self._batch_sizes.run(decode, len(latents), size, "decoding", (height, width)):
            parts.append(part)
            report_progress(progress, len(part))
        return np.concatenate(parts) if parts else np.zeros((0, height, width, 3), np.float32)

    def _decoded(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode latents of shape (n, channels, h, w) on the CPU.

        Returns float32 pictures (n, height, width, 3) and whether each is finite, both on the
        device of the network.
        """
        device, dtype = self._place
        factor, shift = self._scale
        z = latents.to(device).float() / factor + shift
        pixels = self.vae.decode(z.to(dtype)).sample.float()
        return ((pixels + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1), finite_rows(pixels)

    def _check_pictures(self, images: NDArray[Any]) -> None:
        if not isinstance(images, np.ndarray):
            raise ShapeError(
                "encode takes a uint8 array of shape (n, height, width, 3), not "
                f"{type(images).__name__}."
            )
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ShapeError(
                f"encode takes uint8 pictures of shape (n, height, width, 3), not {images.dtype} "
                f"of shape {images.shape}."
            )
        if images.shape[1] % self.downscale or images.shape[2] % self.downscale:
            raise ShapeError(
                f"Pictures of {images.shape[1]} x {images.shape[2]} px cannot be encoded: both "
                f"sides must be multiples of {self.downscale}; resize them first."
            )


def _taesd(encoder: Path, decoder: Path) -> Any:
    """Load TAESD from its own two files, which number the layers differently from diffusers."""
    from diffusers import AutoencoderTiny

    state = {f"encoder.layers.{key}": value for key, value in load_safetensors(encoder).items()}
    for key, value in load_safetensors(decoder).items():
        number, rest = key.split(".", 1)
        # The first layer of the original clamps its input and has no weights.
        state[f"decoder.layers.{int(number) - 1}.{rest}"] = value
    vae: Any = AutoencoderTiny(latent_channels=4)
    vae.load_state_dict(state)
    return vae


def _at_once(batch_size: int, pixels: int) -> int:
    if batch_size < 1:
        return batch_size  # BatchSizes raises
    return max(1, min(batch_size, _PIXELS_AT_ONCE // max(pixels, 1)))


def report_progress(progress: Progress | None, count: int) -> None:
    """Call ``progress`` with the number of items done, if it is given."""
    if progress is not None:
        progress(count)


def stimulus_names(ids: Sequence[str] | None) -> list[str] | None:
    """Return how error messages name stimuli."""
    return None if ids is None else [f"stimulus '{stimulus}'" for stimulus in ids]
