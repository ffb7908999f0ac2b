"""Paired tests of two methods, and corrections for multiple tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import ShapeError
from calcarine.evaluation.statistics.intervals import (
    bootstrap_interval,
    check_positive,
    check_scores,
    chunks,
)
from calcarine.evaluation.statistics.permutation import (
    share_of_orders,
    smallest_p,
)

__all__ = [
    "ALPHA",
    "PairedResult",
    "holm",
    "paired_difference",
    "required_size",
    "share_of_signs",
    "signed_rank_p",
]

FloatArray = NDArray[np.float64]
ALPHA = 0.05
"""Significance level of all verdicts."""

_EXACT_UP_TO = 300
_TIE = 1e-9
_EQUAL = 1e-12


def signed_rank_p(differences: ArrayLike) -> float:
    """Compute the two-sided p of the Wilcoxon signed-rank test.

    Parameters
    ----------
    differences : array of shape (n,)
        Differences of pairs; zeros are left out.

    Returns
    -------
    float
        Exact up to 300 differences, also with ties; with more, from the normal approximation with
        tie correction. 1 if every difference is zero.

    Examples
    --------
    >>> signed_rank_p([1, 2, 3, 4, 5])
    0.0625
    """
    values = np.asarray(differences, float)
    values = values[np.abs(values) > _TIE]
    n = len(values)
    if n == 0:
        return 1.0
    # Differences that are equal up to rounding, such as 2/6 and 1/3, must share a rank.
    size = np.round(np.abs(values) / _TIE)
    _, group, members = np.unique(size, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(members) - (members - 1) / 2)[group]
    positive = float(ranks[values > 0].sum())
    mean = ranks.sum() / 2
    if n > _EXACT_UP_TO:
        spread = math.sqrt(float((ranks**2).sum()) / 4)
        return min(1.0, math.erfc(abs(positive - mean) / spread / math.sqrt(2)))
    doubled = np.round(2 * ranks).astype(int)
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: len(chance) - rank]
        chance = (chance + moved) / 2
    away = abs(np.arange(len(chance)) - 2 * mean) >= abs(2 * positive - 2 * mean) - 0.25
    return min(1.0, float(chance[away].sum()))


def holm(p_values: ArrayLike) -> FloatArray:
    """Correct the p-values of a family of tests with Holm's method (Holm 1979).

    Parameters
    ----------
    p_values : array of shape (tests,)
        In [0, 1].

    Returns
    -------
    float64 array of shape (tests,)
        Corrected p-values; they control the family-wise error rate for any dependence of tests.

    Raises
    ------
    CalcarineError
        If a value is not a probability.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ShapeError("Holm's correction needs a row of probabilities; leave out other values.")
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    return adjusted


def share_of_signs(n: int) -> float:
    """Return the share of the true signs of n differences and their opposites among all signs."""
    return float(2.0 ** (1 - n))


def required_size(
    n: int,
    n_permutations: int,
    tests: int,
    alpha: float = 0.05,
    share: Callable[[int], float] = lambda n: share_of_orders([n]),
) -> tuple[int, int]:
    """Return the smallest numbers of images and shuffles for a significant result.

    Parameters
    ----------
    n : int
        Given number of images.
    n_permutations : int
        Given number of shuffles.
    tests : int
        Number of tests in Holm's correction.
    alpha : float
        Significance level of the corrected p.
    share : callable
        Takes a number of images, returns the share of all shuffles that score as high as the true
        order; by default that of one permutation among all.

    Returns
    -------
    images, shuffles : int
        At least the given numbers. With too few images, no number of shuffles is sufficient.

    Examples
    --------
    >>> required_size(5, 2000, tests=24)
    (6, 2000)
    >>> required_size(12, 100, tests=24)
    (12, 480)
    >>> required_size(5, 2000, tests=24, share=share_of_signs)
    (11, 2000)
    """
    required = alpha / tests
    images = n
    while 2 * share(images) > required and smallest_p(n_permutations, share(images)) > required:
        images += 1
    least = share(images)
    shuffles = (
        math.ceil((1 - required) / (required - least)) if least < required else n_permutations
    )
    return images, max(shuffles, n_permutations)


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

    Examples
    --------
    >>> from calcarine.evaluation import paired_difference
    >>> result = paired_difference([0.9, 0.8, 0.7, 0.9], [0.5, 0.6, 0.4, 0.4])
    >>> round(result.difference, 2), result.n
    (0.35, 4)
    >>> result.ci_low > 0
    True
    """

    difference: float
    ci_low: float
    ci_high: float
    p: float
    n: int


def paired_difference(
    per_image_a: ArrayLike,
    per_image_b: ArrayLike,
    n_boot: int = 2000,
    n_permutations: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedResult:
    """Test the difference of two methods on the same images.

    Parameters
    ----------
    per_image_a, per_image_b : array of shape (n,)
        Scores of the two methods, in the same order of images.
    n_boot, n_permutations : int
        Number of bootstrap resamples and of random sign flips.
    level : float
        Coverage of the interval.
    seed : int
        Seed of both.

    Returns
    -------
    PairedResult
        The p-value is two-sided, from random sign flips of the differences.

    Raises
    ------
    CalcarineError
        If the numbers of images differ, or a score is not finite.

    Examples
    --------
    >>> round(paired_difference([0.9, 0.8, 0.7], [0.5, 0.6, 0.4]).difference, 2)
    0.3
    """
    a, b = check_scores(per_image_a), check_scores(per_image_b)
    if a.shape != b.shape:
        raise ShapeError(
            f"A paired comparison needs the same images for both methods, not {len(a)} and "
            f"{len(b)}; select the images that both have."
        )
    check_positive("n_permutations", n_permutations)
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
