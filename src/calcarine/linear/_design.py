"""What a ridge fit knows before it sees a target: scaled predictors, folds, decompositions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array, Ops, dtype_of
from calcarine.linear._checks import FloatArray, check_finite
from calcarine.linear._factor import Solver, Spectral, factor_values, factorize
from calcarine.linear._forms import Forms
from calcarine.linear._precision import (
    DOUBLE,
    ERROR,
    FOLD_ERROR,
    FOLD_LIMIT,
    HOPELESS,
    LIMIT,
    SINGLE,
    largest,
    measure_dual,
    measure_primal,
    representable,
)
from calcarine.linear._sources import CHUNK_VALUES, Matrix, row_chunks


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
    rounding : float
        Rounding error times condition number, at the smallest penalty.
    lost : float or None
        Relative error of the residual sum of squares, where it was measured.
    filled : tuple of float and int
        Eigenvalue and number of directions that X does not have. They are given an eigenvalue of
        ordinary size, which changes no solution and keeps the condition number honest.
    trials : array, shape (n, r), or None
        `left` before rows that share a target were summed; for the fit on all rows, on request.
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
    dropped: bool = False

    def drop(self) -> None:
        """Let go of what quadratic forms have taken in."""
        self.left = self.right = self.left[:0]
        self.dropped = True

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(self.left)


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
    forms: Forms | None = None

    @property
    def counts(self) -> npt.NDArray[np.float64]:
        """How many trials each row of the targets has."""
        return np.bincount(self.target_rows).astype(np.float64)

    @property
    def spans(self) -> bool:
        r"""Whether `left` spans every target; residuals are then :math:`\alpha (T + \alpha)^{-1}`.

        That form stays exact where fitted values come so near to the targets that subtracting
        them would leave rounding only.
        """
        everything = self.n_rows - int(self.plan.fit_intercept)
        return self.kind == "dual" or (self.kind == "svd" and self.full.solver.size == everything)

    def free(self, alpha: float) -> float:
        """Trials less intercept less degrees of freedom; divided by `alpha` where it `spans`."""
        solver, (value, count) = self.full.solver, self.full.filled
        trace = solver.trace_inverse(alpha)
        if self.spans:
            return trace - (count / (value + alpha) if count else 0.0)
        lost = count * value / (value + alpha) if count else 0.0
        used = solver.size - alpha * trace - lost
        return self.n_rows - int(self.plan.fit_intercept) - used

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
        narrow += weights * (len(self.moments) + 1) if self.moments else rows
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
    watch: Callable[[npt.NDArray[Any]], None] | None = None,
) -> Scaler:
    """Means and standard deviations in one pass over chunks of rows (Chan et al. 1983).

    Parameters
    ----------
    x : matrix, shape (n, p)
    fit_intercept, standardize : bool
    watch : callable, optional
        Is shown every chunk as it was read, for what else needs a look at all rows.

    Raises
    ------
    RidgeError
        When a value is not finite; row and column are named.
    """
    n_columns = x.shape[1]
    mean, squares, seen = np.zeros(n_columns), np.zeros(n_columns), 0
    for rows in row_chunks(x):
        raw = np.asarray(x[rows])
        check_finite(raw, "X", first_row=rows.start)
        if watch is not None:
            watch(raw)
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
        mean=mean if fit_intercept else np.zeros(n_columns),
        scale=np.where(constant, 1.0, std) if standardize else np.ones(n_columns),
        dead=constant if fit_intercept or standardize else np.zeros_like(constant),
    )


def scaled_rows(x: Matrix, scaler: Scaler, dtype: np.dtype[Any]) -> FloatArray:
    """All rows of X, scaled, in one array in memory; shape (n, p)."""
    out = np.empty(x.shape, dtype)
    with np.errstate(over="ignore"):  # what overflows float32 is seen in its Gram matrix
        for rows in row_chunks(x):
            out[rows] = scaler(np.asarray(x[rows]))
    return out


def peak_bytes(n: int, p: int, n_folds: int, plan: Plan, *, hard: bool = False) -> int:
    """Most memory that `prepare` may take in the precision of the plan, or `prepare_hard`."""
    order = n if plan.solver == "dual" else p
    wide = 2 if plan.dtype.itemsize < 8 else 1
    squares, rows = n_folds + 1 + 4 * wide, 2 + 2 * wide
    values = squares * order**2 + rows * n * p + (n_folds + 1) * factor_values(order)
    values += (n_folds + 2) * n * p if hard else 0
    return values * plan.dtype.itemsize + 3 * 8 * min(CHUNK_VALUES + p, n * p)


@dataclass(frozen=True)
class Trials:
    """Scaled rows, shape (n, p), in the precision of the plan, and how they are to be decomposed.

    `fold_of_row` is None when only all rows are wanted.
    """

    x: FloatArray
    scaler: Scaler
    fold_of_row: npt.NDArray[np.intp] | None
    target_rows: npt.NDArray[np.intp]
    plan: Plan
    ops: Ops
    run: Runner
    forms: Forms | None = None

    def parts(self) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Training and held-out trials of every fold."""
        if self.fold_of_row is None:
            return
        for fold in range(int(self.fold_of_row.max()) + 1):
            yield np.flatnonzero(self.fold_of_row != fold), np.flatnonzero(self.fold_of_row == fold)

    def design(
        self, kind: str, folds: list[System], full: System, moments: list[Moments]
    ) -> Design:
        """What came of decomposing them."""
        n = len(self.x)
        forms = self.forms
        if kind == "svd":
            forms = None
        elif forms is not None:
            forms.finish()
            for system in folds:
                system.drop()
        return Design(
            self.plan, kind, self.scaler, n, self.target_rows, folds, full, moments, self.ops, forms
        )


