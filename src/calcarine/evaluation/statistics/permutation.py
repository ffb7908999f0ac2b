"""Permutation tests of scores against shuffled reconstructions.

The units are images: pairs of images share members and are not independent, so a binomial test over
pairs has too many false positives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import CalcarineError, ShapeError
from calcarine.evaluation.statistics.intervals import check_positive, chunks

__all__ = [
    "PermutationResult",
    "matched_majority",
    "permutation_of",
    "permutation_result",
    "permutation_test",
    "permuted_statistic",
    "share_of_orders",
    "smallest_p",
]

FloatArray = NDArray[np.float64]
_EQUAL = 1e-12


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
        The expected p of perfect reconstructions (`smallest_p`).

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import permutation_test
    >>> similarity = np.eye(8)  # row: ground truth, column: reconstruction
    >>> result = permutation_test(similarity, n_permutations=999)
    >>> result.p
    0.001
    >>> round(result.null_mean, 1)  # by chance one of eight is right
    0.1
    """

    p: float
    null_mean: float
    null_sd: float
    null_low: float
    null_high: float
    p_min: float


def permutation_test(
    matrix: FloatArray,
    n_permutations: int = 2000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> PermutationResult:
    """Test whether reconstructions score higher with their own images than with shuffled ones.

    Parameters
    ----------
    matrix : array of shape (n, n)
        Row: ground truth, column: reconstruction.
    n_permutations : int
        Number of shuffles of the reconstructions.
    seed : int
        Seed of the shuffles.
    groups : array of shape (n,), optional
        If given, reconstructions are shuffled only within groups.

    Returns
    -------
    PermutationResult

    Raises
    ------
    CalcarineError
        If the matrix is not square, or an entry that a shuffle can use is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.eye(8) + np.random.default_rng(0).normal(0, 0.1, (8, 8))
    >>> permutation_test(scores, n_permutations=999).p
    0.001
    """
    scores = np.asarray(matrix, np.float64)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not len(scores):
        raise ShapeError(
            f"A permutation test needs a square score matrix, not shape {scores.shape}; give the "
            "scores of all pairs."
        )
    check_positive("n_permutations", n_permutations)
    codes = _codes(groups, len(scores))
    if not np.isfinite(scores[codes[:, None] == codes[None]]).all():
        raise CalcarineError(
            "The score matrix has NaN or infinity among the pairs to shuffle; pass the groups that "
            "it was computed with."
        )
    null = _shuffled_means(scores, codes, n_permutations, np.random.default_rng(seed))
    share = share_of_orders(np.bincount(codes).tolist())
    return permutation_result(null, float(np.diagonal(scores).mean()), share)


def share_of_orders(sizes: Sequence[int]) -> float:
    """Return the share of the true order among all permutations within groups.

    Parameters
    ----------
    sizes : sequence of int
        Number of images in each group that is shuffled separately.

    Returns
    -------
    float
        One over the product of the factorials.
    """
    return math.exp(-sum(math.lgamma(size + 1) for size in sizes))


def smallest_p(n_permutations: int, share: float) -> float:
    """Return the expected p of perfect reconstructions in a permutation test.

    Parameters
    ----------
    n_permutations : int
    share : float
        Share of all permutations that score as high as the true order (`share_of_orders`). Random
        shuffles can draw these, so few images limit p, like few shuffles.

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


def permutation_result(null: FloatArray, observed: float, share: float) -> PermutationResult:
    """Return the outcome of a permutation test from the scores of shuffles and of the true order.

    Parameters
    ----------
    null : array of shape (n_permutations,)
    observed : float
    share : float
        Share of all permutations that score as high as the true order for perfect reconstructions.

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


def _shuffled_means(
    scores: FloatArray, codes: NDArray[np.int64], n_permutations: int, rng: np.random.Generator
) -> FloatArray:
    n = len(scores)
    slots = np.argsort(codes, kind="stable")
    null = np.empty(n_permutations)
    for rows in chunks(n_permutations, n):
        keys = codes + rng.random((rows.stop - rows.start, n))
        # Sorting by group and then by random keys shuffles the members within each group.
        null[rows] = scores[slots, np.argsort(keys, axis=1)].mean(axis=1)
    return null


def _codes(groups: ArrayLike | None, n: int) -> NDArray[np.int64]:
    if groups is None:
        return np.zeros(n, np.int64)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ShapeError(
            f"The groups have shape {labels.shape}; give one label for each of {n} images."
        )
    return np.asarray(np.unique(labels, return_inverse=True)[1], np.int64)


def permuted_statistic(
    matrix: FloatArray,
    statistic: Callable[[FloatArray], Any],
    n_permutations: int = 2000,
    seed: int = 0,
    share: float | None = None,
) -> PermutationResult:
    """Test a statistic other than the mean against shuffled reconstructions.

    Parameters
    ----------
    matrix : array of shape (n, n)
        Row: ground truth, column: reconstruction.
    statistic : callable
        Takes n scores, returns a number.
    n_permutations, seed
        Number of shuffles and their seed.
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
    """Test any score of an assignment of reconstructions to images by permutation.

    Parameters
    ----------
    score : callable
        Takes a permutation of the n reconstructions, returns the score; higher is better.
    n : int
        Number of images.
    observed : float
        Score of the true order.
    n_permutations, seed
        Number of shuffles and their seed.
    share : float, optional
        Share of all permutations that score as high as the true order for perfect
        reconstructions; by default only the true order does.

    Returns
    -------
    PermutationResult
    """
    rng = np.random.default_rng(seed)
    null = np.asarray([score(rng.permutation(n)) for _ in range(n_permutations)])
    return permutation_result(null, observed, share_of_orders([n]) if share is None else share)


def matched_majority(n: int) -> float:
    """Return the share of the permutations of n images that leave more than half in place.

    For perfect reconstructions, only these have the same median as the true order.

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
    # The share with exactly k in place is derangements(n - k) / ((n - k)! k!). The share of
    # derangements is the truncated series of 1/e.
    one_over = np.exp([-math.lgamma(k + 1) for k in range(n + 1)])
    deranged = np.cumsum(one_over * (-1.0) ** np.arange(n + 1))
    in_place = np.arange(n // 2 + 1, n + 1)
    return float(np.maximum(deranged[n - in_place], 0) @ one_over[in_place])
