"""Cross-validation folds over whole groups: repeats of a stimulus are never split."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._validation import (
    RidgeError,
    RidgeSettingError,
    RidgeShapeError,
    check_count,
    check_trained,
)

__all__ = ["grouped_folds"]

Rows = npt.NDArray[np.intp]
"""Row numbers, sorted."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and held-out rows of every fold.

    Iteration yields both for one fold after the other.

    Attributes
    ----------
    fold_of_row : ndarray of int, shape (n,), or None
        Fold that holds out each row, if each row is held out once and every fold trains on all
        other rows. What all folds share is computed once then.
    pairs : list of (train, held)
        Rows of each fold if `fold_of_row` is None.
    """

    fold_of_row: Rows | None
    pairs: list[tuple[Rows, Rows]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs) if self.fold_of_row is None else int(self.fold_of_row.max()) + 1

    def __iter__(self) -> Iterator[tuple[Rows, Rows]]:
        if self.fold_of_row is None:
            yield from self.pairs
            return
        for fold in range(len(self)):
            held = self.fold_of_row == fold
            yield np.flatnonzero(~held), np.flatnonzero(held)

    @property
    def fewest(self) -> int:
        """Number of rows of the smallest training set."""
        if self.fold_of_row is None:
            return min(len(train) for train, _ in self.pairs)
        return len(self.fold_of_row) - int(np.bincount(self.fold_of_row).max())

    @property
    def numbers(self) -> Rows:
        """All rows and their numbers as one array, for a digest."""
        if self.fold_of_row is not None:
            return self.fold_of_row
        return np.concatenate(
            [part for rows in self.pairs for part in ([len(r) for r in rows], *rows)]
        )

    def times_held(self, n_rows: int) -> Rows:
        """Return how often each row is held out, shape (n,)."""
        return np.bincount(np.concatenate([held for _, held in self]), minlength=n_rows)

    def check_weights(self, weights: npt.NDArray[np.float64] | None) -> None:
        """Raise when all training rows of a fold, or all held-out rows, have weight 0."""
        if weights is None:
            return
        if self.fold_of_row is not None:
            check_trained(weights, self.fold_of_row, "fold")
            return
        for fold, (train, _) in enumerate(self.pairs):
            if not weights[train].any():
                raise RidgeError(
                    f"sample_weight is zero for every row that fold {fold} of cv trains on; give "
                    "some of them a weight above zero."
                )
        if not any(weights[held].any() for _, held in self.pairs):
            raise RidgeError(
                "sample_weight is zero for every row that cv holds out; give some of them a "
                "weight above zero."
            )


def grouped_folds(
    groups: npt.ArrayLike | None, n_folds: int, *, n_rows: int | None = None
) -> npt.NDArray[np.intp]:
    """Assign every row to a fold, whole groups at a time.

    Groups are assigned from the largest to the smallest, each to the fold with the fewest trials so
    far. Groups of the same size are sorted by a hash of their id, so that ids that are sorted by
    category, or cycle through categories, spread over all folds. The folds depend on the ids and
    on how often each occurs, not on the order of the rows.

    Parameters
    ----------
    groups : array-like, shape (n,), or None
        Stimulus id of each trial, all numbers or all strings. None makes every row its own group.
    n_folds : int
        Number of folds, at least 2.
    n_rows : int, optional
        Number of trials that `groups` must label; needed when `groups` is None.

    Returns
    -------
    ndarray, shape (n,)
        Fold of each row, from 0 to ``n_folds - 1``.

    Raises
    ------
    RidgeError
        When there are fewer groups than folds, a group is missing (NaN), or `groups` does not
        hold one id per row.
    """
    n_folds = check_count(n_folds, 2, "n_folds")
    if groups is None:
        if n_rows is None:
            raise RidgeError("groups is missing; pass the stimulus id of each trial or n_rows.")
        labels: npt.NDArray[Any] = np.arange(n_rows)
    else:
        labels = check_labels(groups, n_rows)
    ids, inverse, counts = unique_labels(labels)
    if len(ids) < n_folds:
        kind = "row(s)" if groups is None else "group(s)"
        raise RidgeSettingError(
            f"There are only {len(ids)} {kind} for n_folds={n_folds}; "
            "choose fewer folds or give more data."
        )
    return _assign(ids, counts, n_folds)[inverse]


def _assign(
    ids: npt.NDArray[Any], counts: npt.NDArray[np.intp], n_folds: int
) -> npt.NDArray[np.intp]:
    """Return the fold of each id: largest groups first, each into the smallest fold."""
    hashes = [blake2b(str(i).encode("utf-8", "surrogatepass")).digest() for i in ids.tolist()]
    order = sorted(range(len(ids)), key=lambda i: (-int(counts[i]), hashes[i], i))
    loads = np.zeros(n_folds, dtype=np.intp)
    fold_of = np.empty(len(ids), dtype=np.intp)
    for index in order:
        fold = int(np.argmin(loads))
        fold_of[index] = fold
        loads[fold] += counts[index]
    return fold_of


def make_splits(
    cv: Any,
    n_folds: int,
    groups: npt.ArrayLike | None,
    n_rows: int,
    *,
    X: Any = None,
    y: Any = None,
) -> Splits:
    """Return training and held-out rows, from `grouped_folds` or a splitter of scikit-learn.

    Parameters
    ----------
    cv : "kfold", int, splitter or iterable of (train, test)
        "kfold" makes `n_folds` folds and an int that many folds, both by `grouped_folds`. A
        splitter of scikit-learn gets X, y and `groups`.
    n_folds : int
    groups : array-like, shape (n,), or None
        Stimulus id of each trial.
    n_rows : int
    X, y : array-like
        For splitters that need them; others only need the number of rows.

    Returns
    -------
    Splits
        Folds in the order of `cv`.

    Raises
    ------
    RidgeError
        When `cv` is none of these, a fold has no training or held-out rows, shares rows between
        both or splits a group over both, or names a row twice or one that does not exist.
    """
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        n_folds, cv = check_count(cv, 2, "cv"), "kfold"
    if isinstance(cv, str):
        return Splits(grouped_folds(groups, n_folds, n_rows=n_rows))
    pairs = [
        _row_numbers(split, fold, n_rows)
        for fold, split in enumerate(_given_splits(cv, groups, n_rows, X, y))
    ]
    if not pairs:
        raise RidgeSettingError("cv gives no fold; give at least one pair of (train, test) rows.")
    if groups is not None:
        _check_whole(pairs, check_labels(groups, n_rows))
    splits = Splits(None, pairs)
    once = bool((splits.times_held(n_rows) == 1).all())
    if not once or any(len(train) + len(held) != n_rows for train, held in pairs):
        return splits
    fold_of_row = np.empty(n_rows, np.intp)
    for fold, (_, held) in enumerate(pairs):
        fold_of_row[held] = fold
    return Splits(fold_of_row)


def is_splitter(cv: Any) -> bool:
    """Return whether `cv` has the interface of a splitter of scikit-learn."""
    return hasattr(cv, "split") and not isinstance(cv, str | bytes)


def _given_splits(cv: Any, groups: npt.ArrayLike | None, n_rows: int, X: Any, y: Any) -> list[Any]:
    """Return all pairs of training and held-out rows."""
    if is_splitter(cv):
        labels = None if groups is None else check_labels(groups, n_rows)
        try:
            with warnings.catch_warnings():
                # `make_splits` checks that the folds keep groups whole.
                warnings.filterwarnings("ignore", "The groups parameter is ignored", UserWarning)
                return list(cv.split(np.zeros((n_rows, 1)) if X is None else X, y, labels))
        except (TypeError, ValueError) as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise RidgeSettingError(
                f"{type(cv).__name__} does not split these rows ({reason}); choose another cv, "
                "or give what it needs."
            ) from error
    try:
        return list(cv)
    except TypeError:
        raise RidgeSettingError(
            f"cv is {cv!r}; choose a number of folds, a splitter of scikit-learn or a list of "
            "(train, test) row numbers."
        ) from None


def _row_numbers(
    split: Any, fold: int, n_rows: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return sorted training and test rows; the split may hold row numbers or masks."""
    try:
        parts = [np.asarray(part) for part in split]
    except (TypeError, ValueError):
        parts = []
    rows = [
        np.flatnonzero(part) if part.shape == (n_rows,) and part.dtype == bool else part
        for part in parts
    ]
    usable = all(part.ndim == 1 and (part.dtype.kind in "iu" or not part.size) for part in rows)
    if len(rows) != 2 or not usable:
        raise RidgeError(
            f"Fold {fold} of cv is not a pair of training and test rows; pass row numbers, "
            "as the splitters of scikit-learn do."
        )
    train, held = (np.sort(part.astype(np.intp)) for part in rows)
    for part in (train, held):
        twice = part[1:][part[1:] == part[:-1]]
        if len(twice):
            raise RidgeSettingError(
                f"Fold {fold} of cv names row {twice[0]} twice; name each row once, and give it a "
                "sample_weight of 2 to count it twice."
            )
        if len(part) and not 0 <= part[0] <= part[-1] < n_rows:
            raise RidgeSettingError(
                f"cv names row {part[0] if part[0] < 0 else part[-1]} in fold {fold} but X has "
                f"{n_rows} rows; count them from 0."
            )
    if not len(train) or not len(held):
        raise RidgeSettingError(
            f"Fold {fold} of cv has no row to {'hold out' if len(train) else 'train on'}; give it "
            "some, or leave the fold out."
        )
    both = np.intersect1d(train, held, assume_unique=True)
    if len(both):
        raise RidgeSettingError(
            f"Fold {fold} of cv trains on rows that it holds out, such as row {both[0]}; hold out "
            "only rows that it does not train on."
        )
    return train, held


