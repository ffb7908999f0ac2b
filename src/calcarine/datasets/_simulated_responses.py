"""Simulated responses for files in the layout of measured data sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["linear_responses"]


def linear_responses(
    rng: np.random.Generator, targets: NDArray[np.float64], n_voxels: int, noise: float
) -> NDArray[np.float64]:
    """Return responses of unit variance that are linear in targets, with noise.

    Parameters
    ----------
    rng : Generator
    targets : array of shape (trial, feature)
        What drives the responses; constant features do not.
    n_voxels : int
    noise : float
        Standard deviation of the noise where that of the signal is 1.

    Returns
    -------
    float64 array of shape (trial, voxel)
    """
    spread = targets.std(0)
    kept = (targets - targets.mean(0))[:, spread > 0] / spread[spread > 0]
    signal = kept @ rng.standard_normal((kept.shape[1], n_voxels))
    signal /= signal.std(0) + 1e-12
    responses: NDArray[np.float64] = signal + noise * rng.standard_normal(signal.shape)
    return np.asarray(responses / np.sqrt(1 + noise**2))
