"""Metrics of classification: whether a reconstruction has the class of its ground truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.metrics.metric import SIDES, FloatArray, Metric, register_metric
from calcarine.evaluation.networks.preprocessing import PLAIN, Preprocessing
from calcarine.evaluation.statistics.permutation import (
    PermutationResult,
    share_of_orders,
    smallest_p,
)

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache

__all__ = ["CategoryAccuracy", "NWayTopK"]


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
            cache.features(side, sample, *self.required_features()[0]) for side in SIDES
        )
        if self.draws is None:
            return matrices.n_way_top_k_matrix(truth, recon[:, None], self.n_way, self.k)
        return matrices.n_way_top_k_sampled(
            truth, recon[:, None], self.n_way, self.k, self.draws, self.seed
        )


@register_metric
@dataclass(frozen=True)
class CategoryAccuracy(Metric):
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
