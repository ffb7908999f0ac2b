"""What a metric is, and the register of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from calcarine.evaluation.networks.preprocessing import Preprocessing
from calcarine.evaluation.registry import register_class
from calcarine.evaluation.statistics.permutation import PermutationResult, permutation_test

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache

FloatArray = NDArray[np.float64]
Direction = Literal["image", "reconstruction"]
PIXELS = ""


@dataclass(frozen=True)
class Metric(ABC):
    """One number of a protocol.

    A metric measures each sample (`measure`) and turns what it measured into scores (`finish`):
    a matrix of shape (n, n) (row: ground truth, column: reconstruction; the diagonal holds the
    scores), or scores of shape (n,) where pairs of different images are not scored, or one number
    for the whole set.

    Parameters
    ----------
    name : str
        Unique within a protocol; one that is lower for better says "distance" or "error".
    definition : str
        What is computed, in a sentence or two.
    """

    name: str
    definition: str

    higher_is_better: ClassVar[bool] = True
    # Smallest and largest possible value.
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    summary: ClassVar[Literal["mean", "median"]] = "mean"
    # Arrays other than pictures, by name.
    inputs: ClassVar[tuple[str, ...]] = ()
    # What to say where one of these is missing.
    missing_message: ClassVar[str] = ""
    # Whether pictures of the test set are needed at all, and each sample has a score of its own.
    uses_pictures: ClassVar[bool] = True
    direction: Direction | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be there beside the pictures: networks and arrays."""
        networks = tuple(
            f"network {name}" for name in dict.fromkeys(w[0] for w in self.required_features())
        )
        return tuple(n for n in networks if n != "network ") + self.inputs

    @property
    def best(self) -> float:
        """The score of a perfect reconstruction."""
        return self.limits[1] if self.higher_is_better else self.limits[0]

    def required_features(self) -> list[tuple[str, Preprocessing, str]]:
        """Network, recipe and layer of the features that are used; "" is no network."""
        return []

    def unavailable(self, cache: FeatureCache) -> str | None:
        """Why this metric cannot be computed here, or None."""
        return None

    def configured(self, cache: FeatureCache) -> Metric:
        """Give this metric what it must know of the cache."""
        return self

    def warning(self, n: int) -> str | None:
        """What a reader must know of the score of n images, or None."""
        return None

    def chance(self, n: int) -> float | None:
        """Expected score without any information; None where theory gives none."""
        return None

    def pool(self, n: int) -> int | None:
        """How many candidates a score is among; None where there is no pool."""
        return None

    @abstractmethod
    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Measure one sample of every image."""

    def finish(self, measured: FloatArray) -> FloatArray:
        """Turn measurements into scores; protocols average before or after."""
        return measured

    def summarise(self, scores: FloatArray) -> float:
        """One number of the scores per image."""
        return float(np.median(scores) if self.summary == "median" else scores.mean())

    def null(
        self, scores: FloatArray, measured: FloatArray, n_permutations: int, seed: int
    ) -> PermutationResult | None:
        """Scores of shuffled reconstructions; None where pairs are not scored."""
        if scores.ndim != 2 or not np.isfinite(scores).all():
            return None
        return permutation_test(scores, n_permutations, seed)


METRICS: dict[str, type[Metric]] = {}
_M = TypeVar("_M", bound=type[Metric])


def register_metric(metric: _M) -> _M:
    """Class decorator that makes a metric known under the name of its class."""
    register_class(METRICS, "metrics", metric.__name__, metric)
    return metric
