"""Predictors: read in pieces from memory or disk, scaled, weighted, and split into folds."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from calcarine.files.zarr_files import StoredArray
from calcarine.linear._validation import (
    FloatArray,
    RidgeError,
    RidgeShapeError,
    as_matrix,
    check_finite,
    check_trained,
)


class OnDisk(Protocol):
    """Interface of zarr arrays and HDF5 data sets; a memory map is a numpy array."""

    shape: tuple[int, ...]
    dtype: Any

    def __getitem__(self, key: Any) -> npt.NDArray[Any]: ...


class ComputedMatrix:
    """A matrix that is computed a block of columns at a time, when a fit reads it.

    Targets that are derived from an array need no copy of the whole array then.

    Parameters
    ----------
    shape : tuple of two int
    dtype : dtype-like
    columns : callable
        Takes a slice of columns and returns them, shape (n, k).

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.linear import ComputedMatrix, ridge_cv
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 30))
    >>> Y = X @ rng.standard_normal((30, 6)) + 4 * rng.standard_normal((50, 6))
    >>> positive = ComputedMatrix(Y.shape, Y.dtype, lambda columns: np.abs(Y[:, columns]))
    >>> ridge_cv(X, positive).coef.shape
    (30, 6)
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: npt.DTypeLike,
        columns: Callable[[slice], npt.NDArray[Any]],
    ) -> None:
        self.shape, self.dtype, self.columns = shape, np.dtype(dtype), columns

    def __getitem__(self, key: tuple[slice, slice]) -> npt.NDArray[Any]:
        rows, columns = key
        return self.columns(columns)[rows]


CHUNK_VALUES = 4_000_000
"""Number of values that are read or scaled at once."""

Matrix = npt.NDArray[Any] | OnDisk


def as_source(values: Any, name: str) -> Matrix:
    """Return a 2-D array in memory, or the array on disk as it is.

    Raises
    ------
    RidgeError
        When it is empty or not a matrix of real numbers.
    """
    if _on_disk(values):
        kind = np.dtype(values.dtype).kind
        if len(values.shape) != 2 or kind not in "biuf" or 0 in values.shape:
            raise RidgeShapeError(
                f"{name} on disk has shape {tuple(values.shape)} and type {values.dtype}; "
                "pass a 2-D array of numbers with one row per trial."
            )
        return values  # type: ignore[no-any-return]
    return as_matrix(values, name)


def _on_disk(values: Any) -> bool:
    package = type(values).__module__.split(".")[0]
    known = package in ("zarr", "h5py") and hasattr(values, "dtype")
    return known or isinstance(values, StoredArray | ComputedMatrix)


def read_columns(source: Matrix, columns: slice, name: str) -> npt.NDArray[np.float64]:
    """Return columns of a matrix as float64, shape (n, k).

    Raises
    ------
    RidgeError
        When a value on disk is not finite. Arrays in memory are checked before a fit begins.
    """
    block = np.asarray(source[:, columns])
    if not in_memory(source):
        check_finite(block, name, first_column=columns.start)
    values = block.astype(np.float64)
    release(source)
    return values


def release(source: Matrix) -> None:
    """Free the pages of a memory map, which count as memory of the process.

    Values that were written stay on disk. A private copy (mode "c") is left alone.
    """
    pages, modes = _mapped(source)
    if pages is not None and modes <= {"r", "r+", "w+"}:
        with suppress(AttributeError, OSError):  # not everywhere, and no page may be locked
            pages.madvise(mmap.MADV_DONTNEED)


def in_memory(source: Matrix) -> TypeGuard[npt.NDArray[Any]]:
    """Return whether all values are in memory."""
    return isinstance(source, np.ndarray) and _mapped(source)[0] is None


def _mapped(source: Matrix) -> tuple[mmap.mmap | None, set[str | None]]:
    """Return the pages of the memory map behind an array, and the modes it was opened with."""
    modes, pages = set[str | None](), cast(Any, source)
    while isinstance(pages, np.ndarray):
        if isinstance(pages, np.memmap):
            modes.add(pages.mode)
        pages = pages.base
    return (pages, modes) if isinstance(pages, mmap.mmap) and modes else (None, modes)


def row_chunks(source: Matrix) -> list[slice]:
    """Return slices of rows of about `CHUNK_VALUES` values, aligned with stored chunks."""
    n_rows, n_columns = source.shape
    rows = max(1, CHUNK_VALUES // n_columns)
    chunks = getattr(source, "chunks", None)
    if chunks and chunks[0] < n_rows:
        rows = max(1, rows // chunks[0]) * chunks[0]
    return [slice(i, min(i + rows, n_rows)) for i in range(0, n_rows, rows)]


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
