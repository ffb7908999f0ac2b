"""The arguments of a ridge fit: checked, resolved into one object, and `cv` into folds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import NumpyOps, Ops, Runner, ops_for, runner_for
from calcarine.linear._decomposed_predictors import FitSettings
from calcarine.linear._predictors import (
    ComputedMatrix,
    Matrix,
    RootWeights,
    Rows,
    Splits,
    as_source,
    in_memory,
)
from calcarine.linear._validation import (
    RidgeError,
    RidgeSettingError,
    RidgeShapeError,
    check_alpha_per,
    check_alphas,
    check_choice,
    check_count,
    check_cv,
    check_dtype,
    check_finite,
    check_fixed,
    check_memory,
    check_target_rows,
    check_trained,
    check_weights,
)

_METHODS = ("kfold", "logo", "gcv", "fixed")
_BLOCK, _BLOCK_VALUES = 1024, 4_000_000
"""Smallest default number of targets in a block, and number of values up to which it may grow."""


@dataclass(frozen=True)
class PenaltyChoice:
    """How penalties are chosen.

    With `at_once` each target has a penalty of its own, so that the weights of a block follow as
    soon as it is scored.
    """

    cv: str
    search: str
    correlation: bool
    at_once: bool


@dataclass(frozen=True)
class RidgeInputs:
    """Checked arguments of a ridge fit.

    Attributes
    ----------
    x, y : matrices, shapes (n, p) and (rows of the targets, t)
    target_rows : ndarray of int, shape (n,)
        Row of y of each trial.
    weights : ndarray, shape (n,), or None
        Sample weights.
    splits : Splits or None
        For K-fold and given folds.
    group_of_row : ndarray of int, shape (n,), or None
        For leaving out one group at a time.
    fixed : ndarray of int, shape (t,), or None
        Index of the given penalty of each target.
    shared : ndarray of int, shape (t,), or None
        Label of each target; targets with one label share a penalty.
    block_size : int
        Largest number of targets in a block.
    memory : float or None
        Bytes that the fit may take.
    local : bool
        Whether everything is computed by numpy in this process.
    """

    x: Matrix
    y: Matrix
    target_rows: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64] | None
    settings: FitSettings
    choice: PenaltyChoice
    splits: Splits | None
    group_of_row: npt.NDArray[np.intp] | None
    fixed: npt.NDArray[np.intp] | None
    shared: npt.NDArray[np.intp] | None
    block_size: int
    memory: float | None
    ops: Ops
    run: Runner
    local: bool

    @property
    def root(self) -> RootWeights | None:
        """Square roots of the sample weights."""
        return None if self.weights is None else np.sqrt(self.weights)

    @property
    def n_targets(self) -> int:
        return int(self.y.shape[1])

    @property
    def n_scored(self) -> int:
        """Number of penalties that every target is scored for."""
        return len(self.settings.alphas) if self.fixed is None else 0


def check_inputs(
    X: npt.ArrayLike,
    Y: npt.ArrayLike | ComputedMatrix,
    *,
    alphas: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    cv: Any,
    n_folds: int,
    search: str,
    fit_intercept: bool,
    standardize: bool,
    alpha_per: Any,
    score: str,
    solver: str,
    dtype: npt.DTypeLike,
    target_rows: npt.ArrayLike | None,
    block_size: int | None,
    memory: float | None,
    device: str,
    client: Any,
) -> RidgeInputs:
    """Check the arguments of `calcarine.linear.ridge_cv`, which describes them."""
    method = check_cv(cv, _METHODS)
    _check_words(method, search, score, solver)
    x, y = _check_data(X, Y)
    rows = check_target_rows(target_rows, x.shape[0], y.shape[0])
    weights = check_weights(sample_weight, x.shape[0])
    memory = check_memory(memory)
    fixed = shared = None
    if method == "fixed":
        penalties, fixed = check_fixed(alphas, alpha_per, y.shape[1])
    else:
        penalties, shared = check_alphas(alphas), check_alpha_per(alpha_per, y.shape[1])
    if search == "local" and (method != "kfold" or shared is not None):
        raise RidgeShapeError(
            "search='local' needs cv='kfold' and alpha_per='target', because it tries other "
            "penalties for every target; choose search='full'."
        )
    if target_rows is not None and groups is None:
        groups = rows
    ops, run = ops_for(device), runner_for(client)
    local = client is None and isinstance(ops, NumpyOps)
    if block_size is None:
        block_size = block_columns(x.shape, y.shape[0]) if local else _BLOCK
    block_size = check_count(block_size, 1, "block_size")
    precision = check_dtype(dtype, auto=_own_precision(x))
    splits = group_of_row = None
    if method == "kfold":
        splits = _check_folds(cv, n_folds, groups, x, y)
        splits.check_weights(weights)
        if score == "correlation":
            _check_two_stimuli(splits, rows, weights)
    elif method == "logo":
        group_of_row = group_numbers(groups, x.shape[0])
        check_trained(weights, group_of_row, "group")
    kind = _choose_solver(solver, x.shape, splits)
    return RidgeInputs(
        x=x,
        y=y,
        target_rows=rows,
        weights=weights,
        settings=FitSettings(penalties, bool(fit_intercept), bool(standardize), kind, precision),
        choice=PenaltyChoice(method, search, score == "correlation", shared is None),
        splits=splits,
        group_of_row=group_of_row,
        fixed=fixed,
        shared=shared,
        block_size=block_size,
        memory=memory,
        ops=ops,
        run=run,
        local=local,
    )


def _check_words(method: str, search: str, score: str, solver: str) -> None:
    check_choice(search, ("full", "local"), "search")
    check_choice(score, ("r2", "correlation"), "score")
    check_choice(solver, ("auto", "primal", "dual"), "solver")
    if score == "correlation" and method != "kfold":
        raise RidgeSettingError(
            "score='correlation' is defined for cv='kfold' only; choose score='r2'."
        )


def _check_data(X: npt.ArrayLike, Y: npt.ArrayLike | ComputedMatrix) -> tuple[Matrix, Matrix]:
    """Return X and Y as matrices in memory or on disk."""
    x, y = as_source(X, "X"), as_source(Y, "Y")
    if isinstance(x, np.ndarray) and np.ndim(X) != 2:
        raise RidgeShapeError("X has one dimension; pass a 2-D array with one row per trial.")
    if in_memory(y):
        check_finite(y, "Y")  # before hours of work; values on disk are checked when they are read
    return x, y


def _own_precision(x: Matrix) -> str:
    """Return the precision that "auto" stands for."""
    small = np.dtype(x.dtype).kind == "f" and np.dtype(x.dtype).itemsize <= 4
    return "float32" if small else "float64"


def block_columns(shape: tuple[int, ...], n_rows: int) -> int:
    """Return a number of targets large enough for fast products and small enough for caches."""
    values, weights = max(n_rows, min(shape)), shape[1] / 4
    return int(min(max(_BLOCK_VALUES / max(values, weights), _BLOCK), 4 * _BLOCK))


def _check_folds(
    cv: Any, n_folds: int, groups: npt.ArrayLike | None, x: Matrix, y: Matrix
) -> Splits:
    """Return the folds; a splitter gets X in memory, and y if it is one target."""
    n_rows = x.shape[0]
    single = in_memory(y) and y.shape == (n_rows, 1)
    return make_splits(
        cv,
        n_folds,
        groups,
        n_rows,
        X=x if in_memory(x) else None,
        y=np.asarray(y)[:, 0] if single else None,
    )


def _check_two_stimuli(
    splits: Splits,
    rows: npt.NDArray[np.intp],
    weights: npt.NDArray[np.float64] | None,
) -> None:
    counted = np.full(len(rows), True) if weights is None else weights > 0
    if any(len(np.unique(rows[held[counted[held]]])) < 2 for _, held in splits):
        raise RidgeSettingError(
            "score='correlation' needs at least two stimuli in every fold; choose fewer folds."
        )


def _choose_solver(solver: str, shape: tuple[int, ...], splits: Splits | None) -> str:
    """Return "dual" where the smallest training set has fewer rows than columns.

    Folds that overlap or leave rows out may have small training sets among many rows; for them the
    solver is chosen by what all decompositions cost.
    """
    if solver != "auto":
        return solver
    n, p = shape
    fold_of_row = None if splits is None else splits.fold_of_row
    if splits is not None and fold_of_row is None:
        cost = n**3 + sum(len(train) ** 3 for train, _ in splits)
        return "dual" if cost < (len(splits) + 1) * p**3 else "primal"
    largest = 0 if fold_of_row is None else int(np.bincount(fold_of_row).max())
    return "dual" if n - largest < p else "primal"


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

    Examples
    --------
    >>> from calcarine.linear import grouped_folds
    >>> folds = grouped_folds(["a", "b", "a", "c", "b"], 2)
    >>> bool(folds[0] == folds[2]), bool(folds[1] == folds[4])  # repeats stay together
    (True, True)
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
