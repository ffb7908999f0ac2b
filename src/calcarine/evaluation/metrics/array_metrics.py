"""Metrics of arrays: embeddings decoded from the brain, and predicted responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from calcarine.errors import CalcarineError, ShapeError
from calcarine.evaluation.metrics.metric import Direction, FloatArray, Metric, register_metric
from calcarine.evaluation.metrics.similarity import correlation_matrix, cosine_matrix

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache

__all__ = ["BrainCorrelation", "Retrieval", "two_dimensional"]


@register_metric
@dataclass(frozen=True)
class Retrieval(Metric):
    """Top-1 retrieval: whether the right one of a random pool is the most similar.

    Parameters
    ----------
    direction : {"reconstruction", "image"}
        "reconstruction": for each brain response, is the right image the first (image retrieval);
        "image": for each image, is the right brain response the first (brain retrieval).
    largest_pool : int
        Number of candidates in a pool, including the right one; all images if there are fewer.
    draws : int, optional
        Number of random pools of an estimate; by default the expectation in closed form.
    seed : int
        Seed of the draws.
    """

    direction: Direction | None = "reconstruction"
    largest_pool: int = 300
    draws: int | None = None
    seed: int = 0
    inputs: ClassVar[tuple[str, ...]] = ("image_embeddings", "brain_embeddings")
    missing_message: ClassVar[str] = (
        "the arrays image_embeddings and brain_embeddings are not given"
    )
    uses_pictures: ClassVar[bool] = False

    def chance(self, n: int) -> float | None:
        return 1 / min(self.largest_pool, n)

    def pool(self, n: int) -> int | None:
        return min(self.largest_pool, n)

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return cosine similarities, shape (n, n); row: image, column: brain."""
        images, brains = (two_dimensional(cache, name) for name in self.inputs)
        return cosine_matrix(images, brains)

    def finish(self, measured: FloatArray) -> FloatArray:
        scores = measured if self.direction == "image" else measured.T
        n, pool = len(scores), min(self.largest_pool, len(scores))
        if self.draws is not None:
            result = self._drawn(scores, pool)
        else:
            # An entry competes with the others of its row; a tie counts as a failure.
            ordered = np.sort(scores, axis=1)
            better = np.stack(
                [
                    n - 1 - np.searchsorted(o, row, "left")
                    for o, row in zip(ordered, scores, strict=True)
                ]
            )
            result = hypergeom.pmf(0, n - 1, better, pool - 1)
        return result if self.direction == "image" else result.T

    def _drawn(self, scores: FloatArray, pool: int) -> FloatArray:
        """Estimate from random pools; only the diagonal is scored, the rest is NaN."""
        rng = np.random.default_rng(self.seed)
        wins, times = np.zeros(len(scores)), np.zeros(len(scores))
        for _ in range(self.draws or 1):
            members = rng.permutation(len(scores))[:pool]
            block = scores[np.ix_(members, members)]
            own = np.diagonal(block)[:, None]
            wins[members] += (block >= own).sum(axis=1) == 1
            times[members] += 1
        if (times == 0).any():
            raise CalcarineError(
                f"{self.draws} random pools of {pool} do not contain every image; draw more pools "
                "or use the closed form."
            )
        result = np.full(scores.shape, np.nan)
        np.fill_diagonal(result, wins / times)
        return result


@register_metric
@dataclass(frozen=True)
class BrainCorrelation(Metric):
    """Correlation across voxels of measured responses with those predicted from reconstructions.

    Parameters
    ----------
    region : str
        The inputs are the arrays ``betas_REGION`` and ``predicted_betas_REGION``, (n, voxels).
    """

    region: str = "nsdgeneral"
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    missing_message: ClassVar[str] = (
        "the arrays betas_REGION and predicted_betas_REGION are not given"
    )
    uses_pictures: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[str, ...]:
        return (f"betas_{self.region}", f"predicted_betas_{self.region}")

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return correlations, shape (n, n)."""
        betas, predicted = (two_dimensional(cache, name) for name in self.needs)
        return correlation_matrix(betas, predicted)


def two_dimensional(cache: FeatureCache, name: str) -> NDArray[Any]:
    """Return an input array as (n, features), or raise if it has another shape or type."""
    result = np.asarray(cache.inputs[name])
    numeric = result.dtype.kind in "fiu"
    if result.ndim < 2 or len(result) != cache.n or not numeric or not result.size:
        raise ShapeError(
            f"{name} has shape {result.shape} and type {result.dtype}; give numbers of shape "
            f"({cache.n}, features), in the order of the images."
        )
    return result.reshape(len(result), -1).astype(np.float64)
