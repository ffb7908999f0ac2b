"""Noise ceilings from repeats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import CalcarineError

__all__ = ["noise_ceiling"]


def noise_ceiling(
    data: ArrayLike, stimulus_ids: Sequence[str], n_average: int = 3
) -> NDArray[np.float64]:
    """Largest share of variance that a perfect model could explain.

    Signal and noise variance are separated by a one-way analysis of variance,
    ``ncsnr^2 = signal / noise`` and ``ceiling = ncsnr^2 / (ncsnr^2 + 1 / n)``
    as in the Natural Scenes Dataset (Allen et al. 2022, Methods, "Noise
    ceiling estimation").

    Parameters
    ----------
    data
        Single trials, shape (trial, voxel).
    stimulus_ids
        Stimulus of each trial; stimuli shown once are left out.
    n_average
        Number of repeats that are averaged before scoring.

    Returns
    -------
    float array of shape (voxel,)
        Percent of variance, 0 to 100.

    Raises
    ------
    CalcarineError
        If fewer than two stimuli have repeats.
    """
    values = np.asarray(data, dtype=np.float64)
    _, owner, counts = np.unique(np.asarray(stimulus_ids), return_inverse=True, return_counts=True)
    repeated = counts > 1
    if repeated.sum() < 2 or n_average < 1:
        raise CalcarineError(
            f"A noise ceiling needs two stimuli with repeats, not {int(repeated.sum())}, "
            "and an average over at least one."
        )
    keep = repeated[owner]
    rank = np.cumsum(repeated) - 1
    return 100.0 * _ceiling(values[keep], rank[owner[keep]], counts[repeated], n_average)


def _ceiling(
    values: NDArray[np.float64], owner: NDArray[np.intp], counts: NDArray[np.intp], n_average: int
) -> NDArray[np.float64]:
    groups, total = len(counts), len(values)
    means = np.zeros((groups, values.shape[1]))
    np.add.at(means, owner, values)
    means /= counts[:, None]
    within = ((values - means[owner]) ** 2).sum(0) / (total - groups)
    between = (counts[:, None] * (means - values.mean(0)) ** 2).sum(0) / (groups - 1)
    # Effective number of repeats where stimuli have unequal numbers.
    size = (total - (counts**2).sum() / total) / (groups - 1)
    signal = np.maximum(between - within, 0.0) / size
    floor = signal + within / n_average
    return np.asarray(np.divide(signal, floor, out=np.zeros_like(signal), where=floor > 0))