def prepare(trials: Trials) -> Design | None:
    """Decompose all rows and the training rows of every fold.

    Returns
    -------
    Design or None
        None when the penalties are too small for this precision of the Gram matrix. All rows may
        be decomposed in float64 when the folds are in float32: ranking penalties needs less.
    """
    x, plan = trials.x, trials.plan
    extreme = max(float(x.max()), -float(x.min()))
    if not extreme**2 * x.size <= largest(plan):
        return None
    return _dual(trials) if plan.solver == "dual" else _primal(trials)


def prepare_hard(trials: Trials) -> Design:
    """Like `prepare`, by singular values of the rows themselves, which no penalty is too small for.

    A Gram matrix squares the condition number; this does not, at several times the cost.
    """
    everything = np.arange(len(trials.x))
    jobs = (
        (train, held, trials.target_rows, trials.plan, trials.ops)
        for train, held in [*trials.parts(), (everything, everything[:0])]
    )
    *folds, full = trials.run(_hard_system, jobs, (trials.x,))
    return trials.design("svd", folds, full, [])


def _hard_system(
    x: FloatArray,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    plan: Plan,
    ops: Ops,
) -> System:
    mean = x[train].mean(axis=0) if plan.fit_intercept else np.zeros(x.shape[1])
    u, s, vt = ops.svd(ops.put(x[train] - mean, plan.dtype))
    values = ops.get(s)
    kept = int((values > max(len(train), x.shape[1]) * _EPS * values[0]).sum())
    u, s, right = u[:, :kept], s[:kept], vt[:kept].T * s[:kept]
    if len(held):
        right = ops.put(x[held] - mean, plan.dtype) @ right
    return _on_targets(u, right, Spectral(s * s, ops), train, held, target_rows, ops)


def _on_targets(
    left: Array,
    right: Array,
    solver: Solver,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    ops: Ops,
    rounding: float = _EPS,
    filled: tuple[float, int] = (0.0, 0),
) -> System:
    """A system applied to targets: rows of `left` that share a row of the targets are summed."""
    values, dtype = ops.get(left), dtype_of(left)
    mean_left = ops.put(values.sum(axis=0, dtype=np.float64), dtype)
    rows, sums = _collapse(values, target_rows[train])
    summed = left if sums is values else ops.put(sums, dtype)
    trials = None if len(held) else left
    return System(summed, rows, mean_left, right, solver, held, rounding, filled, trials)


