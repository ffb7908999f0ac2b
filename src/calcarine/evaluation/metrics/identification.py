"""Identification among hard negatives, ranks, and identification within categories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.metrics.image_metrics import Identification
from calcarine.evaluation.metrics.metric import FloatArray, Metric, register_metric
from calcarine.evaluation.metrics.similarity import correlation_matrix
from calcarine.evaluation.networks.preprocessing import PLAIN, Preprocessing
from calcarine.evaluation.statistics.permutation import (
    PermutationResult,
    matched_majority,
    permutation_of,
    permutation_test,
    permuted_statistic,
    share_of_orders,
    smallest_p,
)

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache

__all__ = ["CategoryRead", "GroupIdentification", "HardIdentification", "RankPercentile", "TopOne"]


@register_metric
@dataclass(frozen=True)
class HardIdentification(Identification):
    """Identification among the most similar pictures (hard negatives).

    The competitors of an image are the most similar other ground truths by the correlation of the
    same features. The image is fixed, and its reconstruction competes with theirs, so chance is
    exactly one half.

    Parameters
    ----------
    neighbours : int
        Number of competitors of each image; all others if there are fewer.
    """

    direction: Literal["image", "reconstruction"] | None = "image"
    ties: Literal["half", "failure"] = "half"
    neighbours: int = 10

    def pool(self, n: int) -> int | None:
        return min(self.neighbours, n - 1) + 1

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return correlations with reconstructions and among ground truths, shape (2, n, n)."""
        truth = cache.features("truth", 0, self.network, self.preprocessing, self.layer)
        return np.stack([super().measure(cache, sample), correlation_matrix(truth, truth)])

    def finish(self, measured: FloatArray) -> FloatArray:
        own = np.arange(measured.shape[1])
        return self._shares(measured, self._nearest(measured[1]), own)

    def null(
        self, scores: FloatArray, measured: FloatArray, n_permutations: int, seed: int
    ) -> PermutationResult | None:
        # Competitors are shuffled with the reconstructions, so the score matrix is not sufficient.
        nearest = self._nearest(measured[1])
        return permutation_of(
            lambda order: float(self._shares(measured, nearest, order).mean()),
            len(scores),
            float(scores.mean()),
            n_permutations,
            seed,
        )

    def _nearest(self, similarity: FloatArray) -> NDArray[np.int64]:
        others = similarity.copy()
        np.fill_diagonal(others, -np.inf)
        k = min(self.neighbours, len(others) - 1)
        return np.asarray(np.argsort(-others, axis=1, kind="stable")[:, :k], np.int64)

    def _shares(
        self, measured: FloatArray, nearest: NDArray[np.int64], order: NDArray[np.int64]
    ) -> FloatArray:
        images = np.arange(len(order))
        gain = measured[0][images, order][:, None] - measured[0][images[:, None], order[nearest]]
        tie = np.abs(gain) <= matrices.TIE_TOLERANCE
        worth = 0.5 if self.ties == "half" else 0.0
        shares: FloatArray = np.where(tie, worth, gain > 0).mean(axis=1)
        return shares


@register_metric
@dataclass(frozen=True)
class RankPercentile(Identification):
    """Median over images of the percentile rank of the right reconstruction in the pool.

    The mean of the same ranks is two-way identification. A median that is much lower than the mean
    shows that few images determine the mean.
    """

    summary: ClassVar[Literal["mean", "median"]] = "median"

    def null(
        self, scores: FloatArray, measured: FloatArray, n_permutations: int, seed: int
    ) -> PermutationResult | None:
        share = matched_majority(len(scores))
        return permuted_statistic(scores, np.median, n_permutations, seed, share)


@register_metric
@dataclass(frozen=True)
class TopOne(Identification):
    """Share of images for which the right reconstruction is the best of the whole pool."""

    def chance(self, n: int) -> float | None:
        return 1 / n

    def finish(self, measured: FloatArray) -> FloatArray:
        shares = matrices.identification_matrix(measured, self.direction or "image", "failure")
        return (shares >= 1 - 1e-12).astype(np.float64)


@register_metric
@dataclass(frozen=True)
class GroupIdentification(Identification):
    """Identification among the pictures of the same category.

    Parameters
    ----------
    smallest : int, optional
        Size of the smallest category; set by `configured`.
    """

    smallest: int | None = None
    inputs: ClassVar[tuple[str, ...]] = ("groups",)
    missing_message: ClassVar[str] = "no usable categories are given"

    def configured(self, cache: FeatureCache) -> Metric:
        return replace(self, smallest=int(np.bincount(cache.inputs["groups"]).min()))

    def pool(self, n: int) -> int | None:
        return self.smallest

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return correlations, NaN across categories; shape (n, n)."""
        result = super().measure(cache, sample)
        groups = cache.inputs["groups"]
        return np.where(groups[:, None] == groups[None], result, np.nan)

    def finish(self, measured: FloatArray) -> FloatArray:
        together = np.isfinite(measured)
        # The row of its first member identifies a category.
        groups = together.argmax(axis=1)
        filled = np.where(together, measured, 0.0)
        return matrices.identification_matrix(filled, self.direction or "image", self.ties, groups)

    def null(
        self, scores: FloatArray, measured: FloatArray, n_permutations: int, seed: int
    ) -> PermutationResult | None:
        groups = np.isfinite(measured).argmax(axis=1)
        return permutation_test(scores, n_permutations, seed, groups)


@register_metric
@dataclass(frozen=True)
class CategoryRead(Metric):
    """Share of reconstructions that the judge classifies as the category of the ground truth.

    Parameters
    ----------
    preprocessing : Preprocessing
    classes : int, optional
        Number of classes that the judge can predict; set by `configured`.
    share : float
        Share of all permutations of the images that change no category; set by `configured`.
    """

    preprocessing: Preprocessing = PLAIN
    classes: int | None = None
    share: float = 0.0
    inputs: ClassVar[tuple[str, ...]] = ("labels", "readable")
    missing_message: ClassVar[str] = "no usable categories are given"

    def required_features(self) -> list[tuple[str, Preprocessing, str]]:
        return [("judge", self.preprocessing, "probabilities")]

    def configured(self, cache: FeatureCache) -> Metric:
        sizes = np.unique(cache.inputs["labels"], return_counts=True)[1]
        share = share_of_orders([int(sizes.sum())]) / share_of_orders(sizes.tolist())
        return replace(self, classes=cache.inputs["readable"].shape[1], share=share)

    def chance(self, n: int) -> float | None:
        return None if self.classes is None else 1 / self.classes

    def pool(self, n: int) -> int | None:
        return self.classes

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return hits, shape (n, n)."""
        probabilities = cache.features("recon", sample, *self.required_features()[0])[:, None]
        readable = np.asarray(cache.inputs["readable"])[0]
        return matrices.label_matrix(cache.inputs["labels"], probabilities, readable)

    def null(
        self, scores: FloatArray, measured: FloatArray, n_permutations: int, seed: int
    ) -> PermutationResult | None:
        null = super().null(scores, measured, n_permutations, seed)
        return null and replace(null, p_min=smallest_p(n_permutations, self.share))
