"""From voxels to regions: means with intervals, and which space wins where."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.encoding.models import EncodingScores, MeanResponses, UniqueVariance
from calcarine.errors import CalcarineError

__all__ = ["normalised", "region_table", "unique_table", "winners"]

_VOXELS_AT_A_TIME = 2048


def normalised(r: NDArray[np.float64], ceiling: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation as a share of the largest that noise allows.

    Parameters
    ----------
    r
        Correlations with averaged test responses, shape (voxel,).
    ceiling
        Noise ceiling in percent of the variance of these averages.

    Returns
    -------
    float array of shape (voxel,)
        ``r / sqrt(ceiling)``; NaN where the ceiling is below 1 percent,
        where the quotient would be noise.
    """
    top = np.sqrt(np.maximum(ceiling, 0.0) / 100.0)
    return np.asarray(np.divide(r, top, out=np.full_like(top, np.nan), where=ceiling >= 1.0))


def winners(
    scores: Mapping[str, EncodingScores], among: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Position of the space that predicts each voxel best.

    Chosen by the score held out inside the training stimuli, so that the test
    scores of the winner are not those of the luckiest.

    Parameters
    ----------
    scores
        By name of the space.
    among
        Voxels that take part, bool of shape (voxel,); all if left out.

    Returns
    -------
    int array of shape (voxel,)
        Position in ``scores``, -1 for voxels that take no part.
    """
    if not scores:
        raise CalcarineError("There is no feature space to win; give at least one.")
    best = np.argmax(np.stack([found.cv_r2 for found in scores.values()]), axis=0)
    return best if among is None else np.where(among, best, -1)


def region_table(
    responses: MeanResponses,
    scores: Mapping[str, EncodingScores],
    rois: Mapping[str, NDArray[np.bool_]],
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean correlation over the voxels of each region, with intervals over test stimuli.

    Parameters
    ----------
    responses, scores
        What `encode` was given, and gave.
    rois
        Masks of shape (voxel,).
    n_boot, level, seed
        Of the bootstrap; all spaces and regions see the same resamples, so
        their differences can be read as paired.

    Returns
    -------
    DataFrame
        Columns region, space, voxels, r, low, high.
    """
    weights = _resamples(len(responses.test), n_boot, level, seed)
    rows = []
    for region, mask in rois.items():
        columns = np.flatnonzero(mask)
        if not len(columns):
            continue
        for space, found in scores.items():
            drawn = _resampled_means(weights, found.predicted, responses.test, columns)
            low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
            mean = float(np.nan_to_num(found.r[columns]).mean())
            rows.append((region, space, len(columns), mean, float(low), float(high)))
    return pd.DataFrame(rows, columns=["region", "space", "voxels", "r", "low", "high"])


def unique_table(
    responses: MeanResponses,
    found: UniqueVariance,
    rois: Mapping[str, NDArray[np.bool_]],
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean unique variance over the voxels of each region, with intervals over test stimuli.

    Parameters
    ----------
    responses, found
        What `unique_variance` was given, and gave.
    rois, n_boot, level, seed
        As in `region_table`.

    Returns
    -------
    DataFrame
        Columns region, space, voxels, unique_r2, low, high.
    """
    weights = _resamples(len(responses.test), n_boot, level, seed)
    rows = []
    for region, mask in rois.items():
        columns = np.flatnonzero(mask)
        if not len(columns):
            continue
        full = _resampled_r2(weights, found.predicted, responses.test, columns)
        for space, values in found.unique.items():
            guess = found.predicted_without[space]
            drawn = full - _resampled_r2(weights, guess, responses.test, columns)
            low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
            mean = float(values[columns].mean())
            rows.append((region, space, len(columns), mean, float(low), float(high)))
    return pd.DataFrame(rows, columns=["region", "space", "voxels", "unique_r2", "low", "high"])


def _resamples(n: int, n_boot: int, level: float, seed: int) -> NDArray[np.float32]:
    """How often each stimulus is drawn in each resample."""
    if not 0 < level < 1 or n_boot < 1:
        raise CalcarineError("The bootstrap needs a level between 0 and 1 and one resample.")
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1.0 / n), size=n_boot).astype(np.float32)


def _resampled_r2(
    weights: NDArray[np.float32],
    guess: NDArray[np.float32],
    truth: NDArray[np.float32],
    columns: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean over voxels of r2 for each resample."""
    total = np.zeros(len(weights))
    n = weights.shape[1]
    for start in range(0, len(columns), _VOXELS_AT_A_TIME):
        part = columns[start : start + _VOXELS_AT_A_TIME]
        b = truth[:, part] - truth[:, part].mean(0)
        error = weights @ (truth[:, part] - guess[:, part]) ** 2 / n
        spread = weights @ (b * b) / n - (weights @ b / n) ** 2
        share = np.divide(error, spread, out=np.ones_like(error), where=spread > 1e-12)
        total += (1.0 - share).sum(1, dtype=np.float64)
    return total / len(columns)


def _resampled_means(
    weights: NDArray[np.float32],
    guess: NDArray[np.float32],
    truth: NDArray[np.float32],
    columns: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean over voxels of r for each resample, from weighted moments."""
    total = np.zeros(len(weights))
    n = weights.shape[1]
    for start in range(0, len(columns), _VOXELS_AT_A_TIME):
        part = columns[start : start + _VOXELS_AT_A_TIME]
        # About the mean, so that float32 moments do not cancel.
        a = guess[:, part] - guess[:, part].mean(0)
        b = truth[:, part] - truth[:, part].mean(0)
        mean_a, mean_b = weights @ a / n, weights @ b / n
        both = weights @ (a * b) / n - mean_a * mean_b
        square = (weights @ (a * a) / n - mean_a**2) * (weights @ (b * b) / n - mean_b**2)
        length = np.sqrt(np.maximum(square, 0.0))
        r = np.divide(both, length, out=np.zeros_like(both), where=length > 1e-12)
        total += r.sum(1, dtype=np.float64)
    return total / len(columns)
