"""Rows and random numbers of every step, as pure functions of the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calcarine.errors import CalcarineError

__all__ = ["StepBatches", "make_generator", "split_validation"]


@dataclass(frozen=True)
class StepBatches:
    """Rows of the batch of every step.

    Every epoch is a permutation of all rows, drawn from (seed, epoch). Batches are cut from the
    concatenated epochs, so they cross the end of an epoch and no row is dropped. A batch does not
    depend on earlier batches.

    Parameters
    ----------
    n : int
        Number of rows of the training data.
    batch_size : int
        Number of rows of one step; may exceed ``n``.
    seed : int
        Seed, 0 or more.

    Examples
    --------
    >>> from calcarine.training import StepBatches
    >>> batches = StepBatches(n=6, batch_size=4, seed=0)
    >>> epoch = [*batches.rows(0), *batches.rows(1)[:2]]  # every row once
    >>> sorted(int(row) for row in epoch)
    [0, 1, 2, 3, 4, 5]
    """

    n: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise CalcarineError("There are no training samples; give at least one.")

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step.

        Parameters
        ----------
        step : int
            From 0.

        Returns
        -------
        int64 array, shape (batch_size,)
            In 0..n-1.
        """
        place = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, position = np.divmod(place, self.n)
        rows = np.empty(self.batch_size, dtype=np.int64)
        for one in range(int(epoch[0]), int(epoch[-1]) + 1):
            inside = epoch == one
            rows[inside] = _permutation(self.n, self.seed, one)[position[inside]]
        return rows

    def chunk(self, step: int, index: int, n_chunks: int) -> torch.Tensor:
        """Return the rows of micro-batch ``index`` of ``n_chunks`` of a step.

        Returns
        -------
        int64 tensor, shape (batch_size / n_chunks,)
        """
        size = self.batch_size // n_chunks
        return torch.from_numpy(self.rows(step)[index * size : (index + 1) * size])


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(n)


def make_generator(*key: int) -> torch.Generator:
    """Make a generator from whole numbers such as (seed, step, micro-batch).

    It is on the CPU, so that the noise does not depend on the device of the network.

    Examples
    --------
    >>> import torch
    >>> from calcarine.training import make_generator
    >>> noise = torch.randn(3, generator=make_generator(2022, 7))  # seed and step
    >>> bool((noise == torch.randn(3, generator=make_generator(2022, 7))).all())
    True
    """
    state = np.random.SeedSequence(key).generate_state(2)
    return torch.Generator().manual_seed((int(state[0]) << 31) ^ int(state[1]))


def split_validation(
    ids: Sequence[Any] | NDArray[Any], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose validation stimuli among the training stimuli.

    Whole stimuli are drawn, so all repeats of a stimulus are on one side. The draw depends on the
    set of ids, ``share`` and ``seed`` only, not on the order or number of repeats.

    Parameters
    ----------
    ids : sequence, shape (n,)
        Stimulus of each training row; repeats share an id.
    share : float
        Share of the stimuli that validate, in [0, 1); at least one stimulus if above 0.
    seed : int
        Seed, 0 or more.

    Returns
    -------
    train, validation : int64 arrays
        Positions in ``ids``, ascending.

    Raises
    ------
    CalcarineError
        If ``share`` is out of range or no training stimulus would remain.

    Examples
    --------
    >>> from calcarine.training import split_validation
    >>> ids = ["a", "b", "c", "d"] * 3
    >>> train, validation = split_validation(ids, share=0.25, seed=0)
    >>> len(train), len({ids[row] for row in validation})  # all repeats of one stimulus
    (9, 1)
    """
    if not 0 <= share < 1:
        raise CalcarineError(f"The validation share is {share:g}; choose it from 0 up to below 1.")
    stimuli, inverse = np.unique(np.asarray(ids), return_inverse=True)
    wanted = 0 if share == 0 else max(1, round(share * len(stimuli)))
    if wanted >= len(stimuli):
        raise CalcarineError(
            f"A validation share of {share:g} leaves none of {len(stimuli)} training stimuli; "
            "lower it or give more stimuli."
        )
    drawn = np.zeros(len(stimuli), dtype=bool)
    drawn[np.random.default_rng([seed, len(stimuli)]).permutation(len(stimuli))[:wanted]] = True
    held_out = drawn[inverse.reshape(-1)]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
