"""Test pictures that also occur, exactly or nearly, in training, also of other subjects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from calcarine.brain.split import Split
from calcarine.errors import SettingError
from calcarine.splits.feature_distances import FloatArray, nearest, to_euclidean
from calcarine.splits.picture_hashes import BITS, hash_stimuli, nearest_hashes
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = [
    "ALIKE",
    "HASH_LIMIT",
    "DuplicateReport",
    "Features",
    "find_duplicates",
    "nearest_training",
]

HASH_LIMIT = 18
"""Two pictures are compared further if at most this many of their 128 hash bits differ."""

ALIKE = 0.94
"""Pictures with similar hashes match if their small colour copies correlate at least this much.

Simple pictures, such as digits on black, have similar hashes without being the same.
"""

Features = Callable[[StimulusSet, tuple[str, ...]], ArrayLike]
"""Gives features of some stimuli, shape (n, ...)."""

_CANDIDATES = 5
_SMALL = 16


@dataclass(frozen=True, eq=False)
class DuplicateReport:
    """How similar test and training stimuli are.

    Attributes
    ----------
    table : DataFrame
        One row a test stimulus: ``stimulus``; ``nearest`` (training stimulus
        nearest in features), ``nearest_subject``, ``distance``;
        ``hash_nearest`` (training stimulus of the likeliest same picture),
        ``hash_subject``, ``bits`` (of 128), ``alike`` (correlation of small
        pictures, NaN where hashes are too far apart to ask); ``also_in``
        (other subjects that train on this very stimulus); ``flag`` (``"same
        stimulus"``, ``"same picture"``, ``"near"`` or empty).
    summary : str
        In one sentence.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.splits import find_duplicates
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(4)).images()
    >>> pictures[3] = pictures[0]  # the same picture under another id
    >>> stimuli = ca.StimulusSet.from_arrays(pictures, ["a", "b", "c", "d"])
    >>> report = find_duplicates(ca.Split("mine", ("a", "b"), ("c", "d"), rule="by hand"), stimuli)
    >>> report.n_duplicates
    1
    >>> report.summary
    '1 of 2 test stimuli of split mine are in the training of own: 1 as the same picture.'
    """

    table: pd.DataFrame
    summary: str

    @property
    def n_duplicates(self) -> int:
        """Number of test stimuli with any flag."""
        return int((self.table["flag"] != "").sum())

    def worst(self, count: int = 10) -> pd.DataFrame:
        """Return flagged stimuli first, then those nearest to training."""
        flags = {"same stimulus": 0, "same picture": 1, "near": 2, "": 3}
        order = pd.DataFrame(
            {
                "flag": self.table["flag"].map(flags),
                "distance": self.table["distance"],
                "bits": self.table["bits"],
            }
        ).sort_values(["flag", "distance", "bits"], kind="stable")
        return self.table.loc[order.index[:count]]


def nearest_training(
    split: Split, ids: Sequence[str], features: ArrayLike, metric: str = "correlation"
) -> NDArray[np.float64]:
    """Return the distance of each test stimulus to the nearest training stimulus.

    Parameters
    ----------
    split : Split
        Its stimuli are all among ``ids``.
    ids : sequence of str
        Stimulus of each row of the features.
    features : array
        Shape (n, ...).
    metric : str
        ``"correlation"``, ``"cosine"`` or ``"euclidean"``.

    Returns
    -------
    float array of shape (test stimulus,)
    """
    place = {key: row for row, key in enumerate(ids)}
    values = to_euclidean(features, len(place), metric)
    missing = [key for key in (*split.train, *split.test) if key not in place]
    if missing:
        raise SettingError(f"There are no features of stimulus {missing[0]}; add its row.")
    rows = [[place[key] for key in side] for side in (split.test, split.train)]
    return nearest(values[rows[0]], values[rows[1]], metric)[0][:, 0]


def find_duplicates(
    split: Split,
    stimuli: StimulusSet,
    features: Features | ArrayLike | None = None,
    others: Mapping[str, tuple[StimulusSet, Sequence[str]]] | None = None,
    metric: str = "correlation",
    near: float | None = None,
    hash_limit: int = HASH_LIMIT,
    flips: bool = False,
    subject: str = "own",
) -> DuplicateReport:
    """Find test stimuli that occur, exactly or nearly, in training.

    Parameters
    ----------
    split : Split
        Of the subject with the test stimuli.
    stimuli : StimulusSet
        Its pictures.
    features : Features or array, optional
        Function of a `StimulusSet` and ids, or an array with rows as
        ``stimuli.ids``; an array gives distances to the subject's own
        training stimuli only.
    others : mapping of str to (StimulusSet, sequence of str), optional
        Other subjects' pictures and training ids, for models that are
        trained on several subjects.
    metric : str
        Distance of features.
    near : float, optional
        Flag test stimuli at most this far from training; none if left out.
    hash_limit : int
        Flag pictures if their hashes differ in at most so many of 128 bits and
        their small copies correlate at .94 or more.
    flips : bool
        Compare mirror images as well.
    subject : str
        Name of this subject in the table.

    Returns
    -------
    DuplicateReport

    Raises
    ------
    CalcarineError
        If stimuli or features are missing or a limit is out of range.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.splits import find_duplicates
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(4)).images()
    >>> pictures[3] = pictures[0]  # the same picture under another id
    >>> stimuli = ca.StimulusSet.from_arrays(pictures, ["a", "b", "c", "d"])
    >>> split = ca.Split("mine", ("a", "b"), ("c", "d"), rule="by hand")
    >>> worst = find_duplicates(split, stimuli).worst(1)
    >>> worst[["stimulus", "hash_nearest", "flag"]].values.tolist()
    [['d', 'a', 'same picture']]
    """
    if not 0 <= hash_limit <= BITS:
        raise SettingError(f"hash_limit is a number of bits from 0 to {BITS}, not {hash_limit}.")
    sides = {subject: (stimuli, tuple(split.train))}
    for name, (pictures, ids) in (others or {}).items():
        if name in sides:
            raise SettingError(f"Subject {name} is there twice; name each subject once.")
        sides[name] = (pictures, tuple(ids))
    table = pd.DataFrame({"stimulus": list(split.test)})
    _add_distances(table, split, stimuli, features, sides, metric)
    _add_hashes(table, split, stimuli, sides, hash_limit, flips)
    owners = {name: frozenset(ids) for name, (_, ids) in sides.items()}
    also = [
        "+".join(name for name, ids in owners.items() if name != subject and key in ids)
        for key in split.test
    ]
    table["also_in"] = also
    is_near = np.zeros(len(table), bool) if near is None else table["distance"] <= near
    table["flag"] = np.select(
        [table["also_in"] != "", table["alike"] >= ALIKE, is_near],
        ["same stimulus", "same picture", "near"],
        "",
    )
    return DuplicateReport(table, _summary(table, split, list(sides), features is not None, near))


def _add_distances(
    table: pd.DataFrame,
    split: Split,
    stimuli: StimulusSet,
    features: Features | ArrayLike | None,
    sides: Mapping[str, tuple[StimulusSet, tuple[str, ...]]],
    metric: str,
) -> None:
    count = len(table)
    best, name, owner = np.full(count, np.nan), [""] * count, [""] * count
    if callable(features):
        test = to_euclidean(features(stimuli, split.test), count, metric)
    elif features is not None:
        values = to_euclidean(features, len(stimuli), metric)
        test = values[stimuli.rows(split.test)]
    for who, (pictures, ids) in sides.items():
        if callable(features):
            base: FloatArray = to_euclidean(features(pictures, ids), len(ids), metric)
        elif features is not None and pictures is stimuli and who == next(iter(sides)):
            base = values[stimuli.rows(ids)]
        else:
            continue
        result, place = nearest(test, base, metric)
        for row in np.flatnonzero(~(result[:, 0] >= best)):
            best[row], name[row], owner[row] = result[row, 0], ids[place[row, 0]], who
    table["nearest"], table["nearest_subject"], table["distance"] = name, owner, best


def _add_hashes(
    table: pd.DataFrame,
    split: Split,
    stimuli: StimulusSet,
    sides: Mapping[str, tuple[StimulusSet, tuple[str, ...]]],
    limit: int,
    flips: bool,
) -> None:
    pool = [(who, key) for who, (_, ids) in sides.items() for key in ids]
    base = np.concatenate([hash_stimuli(pictures, ids) for pictures, ids in sides.values()])
    best = [(-1.0, BITS + 1, 0)] * len(table)
    for flipped in (False, True) if flips else (False,):
        bits, rows = nearest_hashes(hash_stimuli(stimuli, split.test, flipped), base, _CANDIDATES)
        for place, key in enumerate(split.test):
            results = [
                (-1.0, int(b), int(r)) for b, r in zip(bits[place], rows[place], strict=True)
            ]
            near = [(bit, row) for _, bit, row in results if bit <= limit]
            if near:
                own = _small(stimuli.image(key), flipped)
                others = [_small(sides[pool[row][0]][0].image(pool[row][1])) for _, row in near]
                # The nearest come first, so those within the limit are the first ones.
                results[: len(near)] = [
                    (_alike(own, other), *each) for other, each in zip(others, near, strict=True)
                ]
            best[place] = min([best[place], *results], key=lambda each: (-each[0], each[1]))
    table["hash_nearest"] = [pool[row][1] for _, _, row in best]
    table["hash_subject"] = [pool[row][0] for _, _, row in best]
    table["bits"] = [bits for _, bits, _ in best]
    table["alike"] = [alike if bits <= limit else np.nan for alike, bits, _ in best]


def _small(image: NDArray[np.uint8], flipped: bool = False) -> NDArray[np.float64]:
    picture = Image.fromarray(np.ascontiguousarray(image[:, ::-1] if flipped else image))
    small = np.asarray(picture.resize((_SMALL, _SMALL), Image.Resampling.BOX), np.float64)
    return np.asarray(small.ravel() - small.mean())


def _alike(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    below = float(np.linalg.norm(a) * np.linalg.norm(b))
    # Two pictures of one even tone are the same picture but for its light.
    return float(a @ b) / below if below > 0 else float(not a.any() and not b.any())


def _summary(
    table: pd.DataFrame, split: Split, sides: list[str], measured: bool, near: float | None
) -> str:
    flags = table["flag"].value_counts()
    parts = [
        f"{int(flags[flag])} {text}"
        for flag, text in (
            ("same stimulus", "by their id in another subject's training"),
            ("same picture", "as the same picture"),
            ("near", f"at most {near} away in features"),
        )
        if flag in flags.index
    ]
    who = f"{sides[0]}{' and of ' + ', '.join(sides[1:]) if len(sides) > 1 else ''}"
    result = (
        f"{int((table['flag'] != '').sum())} of {len(table)} test stimuli of split {split.name}"
    )
    text = f"{result} are in the training of {who}" + (f": {', '.join(parts)}" if parts else "")
    if measured:
        text += (
            f"; distance to the nearest training stimulus: median {table['distance'].median():.3g},"
            f" smallest {table['distance'].min():.3g}"
        )
    return text + "."
