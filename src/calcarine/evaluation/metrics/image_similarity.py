"""Metrics of how alike pictures are: each with its own ground truth, or sets of pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.metrics.metric import (
    PIXELS,
    SIDES,
    FloatArray,
    Metric,
    register_metric,
)
from calcarine.evaluation.metrics.similarity import (
    correlation_matrix,
    frechet_distance,
)
from calcarine.evaluation.metrics.structural_similarity import (
    LocalMoments,
    structure,
    structure_with_many,
)
from calcarine.evaluation.networks.preprocessing import PLAIN, Preprocessing

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache
    from calcarine.evaluation.statistics.permutation import PermutationResult

__all__ = [
    "MAX_PAIR_PIXELS",
    "CorrelationDistance",
    "FeatureCorrelation",
    "FrechetInceptionDistance",
    "PixelCorrelation",
    "StructuralSimilarity",
]

# Number of pixels of all pairs above which SSIM of all pairs takes minutes.
MAX_PAIR_PIXELS = 2e9


@dataclass(frozen=True)
class FeatureCorrelation(Metric):
    """Base class of metrics of the correlation of features.

    Parameters
    ----------
    network : str
        Name of the network; "" for pixels.
    layer : str
    preprocessing : Preprocessing
    """

    network: str = PIXELS
    layer: str = "pixels"
    preprocessing: Preprocessing = PLAIN

    def required_features(self) -> list[tuple[str, Preprocessing, str]]:
        return [(self.network, self.preprocessing, self.layer)]

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return correlations, shape (n, n)."""
        what = (self.network, self.preprocessing, self.layer)
        return correlation_matrix(
            cache.features("truth", sample, *what), cache.features("recon", sample, *what)
        )


@register_metric
@dataclass(frozen=True)
class PixelCorrelation(FeatureCorrelation):
    """Pearson correlation of all pixel values of a picture and its reconstruction (PixCorr)."""

    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)


@register_metric
@dataclass(frozen=True)
class CorrelationDistance(FeatureCorrelation):
    """One minus the correlation of features (scipy's "correlation" distance)."""

    limits: ClassVar[tuple[float, float]] = (0.0, 2.0)
    higher_is_better: ClassVar[bool] = False

    def finish(self, measured: FloatArray) -> FloatArray:
        return np.maximum(1 - measured, 0.0)

    def null(
        self, scores: FloatArray, measured: FloatArray, n_permutations: int, seed: int
    ) -> PermutationResult | None:
        return _flipped(super().null(-scores, measured, n_permutations, seed))


@register_metric
@dataclass(frozen=True)
class StructuralSimilarity(Metric):
    """SSIM of gray pictures; the kinds "2d" and "columns" are two different metrics.

    Parameters
    ----------
    kind : {"2d", "columns"}
    preprocessing : Preprocessing
    """

    kind: Literal["2d", "columns"] = "2d"
    preprocessing: Preprocessing = PLAIN
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def unavailable(self, cache: FeatureCache) -> str | None:
        height, width = cache.picture("truth", 0, 0, self.preprocessing).shape[:2]
        short = height if self.kind == "columns" else min(height, width)
        if short < matrices.SSIM_WINDOW:
            return f"the pictures are smaller than the window of {matrices.SSIM_WINDOW} pixels"
        return None

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return similarities of all pairs if they are few enough, else of shape (n,)."""
        size = cache.picture("truth", 0, 0, self.preprocessing).shape[:2]
        if float(cache.n) ** 2 * size[0] * size[1] > MAX_PAIR_PIXELS:
            own = [
                structure(self._gray(cache, "truth", i, 0), self._gray(cache, "recon", i, sample))
                for i in range(cache.n)
            ]
            return np.asarray(own)
        made = LocalMoments.stacked([self._gray(cache, "recon", i, sample) for i in range(cache.n)])
        return np.stack(
            [structure_with_many(self._gray(cache, "truth", i, 0), made) for i in range(cache.n)]
        )

    def _gray(
        self, cache: FeatureCache, side: Literal["truth", "recon"], i: int, s: int
    ) -> LocalMoments:
        return LocalMoments.of(
            cache.picture(side, i, s, self.preprocessing).astype(np.float64) @ matrices.GRAY,
            self.kind,
        )


@register_metric
@dataclass(frozen=True)
class FrechetInceptionDistance(Metric):
    """Frechet inception distance of the two sets of pictures (FID); it ignores the pairing.

    Parameters
    ----------
    width : {64, 2048}
        Number of features of Inception 2015; FID of 64 is not comparable with the usual 2048.
    preprocessing : Preprocessing
    """

    width: Literal[64, 2048] = 64
    preprocessing: Preprocessing = PLAIN
    limits: ClassVar[tuple[float, float]] = (0.0, np.inf)
    higher_is_better: ClassVar[bool] = False

    def required_features(self) -> list[tuple[str, Preprocessing, str]]:
        return [("fid", self.preprocessing, str(self.width))]

    def warning(self, n: int) -> str | None:
        if n > self.width:
            return None
        return (
            f"{self.name}: {n} pictures are too few to estimate a covariance of {self.width} "
            "features; compare it only with sets of the same size."
        )

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return the distance as one number."""
        truth, recon = (
            cache.features(side, sample, *self.required_features()[0]) for side in SIDES
        )
        return np.asarray(frechet_distance(truth, recon))


def _flipped(null: PermutationResult | None) -> PermutationResult | None:
    """Return the permutation test of a negated metric with the metric's own sign."""
    if null is None:
        return None
    return replace(
        null, null_mean=-null.null_mean, null_low=-null.null_high, null_high=-null.null_low
    )