def _collapse(
    values: npt.NDArray[Any], rows: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Distinct rows, and the sums of the values over each."""
    distinct, inverse = np.unique(rows, return_inverse=True)
    if len(distinct) == len(rows):
        return rows, values
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(distinct)))
    return distinct, np.add.reduceat(values[order], starts, axis=0)


def _rounding(solver: Solver, plan: Plan) -> float:
    """Rounding times condition number of a Gram matrix at the smallest penalty.

    Rows so large that subtracting them from all sums cancels digits of what is left are training
    rows of other folds, and raise the condition number there.
    """
    return float(np.finfo(plan.dtype).eps) * solver.condition(float(plan.alphas[0]))


def wider(plan: Plan) -> list[Plan]:
    """The plan, and the same in float64 if it is not."""
    return [plan] if plan.dtype == DOUBLE else [plan, replace(plan, dtype=DOUBLE)]


def _full_system(
    make: Callable[[Plan], System | None],
    measure: Callable[[System], npt.NDArray[np.float64]],
    folds: list[System],
    plan: Plan,
) -> System | None:
    """The fit on all rows, in float64 if it needs that; None if the folds need that too."""
    full = make(plan)
    if plan.dtype == DOUBLE:
        return full
    doubtful = any(fold.rounding > FOLD_LIMIT[SINGLE] for fold in folds)
    if full is not None and (doubtful or full.rounding > LIMIT[SINGLE]):
        *of_folds, of_weights = measure(full)
        if max(of_folds, default=0.0) > FOLD_ERROR:
            return None
        if of_weights <= ERROR:
            return full
    elif doubtful:
        return None
    elif full is not None:
        return full
    full = make(replace(plan, dtype=DOUBLE))
    # Targets are projected in single precision still.
    ratio = float(np.finfo(SINGLE).eps / np.finfo(DOUBLE).eps)
    return full if full is not None and full.rounding * ratio <= FOLD_LIMIT[SINGLE] else None


def _primal(trials: Trials) -> Design | None:
    x, plan, ops, run = trials.x, trials.plan, trials.ops, trials.run
    target_rows, dead = trials.target_rows, trials.scaler.dead
    in_folds = trials.fold_of_row is not None
    n, p = x.shape
    parts: list[Any] = [held for _, held in trials.parts()] or [slice(None)]
    total, grams, sums, moments = np.zeros((p, p), plan.dtype), [], [], []
    jobs = ((x[rows], target_rows[rows], plan, ops) for rows in parts)
    for gram, column_sums, moment in run(_fold_moments, jobs):
        total += gram
        sums.append(column_sums)
        moments.append(moment)
        grams.append(gram if in_folds else None)
    everything = np.sum(sums, axis=0)
    means: list[npt.NDArray[np.float64]] = []

    def centred(fold: int) -> tuple[Any, ...]:
        n_train = n - len(parts[fold])
        gram = total - grams[fold]
        grams[fold] = None
        mean = np.zeros(p)
        if plan.fit_intercept:
            mean = (everything - sums[fold]) / n_train
        means.append(mean)
        if plan.fit_intercept:
            centre = (mean * np.sqrt(n_train)).astype(plan.dtype)
            gram -= np.outer(centre, centre)
        rows = x[parts[fold]] - mean.astype(plan.dtype)
        return gram, rows, mean * n_train, parts[fold], dead, plan, ops

    folds: list[System] = []
    if in_folds:
        for system in run(_primal_system, (centred(fold) for fold in range(len(parts)))):
            if system is None:
                return None
            if trials.forms is not None:
                others = [m for fold, m in enumerate(moments) if fold != len(folds)]
                projected = np.concatenate([system.left.T @ m.sums.T for m in others], axis=1)
                trials.forms.add(len(folds), system, projected, target_rows)
                if system.rounding <= FOLD_LIMIT[plan.dtype]:
                    system.drop()
            folds.append(system)

    def on_all_rows(wide: Plan) -> System | None:
        gram = total if wide is plan else _gram(x, wide, ops)
        job = (gram, None, np.zeros(p), np.arange(0), dead, wide, ops)
        return next(iter(run(_primal_system, [job])))  # type: ignore[no-any-return]

    def measure(full: System) -> npt.NDArray[np.float64]:
        doubtful = [k for k, fold in enumerate(folds) if not fold.dropped]
        systems, centres = [folds[k] for k in doubtful], [means[k] for k in doubtful]
        return measure_primal(x, plan, [*systems, full], [*centres, np.zeros(p)])

    full = _full_system(on_all_rows, measure, folds, plan)
    if full is None:
        return None
    return trials.design("primal", folds, full, moments)


def _gram(x: FloatArray, plan: Plan, ops: Ops, *, of_rows: bool = False) -> FloatArray:
    part = ops.put(x, plan.dtype)
    return ops.get(part @ part.T if of_rows else part.T @ part)


def _fold_moments(
    x: FloatArray, target_rows: npt.NDArray[np.intp], plan: Plan, ops: Ops
) -> tuple[FloatArray, npt.NDArray[np.float64], Moments]:
    """Gram matrix, column sums and rows by target of the trials of one fold."""
    distinct, collapsed = _collapse(x, target_rows)
    moments = Moments(ops.put(collapsed, plan.dtype), distinct)
    return _gram(x, plan, ops), x.sum(axis=0, dtype=np.float64), moments


def _primal_system(
    gram: FloatArray,
    rows: FloatArray | None,
    mean_left: npt.NDArray[np.float64],
    held: npt.NDArray[np.intp],
    dead: npt.NDArray[np.bool_],
    plan: Plan,
    ops: Ops,
) -> System | None:
    """The fit on all rows when there are no held-out `rows`; None if rounding is too large."""
    if not representable(gram, plan):
        return None
    filled = _fill(gram, dead)
    basis, solver = factorize(ops.put(gram, plan.dtype), ops)
    rounding = _rounding(solver, plan)
    if not rounding <= HOPELESS[plan.dtype]:
        return None
    mean = ops.put(mean_left, plan.dtype) @ basis
    right = basis if rows is None else ops.put(rows, plan.dtype) @ basis
    return System(basis, None, mean, right, solver, held, rounding, filled)


def _dual(trials: Trials) -> Design | None:
    x, plan, ops, run = trials.x, trials.plan, trials.ops, trials.run
    target_rows = trials.target_rows
    kernel = _gram(x, plan, ops, of_rows=True)
    folds: list[System] = []
    jobs = ((train, held, target_rows, plan, ops) for train, held in trials.parts())
    for system in run(_dual_fold, jobs, (kernel,)):
        if system is None:
            return None
        if trials.forms is not None and system.rows is not None:
            forms = trials.forms
            place = np.empty(len(forms.order), np.intp)
            place[forms.order] = np.arange(len(forms.order))
            columns = np.argsort(place[system.rows])
            forms.add(len(folds), system, system.left[columns].T.copy(), target_rows)
        folds.append(system)

    def on_all_rows(wide: Plan) -> System | None:
        gram = kernel if wide is plan else _gram(x, wide, ops, of_rows=True)
        job = (gram, x, target_rows, wide, ops)
        return next(iter(run(_dual_full, [job])))  # type: ignore[no-any-return]

    def measure(full: System) -> npt.NDArray[np.float64]:
        return np.append(np.zeros(len(folds)), measure_dual(x, plan, full))

    full = _full_system(on_all_rows, measure, folds, plan)
    if full is None:
        return None
    return trials.design("dual", folds, full, [])


def _dual_fold(
    kernel: FloatArray,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    plan: Plan,
    ops: Ops,
) -> System | None:
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(held, train)]
    if plan.fit_intercept:
        # Rows of `outer` need not be centred themselves: they meet targets without a mean.
        mean = inner.mean(axis=0, dtype=np.float64)
        outer -= (mean - mean.mean()).astype(plan.dtype)
        inner -= mean.astype(plan.dtype)
        inner -= (mean - mean.mean())[:, None].astype(plan.dtype)
    found = _kernel_system(inner, FOLD_LIMIT, plan, ops)
    if found is None:
        return None
    basis, solver, rounding, filled = found
    right = ops.put(outer, plan.dtype) @ basis
    return _on_targets(basis, right, solver, train, held, target_rows, ops, rounding, filled)


def _dual_full(
    kernel: FloatArray, x: FloatArray, target_rows: npt.NDArray[np.intp], plan: Plan, ops: Ops
) -> System | None:
    found = _kernel_system(kernel, HOPELESS, plan, ops)
    if found is None:
        return None
    basis, solver, rounding, filled = found
    right, everything = ops.put(x, plan.dtype).T @ basis, np.arange(len(x))
    return _on_targets(
        basis, right, solver, everything, everything[:0], target_rows, ops, rounding, filled
    )


def _kernel_system(
    kernel: FloatArray, limit: dict[np.dtype[Any], float], plan: Plan, ops: Ops
) -> tuple[Array, Solver, float, tuple[float, int]] | None:
    """Basis, solver, rounding and filled direction of a centred kernel, which is overwritten."""
    if not representable(kernel, plan):
        return None
    filled = (0.0, 0)
    if plan.fit_intercept:
        # Centring removes the constant direction; it gets an eigenvalue of ordinary size.
        value = float(kernel.diagonal().mean(dtype=np.float64))
        filled = (value, 1)
        kernel += kernel.dtype.type(value / len(kernel))
    basis, solver = factorize(ops.put(kernel, plan.dtype), ops)
    rounding = _rounding(solver, plan)
    return (basis, solver, rounding, filled) if rounding <= limit[plan.dtype] else None


def _fill(gram: FloatArray, dead: npt.NDArray[np.bool_]) -> tuple[float, int]:
    """Give columns without any variance a diagonal of ordinary size, in place."""
    columns = np.flatnonzero(dead)
    value = float(gram.diagonal()[~dead].mean()) if len(columns) < len(dead) else 1.0
    gram[columns, columns] = value
    return value, len(columns)
