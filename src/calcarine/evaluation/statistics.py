"""Intervals and tests over images.

Images are the units: pairs of images share members and are not independent, so a binomial test
over pairs would find significance in noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import CalcarineError
from calcarine.evaluation.slices import blocks

FloatArray = NDArray[np.float64]
_EQUAL = 1e-12
_CHUNK = 4_000_000


@dataclass(frozen=True)
class PermutationResult:
    """Outcome of a permutation test.

    Parameters
    ----------
    p : float
        One-sided p-value, ``(1 + count) / (1 + n_permutations)``.
    null_mean, null_sd : float
        Mean and standard deviation of the shuffled scores.
    null_low, null_high : float
        2.5th and 97.5th percentile of the shuffled scores.
    p_min : float
        The p that perfect reconstructions are expected to get (`smallest_p`).
    """

    p: float
    null_mean: float
    null_sd: float
    null_low: float
    null_high: float
    p_min: float


@dataclass(frozen=True)
class PairedResult:
    """Difference of two methods on the same images.

    Parameters
    ----------
    difference : float
        Mean of a - b.
    ci_low, ci_high : float
        Bootstrap interval over images.
    p : float
        Two-sided sign-flip p-value.
    n : int
        Number of images.
    """

    difference: float
    ci_low: float
    ci_high: float
    p: float
    n: int


def bootstrap_interval(
    per_image: ArrayLike,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    statistic: Callable[..., Any] = np.mean,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, or another statistic, over images.

    Parameters
    ----------
    per_image : array of shape (n,)
        Score of each image.
    n_boot : int
        Resamples of the images.
    level : float
        Coverage, between 0 and 1.
    seed : int
        Seed of the resamples.
    statistic : callable
        Called with resampled scores of shape (resamples, n) and ``axis=1``.

    Returns
    -------
    low, high : float

    Raises
    ------
    CalcarineError
        If there is no image, a score is not finite, or an option is out of range.
    """
    values = _scores(per_image)
    _positive("n_boot", n_boot)
    if not 0 < level < 1:
        raise CalcarineError(f"level of the interval is {level}: choose it between 0 and 1.")
    rng = np.random.default_rng(seed)
    found = np.empty(n_boot)
    for rows in chunks(n_boot, len(values)):
        drawn = rng.integers(len(values), size=(rows.stop - rows.start, len(values)))
        found[rows] = statistic(values[drawn], axis=1)
    return percentiles(found, level)


