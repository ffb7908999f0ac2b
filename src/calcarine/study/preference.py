"""Tests and intervals of a proportion from raters who all rate the same items."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["crossed_interval", "means", "sign_test_p"]

FloatArray = NDArray[np.float64]
_TIE = 1e-9


def sign_test_p(differences: ArrayLike) -> tuple[float, int, int]:
    """Compute the exact two-sided sign test.

    Parameters
    ----------
    differences : array of shape (n,)

    Returns
    -------
    p : float
        From the binomial distribution; zeros are left out.
    above, below : int
        Number of differences above and below zero.
    """
    from scipy.stats import binomtest

    values = np.asarray(differences, float)
    above, below = int((values > _TIE).sum()), int((values < -_TIE).sum())
    if above + below == 0:
        return 1.0, 0, 0
    return float(binomtest(above, above + below, 0.5).pvalue), above, below


def crossed_interval(
    choices: ArrayLike, n_boot: int = 4000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Compute the interval of a proportion over items and raters.

    Parameters
    ----------
    choices : array of shape (n_raters, n_items)
        1 or 0; NaN for a missing answer. Every rater and every item needs at least one answer.
    n_boot : int
        Number of resamples; items and raters are resampled independently (Owen 2007).
    level : float
    seed : int

    Returns
    -------
    low, high : float
        Percentiles of the bootstrap, rescaled to the two-way clustered variance (Cameron, Gelbach
        & Miller 2011) with a correction for few raters. The rescaling is needed because resampling
        both ways counts the noise of single answers three times. If all answers are the same, this
        is the exact binomial interval of as many answers as there are items.
    """
    values = np.asarray(choices, float)
    given = np.isfinite(values)
    filled = np.where(given, values, 0.0)
    n_raters, n_items = values.shape
    mean = float(filled.sum() / given.sum())
    if mean in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / max(n_items, n_raters))
        return (bound, 1.0) if mean else (0.0, 1 - bound)
    rng = np.random.default_rng(seed)
    raters = rng.multinomial(n_raters, np.full(n_raters, 1 / n_raters), size=n_boot)
    items = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=n_boot)
    above = np.einsum("br,ri,bi->b", raters, filled, items, optimize=True)
    whole = np.einsum("br,ri,bi->b", raters, given.astype(float), items, optimize=True)
    away = above[whole > 0] / whole[whole > 0] - mean
    away *= _half_width(values, mean, level) / (_normal(level) * away.std())
    low, high = mean + np.quantile(away, [(1 - level) / 2, (1 + level) / 2])
    return max(0.0, float(low)), min(1.0, float(high))


def _half_width(values: FloatArray, mean: float, level: float) -> float:
    """Return half the interval, with clustered variance and Satterthwaite's degrees of freedom."""
    from scipy.stats import t

    away = np.where(np.isfinite(values), values - mean, 0.0)
    n = float(np.isfinite(values).sum())
    n_raters, n_items = values.shape
    # The variance of a single rater or item cannot be estimated.
    rater = (away.sum(axis=1) ** 2).sum() / n**2 * n_raters / (n_raters - 1) if n_raters > 1 else 0
    item = (away.sum(axis=0) ** 2).sum() / n**2 * n_items / (n_items - 1) if n_items > 1 else 0
    cell = (away**2).sum() / n**2 * n / (n - 1) if min(n_raters, n_items) > 1 else 0
    variance = max(rater + item - cell, rater, item)
    own = max(rater - cell, 0.0) if n_items > 1 else variance
    rest = variance - own
    spread = own**2 / max(n_raters - 1, 1) + rest**2 / max(n_items - 1, 1)
    freedom = max(variance**2 / spread, 1.0) if spread > 0 else 1.0
    return float(t.ppf((1 + level) / 2, freedom) * math.sqrt(variance))


def _normal(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))


def means(choices: ArrayLike, axis: int) -> FloatArray:
    """Return means of the answers over one axis, without rows or columns that have no answer."""
    values = np.asarray(choices, float)
    given = np.isfinite(values)
    number = given.sum(axis=axis)
    total = np.where(given, values, 0.0).sum(axis=axis)
    return np.asarray(total[number > 0] / number[number > 0], np.float64)
