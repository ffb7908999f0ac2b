"""Pictures from decoded z and c."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import LatentDiffusion
from calcarine.diffusion.noise import Keys, as_keys
from calcarine.display import html_table
from calcarine.errors import CalcarineError
from calcarine.stimuli import resize_images

__all__ = ["Reconstructor", "choose_by_brain", "to_uint8"]

Progress = Callable[[int], None]


@dataclass(frozen=True, repr=False)
class Reconstructor:
    """Makes pictures from decoded z and c with a latent diffusion model.

    Parameters
    ----------
    model : LatentDiffusion
        The generative model.
    strength, guidance, steps, seed
        See :meth:`calcarine.diffusion.LatentDiffusion.generate`.
    through_image : bool
        Decode z to a picture, resize it to the model's size (320 to 512 px in the paper, with
        Pillow's default filter), and encode it again before noise is added, as the paper does.
        False starts from the decoded z itself.
    posterior : {"mode", "sample"}
        Encode that picture to the mode of the posterior, or to a sample that all samples of a
        stimulus share, as in the published code.
    batch_size : int
        Changes speed and memory, never the pictures.

    Notes
    -----
    All methods return float32 pictures ``(n, height, width, 3)`` in [0, 1]. One z or c without the
    first axis gives one picture ``(height, width, 3)``.

    Source: the three reconstructions of Takagi & Nishimoto (2023), section 3.3.

    Examples
    --------
    >>> import calcarine as ca
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> reconstructor = ca.Reconstructor(model, steps=5)
    >>> c = model.embed_captions(["a red balloon"])
    >>> reconstructor.from_c(c, ["balloon"]).shape
    (1, 64, 64, 3)
    """

    model: LatentDiffusion
    strength: float = 0.8
    guidance: float = 5.0
    steps: int = 50
    seed: int = 42
    through_image: bool = True
    posterior: Literal["mode", "sample"] = "mode"
    batch_size: int = 32

    def __repr__(self) -> str:
        return (
            f"Reconstructor({self.model.name!r}, strength={self.strength:g}, "
            f"guidance={self.guidance:g}, steps={self.steps}, seed={self.seed})"
        )

    def _repr_html_(self) -> str:
        rows = {field.name: getattr(self, field.name) for field in fields(self)}
        return html_table("Reconstructor", rows | {"model": self.model.name})

    def from_z(self, z: NDArray[np.float32], keys: Keys | None = None) -> NDArray[np.float32]:
        """Method z: decode z with the autoencoder alone.

        Parameters
        ----------
        z : float32 array of shape (n, channels, h, w) or (channels, h, w)
        keys : sequence of n stimulus ids, or of n (stimulus id, sample index), optional
            For error messages.

        Returns
        -------
        float32 array of shape (n, height, width, 3) or (height, width, 3)
        """
        return self.model.decode(z, self.batch_size, ids=_ids(keys))

    def from_z_empty_text(
        self, z: NDArray[np.float32], keys: Keys, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Control of method z_c: generate from z under the empty text instead of c.

        Parameters
        ----------
        z, keys, progress
            See `from_z_c`.

        Notes
        -----
        Source: Takagi & Nishimoto (2023), section 3.3, "omitting c or z from step (iii)".
        """
        if np.ndim(z) == 3:
            return np.asarray(self.from_z_empty_text(z[None], keys, progress)[0])
        c = self.model.embed_captions([[""]] * len(z))
        # Under the empty text the conditional prediction is the unconditional one.
        return replace(self, guidance=1.0).from_z_c(z, c, keys, progress)

    def from_c(
        self, c: NDArray[np.float32], keys: Keys, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Method c: generate from noise under c.

        Parameters
        ----------
        c : float32 array of shape (n, tokens, width) or (tokens, width)
        keys, progress
            See `from_z_c`.

        Returns
        -------
        float32 array of shape (n, height, width, 3) or (height, width, 3)
        """
        latents = self.model.generate(c, keys, progress=progress, **self._options())
        return self.model.decode(latents, self.batch_size, ids=_ids(keys))

    def from_z_c(
        self,
        z: NDArray[np.float32],
        c: NDArray[np.float32],
        keys: Keys,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Method z_c: generate from z, noised to ``strength``, under c.

        Parameters
        ----------
        z : float32 array of shape (n, channels, h, w) or (channels, h, w)
        c : float32 array of shape (n, tokens, width) or (tokens, width)
        keys : sequence of n stimulus ids, or of n (stimulus id, sample index)
            Determine the noise of each picture, together with ``seed``.
        progress : callable, optional
            Receives the number of pictures of each finished batch.

        Returns
        -------
        float32 array of shape (n, height, width, 3) or (height, width, 3)

        Examples
        --------
        >>> import calcarine as ca
        >>> model = ca.LatentDiffusion.from_pretrained("mini")
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(1))
        >>> z, c = model.encode(seen.images()), model.embed_captions(seen.captions())
        >>> ca.Reconstructor(model, strength=0.5, steps=4).from_z_c(z, c, seen.ids).shape
        (1, 64, 64, 3)
        """
        if np.ndim(z) == 3 and np.ndim(c) == 2:
            return np.asarray(self.from_z_c(z[None], c[None], keys, progress)[0])
        start = self.start(z, keys)
        latents = self.model.generate(
            c, keys, start, strength=self.strength, progress=progress, **self._options()
        )
        return self.model.decode(latents, self.batch_size, ids=_ids(keys))

    def start(self, z: NDArray[np.float32], keys: Keys | None = None) -> NDArray[np.float32]:
        """Return the latents that generation with z starts from, before noise is added.

        Parameters
        ----------
        z : float32 array of shape (n, channels, h, w)
        keys : sequence of n stimulus ids, or of n (stimulus id, sample index), optional
            Needed to sample the posterior, and for error messages.

        Returns
        -------
        float32 array of shape (n, channels, h, w) of the model
        """
        side = self.model.image_size // self.model.downscale
        if not self.through_image and z.shape[-1] == side:
            return z
        # Samples of one stimulus share their z: it is decoded and encoded once.
        _, first, back = np.unique(
            z.reshape(len(z), -1), axis=0, return_index=True, return_inverse=True
        )
        names = _ids(keys)
        ids = None if names is None else [names[row] for row in first]
        pictures = to_uint8(self.model.decode(z[first], self.batch_size, ids=ids))
        pictures = resize_images(pictures, self.model.image_size)
        options: dict[str, Any] = {"ids": ids}
        if self.posterior == "sample" and ids is not None:
            options |= {"sample": [(stimulus, 0) for stimulus in ids], "seed": self.seed}
        return self.model.encode(pictures, self.batch_size, **options)[back]

    def _options(self) -> dict[str, Any]:
        return {
            "guidance": self.guidance,
            "steps": self.steps,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }


def _ids(keys: Keys | None) -> list[str] | None:
    return None if keys is None else [stimulus for stimulus, _ in as_keys(keys)]


def to_uint8(pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert pictures in [0, 1] to 8 bits, rounded.

    Raises
    ------
    CalcarineError
        If a picture holds values that are not finite, which would become black.
    """
    if not np.isfinite(pictures).all():
        raise CalcarineError(
            "A picture has values that are not finite; check the responses and weights, or choose "
            "another precision (compute.precision)."
        )
    return np.round(np.clip(pictures, 0, 1) * 255).astype(np.uint8)


def choose_by_brain(
    model: LatentDiffusion,
    samples: NDArray[np.uint8],
    z: NDArray[np.float32],
    reliability: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Choose the sample that agrees best with the predicted latents, without the ground truth.

    Parameters
    ----------
    model : LatentDiffusion
        Encodes the samples.
    samples : uint8 array of shape (n, n_samples, height, width, 3)
    z : float32 array of shape (n, channels, h, w)
        Predicted latents.
    reliability : array of shape (channels, h, w)
        Cross-validated r2 inside the training data; dimensions at or below 0 have no weight.

    Returns
    -------
    int array of shape (n,)
        Index of the sample whose latent has the highest reliability-weighted correlation with z.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.decoding import choose_by_brain
    >>> model = ca.LatentDiffusion.from_pretrained("mini")
    >>> samples = ca.StimulusSet.from_scenes(seed=0, indices=range(3)).images()[None]
    >>> z = model.encode(samples[0, 1:2])  # in real use, decoded from the brain
    >>> choose_by_brain(model, samples, z, np.ones(z.shape[1:])).tolist()
    [1]
    """
    n, count = samples.shape[:2]
    side = z.shape[-1] * model.downscale
    flat = resize_images(samples.reshape(-1, *samples.shape[2:]), side)
    latents = model.encode(flat).reshape(n, count, -1)
    weight = np.clip(reliability, 0, None).ravel()
    if not weight.any():
        weight = np.ones_like(weight)
    weight = weight / weight.sum()

    def standard(x: NDArray[Any]) -> NDArray[Any]:
        x = x - (x * weight).sum(-1, keepdims=True)
        return np.asarray(x / np.sqrt((x**2 * weight).sum(-1, keepdims=True) + 1e-12))

    agreement = (standard(latents) * standard(z.reshape(n, 1, -1)) * weight).sum(-1)
    return np.asarray(agreement.argmax(1))
