"""Confidence intervals: bootstrap over images, over subjects, and over seeds and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import SettingError, ShapeError
from calcarine.evaluation.slices import blocks

__all__ = [
    "HierarchicalResult",
    "bootstrap_interval",
    "bootstrap_median",
    "check_positive",
    "check_scores",
    "chunks",
    "crossed_interval",
    "hierarchical_bootstrap",
    "percentiles",
]

FloatArray = NDArray[np.float64]


def crossed_interval(scores: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Compute the mean of scores of several seeds and images, with an interval over both.

    Parameters
    ----------
    scores : array of shape (seed, image)
        Scores, or differences of two methods for the same seed and image.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    mean, low, high : float
        With one seed the interval is over images alone, with one image over seeds alone; with
        one of each it is NaN.

    Raises
    ------
    CalcarineError
        If there is no score, a score is not finite, or the level is out of range.

    Notes
    -----
    Seeds and images are crossed random effects. The variance of the mean has two parts: that of
    seeds, with (seeds - 1) degrees of freedom, and that of images, which is the mean square
    between images minus the residual mean square, with (images - 1) degrees of freedom. The
    half-width is the root of their sum times the mean of the two quantiles of Student's t, weighted
    by the variances (Cochran 1964, for two means of unequal variance). A bootstrap over few seeds
    has too low a coverage, because it underestimates their variance: three seeds have two thirds of
    it. If the means of few seeds agree by chance, the part of seeds is at least that which the
    residual variance implies.

    Examples
    --------
    >>> from calcarine.evaluation import crossed_interval
    >>> scores = [[0.5, 0.7, 0.6, 0.8], [0.6, 0.7, 0.7, 0.8]]  # two seeds, four images
    >>> mean, low, high = crossed_interval(scores)
    >>> round(mean, 3), low < mean < high
    (0.675, True)
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ShapeError(
            "An interval over seeds and images needs finite scores of shape (seed, image), not "
            f"shape {table.shape}; leave out values that are not finite."
        )
    if not 0 < level < 1:
        raise SettingError(f"The level of the interval is {level}; choose one between 0 and 1.")
    mean = float(table.mean())
    parts = _variances(table, level)
    if not parts:
        return mean, math.nan, math.nan
    total = sum(variance for variance, _ in parts)
    if not total:
        return mean, mean, mean
    weighted = sum(variance * _t(freedom, level) for variance, freedom in parts)
    half = weighted / math.sqrt(total)
    return mean, mean - half, mean + half


def _variances(
    table: np.ndarray[tuple[int, ...], np.dtype[np.float64]], level: float
) -> list[tuple[float, int]]:
    """Return the parts of the variance of the mean, with their degrees of freedom."""
    seeds, images = table.shape
    by_seed, by_image = table.mean(1), table.mean(0)
    residual, freedom = 0.0, (seeds - 1) * (images - 1)
    if freedom:
        rest = table - by_seed[:, None] - by_image + table.mean()
        residual = float((rest**2).sum()) / freedom
    parts = []
    if seeds > 1:
        between = float(by_seed.var(ddof=1)) / seeds, seeds - 1
        least = residual / (seeds * images), freedom
        parts.append(max(between, least, key=lambda part: math.sqrt(part[0]) * _t(part[1], level)))
    if images > 1:
        # The residual variance is already in the part of seeds and must not be counted twice.
        own = float(by_image.var(ddof=1)) - residual / seeds
        parts.append((max(0.0, own) / images, images - 1))
    return parts


def _t(freedom: int, level: float) -> float:
    """Return the two-sided quantile of Student's t; 0 without degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2)) if freedom else 0.0


_CHUNK = 4_000_000


