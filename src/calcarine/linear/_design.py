"""What a ridge fit knows before it sees a target: scaled predictors, folds, decompositions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array, Ops, dtype_of
from calcarine.linear._checks import FloatArray, check_finite
from calcarine.linear._forms import Forms
from calcarine.linear._precision import DOUBLE
from calcarine.linear._solvers import Solver
from calcarine.linear._sources import Matrix, release, row_chunks
from calcarine.linear._weights import count_rows, weighted


class Runner(Protocol):
    """Calls ``function(*shared, *job)`` for every job and yields the answers in order."""

    def __call__(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        shared: tuple[Any, ...] = (),
    ) -> Iterator[Any]: ...


_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Plan:
    """The checked settings of one fit.

    Where `wide`, Gram matrices are made and decomposed in float64, and everything that meets
    targets is in `dtype` still: a Gram matrix squares the condition number, a basis does not.
    """

    alphas: npt.NDArray[np.float64]
    fit_intercept: bool
    standardize: bool
    solver: str
    dtype: np.dtype[Any]
    wide: bool = False

    @property
    def gram_dtype(self) -> np.dtype[Any]:
        """Of Gram matrices."""
        return DOUBLE if self.wide else self.dtype


@dataclass(frozen=True)
class Scaler:
    """Mean and scale of the columns; `dead` columns do not vary and get no weight."""

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    dead: npt.NDArray[np.bool_]

    def __call__(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        scaled = X.astype(np.float64)
        scaled -= self.mean
        scaled /= self.scale
        scaled[:, self.dead] = 0.0
        return scaled


@dataclass
class System:
    r"""Training rows decomposed so that :math:`right (T + \alpha)^{-1} left^T` maps to weights.

    Attributes
    ----------
    left : array, shape (k, r)
        Applied to the moments :math:`X^T y` (k = p), or to the targets themselves.
    rows : ndarray, shape (k,), or None
        Which rows of the targets `left` is applied to; None means the moments.
    mean_left : ndarray, shape (r,)
        What `left` makes of a target that is 1 in every training row.
    right : array, shape (m, r)
        Held-out rows, or for the fit on all rows the map to weights (m = p).
    solver : Spectral or BlockTridiagonal
    held : ndarray
        The held-out trials; empty for the fit on all rows.
    rounding : float
        Rounding error times condition number, at the smallest penalty.
    lost : float or None
        Relative error of the residual sum of squares, where it was measured.
    filled : tuple of float and int
        Eigenvalue and number of directions that X does not have. They are given an eigenvalue of
        ordinary size, which changes no solution and keeps the condition number honest.
    trials : array, shape (n, r), or None
        `left` before it was weighted and rows that share a target were summed; for the fit on all
        rows, on request.
    """

    left: Array
    rows: npt.NDArray[np.intp] | None
    mean_left: Array
    right: Array
    solver: Solver
    held: npt.NDArray[np.intp]
    rounding: float = _EPS
    filled: tuple[float, int] = (0.0, 0)
    trials: Array | None = None
    lost: float | None = None

    def drop(self) -> None:
        """Let go of what quadratic forms have taken in."""
        self.left = self.right = self.left[:0]

    @property
    def dropped(self) -> bool:
        """Whether only `held`, `rounding` and the like are left."""
        return len(self.left) == 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(self.left)


@dataclass
class Moments:
    """Scaled predictors of one fold, summed over the trials that share a row of the targets.

    Each trial counts by its weight, so that products with targets are weighted sums.
    """

    sums: Array
    rows: npt.NDArray[np.intp]


@dataclass
class Design:
    """Everything about X: folds hold decompositions, `moments` the rows by fold.

    `root` holds the roots of the sample weights in the order of the trials, None where all are 1.
    """

    plan: Plan
    kind: str
    scaler: Scaler
    n_rows: int
    target_rows: npt.NDArray[np.intp]
    folds: list[System]
    full: System
    moments: list[Moments]
    ops: Ops
    forms: Forms | None = None
    root: npt.NDArray[np.float64] | None = None

    @property
    def counts(self) -> npt.NDArray[np.float64]:
        """How many trials each row of the targets has, or their weights together."""
        return count_rows(self.target_rows, self.root)

    @property
    def n_counted(self) -> int:
        """Trials with a weight above 0."""
        return self.n_rows if self.root is None else int(np.count_nonzero(self.root))

    @property
    def total_weight(self) -> float:
        """Of all trials: their number, where no weights were given."""
        return float(self.n_rows) if self.root is None else float(self.root @ self.root)

    @property
    def spans(self) -> bool:
        r"""Whether `left` spans every target; residuals are then :math:`\alpha (T + \alpha)^{-1}`.

        That form stays exact where fitted values come so near to the targets that subtracting
        them would leave rounding only.
        """
        everything = self.n_counted - int(self.plan.fit_intercept)
        return self.kind == "dual" or (self.kind == "svd" and self.full.solver.size == everything)

    def free(self, alpha: float) -> float:
        """Trials less intercept less degrees of freedom; divided by `alpha` where it `spans`."""
        solver, (value, count) = self.full.solver, self.full.filled
        trace = solver.trace_inverse(alpha)
        if self.spans:
            # Trials without weight are null directions of their Gram matrix.
            unused = self.n_rows - self.n_counted if self.kind == "dual" else 0
            trace -= unused / alpha if unused else 0.0
            return trace - (count / (value + alpha) if count else 0.0)
        lost = count * value / (value + alpha) if count else 0.0
        used = solver.size - alpha * trace - lost
        return self.n_counted - int(self.plan.fit_intercept) - used

    @property
    def n_bytes(self) -> int:
        """Memory that all of it takes, with the factors of every penalty."""
        arrays = [m.sums for m in self.moments]
        factors = 0
        for system in [*self.folds, self.full]:
            arrays += [system.left, system.right]
            arrays += [] if system.trials is None else [system.trials]
            if not system.dropped:
                factors += system.solver.n_bytes(len(self.plan.alphas))
        if self.forms is not None:
            factors += self.forms.n_bytes
        distinct = {id(array): array for array in arrays}.values()
        return factors + sum(int(np.prod(a.shape)) * dtype_of(a).itemsize for a in distinct)

    @property
    def bytes_per_target(self) -> int:
        """Memory that one target of a block takes while it is solved."""
        folds = [] if self.forms is not None else self.folds
        ranks = [system.solver.size for system in folds]
        held = max((len(system.held) for system in folds), default=0)
        weights, rank, rows = len(self.full.right), self.full.solver.size, len(self.counts)
        narrow = sum(ranks) + max(ranks, default=0) + 4 * held + rows
        moments = len(self.moments) * (1 if self.forms is not None else 2) + 1
        narrow += weights * moments if self.moments else rows
        narrow += 0 if self.forms is None else 4 * rows
        wide = 3 * rank + weights + (0 if self.folds else 4 * self.n_rows)
        item, wide_item = self.plan.dtype.itemsize, self.full.dtype.itemsize
        return int(narrow * item + wide * wide_item + 3 * DOUBLE.itemsize * rows)


def is_constant(mean: FloatArray, std: FloatArray, n: int) -> npt.NDArray[np.bool_]:
    """Which standard deviations are no more than the rounding of n values with that mean."""
    return np.asarray(std <= n * _EPS * np.abs(mean))


def constant_columns(matrix: FloatArray) -> npt.NDArray[np.bool_]:
    """Which columns vary by no more than the rounding of their mean; shape (k,)."""
    return is_constant(matrix.mean(axis=0), matrix.std(axis=0), len(matrix))


def fit_scaler(
    x: Matrix,
    *,
    fit_intercept: bool,
    standardize: bool,
    sample_weight: npt.NDArray[np.float64] | None = None,
    watch: Callable[[npt.NDArray[Any]], None] | None = None,
) -> Scaler:
    """Means and standard deviations in one pass over chunks of rows (Chan et al. 1983).

    Parameters
    ----------
    x : matrix, shape (n, p)
    fit_intercept, standardize : bool
    sample_weight : ndarray, shape (n,), optional
        How much each row counts.
    watch : callable, optional
        Is shown every chunk as it was read, for what else needs a look at all rows.

    Raises
    ------
    RidgeError
        When a value is not finite; row and column are named.
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
    return Scaler(
        mean=mean if fit_intercept else np.zeros(n_columns),
        scale=np.where(constant, 1.0, std) if standardize else np.ones(n_columns),
        dead=constant if fit_intercept or standardize else np.zeros_like(constant),
    )


def scaled_rows(
    x: Matrix,
    scaler: Scaler,
    dtype: np.dtype[Any],
    order: npt.NDArray[np.intp] | None,
    root: npt.NDArray[np.float64] | None,
) -> FloatArray:
    """All rows of X, scaled, in one array in memory, shape (n, p).

    They are put in order if one is given, and multiplied by the roots of their weights, which are
    in that order.
    """
    out, place = np.empty(x.shape, dtype), None if order is None else np.argsort(order)
    with np.errstate(over="ignore"):  # what overflows float32 is seen in its Gram matrix
        for rows in row_chunks(x):
            here = rows if place is None else place[rows]
            out[here] = weighted(scaler(np.asarray(x[rows])), None if root is None else root[here])
            release(x)
    return out
