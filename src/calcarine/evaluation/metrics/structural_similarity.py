"""Structural similarity (SSIM) of images with known local moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

__all__ = ["WINDOW", "LocalMoments", "structure", "structure_with_many"]

FloatArray = NDArray[np.float64]
Kind = Literal["2d", "columns", "uniform"]

WINDOW = 11
_GAUSS = np.exp(-0.5 * (np.arange(-(WINDOW // 2), WINDOW // 2 + 1) / 1.5) ** 2)
_GAUSS /= _GAUSS.sum()
_UNIFORM = np.full(7, 1 / 7)
_CACHE_BYTES = 2**20


@dataclass(frozen=True)
class LocalMoments:
    """Images with their local means and variances.

    Parameters
    ----------
    images : float64 array of shape (..., height, width)
    kind : {"2d", "columns", "uniform"}
        Gaussian window of 11 x 11 (sigma 1.5) with population covariance; the same in one
        dimension, down the columns; or a flat window of 7 x 7 with sample covariance.
    """

    images: FloatArray
    mean: FloatArray
    variance: FloatArray
    kind: Kind

    @classmethod
    def of(cls, images: FloatArray, kind: Kind) -> LocalMoments:
        """Compute the local moments of images."""
        mean = _smooth(images, kind)
        return cls(images, mean, _sample(kind) * (_smooth(images * images, kind) - mean**2), kind)

    @classmethod
    def stacked(cls, each: list[LocalMoments]) -> LocalMoments:
        """Join images of the same size and kind."""
        images, mean, variance = (
            np.stack([getattr(moments, name) for moments in each])
            for name in ("images", "mean", "variance")
        )
        return cls(images, mean, variance, each[0].kind)

    def part(self, rows: slice) -> LocalMoments:
        """Return some of the images."""
        return LocalMoments(self.images[rows], self.mean[rows], self.variance[rows], self.kind)


def structure(x: LocalMoments, y: LocalMoments, data_range: float = 1.0) -> FloatArray:
    """Compute the structural similarity of images (Wang et al. 2004).

    Parameters
    ----------
    x, y : LocalMoments
        Both of the same kind; axes before the last two broadcast.
    data_range : float
        Largest possible value.

    Returns
    -------
    float64 array
        Without the last two axes.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    product = x.mean * y.mean
    covariance = _sample(x.kind) * (_smooth(x.images * y.images, x.kind) - product)
    numerator = (2 * product + c1) * (2 * covariance + c2)
    denominator = (x.mean**2 + y.mean**2 + c1) * (x.variance + y.variance + c2)
    similarity: FloatArray = (numerator / denominator).mean(axis=(-2, -1))
    return similarity


def structure_with_many(x: LocalMoments, many: LocalMoments, data_range: float = 1.0) -> FloatArray:
    """Compute the similarities of one picture with many, in parts that fit into the CPU cache."""
    step = max(1, _CACHE_BYTES // x.images.nbytes)
    parts = [
        structure(x, many.part(slice(start, start + step)), data_range)
        for start in range(0, len(many.images), step)
    ]
    return np.concatenate(parts)


def _sample(kind: Kind) -> float:
    """Return the factor from population to sample covariance, if the kind uses the latter."""
    return _UNIFORM.size**2 / (_UNIFORM.size**2 - 1) if kind == "uniform" else 1.0


def _smooth(x: FloatArray, kind: Kind) -> FloatArray:
    """Compute the weighted local average at positions where the whole window fits."""
    weights = _UNIFORM if kind == "uniform" else _GAUSS
    radius = len(weights) // 2
    for axis in (-2,) if kind == "columns" else (-2, -1):
        inside = [slice(None)] * x.ndim
        inside[axis] = slice(radius, -radius)
        x = correlate1d(x, weights, axis=axis)[tuple(inside)]
    return x