def bootstrap_interval(
    per_image: ArrayLike,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    statistic: Callable[..., Any] = np.mean,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the mean, or another statistic, over images.

    Parameters
    ----------
    per_image : array of shape (n,)
        Score of each image.
    n_boot : int
        Number of resamples of the images.
    level : float
        Coverage, between 0 and 1.
    seed : int
        Seed of the resamples.
    statistic : callable
        Called with resampled scores of shape (resamples, n) and ``axis=1``; the mean by default.

    Returns
    -------
    low, high : float

    Raises
    ------
    CalcarineError
        If there is no image, a score is not finite, or an option is out of range.

    Notes
    -----
    The units of resampling are images. Pairs of images share members and are not independent, so
    an interval over pairs would be too narrow.

    Examples
    --------
    >>> low, high = bootstrap_interval([0.2, 0.4, 0.6, 0.8])
    >>> low < 0.5 < high
    True
    """
    values = check_scores(per_image)
    check_positive("n_boot", n_boot)
    if not 0 < level < 1:
        raise SettingError(f"The level of the interval is {level}; choose one between 0 and 1.")
    rng = np.random.default_rng(seed)
    result = np.empty(n_boot)
    for rows in chunks(n_boot, len(values)):
        drawn = rng.integers(len(values), size=(rows.stop - rows.start, len(values)))
        result[rows] = statistic(values[drawn], axis=1)
    return percentiles(result, level)


def percentiles(values: FloatArray, level: float) -> tuple[float, float]:
    """Return the two percentiles that contain the share ``level`` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chunks(n: int, width: int) -> Iterator[slice]:
    """Yield blocks of n draws of ``width`` numbers each."""
    return blocks(n, _CHUNK // width)


def check_scores(per_image: ArrayLike) -> FloatArray:
    """Return scores of images as a float array, or raise if they are not finite numbers."""
    values: NDArray[Any] = np.asarray(per_image, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ShapeError(
            f"The scores of images must be finite numbers in one row, not of shape {values.shape}; "
            "leave out images without a score."
        )
    return values


def check_positive(name: str, value: int) -> None:
    """Raise unless a number of draws is at least 1."""
    if value < 1:
        raise SettingError(f"{name} is {value}; choose at least 1.")


@dataclass(frozen=True)
class HierarchicalResult:
    """Mean over subjects of their means over images.

    Parameters
    ----------
    value : float
    ci_low, ci_high : float
        Percentile interval; subjects are drawn first, then images of each drawn subject.
    subjects : int
    images : int
        Number of images of the subject with the fewest.

    Examples
    --------
    >>> from calcarine.evaluation import hierarchical_bootstrap
    >>> gains = [[0.1, 0.2, 0.1], [0.2, 0.1, 0.2], [0.1, 0.1, 0.3]]  # method a minus method b
    >>> result = hierarchical_bootstrap(gains)
    >>> result.ci_low > 0  # a is better
    True
    """

    value: float
    ci_low: float
    ci_high: float
    subjects: int
    images: int


def bootstrap_median(
    per_image: ArrayLike, n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the median over images.

    Parameters
    ----------
    per_image : array of shape (n,)
    n_boot, level, seed
        Number of resamples, coverage and seed.

    Returns
    -------
    low, high : float

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import bootstrap_median
    >>> scores = np.arange(101) / 100
    >>> low, high = bootstrap_median(scores)
    >>> low < 0.5 < high
    True
    """
    return bootstrap_interval(per_image, n_boot, level, seed, np.median)


def hierarchical_bootstrap(
    per_subject: Sequence[ArrayLike], n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> HierarchicalResult:
    """Compute the mean over subjects with a bootstrap interval over subjects and images.

    Parameters
    ----------
    per_subject : sequence of array of shape (n_images,)
        Scores, or differences of two methods, of the images of each subject.
    n_boot, level, seed
        Number of resamples, coverage and seed.

    Returns
    -------
    HierarchicalResult
        With one subject, the interval is over images alone and does not generalise to other
        people.

    Raises
    ------
    CalcarineError
        If there is no subject, a score is not finite, or an option is out of range.

    Examples
    --------
    >>> from calcarine.evaluation import hierarchical_bootstrap
    >>> subjects = [[0.6, 0.7, 0.8], [0.5, 0.6, 0.7], [0.7, 0.8, 0.9]]
    >>> result = hierarchical_bootstrap(subjects)
    >>> round(result.value, 3), result.subjects, result.images
    (0.7, 3, 3)
    >>> result.ci_low < result.value < result.ci_high
    True
    """
    subjects = [np.asarray(values, np.float64) for values in per_subject]
    fine = all(v.ndim == 1 and len(v) and np.isfinite(v).all() for v in subjects)
    if not subjects or not fine or n_boot < 1 or not 0 < level < 1:
        raise ShapeError(
            "A hierarchical bootstrap needs at least one subject with finite scores of at least "
            "one image, at least one resample, and a level between 0 and 1; check these inputs."
        )
    rng = np.random.default_rng(seed)
    counts = np.stack(
        [rng.multinomial(len(subjects), [1 / len(subjects)] * len(subjects)) for _ in range(n_boot)]
    )
    # A subject that is drawn several times gets new images each time.
    total = np.zeros(n_boot)
    for values, times in zip(subjects, counts.T, strict=True):
        for turn in range(int(times.max())):
            drawn = np.flatnonzero(times > turn)
            for part in chunks(len(drawn), len(values)):
                rows = drawn[part]
                picks = rng.integers(len(values), size=(len(rows), len(values)))
                total[rows] += values[picks].mean(axis=1)
    means = total / len(subjects)
    low, high = percentiles(means, level)
    value = float(np.mean([v.mean() for v in subjects]))
    fewest = min(len(v) for v in subjects)
    return HierarchicalResult(value, low, high, len(subjects), fewest)
