"""Reliability of voxels from repeats, with three estimators of the same quantity.

Each gives the percent of the variance of means over repeats that the stimulus explains, and so
the largest share that a perfect model could explain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.split import Split
from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.quality.repeats import Repeats, trial_blocks, trials_of
from calcarine.quality.signal_estimators import MEASURES, ceiling_of_averages

__all__ = [
    "Reliability",
    "ceiling_from_ncsnr",
    "estimate_reliability",
    "explainable_variance",
    "ncsnr",
    "noise_ceiling",
    "split_half",
]

FloatArray = NDArray[np.float64]
Averaged = int | Mapping[int, int]
"""Repeats that are averaged: one number, or how many stimuli have how many."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Reliability of some voxels.

    Attributes
    ----------
    measure : str
        ``"noise-ceiling"``, ``"split-half"`` or ``"explainable-variance"``.
    values : float array
        Percent, shape (voxel,).
    columns : int array
        Their numbers in the data set.
    on : str
        ``"train"`` or ``"test"``: which repeats were used.
    repeats : dict of int to int
        How many stimuli were shown how often, of those shown more than once.
    averaged : float
        Over how many repeats the means are that the percent is about; the
        harmonic mean where stimuli differ.
    resamples : float32 array
        Percent for bootstrap resamples of the stimuli, float32 of shape
        (resample, voxel).

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.quality import estimate_reliability
    >>> rng = np.random.default_rng(0)
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> trials = rng.standard_normal((120, 20))  # noise alone
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids * 3, seen, test=10)
    >>> reliability = estimate_reliability(brain, measure="split-half")
    >>> reliability.values.shape, reliability.repeats
    ((20,), {3: 30})
    >>> median, low, high = reliability.median()
    >>> low <= median <= high
    True
    """

    measure: str
    values: FloatArray
    columns: NDArray[np.int64]
    on: str
    repeats: dict[int, int]
    averaged: float
    resamples: NDArray[np.float32]

    def median(
        self, mask: NDArray[np.bool_] | None = None, level: float = 0.95
    ) -> tuple[float, float, float]:
        """Return the median over voxels and its interval over stimuli.

        Parameters
        ----------
        mask : bool array, optional
            Voxels of the data set, such as a region; by default all.
        level : float
            Coverage of the bootstrap interval: percentiles of the resampled
            medians, moved so that their mean is the median itself.  The noise
            of voxels moves the median of skewed values towards their mean, so
            the interval of a region with few stimuli covers somewhat less
            (of 60 made subjects with 300 stimuli shown 3 x, 90 %).

        Returns
        -------
        median, low, high
            Percent; low and high are NaN if nothing was resampled.
        """
        inside = slice(None) if mask is None else np.flatnonzero(mask[self.columns])
        chosen = self.values[inside]
        if not len(chosen):
            raise CalcarineError("Reliability was computed for no voxel of this region.")
        middle = float(np.median(chosen))
        if not len(self.resamples):
            return middle, np.nan, np.nan
        medians = np.median(self.resamples[:, inside], axis=1)
        # Resampling adds to the noise of every voxel, which moves the median of skewed values.
        medians = np.clip(medians - medians.mean() + middle, 0.0, 100.0)
        low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
        return middle, float(low), float(high)


def estimate_reliability(
    dataset: BrainDataset,
    split: str | Split | None = None,
    roi: str = "all",
    measure: str = "noise-ceiling",
    on: str = "train",
    n_average: Averaged | None = None,
    n_boot: int = 200,
    seed: int = 0,
    megabytes: int = 256,
) -> Reliability:
    """Estimate the reliability of the voxels of a region, in blocks of voxels.

    Parameters
    ----------
    dataset : BrainDataset
        In memory or on disk.
    split, roi
        See `BrainDataset.split` and `BrainDataset.roi_mask`.
    measure : str
        ``"noise-ceiling"`` (analysis of variance; uses all repeats),
        ``"split-half"`` or ``"explainable-variance"``.
    on : str
        ``"train"``; ``"test"`` looks at test responses, so nothing that is
        chosen by it may be scored on them.
    n_average : Averaged, optional
        Repeats whose mean the percent is about; as many as the test stimuli
        of the split have, if left out.
    n_boot : int
        Resamples of the stimuli for `Reliability.median`; 0 for none. They
        need 4 bytes times voxels times resamples.
    seed : int
        Of resamples and draws.
    megabytes : int
        Memory for trials; it does not change the result.

    Returns
    -------
    Reliability

    Raises
    ------
    CalcarineError
        If fewer than two stimuli have repeats or a name is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.quality import estimate_reliability
    >>> rng = np.random.default_rng(0)
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> signal = np.tile(rng.standard_normal((40, 20)), (3, 1))
    >>> trials = signal + 0.5 * rng.standard_normal((120, 20))
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids * 3, seen, test=10)
    >>> estimate_reliability(brain).median()[0] > 80  # percent of variance
    True
    """
    chosen = dataset.split(split)
    columns = np.flatnonzero(dataset.roi_mask(roi))
    rows = trials_of(dataset, chosen, on)
    shown = dataset.trial_stimuli
    repeats = Repeats.of([shown[row] for row in rows])
    _check(measure, repeats, f"The {on} stimuli of split {chosen.name}")
    share = _share(_test_repeats(shown, chosen) if n_average is None else n_average)
    values = np.empty(len(columns))
    resamples = np.empty((n_boot, len(columns)), dtype=np.float32)
    weights = _weights(len(repeats), n_boot, seed)
    for part, block in trial_blocks(dataset, chosen, rows[repeats.rows], columns, megabytes):
        result = ceiling_of_averages(MEASURES[measure](block, repeats, weights, seed), share)
        values[part], resamples[:, part] = result[0], result[1:]
    return Reliability(measure, values, columns, on, repeats.table(), 1.0 / share, resamples)


def noise_ceiling(
    data: ArrayLike, stimulus_ids: Sequence[str], n_average: Averaged = 3
) -> FloatArray:
    """Estimate the largest share of variance that a perfect model could explain.

    Signal and noise variance are separated by a one-way analysis of variance,
    ``ncsnr^2 = signal / noise`` and ``ceiling = ncsnr^2 / (ncsnr^2 + 1 / n)``
    as in the Natural Scenes Dataset (Allen et al. 2022, Methods, "Noise
    ceiling estimation"), where 1 / n is its mean over stimuli if these have
    unequal numbers of repeats.

    Parameters
    ----------
    data : array
        Single trials, shape (trial, voxel).
    stimulus_ids : sequence of str
        Stimulus of each trial; stimuli shown once are left out.
    n_average : Averaged
        Number of repeats that are averaged before scoring, or how many
        stimuli have how many: ``{1: A, 2: B, 3: C}``.

    Returns
    -------
    float array of shape (voxel,)
        Percent of variance, 0 to 100.

    Raises
    ------
    CalcarineError
        If fewer than two stimuli have repeats.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.quality import noise_ceiling
    >>> rng = np.random.default_rng(0)
    >>> shown = [f"img{i}" for i in range(100)] * 3
    >>> signal = np.tile(rng.standard_normal((100, 2)), (3, 1))
    >>> trials = signal * [1, 0] + 0.5 * rng.standard_normal((300, 2))
    >>> (noise_ceiling(trials, shown) > 80).tolist()  # the second voxel has no signal
    [True, False]
    """
    return _measured("noise-ceiling", data, stimulus_ids, n_average, 0)


def split_half(
    data: ArrayLike, stimulus_ids: Sequence[str], n_average: Averaged = 3, seed: int = 0
) -> FloatArray:
    """Correlate random halves of the repeats, with the Spearman-Brown formula.

    Parameters
    ----------
    data, stimulus_ids, n_average
        See `noise_ceiling`.
    seed : int
        Seed of the ten random halves that are averaged.

    Returns
    -------
    float array of shape (voxel,)
        100 times the reliability of means over ``n_average`` repeats.
    """
    return _measured("split-half", data, stimulus_ids, n_average, seed)


def explainable_variance(
    data: ArrayLike, stimulus_ids: Sequence[str], n_average: Averaged = 1, seed: int = 0
) -> FloatArray:
    """Estimate the explainable variance with bias correction.

    Parameters
    ----------
    data, stimulus_ids, n_average
        See `noise_ceiling`; the published formula is that of one trial,
        ``n_average=1``.
    seed : int
        Seed of the draws where stimuli have unequal numbers of repeats (see
        `calcarine.quality.signal_estimators.explainable`).

    Returns
    -------
    float array of shape (voxel,)
        Percent of variance, 0 to 100.
    """
    return _measured("explainable-variance", data, stimulus_ids, n_average, seed)


def ncsnr(data: ArrayLike, stimulus_ids: Sequence[str]) -> FloatArray:
    """Estimate the noise-ceiling signal-to-noise ratio: signal SD by single-trial noise SD.

    Parameters
    ----------
    data, stimulus_ids
        See `noise_ceiling`.

    Returns
    -------
    float array of shape (voxel,)
        Infinite where trials of a stimulus do not differ at all.
    """
    single = noise_ceiling(data, stimulus_ids, 1) / 100.0
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(single / (1.0 - single)))


def ceiling_from_ncsnr(snr: ArrayLike, n_average: Averaged = 3) -> FloatArray:
    """Return the noise ceiling from a volume of ncsnr, as NSD provides it.

    Parameters
    ----------
    snr : array
        Any shape; NaN stays NaN.
    n_average : Averaged
        See `noise_ceiling`.

    Returns
    -------
    float array of the same shape
        ``100 ncsnr^2 / (ncsnr^2 + (A/1 + B/2 + C/3) / (A + B + C))``.

    Raises
    ------
    CalcarineError
        If a ratio is negative.
    """
    values = np.asarray(snr, dtype=np.float64)
    if (values < 0).any():
        raise SettingError(
            f"An ncsnr is at least 0, not {np.nanmin(values):g}; give the volume ncsnr itself."
        )
    with np.errstate(divide="ignore"):
        return np.asarray(100.0 / (1.0 + _share(n_average) / values**2))


def _measured(
    measure: str, data: ArrayLike, stimulus_ids: Sequence[str], n_average: Averaged, seed: int
) -> FloatArray:
    values = np.asarray(data, dtype=np.float64)
    repeats = Repeats.of(stimulus_ids)
    if values.ndim != 2 or len(values) != len(stimulus_ids):
        raise ShapeError(
            f"Trials of shape {values.shape} do not fit {len(stimulus_ids)} stimulus ids."
        )
    _check(measure, repeats, "These stimuli")
    weights = np.ones((1, len(repeats)))
    single = MEASURES[measure](values[repeats.rows], repeats, weights, seed)
    return np.asarray(ceiling_of_averages(single, _share(n_average))[0])


def _check(measure: str, repeats: Repeats, who: str) -> None:
    if measure not in MEASURES:
        raise SettingError(
            f"There is no measure {measure} of reliability; there are {', '.join(MEASURES)}."
        )
    if len(repeats) < 2:
        raise CalcarineError(
            f"{who} do not suffice for reliability: it needs two stimuli with repeats, "
            f"not {len(repeats)}."
        )


def _share(n_average: Averaged) -> float:
    """Return the mean over stimuli of 1 / repeats."""
    times = {n_average: 1} if isinstance(n_average, int) else dict(n_average)
    total = sum(times.values())
    if total < 1 or min(times) < 1 or min(times.values()) < 0:
        raise SettingError(
            f"A mean is over at least one repeat, so {n_average} cannot be averaged over."
        )
    return sum(stimuli / repeats for repeats, stimuli in times.items()) / total


def _test_repeats(shown: Sequence[str], split: Split) -> dict[int, int]:
    wanted = set(split.test)
    return dict(Counter(Counter(key for key in shown if key in wanted).values()))


def _weights(stimuli: int, n_boot: int, seed: int) -> FloatArray:
    """Yield ones for the estimate itself, then how often each stimulus is drawn."""
    rng = np.random.default_rng([seed, 1])
    drawn = rng.multinomial(stimuli, np.full(stimuli, 1.0 / stimuli), size=n_boot)
    return np.concatenate([np.ones((1, stimuli)), drawn.astype(np.float64)])
