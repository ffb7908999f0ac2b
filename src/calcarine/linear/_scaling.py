"""Standardised columns, weighted rows, and sums over trials that share a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._io import Matrix, release, row_chunks
from calcarine.linear._validation import FloatArray, check_finite

RootWeights = npt.NDArray[np.float64]
"""Square roots of sample weights, shape (n,)."""

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ColumnScaler:
    """Mean and scale of the columns; `constant` columns get no weight."""

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    constant: npt.NDArray[np.bool_]

    def __call__(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        scaled = X.astype(np.float64)
        scaled -= self.mean
        scaled /= self.scale
        scaled[:, self.constant] = 0.0
        return scaled


def is_constant(mean: FloatArray, std: FloatArray, n: int) -> npt.NDArray[np.bool_]:
    """Return which standard deviations are rounding errors of n values with that mean."""
    return np.asarray(std <= n * _EPS * np.abs(mean))


def constant_columns(matrix: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which columns vary by no more than rounding error; shape (k,)."""
    return is_constant(matrix.mean(axis=0), matrix.std(axis=0), len(matrix))


def fit_scaler(
    x: Matrix,
    *,
    fit_intercept: bool,
    standardize: bool,
    sample_weight: npt.NDArray[np.float64] | None = None,
    watch: Callable[[npt.NDArray[Any]], None] | None = None,
) -> ColumnScaler:
    """Return means and standard deviations, in one pass over the rows (Chan et al. 1983).

    Parameters
    ----------
    x : matrix, shape (n, p)
    fit_intercept, standardize : bool
    sample_weight : ndarray, shape (n,), optional
        Weight of each row.
    watch : callable, optional
        Called with every chunk as it was read.

    Raises
    ------
    RidgeError
        When a value is not finite.
    """
    n_columns = x.shape[1]
    mean, squares, seen = np.zeros(n_columns), np.zeros(n_columns), 0.0
    for rows in row_chunks(x):
        raw = np.asarray(x[rows])
        check_finite(raw, "X", first_row=rows.start)
        if watch is not None:
            watch(raw)
        chunk = raw.astype(np.float64)
        own: npt.NDArray[np.float64] | None = None
        count, here = float(len(chunk)), chunk.mean(axis=0)
        if sample_weight is not None:
            own = sample_weight[rows]
            count = float(own.sum())
            if count == 0:
                release(x)
                continue
            here = own @ chunk / count
        chunk -= here
        difference, total = here - mean, seen + count
        if own is None:
            squares += np.einsum("ij,ij->j", chunk, chunk)
        else:
            squares += np.einsum("i,ij,ij->j", own, chunk, chunk)
        squares += difference**2 * (seen * count / total)
        mean += difference * (count / total)
        seen = total
        release(x)
    std = np.sqrt(squares / seen)
    constant = is_constant(mean, std, x.shape[0])
    return ColumnScaler(
        mean=mean if fit_intercept else np.zeros(n_columns),
        scale=np.where(constant, 1.0, std) if standardize else np.ones(n_columns),
        constant=constant if fit_intercept or standardize else np.zeros_like(constant),
    )


def scaled_rows(
    x: Matrix,
    scaler: ColumnScaler,
    dtype: np.dtype[Any],
    order: npt.NDArray[np.intp] | None,
    root: RootWeights | None,
) -> FloatArray:
    """Return all rows of X, scaled, in memory, shape (n, p).

    With `order` they are sorted, and with `root` they are multiplied by the square roots of their
    weights, which must be in that order.
    """
    out, place = np.empty(x.shape, dtype), None if order is None else np.argsort(order)
    with np.errstate(over="ignore"):  # an overflow of float32 shows in the Gram matrix
        for rows in row_chunks(x):
            here = rows if place is None else place[rows]
            out[here] = weighted(scaler(np.asarray(x[rows])), None if root is None else root[here])
            release(x)
    return out


def count_rows(
    target_rows: npt.NDArray[np.intp], root: RootWeights | None, n_rows: int = 0
) -> npt.NDArray[np.float64]:
    """Return the number of trials of each row of the targets, or the sum of their weights."""
    weights = None if root is None else root**2
    return np.bincount(target_rows, weights, minlength=n_rows).astype(np.float64)


def weighted(values: npt.NDArray[Any], root: RootWeights | None) -> FloatArray:
    """Return rows multiplied by the square roots of their weights; unchanged for None."""
    return values if root is None else values * root[:, None].astype(values.dtype)


def weighted_mean(rows: FloatArray, root: RootWeights) -> npt.NDArray[np.float64]:
    """Return the weighted mean of rows (n, p) that are multiplied by `root`."""
    return np.asarray(root @ rows / (root @ root))


def mean_of_rows(
    mean: npt.NDArray[Any], root: RootWeights | None, trials: npt.NDArray[np.intp]
) -> npt.NDArray[Any]:
    """Return what centring subtracts from the rows of some trials: their mean, times `root`."""
    return mean if root is None else (root[trials, None] * mean).astype(mean.dtype)


def sum_by_target(
    values: npt.NDArray[Any], rows: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Return the distinct rows of the targets, and the sums of the values over each."""
    distinct, inverse = np.unique(rows, return_inverse=True)
    if len(distinct) == len(rows):
        return rows, values
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(distinct)))
    return distinct, np.add.reduceat(values[order], starts, axis=0)
