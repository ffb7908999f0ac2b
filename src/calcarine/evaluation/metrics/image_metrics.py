"""Metrics of pictures that published protocols use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from scipy.stats import hypergeom

from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.metrics.metric import (
    PIXELS,
    Direction,
    FloatArray,
    Metric,
    register_metric,
)
from calcarine.evaluation.metrics.similarity import (
    correlation_matrix,
    frechet_distance,
    squared_distance_matrix,
)
from calcarine.evaluation.metrics.structural_similarity import LocalMoments, structure
from calcarine.evaluation.networks.preprocessing import PLAIN, Preprocessing

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache
    from calcarine.evaluation.statistics.permutation import PermutationResult

__all__ = [
    "MAX_PAIR_PIXELS",
    "CorrelationDistance",
    "FrechetInceptionDistance",
    "Identification",
    "NWayTopK",
    "PixelContest",
    "PixelCorrelation",
    "StructuralSimilarity",
]

# Number of pixels of all pairs above which SSIM of all pairs takes minutes.
MAX_PAIR_PIXELS = 2e9


@dataclass(frozen=True)
class _Correlating(Metric):
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
class PixelCorrelation(_Correlating):
    """Pearson correlation of all pixel values of a picture and its reconstruction (PixCorr)."""

    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)


@register_metric
@dataclass(frozen=True)
class CorrelationDistance(_Correlating):
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
class Identification(_Correlating):
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
        made = _stacked([self._gray(cache, "recon", i, sample) for i in range(cache.n)])
        return np.stack([_rows(self._gray(cache, "truth", i, 0), made) for i in range(cache.n)])

    def _gray(
        self, cache: FeatureCache, side: Literal["truth", "recon"], i: int, s: int
    ) -> LocalMoments:
        return LocalMoments.of(
            cache.picture(side, i, s, self.preprocessing).astype(np.float64) @ matrices.GRAY,
            self.kind,
        )


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

        made = _stacked([channels("recon", i, sample) for i in range(cache.n)])
        rows = [_rows(channels("truth", i, 0), made, 255.0) for i in range(cache.n)]
        return np.asarray(np.stack(rows).mean(axis=2))


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
            cache.features(side, sample, *self.required_features()[0]) for side in _BOTH
        )
        return np.asarray(frechet_distance(truth, recon))


@register_metric
@dataclass(frozen=True)
class NWayTopK(Metric):
    """n-way top-k: whether the class of the picture is in the top k of n drawn classes.

    Parameters
    ----------
    network, layer : str
    preprocessing : Preprocessing
    n_way, k : int
    draws : int, optional
        Number of draws of an estimate, as in published code; by default the closed form.
    seed : int
        Seed of the draws.
    """

    network: str = "vit_h_14"
    layer: str = "logits"
    preprocessing: Preprocessing = PLAIN
    n_way: int = 50
    k: int = 1
    draws: int | None = None
    seed: int = 0

    def required_features(self) -> list[tuple[str, Preprocessing, str]]:
        return [(self.network, self.preprocessing, self.layer)]

    def chance(self, n: int) -> float | None:
        return self.k / self.n_way

    def pool(self, n: int) -> int | None:
        return self.n_way

    def unavailable(self, cache: FeatureCache) -> str | None:
        classes = cache.features("truth", 0, *self.required_features()[0]).shape[1]
        if self.n_way > classes:
            return f"the network has only {classes} classes"
        return None

    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Return probabilities of success, shape (n, n)."""
        truth, recon = (
            cache.features(side, sample, *self.required_features()[0]) for side in _BOTH
        )
        if self.draws is None:
            return matrices.n_way_top_k_matrix(truth, recon[:, None], self.n_way, self.k)
        return matrices.n_way_top_k_sampled(
            truth, recon[:, None], self.n_way, self.k, self.draws, self.seed
        )


def _flipped(null: PermutationResult | None) -> PermutationResult | None:
    """Return the permutation test of a negated metric with the metric's own sign."""
    if null is None:
        return None
    return replace(
        null, null_mean=-null.null_mean, null_low=-null.null_high, null_high=-null.null_low
    )


_BOTH: tuple[Literal["truth"], Literal["recon"]] = ("truth", "recon")
_CACHE_BYTES = 2**20


def _stacked(each: list[LocalMoments]) -> LocalMoments:
    images, mean, variance = (
        np.stack([getattr(moments, name) for moments in each])
        for name in ("images", "mean", "variance")
    )
    return LocalMoments(images, mean, variance, each[0].kind)


def _rows(x: LocalMoments, made: LocalMoments, data_range: float = 1.0) -> FloatArray:
    """Compute the similarities of one picture with many, in parts that fit into the CPU cache."""
    step = max(1, _CACHE_BYTES // x.images.nbytes)
    parts = [
        structure(x, made.part(slice(start, start + step)), data_range)
        for start in range(0, len(made.images), step)
    ]
    return np.concatenate(parts)
