"""Single-trial reliability of every voxel, three estimators, for any weights of the stimuli.

All three estimate ``s / (s + e)``: the share of the variance s of what a stimulus evokes in the
variance of single trials, whose noise has variance e.  A row of weights says how often each
stimulus counts, so that bootstrap resamples of stimuli are products of matrices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from calcarine.quality.repeats import Repeats

__all__ = ["MEASURES", "analysis_of_variance", "ceiling_of_averages", "explainable", "halves"]

FloatArray = NDArray[np.float64]
Estimator = Callable[[FloatArray, Repeats, FloatArray, int], FloatArray]

_DRAWS = 10
"""Random halves, or random choices of equally many repeats, that are averaged."""


def analysis_of_variance(
    values: FloatArray, repeats: Repeats, weights: FloatArray, seed: int = 0
) -> FloatArray:
    """Return ``ncsnr^2 / (ncsnr^2 + 1)`` (Allen et al. 2022) for any numbers of repeats.

    Parameters
    ----------
    values : float array
        Shape (trial, voxel), rows as in ``repeats.rows``.
    repeats : Repeats
        Group of each trial.
    weights : float array
        Shape (resample, stimulus).
    seed : int
        Not used: nothing is drawn.

    Returns
    -------
    float array of shape (resample, voxel)
        Not clipped from below.
    """
    counts = repeats.counts.astype(np.float64)[:, None]
    values = values - values.mean(0)
    sums = np.add.reduceat(values, repeats.starts, axis=0)
    between = sums**2 / counts
    within = np.add.reduceat(values**2, repeats.starts, axis=0) - between
    groups, total = weights.sum(1, keepdims=True), weights @ counts
    noise = (weights @ within) / (total - groups)
    spread = (weights @ between - (weights @ sums) ** 2 / total) / (groups - 1.0)
    # Effective number of repeats where stimuli have unequal numbers.
    size = (total - (weights @ counts**2) / total) / (groups - 1.0)
    signal = (spread - noise) / size
    return _quotient(signal, signal + noise)


def halves(values: FloatArray, repeats: Repeats, weights: FloatArray, seed: int = 0) -> FloatArray:
    """Return the correlation of means over random halves, converted to one trial.

    The halves have equally many repeats of every stimulus; where numbers are
    odd or unequal a random choice is left out.  Correlations are averaged
    over ten draws and the formula of Spearman and Brown turns half a number
    of repeats into one.

    Parameters
    ----------
    values, repeats, weights
        See `analysis_of_variance`.
    seed : int
        Seed of the draws.

    Returns
    -------
    float array of shape (resample, voxel)
    """
    half = max(1, repeats.equal_size() // 2)
    rng = np.random.default_rng(seed)
    total = np.zeros((len(weights), values.shape[1]))
    for _ in range(_DRAWS):
        picked, keep = repeats.draw(2 * half, rng)
        first = values[picked[:half]].mean(0)
        second = values[picked[half:]].mean(0)
        total += _correlation(first, second, weights[:, keep])
    r = total / _DRAWS
    return _quotient(r, half - (half - 1.0) * r)


def explainable(
    values: FloatArray, repeats: Repeats, weights: FloatArray, seed: int = 0
) -> FloatArray:
    """Return the explainable variance, corrected for its bias.

    With n repeats, each z-scored over stimuli, ``ev`` is the variance over
    stimuli of the mean over repeats divided by the mean over repeats of the
    variance, and ``ev - (1 - ev) / (n - 1)`` is the estimate (as in the
    voxelwise modelling tutorials of Dupre la Tour et al. 2025).  The formula
    needs equally many repeats; where numbers are unequal, the number that
    keeps most trials is drawn at random ten times and results are averaged.

    Parameters
    ----------
    values, repeats, weights
        See `analysis_of_variance`.
    seed : int
        Seed of the draws.

    Returns
    -------
    float array of shape (resample, voxel)
    """
    size = repeats.equal_size()
    if (repeats.counts == size).all():
        return _explainable_equal(values[repeats.draw(size)[0]], weights)
    rng = np.random.default_rng(seed)
    total = np.zeros((len(weights), values.shape[1]))
    for _ in range(_DRAWS):
        picked, keep = repeats.draw(size, rng)
        total += _explainable_equal(values[picked], weights[:, keep])
    return total / _DRAWS


def _explainable_equal(cube: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the explainable variance of an array of shape (repeat, stimulus, voxel)."""
    size = len(cube)
    cube = cube - cube.mean(1, keepdims=True)
    cube = _quotient(cube, np.sqrt((cube**2).mean(1, keepdims=True)))
    single = np.mean([_variance(part, weights) for part in cube], axis=0)
    share = _quotient(_variance(cube.mean(0), weights), single)
    corrected = share - (1.0 - share) / (size - 1)
    return np.where(single > 0, corrected, 0.0)


MEASURES: dict[str, Estimator] = {
    "noise-ceiling": analysis_of_variance,
    "split-half": halves,
    "explainable-variance": explainable,
}
"""The three measures by name."""


def ceiling_of_averages(single: FloatArray, share: float) -> FloatArray:
    """Return the percent of the variance of means over repeats that the stimulus explains.

    Parameters
    ----------
    single : float array
        Single-trial reliability ``s / (s + e)``; negative estimates count as 0.
    share : float
        Mean over stimuli of 1 / repeats, as ``(A/1 + B/2 + C/3) / (A + B + C)``
        for A stimuli shown once, B twice and C three times.

    Returns
    -------
    float array
        ``100 s / (s + share e)``, which is the noise ceiling of Allen et al.
        2022 and, for equal numbers, the formula of Spearman and Brown.
    """
    rho = np.clip(single, 0.0, 1.0)
    return 100.0 * _quotient(rho, rho + (1.0 - rho) * share)


def _variance(values: FloatArray, weights: FloatArray) -> FloatArray:
    total = weights.sum(1, keepdims=True)
    spread = weights @ values**2 / total - (weights @ values / total) ** 2
    return np.asarray(np.maximum(spread, 0.0))


def _correlation(a: FloatArray, b: FloatArray, weights: FloatArray) -> FloatArray:
    a, b = a - a.mean(0), b - b.mean(0)
    total = weights.sum(1, keepdims=True)
    shared = weights @ (a * b) / total - (weights @ a) * (weights @ b) / total**2
    return _quotient(shared, np.sqrt(_variance(a, weights) * _variance(b, weights)))


def _quotient(above: FloatArray, below: FloatArray) -> FloatArray:
    """Return a ratio, 0 where the denominator is 0."""
    above, below = np.broadcast_arrays(above, below)
    result = np.divide(above, below, out=np.zeros(above.shape), where=below > 1e-12)
    return np.asarray(result, dtype=np.float64)
