"""Scores of regions: means over voxels with intervals, and the best space of each voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.encoding.mean_responses import MeanResponses
from calcarine.encoding.models import EncodingScores, UniqueVariance
from calcarine.errors import SettingError

__all__ = ["ceiling_r", "normalised", "region_table", "unique_table", "winners"]

FloatArray = NDArray[np.float64]
_VOXELS_AT_A_TIME = 2048


def ceiling_r(ceiling: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return noise ceilings as correlations.

    Parameters
    ----------
    ceiling : float array of shape (n_voxels,)
        Noise ceilings, in percent of the variance of averaged test responses.

    Returns
    -------
    float array of shape (n_voxels,)
        The r that a perfect model would reach, ``sqrt(ceiling / 100)``.
    """
    return np.asarray(np.sqrt(np.maximum(ceiling, 0.0) / 100.0))


def normalised(r: NDArray[np.float64], ceiling: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise correlations by the noise ceiling.

    Parameters
    ----------
    r : float array of shape (n_voxels,)
        Correlations with averaged test responses.
    ceiling : float array of shape (n_voxels,)
        Noise ceilings, in percent of the variance of these averages.

    Returns
    -------
    float array of shape (n_voxels,)
        ``r / sqrt(ceiling / 100)``; NaN if the ceiling is below 1 percent, where the quotient
        would be noise.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.encoding import normalised
    >>> r, ceiling = np.array([0.3, 0.3, 0.1]), np.array([36.0, 9.0, 0.5])
    >>> normalised(r, ceiling).round(2).tolist()
    [0.5, 1.0, nan]
    """
    top = ceiling_r(ceiling)
    return np.asarray(np.divide(r, top, out=np.full_like(top, np.nan), where=ceiling >= 1.0))


def winners(
    scores: Mapping[str, EncodingScores], among: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the space that predicts each voxel best.

    The choice uses the cross-validated r2 inside the training stimuli, so the test scores of the
    best space are not biased by the choice.

    Parameters
    ----------
    scores : mapping of str to EncodingScores
        Scores by space.
    among : bool array of shape (n_voxels,), optional
        Voxels to consider; all by default.

    Returns
    -------
    int array of shape (n_voxels,)
        Position in ``scores``; -1 for voxels that are not considered.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import winners
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(50))
    >>> rng = np.random.default_rng(0)
    >>> spaces = {"z": rng.standard_normal((50, 4)), "c": rng.standard_normal((50, 4))}
    >>> trials = np.hstack([spaces["z"], spaces["c"]])[:, 2:6]  # two voxels follow z, two c
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids, seen, test=10)
    >>> winners(ca.encode(brain, spaces)).tolist()
    [0, 0, 1, 1]
    """
    if not scores:
        raise SettingError("winners needs at least one feature space.")
    best = np.argmax(np.stack([each.cv_r2 for each in scores.values()]), axis=0)
    return best if among is None else np.where(among, best, -1)


def region_table(
    responses: MeanResponses,
    scores: Mapping[str, EncodingScores],
    rois: Mapping[str, NDArray[np.bool_]],
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Average correlations over the voxels of each region, with intervals over test stimuli.

    Parameters
    ----------
    responses : MeanResponses
        Argument of `encode`.
    scores : mapping of str to EncodingScores
        Results of `encode`, by space.
    rois : mapping of str to bool array of shape (n_voxels,)
        Masks of regions.
    n_boot : int
        Number of bootstrap resamples of test stimuli. All spaces and regions use the same
        resamples, so their differences are paired.
    level : float
        Coverage of the intervals.
    seed : int
        Seed of the resamples.

    Returns
    -------
    DataFrame
        Columns region, space, voxels, r, low, high.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import MeanResponses, region_table
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(50))
    >>> rng = np.random.default_rng(0)
    >>> z = rng.standard_normal((50, 4))
    >>> brain = ca.BrainDataset.from_arrays(z, seen.ids, seen, test=10)  # four voxels follow z
    >>> responses = MeanResponses.from_dataset(brain)
    >>> scores = {"z": ca.encode(responses, z, seen.ids)}
    >>> table = region_table(responses, scores, {"V1": np.array([True, True, False, False])})
    >>> table[["region", "space", "voxels", "r"]].round(2).values.tolist()
    [['V1', 'z', 2, 1.0]]
    """
    weights = _resamples(len(responses.test), n_boot, level, seed)
    rows = []
    for region, columns in _filled(rois):
        for space, each in scores.items():
            drawn = _over_voxels(_correlation, weights, each.predicted, responses.test, columns)
            mean = float(np.nan_to_num(each.r[columns]).mean())
            rows.append((region, space, len(columns), mean, *_interval(drawn, level)))
    return pd.DataFrame(rows, columns=["region", "space", "voxels", "r", "low", "high"])


def unique_table(
    responses: MeanResponses,
    variance: UniqueVariance,
    rois: Mapping[str, NDArray[np.bool_]],
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Average unique variance over the voxels of each region, with intervals over test stimuli.

    Parameters
    ----------
    responses : MeanResponses
        Argument of `unique_variance`.
    variance : UniqueVariance
        Result of `unique_variance`.
    rois, n_boot, level, seed
        See `region_table`.

    Returns
    -------
    DataFrame
        Columns region, space, voxels, unique_r2, low, high.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import MeanResponses, unique_table, unique_variance
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(50))
    >>> rng = np.random.default_rng(0)
    >>> spaces = {"z": rng.standard_normal((50, 4)), "c": rng.standard_normal((50, 4))}
    >>> brain = ca.BrainDataset.from_arrays(spaces["z"], seen.ids, seen, test=10)
    >>> responses = MeanResponses.from_dataset(brain)
    >>> variance = unique_variance(responses, spaces, seen.ids)
    >>> table = unique_table(responses, variance, {"V1": np.array([True, True, False, False])})
    >>> table[["region", "space", "voxels"]].values.tolist()
    [['V1', 'z', 2], ['V1', 'c', 2]]
    >>> bool(table.unique_r2[0] > 0.5 > table.unique_r2[1])
    True
    """
    weights = _resamples(len(responses.test), n_boot, level, seed)
    rows = []
    for region, columns in _filled(rois):
        full = _over_voxels(_r2, weights, variance.predicted, responses.test, columns)
        for space, values in variance.unique.items():
            without = variance.predicted_without[space]
            drawn = full - _over_voxels(_r2, weights, without, responses.test, columns)
            mean = float(values[columns].mean())
            rows.append((region, space, len(columns), mean, *_interval(drawn, level)))
    return pd.DataFrame(rows, columns=["region", "space", "voxels", "unique_r2", "low", "high"])


def _filled(rois: Mapping[str, NDArray[np.bool_]]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Iterate over the regions that have voxels, and their voxels."""
    for region, mask in rois.items():
        if mask.any():
            yield region, np.flatnonzero(mask)


def _interval(drawn: FloatArray, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resamples(n: int, n_boot: int, level: float, seed: int) -> NDArray[np.float32]:
    """Return the share of each stimulus in each resample."""
    if not 0 < level < 1 or n_boot < 1:
        raise SettingError("The bootstrap needs a level between 0 and 1 and one resample.")
    rng = np.random.default_rng(seed)
    return (rng.multinomial(n, np.full(n, 1.0 / n), size=n_boot) / n).astype(np.float32)


def _over_voxels(
    score: Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], Any],
    weights: NDArray[np.float32],
    predicted: NDArray[np.float32],
    target: NDArray[np.float32],
    columns: NDArray[np.int64],
) -> FloatArray:
    """Average a score of weighted test stimuli over voxels, for each resample."""
    total = np.zeros(len(weights))
    for start in range(0, len(columns), _VOXELS_AT_A_TIME):
        part = columns[start : start + _VOXELS_AT_A_TIME]
        total += score(weights, predicted[:, part], target[:, part]).sum(1, dtype=np.float64)
    return total / len(columns)


def _r2(
    weights: NDArray[np.float32], predicted: NDArray[np.float32], target: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the r2 of each voxel in each resample."""
    about = target - target.mean(0)
    spread = weights @ about**2 - (weights @ about) ** 2
    error = weights @ (target - predicted) ** 2
    share = np.divide(error, spread, out=np.ones_like(error), where=spread > 1e-12)
    return np.asarray(1.0 - share)


def _correlation(
    weights: NDArray[np.float32], predicted: NDArray[np.float32], target: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the Pearson correlation of each voxel in each resample, from weighted moments."""
    # Centred first, so that float32 moments do not cancel.
    a, b = predicted - predicted.mean(0), target - target.mean(0)
    mean_a, mean_b = weights @ a, weights @ b
    both = weights @ (a * b) - mean_a * mean_b
    square = (weights @ a**2 - mean_a**2) * (weights @ b**2 - mean_b**2)
    length = np.sqrt(np.maximum(square, 0.0))
    r = np.divide(both, length, out=np.zeros_like(both), where=length > 1e-12)
    return np.asarray(r)
