"""Statistics beyond one method on one subject: other statistics, subjects, families of tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import CalcarineError
from calcarine.evaluation.statistics import (
    PermutationResult,
    bootstrap_interval,
    chunks,
    percentiles,
    permutation_result,
    share_of_orders,
    smallest_p,
)

FloatArray = NDArray[np.float64]
ALPHA = 0.05
"""Level of significance of all verdicts."""

_EXACT_UP_TO = 300
_TIE = 1e-9


@dataclass(frozen=True)
class HierarchicalResult:
    """Mean over subjects of their means over images.

    Parameters
    ----------
    value : float
    ci_low, ci_high : float
        Percentile interval; subjects are drawn first, then images within each drawn subject.
    subjects : int
    images : int
        Of the subject with the fewest.
    """

    value: float
    ci_low: float
    ci_high: float
    subjects: int
    images: int


def bootstrap_median(
    per_image: ArrayLike, n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median over images.

    Parameters
    ----------
    per_image : array of shape (n,)
    n_boot, level, seed
        Resamples, coverage and seed.

    Returns
    -------
    low, high : float
    """
    return bootstrap_interval(per_image, n_boot, level, seed, np.median)


def permuted_statistic(
    matrix: FloatArray,
    statistic: Callable[[FloatArray], Any],
    n_permutations: int = 2000,
    seed: int = 0,
    share: float | None = None,
) -> PermutationResult:
    """`permutation_test` for a statistic other than the mean of the diagonal.

    Parameters
    ----------
    matrix : array of shape (n, n)
        Row: ground truth, column: reconstruction.
    statistic : callable
        From n scores to a number.
    n_permutations, seed
        Shuffles and their seed.
    share : float, optional
        As in `permutation_of`.

    Returns
    -------
    PermutationResult
    """
    rows = np.arange(len(matrix))
    return permutation_of(
        lambda order: float(statistic(matrix[rows, order])),
        len(matrix),
        float(statistic(np.diagonal(matrix))),
        n_permutations,
        seed,
        share,
    )


def permutation_of(
    score: Callable[[NDArray[np.int64]], float],
    n: int,
    observed: float,
    n_permutations: int = 2000,
    seed: int = 0,
    share: float | None = None,
) -> PermutationResult:
    """Permutation test of any score of an assignment of reconstructions to images.

    Parameters
    ----------
    score : callable
        From an order of the n reconstructions to the score; higher is better.
    n : int
    observed : float
        Score of the true order.
    n_permutations, seed
        Shuffles and their seed.
    share : float, optional
        Share of all orders that score as high as the true one when pictures are perfect; by
        default only the true order does.

    Returns
    -------
    PermutationResult
    """
    rng = np.random.default_rng(seed)
    null = np.asarray([score(rng.permutation(n)) for _ in range(n_permutations)])
    return permutation_result(null, observed, share_of_orders([n]) if share is None else share)


def hierarchical_bootstrap(
    per_subject: Sequence[ArrayLike], n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> HierarchicalResult:
    """Interval over subjects and images.

    Parameters
    ----------
    per_subject : sequence of array of shape (n_images,)
        Scores, or differences of two methods, of the images of each subject.
    n_boot, level, seed
        Resamples, coverage and seed.

    Returns
    -------
    HierarchicalResult
        With one subject there is nothing to draw above images, and the interval says nothing of
        other people.

    Raises
    ------
    CalcarineError
        If there is no subject, or a score is not finite.
    """
    subjects = [np.asarray(values, np.float64) for values in per_subject]
    fine = all(v.ndim == 1 and len(v) and np.isfinite(v).all() for v in subjects)
    if not subjects or not fine or n_boot < 1 or not 0 < level < 1:
        raise CalcarineError(
            "a hierarchical bootstrap needs finite scores of at least one image of each of at "
            "least one subject, resamples, and a level between 0 and 1."
        )
    rng = np.random.default_rng(seed)
    counts = np.stack(
        [rng.multinomial(len(subjects), [1 / len(subjects)] * len(subjects)) for _ in range(n_boot)]
    )
    # A subject that is drawn twice gets new images each time.
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


def signed_rank_p(differences: ArrayLike) -> float:
    """Two-sided p of the Wilcoxon signed-rank test.

    Parameters
    ----------
    differences : array of shape (n,)
        Of pairs. Zeros are left out, as Wilcoxon did.

    Returns
    -------
    float
        1 when every difference is zero. Exact up to 300 differences, with ties too: ranks are
        shared and all assignments of signs are counted; beyond, normal with tie correction.
    """
    values = np.asarray(differences, float)
    values = values[np.abs(values) > _TIE]
    n = len(values)
    if n == 0:
        return 1.0
    # Equal up to rounding is equal: proportions such as 2/6 and 1/3 must share a rank.
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
    """Adjust p-values of one family of tests (Holm 1979).

    Parameters
    ----------
    p_values : array of shape (tests,)
        In [0, 1].

    Returns
    -------
    float64 array of shape (tests,)
        Rejecting where it is at most a keeps the chance of any false rejection below a, whatever
        the tests have in common.

    Raises
    ------
    CalcarineError
        If one is no probability.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise CalcarineError(
            "Holm's correction needs probabilities in one row: leave out the rest."
        )
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    return adjusted


def matched_majority(n: int) -> float:
    """Share of the orders of n images that leave more than half of them in place.

    Only these give perfect reconstructions the same median as the true order.

    Parameters
    ----------
    n : int

    Returns
    -------
    float

    Examples
    --------
    >>> round(120 * matched_majority(5))
    11
    """
    # The share with exactly k in place is derangements(n - k) / ((n - k)! k!), and the share of
    # derangements is the series of 1/e, cut off.
    one_over = np.exp([-math.lgamma(k + 1) for k in range(n + 1)])
    deranged = np.cumsum(one_over * (-1.0) ** np.arange(n + 1))
    in_place = np.arange(n // 2 + 1, n + 1)
    return float(np.maximum(deranged[n - in_place], 0) @ one_over[in_place])


def share_of_signs(n: int) -> float:
    """Share that the true signs of n differences, and their opposites, have among all signs."""
    return float(2.0 ** (1 - n))


def enough(
    n: int,
    n_permutations: int,
    tests: int,
    alpha: float = 0.05,
    share: Callable[[int], float] = lambda n: share_of_orders([n]),
) -> tuple[int, int]:
    """Smallest size of a test in which perfect reconstructions are significant.

    Parameters
    ----------
    n : int
        Images that there are.
    n_permutations : int
        Shuffles that there are.
    tests : int
        Tests that Holm's correction is made for.
    alpha : float
        Threshold of the corrected p.
    share : callable
        From a number of images to the share of all shuffles that score as high as the true order;
        by default that of one order among all.

    Returns
    -------
    images, shuffles : int
        Images come first: with few of them no number of shuffles is enough. Neither is below what
        there is.

    Examples
    --------
    >>> enough(5, 2000, tests=24)
    (6, 2000)
    >>> enough(12, 100, tests=24)
    (12, 480)
    >>> enough(5, 2000, tests=24, share=share_of_signs)
    (11, 2000)
    """
    wanted = alpha / tests
    images = n
    while 2 * share(images) > wanted and smallest_p(n_permutations, share(images)) > wanted:
        images += 1
    least = share(images)
    shuffles = math.ceil((1 - wanted) / (wanted - least)) if least < wanted else n_permutations
    return images, max(shuffles, n_permutations)
