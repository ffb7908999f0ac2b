"""The stimuli that a split is made of, in an order that does not depend on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.split import Split
from calcarine.errors import SettingError
from calcarine.splits.feature_distances import FloatArray, to_euclidean

__all__ = [
    "SplitWithPartners",
    "StimulusPool",
    "pool_of",
    "shown_stimuli",
    "size_of_test",
    "with_partners",
]

TestSize = int | float
"""A number of stimuli, or a share of them between 0 and 1."""


@dataclass(frozen=True)
class SplitWithPartners:
    """A split with random partners of the same sizes.

    Attributes
    ----------
    split : Split
        By the rule.
    partners : tuple of Split
        Random splits of the same stimuli with as many in training and test.
    dropped : tuple of str
        Stimuli that are in neither side of the split.

    Examples
    --------
    >>> from calcarine.splits import random_split
    >>> made = random_split([f"img{i}" for i in range(20)], test_size=5, n_partners=2)
    >>> [len(split.test) for split in made.all]
    [5, 5, 5]
    """

    split: Split
    partners: tuple[Split, ...]
    dropped: tuple[str, ...]

    @property
    def all(self) -> tuple[Split, ...]:
        """The split, then its partners."""
        return (self.split, *self.partners)


@dataclass(frozen=True, eq=False)
class StimulusPool:
    """Stimuli sorted by id with their features.

    Attributes
    ----------
    ids : tuple of str
        Sorted.
    order : int array
        Row of each of them among the given ids.
    features : float array, optional
        From `to_euclidean`, shape (n, d), or None.
    """

    ids: tuple[str, ...]
    order: NDArray[np.int64]
    features: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def named(self, rows: NDArray[np.generic]) -> tuple[str, ...]:
        """Return the ids where a boolean array is true, or at the rows of an integer array."""
        places = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.sort(rows)
        return tuple(self.ids[int(place)] for place in places)


def shown_stimuli(dataset: BrainDataset) -> tuple[str, ...]:
    """Return the ids of the stimuli that a subject saw, sorted."""
    return tuple(sorted(set(dataset.trial_stimuli)))


def pool_of(
    ids: Sequence[str], features: ArrayLike | None = None, metric: str = "correlation"
) -> StimulusPool:
    """Sort ids and their features.

    Raises
    ------
    CalcarineError
        If there are fewer than two, one is there twice, or features do not fit.
    """
    names = [str(key) for key in ids]
    if len(set(names)) != len(names) or len(names) < 2:
        raise SettingError(
            f"A split needs two or more different stimuli, not {len(set(names))} in a list of "
            f"{len(names)}; list each once."
        )
    order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    values = None if features is None else to_euclidean(features, len(names), metric)[order]
    return StimulusPool(tuple(names[row] for row in order), order, values)


def size_of_test(size: TestSize, total: int) -> int:
    """Return the number of test stimuli; at least one stimulus is left for training.

    Raises
    ------
    CalcarineError
        If it is below 1 or leaves none.
    """
    share = isinstance(size, float) and 0 < size < 1
    whole = isinstance(size, int) or float(size).is_integer()
    count = max(1, round(size * total)) if share else int(size)
    if not (share or whole) or not 0 < count < total:
        raise SettingError(
            f"A test size of {size} does not fit {total} stimuli; give a number from 1 to "
            f"{total - 1} or a share between 0 and 1."
        )
    return count


def with_partners(
    pool: StimulusPool,
    name: str,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    rule: str,
    seed: int,
    n_partners: int,
) -> SplitWithPartners:
    """Make the split and random partners of its sizes.

    Parameters
    ----------
    pool : StimulusPool
        The stimuli.
    name : str
        Of the split; partners are called after it.
    train, test : bool array
        bool, shape (stimulus,).
    rule : str
        The rule, in words.
    seed, n_partners : int
        Partner i draws with the numbers ``(seed, i)``.

    Raises
    ------
    CalcarineError
        If a side is empty or there are fewer than 0 partners.
    """
    if n_partners < 0 or seed < 0:
        raise SettingError(f"Partners ({n_partners}) and seed ({seed}) cannot be below 0.")
    if not train.any() or not test.any():
        side = "test" if train.any() else "training"
        raise SettingError(f"By the rule '{rule}' no {side} stimulus is left; loosen the rule.")
    sizes = int(train.sum()), int(test.sum())
    dropped = pool.named(~train & ~test)
    said = f"{rule}; of {len(pool)} stimuli {len(dropped)} are in neither side"
    split = Split(name, pool.named(train), pool.named(test), said, seed)
    partners = []
    for number in range(1, n_partners + 1):
        order = np.random.default_rng([seed, number]).permutation(len(pool))
        partners.append(
            Split(
                f"{name}-partner-{number}",
                pool.named(order[sizes[1] : sum(sizes)]),
                pool.named(order[: sizes[1]]),
                f"random, {sizes[1]} test and {sizes[0]} training of {len(pool)} stimuli, as many "
                f"as split {name} has (partner {number}, its sha256 {split.digest()[:12]})",
                seed,
            )
        )
    return SplitWithPartners(split, tuple(partners), dropped)