def permutation_test(
    matrix: FloatArray,
    n_permutations: int = 2000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> PermutationResult:
    """Test whether reconstructions score higher with their own image than shuffled.

    Parameters
    ----------
    matrix : array of shape (n, n)
        Row: ground truth, column: reconstruction.
    n_permutations : int
        Shuffles of the reconstructions.
    seed : int
        Seed of the shuffles.
    groups : array of shape (n,), optional
        Shuffle only within groups.

    Returns
    -------
    PermutationResult

    Raises
    ------
    CalcarineError
        If the matrix is not square or an entry that a shuffle can reach is not finite.
    """
    scores = np.asarray(matrix, np.float64)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not len(scores):
        raise CalcarineError(f"a permutation test needs a square matrix, not {scores.shape}.")
    _positive("n_permutations", n_permutations)
    codes = _codes(groups, len(scores))
    if not np.isfinite(scores[codes[:, None] == codes[None]]).all():
        raise CalcarineError(
            "the score matrix has NaN or infinity among the pairs to shuffle: pass the groups "
            "that it was computed with."
        )
    null = _shuffled_means(scores, codes, n_permutations, np.random.default_rng(seed))
    share = share_of_orders(np.bincount(codes).tolist())
    return permutation_result(null, float(np.diagonal(scores).mean()), share)


def share_of_orders(sizes: Sequence[int]) -> float:
    """Share that the true order has among all orders within groups.

    Parameters
    ----------
    sizes : sequence of int
        Images in each group of images that are shuffled among themselves.

    Returns
    -------
    float
        One over the product of the factorials.
    """
    return math.exp(-sum(math.lgamma(size + 1) for size in sizes))


def smallest_p(n_permutations: int, share: float) -> float:
    """The p of a permutation test that perfect reconstructions are expected to get.

    Parameters
    ----------
    n_permutations : int
    share : float
        Share of all orders that score as high as the true one (`share_of_orders`). Random
        shuffles draw them too, so that few images bound p as few shuffles do.

    Returns
    -------
    float
        ``(1 + n_permutations * share) / (1 + n_permutations)``.

    Examples
    --------
    >>> round(smallest_p(2000, share_of_orders([4])), 3)
    0.042
    >>> round(smallest_p(2000, share_of_orders([12])), 5)
    0.0005
    """
    return (1 + n_permutations * share) / (1 + n_permutations)


def paired_difference(
    per_image_a: ArrayLike,
    per_image_b: ArrayLike,
    n_boot: int = 2000,
    n_permutations: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedResult:
    """Compare two methods on the same images.

    Parameters
    ----------
    per_image_a, per_image_b : array of shape (n,)
        Scores of the two methods, in the same order of images.
    n_boot, n_permutations : int
        Bootstrap resamples and random sign flips.
    level : float
        Coverage of the interval.
    seed : int
        Seed of both.

    Returns
    -------
    PairedResult
        The p-value is two-sided: signs of the differences are flipped at random.

    Raises
    ------
    CalcarineError
        If the two have different lengths or a score is not finite.
    """
    a, b = _scores(per_image_a), _scores(per_image_b)
    if a.shape != b.shape:
        raise CalcarineError(
            f"a paired comparison needs the same images for both methods, not {len(a)} and "
            f"{len(b)}: select the images that both have."
        )
    _positive("n_permutations", n_permutations)
    gain = a - b
    low, high = bootstrap_interval(gain, n_boot, level, seed)
    rng = np.random.default_rng([seed, 1])
    null = np.empty(n_permutations)
    for rows in chunks(n_permutations, len(gain)):
        signs = rng.integers(2, size=(rows.stop - rows.start, len(gain))) * 2 - 1
        null[rows] = signs @ gain / len(gain)
    count = int((np.abs(null) >= abs(gain.mean()) - _EQUAL).sum())
    p = (1 + count) / (1 + n_permutations)
    return PairedResult(float(gain.mean()), low, high, p, len(gain))


def permutation_result(null: FloatArray, observed: float, share: float) -> PermutationResult:
    """Outcome of a permutation test from the scores of the shuffles and of the true order.

    Parameters
    ----------
    null : array of shape (n_permutations,)
    observed : float
    share : float
        Share of all orders that score as high as the true one when pictures are perfect.

    Returns
    -------
    PermutationResult
    """
    low, high = np.quantile(null, [0.025, 0.975])
    count = int((null >= observed - _EQUAL).sum())
    return PermutationResult(
        p=(1 + count) / (1 + len(null)),
        null_mean=float(null.mean()),
        null_sd=float(null.std()),
        null_low=float(low),
        null_high=float(high),
        p_min=smallest_p(len(null), share),
    )


def percentiles(values: FloatArray, level: float) -> tuple[float, float]:
    """The two percentiles between which lies the share `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chunks(n: int, width: int) -> Iterator[slice]:
    """Blocks of n draws of `width` numbers each."""
    return blocks(n, _CHUNK // width)


def _shuffled_means(
    scores: FloatArray, codes: NDArray[np.int64], n_permutations: int, rng: np.random.Generator
) -> FloatArray:
    n = len(scores)
    slots = np.argsort(codes, kind="stable")
    null = np.empty(n_permutations)
    for rows in chunks(n_permutations, n):
        keys = codes + rng.random((rows.stop - rows.start, n))
        # Sorting by group and then at random fills the slots of each group with its own members.
        null[rows] = scores[slots, np.argsort(keys, axis=1)].mean(axis=1)
    return null


def _codes(groups: ArrayLike | None, n: int) -> NDArray[np.int64]:
    if groups is None:
        return np.zeros(n, np.int64)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise CalcarineError(f"groups need one label for each of {n} images, not {labels.shape}.")
    return np.asarray(np.unique(labels, return_inverse=True)[1], np.int64)


def _scores(per_image: ArrayLike) -> FloatArray:
    values: NDArray[Any] = np.asarray(per_image, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise CalcarineError(
            f"scores per image must be finite numbers in one row, not shape {values.shape}: "
            "leave out images without a score."
        )
    return values


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise CalcarineError(f"{name} is {value}: choose at least 1.")
