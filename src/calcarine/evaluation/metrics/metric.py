"""The base class of metrics, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from calcarine.evaluation.networks.preprocessing import Preprocessing
from calcarine.evaluation.statistics.permutation import PermutationResult, permutation_test
from calcarine.files.registries import register_entry

if TYPE_CHECKING:
    from calcarine.evaluation.networks.feature_cache import FeatureCache

__all__ = ["METRICS", "PIXELS", "SIDES", "Metric", "register_metric"]

FloatArray = NDArray[np.float64]
Direction = Literal["image", "reconstruction"]
PIXELS = ""
SIDES: tuple[Literal["truth"], Literal["recon"]] = ("truth", "recon")


@dataclass(frozen=True)
class Metric(ABC):
    """One metric of a protocol.

    A metric measures each sample (`measure`) and turns measurements into scores (`finish`). Scores
    are a matrix of shape (n, n) (row: ground truth, column: reconstruction; the diagonal has the
    scores of the images), or an array of shape (n,) if pairs of different images are not scored, or
    one number for the whole set. Intervals, the shuffled brain and p follow from the scores.

    Parameters
    ----------
    name : str
        Unique within a protocol.
    definition : str
        What is computed, in a sentence or two.

    Attributes
    ----------
    higher_is_better : bool
    limits : tuple of float
        Smallest and largest possible value.
    summary : {"mean", "median"}
        How the scores of the images are summarised.
    inputs : tuple of str
        Names of the arrays that the metric needs in addition to pictures.
    missing_message : str
        The reason to report if one of these arrays is missing.
    uses_pictures : bool
        Whether the metric uses pictures, so that each sample has its own score.
    direction : {"image", "reconstruction"} or None
        For identification: what is fixed.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from calcarine.evaluation import Metric, Preprocessing, register_metric
    >>> @register_metric
    ... @dataclass(frozen=True)
    ... class MeanDifference(Metric):
    ...     higher_is_better = False
    ...
    ...     def measure(self, cache, sample):
    ...         plain = ("", Preprocessing("pil", "truth"), "pixels")
    ...         truth = cache.features("truth", 0, *plain)
    ...         recon = cache.features("recon", sample, *plain)
    ...         return abs(truth.mean(1) - recon.mean(1))
    """

    name: str
    definition: str

    higher_is_better: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    summary: ClassVar[Literal["mean", "median"]] = "mean"
    inputs: ClassVar[tuple[str, ...]] = ()
    missing_message: ClassVar[str] = ""
    uses_pictures: ClassVar[bool] = True
    direction: Direction | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Networks and arrays that the metric needs in addition to pictures."""
        networks = tuple(
            f"network {name}" for name in dict.fromkeys(w[0] for w in self.required_features())
        )
        return tuple(n for n in networks if n != "network ") + self.inputs

    @property
    def best(self) -> float:
        """Score of a perfect reconstruction."""
        return self.limits[1] if self.higher_is_better else self.limits[0]

    def required_features(self) -> list[tuple[str, Preprocessing, str]]:
        """Return (network, preprocessing, layer) of each feature; the network "" means pixels."""
        return []

    def unavailable(self, cache: FeatureCache) -> str | None:
        """Return why this metric cannot be computed on these pictures, or None."""
        return None

    def configured(self, cache: FeatureCache) -> Metric:
        """Return this metric with the properties that depend on the data filled in."""
        return self

    def warning(self, n: int) -> str | None:
        """Return a note on the interpretation of the score of n images, or None."""
        return None

    def chance(self, n: int) -> float | None:
        """Return the expected score without any information; None if theory gives none."""
        return None

    def pool(self, n: int) -> int | None:
        """Return the number of candidates that compete; None if there is no competition."""
        return None

    @abstractmethod
    def measure(self, cache: FeatureCache, sample: int) -> FloatArray:
        """Measure one sample of every image.

        Parameters
        ----------
        cache : FeatureCache
            Pictures and their features.
        sample : int

        Returns
        -------
        float array
            Measurements that `finish` turns into scores.
        """

    def finish(self, measured: FloatArray) -> FloatArray:
        """Turn measurements into scores; protocols average samples before or after this step."""
        return measured

    def summarise(self, scores: FloatArray) -> float:
        """Summarise the scores of the images in one number."""
        return float(np.median(scores) if self.summary == "median" else scores.mean())

    def null(
        self, scores: FloatArray, measured: FloatArray, n_permutations: int, seed: int
    ) -> PermutationResult | None:
        """Return the permutation test against shuffled reconstructions; None if undefined."""
        if scores.ndim != 2 or not np.isfinite(scores).all():
            return None
        return permutation_test(scores, n_permutations, seed)


METRICS: dict[str, type[Metric]] = {}
"""Classes of metrics by name."""
_M = TypeVar("_M", bound=type[Metric])


def register_metric(metric: _M) -> _M:
    """Register a metric under the name of its class; use it as a class decorator.

    Parameters
    ----------
    metric : type of Metric

    Returns
    -------
    type of Metric
        The same class.

    Raises
    ------
    SettingError
        If another metric has this name.
    """
    register_entry(METRICS, "metrics", metric.__name__, metric)
    return metric
