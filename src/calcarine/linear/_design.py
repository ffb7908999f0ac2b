"""What a ridge fit knows before it sees a target: scaled predictors, folds, decompositions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array, Ops
from calcarine.linear._checks import FloatArray, check_finite
from calcarine.linear._factor import Solver, Spectral, factorize
from calcarine.linear._sources import Matrix, row_chunks


class Runner(Protocol):
    """Calls ``function(*shared, *job)`` for every job and yields the answers in order."""

    def __call__(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        shared: tuple[Any, ...] = (),
    ) -> Iterator[Any]: ...


_EPS = float(np.finfo(np.float64).eps)
_CHUNK_VALUES = 32_000_000

WORST = {np.dtype(np.float32): 1e-2, np.dtype(np.float64): 1e-5}
"""Largest rounding times condition number of a Gram matrix that a precision is trusted with."""


@dataclass(frozen=True)
class Plan:
    """The checked settings of one fit."""

    alphas: npt.NDArray[np.float64]
    fit_intercept: bool
    standardize: bool
    solver: str
    dtype: np.dtype[Any]


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
    solver : Spectral or Banded
    held : ndarray
        The held-out trials; empty for the fit on all rows.
    filled : tuple of float and int
        Eigenvalue and number of directions that X does not have. They are given an eigenvalue of
        ordinary size, which changes no solution and keeps the condition number honest.
    trials : array, shape (n, r), or None
        `left` before rows that share a target were summed; for the fit on all rows only.
    """

    left: Array
    rows: npt.NDArray[np.intp] | None
    mean_left: Array
    right: Array
    solver: Solver
    held: npt.NDArray[np.intp]
    filled: tuple[float, int] = (0.0, 0)
    trials: Array | None = None

    def degrees_of_freedom(self, alpha: float) -> float:
        """Trace of the map from targets to fitted values, without the intercept."""
        value, count = self.filled
        lost = count * value / (value + alpha) if count else 0.0
        return self.solver.size - alpha * self.solver.trace_inverse(alpha) - lost


@dataclass
class Moments:
    """Scaled predictors of one fold, summed over the trials that share a row of the targets."""

    sums: Array
    rows: npt.NDArray[np.intp]


@dataclass
class Design:
    """Everything about X: folds hold decompositions, `moments` the rows by fold."""

    plan: Plan
    kind: str
    scaler: Scaler
    n_rows: int
    target_rows: npt.NDArray[np.intp]
    folds: list[System]
    full: System
    moments: list[Moments]
    ops: Ops

    @property
    def counts(self) -> npt.NDArray[np.float64]:
        """How many trials each row of the targets has."""
        return np.bincount(self.target_rows).astype(np.float64)

    @property
    def n_bytes(self) -> int:
        """Memory that all of it takes."""
        arrays = [m.sums for m in self.moments]
        for system in [*self.folds, self.full]:
            arrays += [system.left, system.right]
        distinct = {id(array): array for array in arrays}
        return sum(int(np.prod(a.shape)) for a in distinct.values()) * self.plan.dtype.itemsize

    @property
    def bytes_per_target(self) -> int:
        """Memory that one target of a block takes while it is solved."""
        ranks = [system.solver.size for system in [*self.folds, self.full]]
        width = len(self.full.right)
        moments = width * (len(self.moments) + 2)
        values = 2 * sum(ranks) + moments + 3 * len(self.counts) + 2 * self.n_rows
        return int(values * self.plan.dtype.itemsize + 3 * 8 * len(self.counts))