def _check_whole(pairs: list[tuple[Rows, Rows]], labels: npt.NDArray[Any]) -> None:
    """Raise when a group has training and held-out rows in one fold."""
    ids, inverse, _ = unique_labels(labels)
    for fold, (train, held) in enumerate(pairs):
        trained = np.zeros(len(ids), bool)
        trained[inverse[train]] = True
        split = held[trained[inverse[held]]]
        if len(split):
            raise RidgeSettingError(
                f"cv splits group {labels[split[0]]} over training and test of fold {fold}, so "
                "that repeats of a stimulus are in both; use GroupKFold, GroupShuffleSplit or "
                "another splitter that keeps groups whole."
            )


def group_numbers(groups: npt.ArrayLike | None, n_rows: int) -> npt.NDArray[np.intp]:
    """Return groups as whole numbers from 0; without groups every row is its own group.

    Raises
    ------
    RidgeError
        When there are fewer than two groups, one is missing, or there is not one per row.
    """
    labels = np.arange(n_rows) if groups is None else check_labels(groups, n_rows)
    ids, numbers, _ = unique_labels(labels)
    if len(ids) < 2:
        kind = "X has one row" if groups is None else "groups holds one group"
        raise RidgeError(f"{kind} only; leaving it out leaves nothing to fit.")
    return numbers


def check_labels(groups: npt.ArrayLike, n_rows: int | None) -> npt.NDArray[Any]:
    """Return one label per row; raise `RidgeError` when the number differs."""
    try:
        labels = np.asarray(groups)
    except ValueError:  # a ragged list
        raise RidgeError("groups holds lists of ids; pass one stimulus id per trial.") from None
    if labels.ndim != 1:
        raise RidgeShapeError(f"groups has shape {labels.shape}; pass one stimulus id per trial.")
    if n_rows is not None and len(labels) != n_rows:
        raise RidgeShapeError(
            f"groups labels {len(labels)} rows but X has {n_rows}; pass one stimulus id per trial."
        )
    return labels


def unique_labels(
    labels: npt.NDArray[Any],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return distinct labels, the index of the label of each row, and how often each occurs."""
    try:
        missing = np.flatnonzero(np.asarray(labels != labels, dtype=bool))
        ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise RidgeError(
            f"groups mixes kinds of id or misses some ({error}); use only numbers or only strings."
        ) from error
    if missing.size:
        raise RidgeError(f"groups has no id at row {missing[0]}; give every trial a stimulus id.")
    return ids, inverse, counts
