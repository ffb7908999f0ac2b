"""Inter-rater agreement beyond chance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["counts", "fleiss_kappa", "krippendorff_alpha"]


def counts(ratings: ArrayLike) -> NDArray[np.float64]:
    """Count how often each category was given to each item.

    Parameters
    ----------
    ratings : array of shape (n_raters, n_items)
        Categories as numbers; NaN for missing ratings.

    Returns
    -------
    array of shape (n_items, n_categories)
    """
    values = np.asarray(ratings, float)
    categories = np.unique(values[np.isfinite(values)])
    return np.asarray((values[:, :, None] == categories).sum(axis=0), np.float64)


def fleiss_kappa(table: ArrayLike) -> float:
    """Compute Fleiss' kappa (Fleiss 1971).

    Parameters
    ----------
    table : array of shape (n_items, n_categories)
        Number of raters that gave each category; every item needs the same number of raters, at
        least 2.

    Returns
    -------
    float
        NaN if it is not defined: without items, with a single rater, or with only one category.

    Raises
    ------
    ValueError
        If items have different numbers of raters.
    """
    votes = np.asarray(table, float)
    if not votes.size:
        return math.nan
    raters = votes.sum(axis=1)
    if not (raters == raters[0]).all():
        raise ValueError("Fleiss' kappa needs the same number of raters for every item.")
    m = raters[0]
    if m < 2:
        return math.nan
    observed = ((votes**2).sum(axis=1) - m).mean() / (m * (m - 1))
    expected = float(((votes.sum(axis=0) / votes.sum()) ** 2).sum())
    return math.nan if expected == 1 else float((observed - expected) / (1 - expected))


def krippendorff_alpha(table: ArrayLike) -> float:
    """Compute Krippendorff's alpha for nominal categories (Krippendorff 2011).

    Parameters
    ----------
    table : array of shape (n_items, n_categories)
        Number of raters that gave each category; items with fewer than two ratings are ignored.

    Returns
    -------
    float
        NaN if it is not defined: without pairs of ratings, or with only one category.
    """
    votes = np.asarray(table, float)
    if not votes.size:
        return math.nan
    votes = votes[votes.sum(axis=1) >= 2]
    if not votes.size:
        return math.nan
    size = votes.sum(axis=1)
    total = size.sum()
    agreeing = float(((votes * (votes - 1)).sum(axis=1) / (size - 1)).sum())
    category = votes.sum(axis=0)
    by_chance = float((category * (category - 1)).sum() / (total - 1))
    if by_chance == total:
        return math.nan
    return float(1 - (total - agreeing) / (total - by_chance))
