"""Pictures and responses with a linear signal, for simulated files of measured data sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_pictures", "responses_with_signal"]


def draw_pictures(
    rng: np.random.Generator, groups: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Draw pictures of four coloured quarters, similar within a group.

    Parameters
    ----------
    rng
        Random numbers.
    groups
        Category of each picture, shape (n,).
    size
        Side in pixels.

    Returns
    -------
    pictures : uint8 array of shape (n, size, size, 3)
    features : array of shape (n, 12)
        The colours, standardised over the pictures.
    """
    count = len(groups)
    centre = rng.uniform(60, 196, (int(groups.max()) + 1, 2, 2, 3))
    colours = np.clip(centre[groups] + rng.normal(0, 40, (count, 2, 2, 3)), 0, 255)
    place = (2 * np.arange(size)) // size
    pictures = np.round(colours).astype(np.uint8)[:, place][:, :, place]
    flat = colours.reshape(count, -1)
    return np.ascontiguousarray(pictures), (flat - flat.mean(0)) / (flat.std(0) + 1e-9)


def responses_with_signal(
    rng: np.random.Generator,
    features: NDArray[np.float64],
    trials: NDArray[np.int64],
    n_voxels: int,
    noise: float = 1.0,
) -> NDArray[np.float32]:
    """Return responses that are linear in features, with noise.

    Parameters
    ----------
    rng
        Random numbers.
    features
        Shape (stimulus, feature).
    trials
        Row of the stimulus of each trial, shape (trial,).
    n_voxels
        How many voxels.
    noise
        SD of the noise where the signal has SD 1.

    Returns
    -------
    float32 array of shape (trial, voxel)
    """
    weights = rng.normal(0, 1 / np.sqrt(features.shape[1]), (features.shape[1], n_voxels))
    result = rng.standard_normal((len(trials), n_voxels), dtype=np.float32) * np.float32(noise)
    result += (features @ weights).astype(np.float32)[trials]
    return result
