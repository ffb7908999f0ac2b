"""From voxels to regions: means with intervals, and which space wins where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.encoding.models import EncodingScores, MeanResponses, UniqueVariance
from calcarine.errors import CalcarineError

__all__ = ["normalised", "region_table", "unique_table", "winners"]

FloatArray = NDArray[np.float64]
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
    for region, columns in _filled(rois):
        for space, found in scores.items():
            drawn = _over_voxels(_correlation, weights, found.predicted, responses.test, columns)
            mean = float(np.nan_to_num(found.r[columns]).mean())
            rows.append((region, space, len(columns), mean, *_interval(drawn, level)))
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
    for region, columns in _filled(rois):
        full = _over_voxels(_explained, weights, found.predicted, responses.test, columns)
        for space, values in found.unique.items():
            guess = found.predicted_without[space]
            drawn = full - _over_voxels(_explained, weights, guess, responses.test, columns)
            mean = float(values[columns].mean())
            rows.append((region, space, len(columns), mean, *_interval(drawn, level)))
    return pd.DataFrame(rows, columns=["region", "space", "voxels", "unique_r2", "low", "high"])


def _filled(rois: Mapping[str, NDArray[np.bool_]]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Regions with voxels, and which these are."""
    for region, mask in rois.items():
        if mask.any():
            yield region, np.flatnonzero(mask)


def _interval(drawn: FloatArray, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resamples(n: int, n_boot: int, level: float, seed: int) -> NDArray[np.float32]:
    """Share of each stimulus in each resample."""
    if not 0 < level < 1 or n_boot < 1:
        raise CalcarineError("The bootstrap needs a level between 0 and 1 and one resample.")
    rng = np.random.default_rng(seed)
    return (rng.multinomial(n, np.full(n, 1.0 / n), size=n_boot) / n).astype(np.float32)


def _over_voxels(
    score: Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], Any],
    weights: NDArray[np.float32],
    guess: NDArray[np.float32],
    truth: NDArray[np.float32],
    columns: NDArray[np.int64],
) -> FloatArray:
    """Mean over voxels of a score of weighted test stimuli, for each resample."""
    total = np.zeros(len(weights))
    for start in range(0, len(columns), _VOXELS_AT_A_TIME):
        part = columns[start : start + _VOXELS_AT_A_TIME]
        total += score(weights, guess[:, part], truth[:, part]).sum(1, dtype=np.float64)
    return total / len(columns)


def _explained(
    weights: NDArray[np.float32], guess: NDArray[np.float32], truth: NDArray[np.float32]
) -> NDArray[np.float32]:
    """r2 of each voxel in each resample."""
    about = truth - truth.mean(0)
    spread = weights @ about**2 - (weights @ about) ** 2
    error = weights @ (truth - guess) ** 2
    return 1.0 - np.divide(error, spread, out=np.ones_like(error), where=spread > 1e-12)


def _correlation(
    weights: NDArray[np.float32], guess: NDArray[np.float32], truth: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Pearson correlation of each voxel in each resample, from weighted moments."""
    # About the mean, so that float32 moments do not cancel.
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    mean_a, mean_b = weights @ a, weights @ b
    both = weights @ (a * b) - mean_a * mean_b
    square = (weights @ a**2 - mean_a**2) * (weights @ b**2 - mean_b**2)
    length = np.sqrt(np.maximum(square, 0.0))
    return np.divide(both, length, out=np.zeros_like(both), where=length > 1e-12)
