"""Predictions of rows that a fit has not seen, for penalties that are already chosen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from calcarine.linear._inputs import grouped_folds
from calcarine.linear._predictors import ComputedMatrix, Matrix, as_source
from calcarine.linear._validation import FloatArray, RidgeShapeError
from calcarine.linear.ridge import iter_ridge_cv

__all__ = ["iter_held_out"]


def iter_held_out(
    X: npt.ArrayLike,
    Y: npt.ArrayLike | ComputedMatrix,
    alphas: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    n_folds: int = 5,
    fit_intercept: bool = True,
    target_rows: npt.ArrayLike | None = None,
    block_size: int | None = None,
    device: str = "cpu",
) -> Iterator[tuple[npt.NDArray[np.intp], slice, FloatArray]]:
    """Predict every row by ridge regression on the other folds, in blocks of targets.

    It decomposes the training rows of each fold once, for all targets. The predictions of one
    block of one fold are in memory at a time.

    Parameters
    ----------
    X : array-like, shape (n, p)
        Predictors, one row per trial.
    Y : array-like, shape (n, t), or ComputedMatrix
        Targets, or with `target_rows` one row for each stimulus.
    alphas : array-like, shape (t,) or a number
        Penalty of each target, such as ``alpha_`` of a fitted `RidgeCV`.
    groups : array-like, shape (n,), optional
        Stimulus id of each trial; all trials of a stimulus are in the same fold.
    n_folds : int
        See `calcarine.linear.grouped_folds`.
    fit_intercept : bool
    target_rows : array-like of int, shape (n,), optional
        Row of Y of each trial.
    block_size, device
        See `calcarine.linear.ridge_cv`.

    Yields
    ------
    rows : ndarray of int
        Rows of X that the fit has not seen.
    columns : slice
        Targets of the block, as columns of Y.
    predictions : ndarray, shape (len(rows), k)

    Raises
    ------
    RidgeError
        As in `calcarine.linear.ridge_cv`.

    Notes
    -----
    Columns of X are scaled on the training rows of each fold. The penalties are those of a fit
    that has seen all rows, which matters little: they are few numbers for many rows.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import iter_held_out
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    >>> sum(len(rows) for rows, columns, predicted in iter_held_out(X, Y, 10.0, n_folds=3))
    30
    """
    x = as_source(X, "X")
    y = as_source(Y, "Y")
    n = x.shape[0]
    of_trial = np.arange(n) if target_rows is None else np.asarray(target_rows)
    if len(of_trial) != n:
        raise RidgeShapeError(
            f"target_rows names {len(of_trial)} rows for {n} trials; give one for each trial."
        )
    labels = of_trial if groups is None else groups
    fold_of = grouped_folds(labels, n_folds, n_rows=n)
    for fold in range(n_folds):
        held, kept = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
        used, rows = np.unique(of_trial[kept], return_inverse=True)
        unseen = np.asarray(x[held])
        for columns, result in iter_ridge_cv(
            np.asarray(x[kept]),
            _of_rows(y, used),
            alphas=alphas,
            cv="fixed",
            fit_intercept=fit_intercept,
            target_rows=rows,
            block_size=block_size,
            device=device,
        ):
            yield held, columns, result.predict(unseen)


def _of_rows(y: Matrix, rows: npt.NDArray[np.intp]) -> ComputedMatrix:
    """Return some rows of a matrix, without a copy of all of its columns."""
    shape = (len(rows), int(y.shape[1]))
    return ComputedMatrix(shape, y.dtype, lambda columns: np.asarray(y[:, columns])[rows])
