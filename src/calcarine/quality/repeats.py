"""Trials that show the same stimulus, and reading them in blocks of voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.split import Split
from calcarine.errors import SettingError

__all__ = ["Repeats", "trial_blocks", "trials_of"]

_MEGABYTES = 256
_COPIES = 3
"""A block, its scaled copy and what an estimator makes of it are in memory together."""


@dataclass(frozen=True, eq=False)
class Repeats:
    """Trials of the stimuli that were shown more than once.

    Attributes
    ----------
    rows : int array
        int, shape (trial,): positions of these trials among all that were
        given, stimulus by stimulus and in order of presentation.
    starts : int array
        int, shape (stimulus,): where each stimulus begins in `rows`.
    counts : int array
        int, shape (stimulus,): repeats of each, all above 1.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, stimulus_ids: Sequence[str]) -> Repeats:
        """Group trials by their stimulus."""
        names = np.asarray(stimulus_ids, dtype=str)
        _, owner, times = np.unique(names, return_inverse=True, return_counts=True)
        order = np.argsort(owner, kind="stable")
        rows = order[(times > 1)[owner[order]]].astype(np.int64)
        counts = times[times > 1].astype(np.int64)
        return cls(rows, np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64), counts)

    def __len__(self) -> int:
        return len(self.counts)

    def table(self) -> dict[int, int]:
        """Return how many stimuli were shown how often."""
        times, stimuli = np.unique(self.counts, return_counts=True)
        return {int(t): int(n) for t, n in zip(times, stimuli, strict=True)}

    def equal_size(self) -> int:
        """Return the number of repeats (2 or more) that keeps most trials."""
        sizes = np.unique(self.counts)
        kept = [(int(size) * int((self.counts >= size).sum()), int(size)) for size in sizes]
        kept.append((2 * len(self), 2))
        return max(kept)[1]

    def draw(
        self, size: int, rng: np.random.Generator | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Draw equally many trials of every stimulus that has them.

        Parameters
        ----------
        size : int
            Trials a stimulus.
        rng : Generator, optional
            Draws which ones in which order; the first ones in order of
            presentation if left out.

        Returns
        -------
        picked
            int, shape (size, kept stimuli): places in `rows`.
        keep
            bool, shape (stimulus,): those with at least ``size`` repeats.
        """
        keep = self.counts >= size
        places = np.arange(len(self.rows))
        if rng is not None:
            owner = np.repeat(np.arange(len(self)), self.counts)
            places = np.lexsort((rng.random(len(self.rows)), owner))
        return places[self.starts[keep] + np.arange(size)[:, None]], keep


def trials_of(dataset: BrainDataset, split: Split, on: str) -> NDArray[np.int64]:
    """Return the trials of the training or test stimuli, in order of presentation.

    Raises
    ------
    CalcarineError
        If ``on`` is neither ``"train"`` nor ``"test"``.
    """
    if on not in ("train", "test"):
        raise SettingError(f"Reliability is computed on train or on test, not on {on}.")
    return dataset.trials_of(split.train if on == "train" else split.test)


def trial_blocks(
    dataset: BrainDataset,
    split: Split,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    megabytes: int = _MEGABYTES,
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield single trials of blocks of voxels, scaled for a split.

    Parameters
    ----------
    dataset, split
        See `BrainDataset.read_trials`.
    rows, columns : int array
        Trials and voxels to read.
    megabytes : int
        Memory to stay within.

    Yields
    ------
    part, values
        Slice of ``columns`` and float64 array of shape (rows, part).

    Raises
    ------
    CalcarineError
        If a voxel holds NaN or infinity.
    """
    read = dataset.n_trials if dataset.rescales(split) else len(rows)
    step = max(1, megabytes * 2**20 // (8 * _COPIES * max(1, read)))
    for start in range(0, len(columns), step):
        part = slice(start, min(len(columns), start + step))
        yield part, dataset.read_trials(rows, columns[part], split).astype(np.float64)
