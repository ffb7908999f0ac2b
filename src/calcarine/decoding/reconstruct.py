"""Pictures from decoded z and c."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.diffusion import LatentDiffusion
from calcarine.errors import CalcarineError
from calcarine.stimuli import resize_images

Progress = Callable[[int], None]
Key = tuple[str, int]


@dataclass(frozen=True)
class Reconstructor:
    """The three reconstructions of Takagi & Nishimoto 2023 (section 3.3).

    Parameters
    ----------
    model : LatentDiffusion
    strength, guidance, steps, seed
        As in :meth:`calcarine.diffusion.LatentDiffusion.generate`.
    through_image : bool
        Decode z to a picture, bring it to the model's size (320 to 512 px in the paper, by
        Pillow's default filter) and encode that again before noise is added, as the paper does;
        False starts from the decoded z itself.
    posterior : {"mode", "sample"}
        What of the encoded picture is taken; all samples of a stimulus share one draw, as in the
        published code.
    batch_size : int
        Changes speed and memory, never the pictures.

    Notes
    -----
    All methods return float32 pictures ``(n, height, width, 3)`` in [0, 1].
    """

    model: LatentDiffusion
    strength: float = 0.8
    guidance: float = 5.0
    steps: int = 50
    seed: int = 42
    through_image: bool = True
    posterior: Literal["mode", "sample"] = "mode"
    batch_size: int = 32

    def from_z(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Method z: the autoencoder's decoder alone."""
        return self.model.decode(z, self.batch_size)

    def from_z_empty_text(
        self, z: NDArray[np.float32], keys: Sequence[Key], progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Method z under the empty text: z_c with c left out of the U-Net, as the paper's control.

        Source: Takagi & Nishimoto 2023, section 3.3, "omitting c or z from step (iii)".
        """
        c = self.model.embed_captions([[""]] * len(z))
        # Under the empty text the conditional prediction is the unconditional one.
        return replace(self, guidance=1.0).from_z_c(z, c, keys, progress)

    def from_c(
        self, c: NDArray[np.float32], keys: Sequence[Key], progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Method c: generation from noise under c."""
        latents = self.model.generate(c, keys, progress=progress, **self._options())
        return self.model.decode(latents, self.batch_size)

    def from_z_c(
        self,
        z: NDArray[np.float32],
        c: NDArray[np.float32],
        keys: Sequence[Key],
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Method z_c: image-to-image generation from z under c."""
        start = self.start(z, keys)
        latents = self.model.generate(
            c, keys, start, strength=self.strength, progress=progress, **self._options()
        )
        return self.model.decode(latents, self.batch_size)

    def start(
        self, z: NDArray[np.float32], keys: Sequence[Key] | None = None
    ) -> NDArray[np.float32]:
        """Latents from which image-to-image generation sets out."""
        side = self.model.image_size // self.model.downscale
        if not self.through_image and z.shape[-1] == side:
            return z
        # Samples of one stimulus share their z: it is decoded and encoded once.
        _, first, back = np.unique(
            z.reshape(len(z), -1), axis=0, return_index=True, return_inverse=True
        )
        pictures = to_uint8(self.model.decode(z[first], self.batch_size))
        pictures = resize_images(pictures, self.model.image_size)
        drawn: dict[str, Any] = {}
        if self.posterior == "sample" and keys is not None:
            drawn = {"sample": [(keys[row][0], 0) for row in first], "seed": self.seed}
        return self.model.encode(pictures, self.batch_size, **drawn)[back]

    def _options(self) -> dict[str, Any]:
        return {
            "guidance": self.guidance,
            "steps": self.steps,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }


def to_uint8(pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pictures in [0, 1] to 8 bits, rounded.

    Raises
    ------
    CalcarineError
        If a picture holds values that are not finite, which would become black.
    """
    if not np.isfinite(pictures).all():
        raise CalcarineError(
            "A picture holds values that are not finite; where generation.precision is float16, "
            "set it to float32, else look at the responses and weights it was made from."
        )
    return np.round(np.clip(pictures, 0, 1) * 255).astype(np.uint8)


def choose_by_brain(
    model: LatentDiffusion,
    samples: NDArray[np.uint8],
    z: NDArray[np.float32],
    reliability: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Which sample agrees best with what the brain predicts; the truth is not asked.

    Parameters
    ----------
    samples : uint8 array of shape (n, n_samples, height, width, 3)
    z : float32 array of shape (n, channels, h, w)
        Predicted latents.
    reliability : array of shape (channels, h, w)
        Cross-validated r2 inside the training data; dimensions without any are left out.

    Returns
    -------
    int array of shape (n,)
        Index of the sample whose latent has the highest reliability-weighted correlation with z.
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
        return x / np.sqrt((x**2 * weight).sum(-1, keepdims=True) + 1e-12)

    agreement = (standard(latents) * standard(z.reshape(n, 1, -1)) * weight).sum(-1)
    return np.asarray(agreement.argmax(1))
