"""An interval for scores of several trainings on the same pictures, honest for few trainings."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from calcarine.errors import CalcarineError

__all__ = ["crossed_interval"]


def crossed_interval(scores: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of scores of seeds and pictures, with an interval over both.

    Parameters
    ----------
    scores : array of shape (seed, image)
        Scores, or differences of two methods at the same seed and image.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    mean, low, high : float
        With one seed the interval is over images alone, with one image over seeds alone; with
        one of each there is none (nan).

    Raises
    ------
    CalcarineError
        If there is no score, one is not finite, or the level is out of range.

    Notes
    -----
    A seed shifts all images and an image all seeds, so the mean has two parts of variance: that of
    the means of seeds, estimated with (seeds - 1) degrees of freedom, and that of images, the
    mean square between images less that of what is left, with (images - 1). The half-width is the
    root of their sum times the mean of the two quantiles of Student's t, each weighted by its
    variance (Cochran 1964, for two means of unequal variance). Drawing seeds anew, as a bootstrap
    does, covers too little with few of them: three seeds have two thirds of their variance. The
    means of few seeds agree by chance now and then; the part of seeds is never less than what is
    left of single scores makes of them.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise CalcarineError(
            f"An interval over seeds and images takes finite scores (seed, image), not the shape "
            f"{table.shape} or values that are not finite."
        )
    if not 0 < level < 1:
        raise CalcarineError(f"level of the interval is {level}: choose it between 0 and 1.")
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
    """Parts of the variance of the mean, and the degrees of freedom of each."""
    seeds, images = table.shape
    by_seed, by_image = table.mean(1), table.mean(0)
    left, freedom = 0.0, (seeds - 1) * (images - 1)
    if freedom:
        rest = table - by_seed[:, None] - by_image + table.mean()
        left = float((rest**2).sum()) / freedom
    parts = []
    if seeds > 1:
        between = float(by_seed.var(ddof=1)) / seeds, seeds - 1
        least = left / (seeds * images), freedom
        parts.append(max(between, least, key=lambda part: math.sqrt(part[0]) * _t(part[1], level)))
    if images > 1:
        # What is left is in the means of seeds already; counted twice it would widen.
        own = float(by_image.var(ddof=1)) - left / seeds
        parts.append((max(0.0, own) / images, images - 1))
    return parts


def _t(freedom: int, level: float) -> float:
    """Two-sided quantile of Student's t; 0 without freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2)) if freedom else 0.0