def constant_columns(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which columns vary by no more than the rounding of their mean; shape (k,)."""
    return is_constant(matrix.mean(axis=0), matrix.std(axis=0), len(matrix))


def is_constant(mean: FloatArray, std: FloatArray, n: int) -> npt.NDArray[np.bool_]:
    """Which standard deviations are no more than the rounding of n values with that mean."""
    return np.asarray(std <= n * _EPS * np.abs(mean))


def fit_scaler(x: Matrix, plan: Plan) -> Scaler:
    """Means and standard deviations in one pass over chunks of rows (Chan et al. 1983).

    Raises
    ------
    RidgeError
        When a value is not finite; row and column are named.
    """
    n_columns = x.shape[1]
    mean, squares, seen = np.zeros(n_columns), np.zeros(n_columns), 0
    for rows in row_chunks(x, _CHUNK_VALUES):
        raw = np.asarray(x[rows])
        check_finite(raw, "X", first_row=rows.start)
        chunk = raw.astype(np.float64)
        here = chunk.mean(axis=0)
        chunk -= here
        difference, total = here - mean, seen + len(chunk)
        squares += np.einsum("ij,ij->j", chunk, chunk)
        squares += difference**2 * (seen * len(chunk) / total)
        mean += difference * (len(chunk) / total)
        seen = total
    std = np.sqrt(squares / seen)
    constant = is_constant(mean, std, seen)
    return Scaler(
        mean=mean if plan.fit_intercept else np.zeros(n_columns),
        scale=np.where(constant, 1.0, std) if plan.standardize else np.ones(n_columns),
        dead=constant if plan.fit_intercept or plan.standardize else np.zeros_like(constant),
    )


def scaled_rows(x: Matrix, scaler: Scaler, dtype: np.dtype[Any]) -> FloatArray:
    """All rows of X, scaled, in one array in memory; shape (n, p)."""
    out = np.empty(x.shape, dtype)
    for rows in row_chunks(x, _CHUNK_VALUES):
        out[rows] = scaler(np.asarray(x[rows]))
    return out


def prepare(
    x: FloatArray,
    scaler: Scaler,
    fold_of_row: npt.NDArray[np.intp] | None,
    target_rows: npt.NDArray[np.intp],
    plan: Plan,
    ops: Ops,
    run: Runner,
) -> Design | None:
    """Decompose all rows and the training rows of every fold.

    Parameters
    ----------
    x : ndarray, shape (n, p)
        Scaled rows in the precision of the plan.
    fold_of_row : ndarray, shape (n,), or None
        None decomposes all rows only.
    run : Runner

    Returns
    -------
    Design or None
        None when the penalties are too small for this precision of the Gram matrix.
    """
    maker = _dual if plan.solver == "dual" else _primal
    return maker(x, scaler, fold_of_row, target_rows, plan, ops, run)


def prepare_hard(
    x: FloatArray,
    scaler: Scaler,
    fold_of_row: npt.NDArray[np.intp] | None,
    target_rows: npt.NDArray[np.intp],
    plan: Plan,
    ops: Ops,
) -> Design:
    """Like `prepare`, by singular values of the rows themselves, which no penalty is too small for.

    A Gram matrix squares the condition number; this does not, at several times the cost.
    """
    everything = np.arange(len(x))

    def system(train: npt.NDArray[np.intp], held: npt.NDArray[np.intp]) -> System:
        mean = x[train].mean(axis=0) if plan.fit_intercept else np.zeros(x.shape[1])
        u, s, vt = ops.svd(ops.put(x[train] - mean, plan.dtype))
        values = ops.get(s)
        kept = int((values > max(len(train), x.shape[1]) * _EPS * values[0]).sum())
        u, s, vt = u[:, :kept] * s[:kept], s[:kept], vt[:kept]
        right = vt.T if not len(held) else ops.put(x[held] - mean, plan.dtype) @ vt.T
        return _on_targets(u, right, Spectral(s * s, ops), train, held, target_rows, ops, plan)

    folds = [system(*parts) for parts in _parts(fold_of_row)]
    full = system(everything, everything[:0])
    return Design(plan, "svd", scaler, len(x), target_rows, folds, full, [], ops)


def _parts(
    fold_of_row: npt.NDArray[np.intp] | None,
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Training and held-out trials of every fold."""
    if fold_of_row is None:
        return
    for fold in range(int(fold_of_row.max()) + 1):
        yield np.flatnonzero(fold_of_row != fold), np.flatnonzero(fold_of_row == fold)


def _on_targets(
    left: Array,
    right: Array,
    solver: Solver,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    ops: Ops,
    plan: Plan,
    filled: tuple[float, int] = (0.0, 0),
) -> System:
    """A system applied to targets: rows of `left` that share a row of the targets are summed."""
    values = ops.get(left)
    mean_left = ops.put(values.sum(axis=0, dtype=np.float64), plan.dtype)
    rows, sums = _collapse(values, target_rows[train])
    summed = ops.put(sums, plan.dtype)
    trials = None if len(held) else left
    return System(summed, rows, mean_left, right, solver, held, filled, trials)


def _collapse(
    values: npt.NDArray[Any], rows: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Distinct rows, and the sums of the values over each."""
    distinct, inverse = np.unique(rows, return_inverse=True)
    if len(distinct) == len(rows):
        return distinct, values[np.argsort(rows, kind="stable")]
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(distinct)))
    return distinct, np.add.reduceat(values[order], starts, axis=0)


def _trusted(solver: Solver, plan: Plan) -> bool:
    rounding = float(np.finfo(plan.dtype).eps)
    return rounding * solver.condition(float(plan.alphas[0])) <= WORST[plan.dtype]


def _primal(
    x: FloatArray,
    scaler: Scaler,
    fold_of_row: npt.NDArray[np.intp] | None,
    target_rows: npt.NDArray[np.intp],
    plan: Plan,
    ops: Ops,
    run: Runner,
) -> Design | None:
    n, p = x.shape
    parts = [np.arange(n)] if fold_of_row is None else [held for _, held in _parts(fold_of_row)]
    total, grams, sums, moments = np.zeros((p, p), plan.dtype), [], [], []
    jobs = [(x[rows], target_rows[rows], plan, ops) for rows in parts]
    for gram, column_sums, moment in run(_fold_moments, jobs):
        total += gram
        sums.append(column_sums)
        moments.append(moment)
        grams.append(gram if fold_of_row is not None else None)
    everything = np.sum(sums, axis=0)

    def centred(fold: int) -> tuple[Any, ...]:
        n_train = n - len(parts[fold])
        gram = total - grams[fold]
        grams[fold] = None
        mean = np.zeros(p)
        if plan.fit_intercept:
            mean = (everything - sums[fold]) / n_train
            centre = (mean * np.sqrt(n_train)).astype(plan.dtype)
            gram -= np.outer(centre, centre)
        rows = x[parts[fold]] - mean.astype(plan.dtype)
        return gram, rows, mean * n_train, parts[fold], scaler.dead, plan, ops

    folds = []
    if fold_of_row is not None:
        for system in run(_primal_system, (centred(fold) for fold in range(len(parts)))):
            if system is None:
                return None
            folds.append(system)
    full = next(
        iter(run(_primal_system, [(total, None, np.zeros(p), None, scaler.dead, plan, ops)]))
    )
    if full is None:
        return None
    return Design(plan, "primal", scaler, n, target_rows, folds, full, moments, ops)


def _fold_moments(
    x: FloatArray, target_rows: npt.NDArray[np.intp], plan: Plan, ops: Ops
) -> tuple[FloatArray, npt.NDArray[np.float64], Moments]:
    """Gram matrix, column sums and rows by target of the trials of one fold."""
    part = ops.put(x, plan.dtype)
    gram = ops.get(part.T @ part)
    distinct, collapsed = _collapse(x, target_rows)
    moments = Moments(ops.put(collapsed, plan.dtype), distinct)
    return gram, x.sum(axis=0, dtype=np.float64), moments


def _primal_system(
    gram: FloatArray,
    rows: FloatArray | None,
    mean_left: npt.NDArray[np.float64],
    held: npt.NDArray[np.intp] | None,
    dead: npt.NDArray[np.bool_],
    plan: Plan,
    ops: Ops,
) -> System | None:
    filled = _fill(gram, dead)
    basis, solver = factorize(ops.put(gram, plan.dtype), ops)
    if not _trusted(solver, plan):
        return None
    mean = ops.put(mean_left, plan.dtype) @ basis
    if rows is None or held is None:
        return System(basis, None, mean, basis, solver, np.arange(0), filled)
    right = ops.put(rows, plan.dtype) @ basis
    return System(basis, None, mean, right, solver, held, filled)


def _dual(
    x: FloatArray,
    scaler: Scaler,
    fold_of_row: npt.NDArray[np.intp] | None,
    target_rows: npt.NDArray[np.intp],
    plan: Plan,
    ops: Ops,
    run: Runner,
) -> Design | None:
    rows = ops.put(x, plan.dtype)
    kernel = ops.get(rows @ rows.T)
    everything = np.arange(len(x))
    jobs: list[tuple[Any, ...]] = [
        (kernel, train, held, None, target_rows, plan, ops) for train, held in _parts(fold_of_row)
    ]
    jobs.append((kernel, everything, everything[:0], x, target_rows, plan, ops))
    systems = []
    for system in run(_dual_system, jobs):
        if system is None:
            return None
        systems.append(system)
    *folds, full = systems
    return Design(plan, "dual", scaler, len(x), target_rows, folds, full, [], ops)


def _dual_system(
    kernel: FloatArray,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    x: FloatArray | None,
    target_rows: npt.NDArray[np.intp],
    plan: Plan,
    ops: Ops,
) -> System | None:
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(held, train)]
    if plan.fit_intercept and x is None:
        mean = inner.mean(axis=0, dtype=np.float64)
        outer = outer - outer.mean(axis=1, keepdims=True, dtype=np.float64)
        outer = outer - (mean - mean.mean())
        inner = inner - mean - mean[:, None] + mean.mean()
    inner, filled = _fill_constant(inner, plan)
    basis, solver = factorize(ops.put(inner, plan.dtype), ops)
    if not _trusted(solver, plan):
        return None
    # Only the fit on all rows is given them: it maps to weights and not to held-out trials.
    right = ops.put(outer, plan.dtype) if x is None else ops.put(x, plan.dtype).T
    return _on_targets(basis, right @ basis, solver, train, held, target_rows, ops, plan, filled)


def _fill(gram: FloatArray, dead: npt.NDArray[np.bool_]) -> tuple[float, int]:
    """Give columns without any variance a diagonal of ordinary size, in place."""
    columns = np.flatnonzero(dead)
    value = float(gram.diagonal()[~dead].mean()) if len(columns) < len(dead) else 1.0
    gram[columns, columns] = value
    return value, len(columns)


def _fill_constant(
    kernel: npt.NDArray[Any], plan: Plan
) -> tuple[npt.NDArray[Any], tuple[float, int]]:
    """Give the constant direction, which centring removes, an eigenvalue of ordinary size."""
    value = float(kernel.diagonal().mean())
    if not plan.fit_intercept or value <= 0:
        return kernel, (0.0, 0)
    return kernel + kernel.dtype.type(value / len(kernel)), (value, 1)
