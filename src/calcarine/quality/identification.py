"""Identifying stimuli by the patterns that they evoke when they are repeated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.split import Split
from calcarine.quality.repeats import Repeats, trial_blocks, trials_of

__all__ = ["RepeatIdentification", "identify_repeats", "two_way_accuracy"]

FloatArray = NDArray[np.float64]

_DRAWS = 5
_FEWEST_VOXELS = 3
_FEWEST_STIMULI = 5
"""Fewer have too few pairs to estimate the effect of a session."""
_MOST_STIMULI = 400
"""More make the interval no narrower than a reader needs and every pair is compared."""


@dataclass(frozen=True, eq=False)
class RepeatIdentification:
    """Two-way identification of stimuli between two halves of their repeats.

    Attributes
    ----------
    half : int
        Repeats in each half.
    per_stimulus : float array
        Accuracy of each stimulus, shape (stimulus,), chance .5.
    pattern_r : float
        Mean correlation, over voxels, of a stimulus's own two patterns, less
        that of two stimuli's.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.quality import identify_repeats
    >>> rng = np.random.default_rng(0)
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> trials = np.tile(rng.standard_normal((40, 20)), (2, 1)) + 3 * rng.standard_normal((80, 20))
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids * 2, seen, test=10)
    >>> result = identify_repeats(brain, brain.split())
    >>> result.with_repeats(4) > result.accuracy > 0.5  # more repeats, less noise
    True
    """

    half: int
    per_stimulus: FloatArray
    pattern_r: float

    @property
    def accuracy(self) -> float:
        """Mean over stimuli."""
        return float(self.per_stimulus.mean())

    def interval(
        self, n_boot: int = 2000, level: float = 0.95, seed: int = 0
    ) -> tuple[float, float]:
        """Percentile bootstrap interval of the accuracy over stimuli."""
        rng = np.random.default_rng(seed)
        count = len(self.per_stimulus)
        weights = rng.multinomial(count, np.full(count, 1.0 / count), size=n_boot)
        low, high = np.quantile(
            weights @ self.per_stimulus / count, [(1 - level) / 2, (1 + level) / 2]
        )
        return float(low), float(high)

    def with_repeats(self, repeats: int) -> float:
        """Return the expected accuracy if each half had this many repeats.

        The normal quantile of the accuracy grows as the correlation of the
        patterns does, and that by the formula of Spearman and Brown.  This is
        an extrapolation: what other stimuli's patterns have in common is
        taken to stay as it is.
        """
        r = min(max(self.pattern_r, 0.0), 1.0)
        factor = repeats / self.half
        grown = factor * r / (1.0 + (factor - 1.0) * r)
        if r == 0:
            return self.accuracy
        # An accuracy of exactly 1 says only that all comparisons so far were right.
        edge = 0.5 / max(1, len(self.per_stimulus) * (len(self.per_stimulus) - 1))
        held = min(max(self.accuracy, edge), 1.0 - edge)
        return float(ndtr(ndtri(held) * grown / r))


def two_way_accuracy(scores: FloatArray) -> FloatArray:
    """Return the share of other stimuli that the correct one beats, in both directions.

    Parameters
    ----------
    scores : float array
        Shape (stimulus, stimulus): similarity of pattern A of the row and
        pattern B of the column.

    Returns
    -------
    float array of shape (stimulus,)
        Ties count half.
    """
    own = np.diagonal(scores)
    beaten = np.zeros(len(own))
    for right, other in ((own[:, None], scores), (own[:, None], scores.T)):
        beaten += (other < right).sum(1) + 0.5 * ((other == right).sum(1) - 1)
    return np.asarray(beaten / (2 * (len(own) - 1)), dtype=np.float64)


def identify_repeats(
    dataset: BrainDataset,
    split: Split,
    roi: str = "all",
    on: str = "train",
    seed: int = 0,
    megabytes: int = 256,
) -> RepeatIdentification | None:
    """Identify stimuli between the means over two halves of their repeats.

    Parameters
    ----------
    dataset, split, roi
        Side of the split with the patterns.
    on : str
        ``"train"`` or ``"test"``.
    seed : int
        Seed of the choice of at most 400 stimuli and of the five random halves.
    megabytes : int
        Memory for trials.

    Returns
    -------
    RepeatIdentification or None
        None if fewer than two stimuli have repeats or the region has fewer
        than three voxels, over which patterns cannot be correlated.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.quality import identify_repeats
    >>> rng = np.random.default_rng(0)
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(40))
    >>> trials = np.tile(rng.standard_normal((40, 20)), (2, 1)) + rng.standard_normal((80, 20))
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids * 2, seen, test=10)
    >>> result = identify_repeats(brain, brain.split())
    >>> result.half, result.accuracy > 0.9
    (1, True)
    """
    rng = np.random.default_rng(seed)
    rows = trials_of(dataset, split, on)
    shown = dataset.trial_stimuli
    repeats = Repeats.of([shown[row] for row in rows])
    columns = np.flatnonzero(dataset.roi_mask(roi))
    if len(repeats) < 2 or len(columns) < _FEWEST_VOXELS:
        return None
    half = max(1, repeats.equal_size() // 2)
    keep = repeats.draw(2 * half)[1]
    stimuli = rng.permutation(int(keep.sum()))[:_MOST_STIMULI]
    picks = [repeats.draw(2 * half, rng)[0][:, stimuli] for _ in range(_DRAWS)]
    sums = [_Correlation(len(stimuli)) for _ in range(_DRAWS)]
    used, places = np.unique(np.stack(picks), return_inverse=True)
    places = places.reshape(_DRAWS, 2 * half, len(stimuli))
    needed = rows[repeats.rows[used]]
    for _, block in trial_blocks(dataset, split, needed, columns, megabytes):
        for total, place in zip(sums, places, strict=True):
            total.add(block[place[:half]].mean(0), block[place[half:]].mean(0))
    sessions = dataset.sessions[needed]
    scores = [
        without_sessions(total.result(), _together(sessions[place[:half]], sessions[place[half:]]))
        for total, place in zip(sums, places, strict=True)
    ]
    accuracy = np.mean([two_way_accuracy(each) for each in scores], axis=0)
    own = [np.diagonal(each).mean() for each in scores]
    pairs = len(stimuli) * (len(stimuli) - 1)
    others = [(each.sum() - np.trace(each)) / pairs for each in scores]
    return RepeatIdentification(half, accuracy, float(np.mean(own) - np.mean(others)))


def without_sessions(scores: FloatArray, together: FloatArray) -> FloatArray:
    """Remove from all scores the similarity that comes from being in one session.

    Sessions that are centred on their trials make these unlike each other: a
    stimulus that is repeated in other sessions would then be identified among the
    rest without any signal.  The size of the effect is estimated by a line through the scores
    of different stimuli.

    Parameters
    ----------
    scores : float array
        See `two_way_accuracy`.
    together : float array
        Share of the pairs of trials of two patterns that are of one session,
        of the same shape.
    """
    others = ~np.eye(len(scores), dtype=np.bool_)
    off = together[others] - together[others].mean()
    spread = float(off @ off)
    if len(scores) < _FEWEST_STIMULI or spread < 1e-9:
        return scores
    return np.asarray(scores - (off @ scores[others]) / spread * together)


def _together(first: NDArray[np.int64], second: NDArray[np.int64]) -> FloatArray:
    """Return the share of pairs in one session; sessions have shape (half trial, stimulus)."""
    total = np.zeros((first.shape[1], second.shape[1]))
    for a in first:
        for b in second:
            total += a[:, None] == b
    return total / (len(first) * len(second))


class _Correlation:
    """Correlations over voxels of all pairs of patterns, voxels added some at a time."""

    def __init__(self, stimuli: int) -> None:
        self._dot = np.zeros((stimuli, stimuli))
        self._sums, self._squares = np.zeros((2, 2, stimuli))
        self._voxels = 0

    def add(self, a: FloatArray, b: FloatArray) -> None:
        # What all stimuli evoke alike identifies none of them.
        a, b = a - a.mean(0), b - b.mean(0)
        self._dot += a @ b.T
        for side, part in enumerate((a, b)):
            self._sums[side] += part.sum(1)
            self._squares[side] += (part**2).sum(1)
        self._voxels += a.shape[1]

    def result(self) -> FloatArray:
        mean = self._sums / self._voxels
        spread = np.sqrt(np.maximum(self._squares / self._voxels - mean**2, 0.0))
        shared = self._dot / self._voxels - np.outer(mean[0], mean[1])
        below = np.outer(spread[0], spread[1])
        return np.divide(shared, below, out=np.zeros_like(shared), where=below > 1e-12)
