"""Cross-validation folds over whole groups: repeats of a stimulus never straddle a fold."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._checks import RidgeError, check_count


def grouped_folds(
    groups: npt.ArrayLike | None, n_folds: int, *, n_rows: int | None = None
) -> npt.NDArray[np.intp]:
    """Assign every row to a fold, whole groups at a time.

    The largest group goes first, each to the fold with the fewest trials so far. Groups of one
    size go in the order of a hash of their id: ids that cycle through categories, or are sorted
    by them, then still spread over all folds. The assignment is a function of the ids and of how
    often each occurs; the order of the rows changes nothing.

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
        raise RidgeError(
            f"There are only {len(ids)} {kind} for n_folds={n_folds}; "
            "choose fewer folds or give more data."
        )
    return _assign(ids, counts, n_folds)[inverse]


def _assign(
    ids: npt.NDArray[Any], counts: npt.NDArray[np.intp], n_folds: int
) -> npt.NDArray[np.intp]:
    """Fold of each unique id, largest groups first, always into the lightest fold."""
    hashes = [blake2b(str(i).encode("utf-8", "surrogatepass")).digest() for i in ids.tolist()]
    order = sorted(range(len(ids)), key=lambda i: (-int(counts[i]), hashes[i], i))
    loads = np.zeros(n_folds, dtype=np.intp)
    fold_of = np.empty(len(ids), dtype=np.intp)
    for index in order:
        fold = int(np.argmin(loads))
        fold_of[index] = fold
        loads[fold] += counts[index]
    return fold_of


def check_labels(groups: npt.ArrayLike, n_rows: int | None) -> npt.NDArray[Any]:
    """Return one label per row; raise `RidgeError` when there is not."""
    try:
        labels = np.asarray(groups)
    except ValueError:  # a ragged list
        raise RidgeError("groups holds lists of ids; pass one stimulus id per trial.") from None
    if labels.ndim != 1:
        raise RidgeError(f"groups has shape {labels.shape}; pass one stimulus id per trial.")
    if n_rows is not None and len(labels) != n_rows:
        raise RidgeError(
            f"groups labels {len(labels)} rows but X has {n_rows}; pass one stimulus id per trial."
        )
    return labels


def unique_labels(
    labels: npt.NDArray[Any],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Distinct labels, the number of each row's label and how often each occurs."""
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
