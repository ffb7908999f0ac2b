"""Metrics of identification: which of several candidates a reconstruction shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.metrics.image_similarity import MAX_PAIR_PIXELS, FeatureCorrelation
from calcarine.evaluation.metrics.metric import (
    PIXELS,
    Direction,
    FloatArray,
    Metric,
    register_metric,
)
from calcarine.evaluation.metrics.similarity import correlation_matrix, squared_distance_matrix
from calcarine.evaluation.metrics.structural_similarity import LocalMoments, structure_with_many
from calcarine.evaluation.networks.preprocessing import PLAIN, Preprocessing
from calcarine.evaluation.statistics.permutation import (
    PermutationResult,
    matched_majority,
    permutation_of,
    permutation_test,
    permuted_statistic,
)

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache

__all__ = [
    "GroupIdentification",
    "HardIdentification",
    "Identification",
    "PixelContest",
    "RankPercentile",
    "TopOne",
]


@register_metric
@dataclass(frozen=True)
class Identification(FeatureCorrelation):
    """Two-way identification: share of the other candidates that the right one beats.

    Parameters
    ----------
    direction : {"image", "reconstruction"}
        What is fixed.
    ties : {"half", "failure"}
    """

    direction: Direction | None = "reconstruction"
    ties: Literal["half", "failure"] = "failure"

    def chance(self, n: int) -> float | None:
        return 0.5

    def pool(self, n: int) -> int | None:
        return n

    def finish(self, measured: FloatArray) -> FloatArray:
        return matrices.identification_matrix(measured, self.direction or "image", self.ties)


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
class PixelContest(Metric):
    """Share of comparisons that the ground truth of a reconstruction wins (MinD-Vis).

    Parameters
    ----------
    measured_by : {"mse", "pcc", "ssim", "psm"}
        Squared error, correlation, structural similarity (flat window, each channel), or LPIPS.
    ways : int
        Number of candidates in a comparison; 2 gives the pair-wise score. The expectation over
        random candidates is computed in closed form.
    preprocessing : Preprocessing
    """

    measured_by: Literal["mse", "pcc", "ssim", "psm"] = "mse"
    ways: int = 2
    preprocessing: Preprocessing = PLAIN
    direction: Direction | None = "reconstruction"

    def required_features(self) -> list[tuple[str, Preprocessing, str]]:
        if self.measured_by == "psm":
            return [("lpips", self.preprocessing, "weighted")]
        return [] if self.measured_by == "ssim" else [(PIXELS, self.preprocessing, "pixels")]

    def chance(self, n: int) -> float | None:
        return 1 / self.ways

    def pool(self, n: int) -> int | None:
        return n if self.ways == 2 else self.ways

    def unavailable(self, cache: FeatureCache) -> str | None:
        if self.ways > cache.n:
            return f"a comparison of {self.ways} candidates needs as many pictures, not {cache.n}"
        height, width = cache.picture("truth", 0, 0, self.preprocessing).shape[:2]
        pairs = 3.0 * cache.n**2 * height * width
        if self.measured_by == "ssim" and pairs > 2 * MAX_PAIR_PIXELS:
            return f"all pairs of {cache.n} pictures of this size would take hours"
        return None

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return similarities of all pairs, shape (n, n)."""
        if self.measured_by == "ssim":
            return self._structure(cache, sample)
        what = self.required_features()[0]
        truth, recon = cache.features("truth", 0, *what), cache.features("recon", sample, *what)
        if self.measured_by == "pcc":
            return correlation_matrix(truth, recon)
        # Differences below 1e-9 are ties, so errors must not be scaled below that.
        scale = 255.0**2 / truth.shape[1] if self.measured_by == "mse" else 1.0
        return -squared_distance_matrix(truth, recon) * scale

    def finish(self, measured: FloatArray) -> FloatArray:
        share = matrices.identification_matrix(measured, "reconstruction", "failure")
        if self.ways == 2:
            return share
        rivals = len(measured) - 1
        beaten = np.rint(share * rivals).astype(np.int64)
        wins: FloatArray = hypergeom.pmf(self.ways - 1, rivals, beaten, self.ways - 1)
        return wins

    def _structure(self, cache: FeatureCache, sample: int) -> FloatArray:
        def channels(side: Literal["truth", "recon"], i: int, s: int) -> LocalMoments:
            picture = cache.picture(side, i, s, self.preprocessing).astype(np.float64)
            return LocalMoments.of(np.moveaxis(np.rint(picture * 255), -1, 0), "uniform")

        made = LocalMoments.stacked([channels("recon", i, sample) for i in range(cache.n)])
        rows = [structure_with_many(channels("truth", i, 0), made, 255.0) for i in range(cache.n)]
        return np.asarray(np.stack(rows).mean(axis=2))
