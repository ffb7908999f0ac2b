"""How a design comes to be: Gram matrices, their decompositions, and the precision they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array, Ops, dtype_of
from calcarine.linear._checks import FloatArray
from calcarine.linear._design import Design, Moments, Plan, Runner, Scaler, System
from calcarine.linear._forms import Forms, projections
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
from calcarine.linear._solvers import Solver, Spectral, factor_values, factorize
from calcarine.linear._sources import CHUNK_VALUES, row_chunks
from calcarine.linear._weights import weighted

_EPS = float(np.finfo(np.float64).eps)


def peak_bytes(
    n: int, p: int, n_folds: int, plan: Plan, *, hard: bool = False, weighted: bool = False
) -> int:
    """Most memory that `prepare` may take in the precision of the plan, or `prepare_hard`."""
    order = n if plan.solver == "dual" else p
    own = (3 * order**2 + n * p) * weighted  # rows and bases that are weighted are copies
    if plan.wide:
        values = (n_folds + 6) * order**2 + 3 * n * p + (n_folds + 1) * factor_values(order) + own
        return values * DOUBLE.itemsize + 3 * 8 * min(CHUNK_VALUES + p, n * p)
    wide = 2 if plan.dtype.itemsize < 8 else 1
    squares, rows = n_folds + 1 + 4 * wide, 2 + 2 * wide
    values = squares * order**2 + rows * n * p + (n_folds + 1) * factor_values(order) + own
    values += (n_folds + 2) * n * p if hard else 0
    return values * plan.dtype.itemsize + 3 * 8 * min(CHUNK_VALUES + p, n * p)


@dataclass(frozen=True)
class Trials:
    """Scaled rows, shape (n, p), in the precision of the plan, and how they are to be decomposed.

    Where there are sample weights, `root` holds their roots and the rows were multiplied by them:
    then ridge of such rows on such targets is weighted ridge, with `root` in the place of the
    constant vector. Rows are in the order of `fold_of_row`, which is None when only all rows are
    wanted. The fit on all rows will be solved for `columns`, over all penalties.
    """

    x: FloatArray
    scaler: Scaler
    fold_of_row: npt.NDArray[np.intp] | None
    target_rows: npt.NDArray[np.intp]
    root: npt.NDArray[np.float64] | None
    plan: Plan
    ops: Ops
    run: Runner
    forms: Forms | None = None
    columns: int = 0

    def parts(self) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Training and held-out trials of every fold."""
        if self.fold_of_row is None:
            return
        everything = np.arange(len(self.x))
        for held in np.split(everything, np.flatnonzero(np.diff(self.fold_of_row)) + 1):
            yield np.delete(everything, held), held

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
            self.plan,
            kind,
            self.scaler,
            n,
            self.target_rows,
            folds,
            full,
            moments,
            self.ops,
            forms,
            self.root,
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
        (train, held, trials.target_rows, trials.root, trials.plan, trials.ops)
        for train, held in [*trials.parts(), (everything, everything[:0])]
    )
    *folds, full = trials.run(_hard_system, jobs, (trials.x,))
    return trials.design("svd", folds, full, [])


def _hard_system(
    x: FloatArray,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    root: npt.NDArray[np.float64] | None,
    plan: Plan,
    ops: Ops,
) -> System:
    mean = np.zeros(x.shape[1])
    if plan.fit_intercept:
        mean = x[train].mean(axis=0) if root is None else _mean(x[train], root[train])
    u, s, vt = ops.svd(ops.put(x[train] - _constant(mean, root, train), plan.dtype))
    values = ops.get(s)
    kept = int((values > max(len(train), x.shape[1]) * _EPS * values[0]).sum())
    u, s, right = u[:, :kept], s[:kept], vt[:kept].T * s[:kept]
    if len(held):
        right = ops.put(x[held] - _constant(mean, root, held), plan.dtype) @ right
    return _on_targets(u, right, Spectral(s * s, ops), train, held, target_rows, root, ops)


def _mean(rows: FloatArray, root: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weighted mean of rows (n, p) that were multiplied by the roots of their weights."""
    return np.asarray(root @ rows / (root @ root))


def _constant(
    mean: npt.NDArray[Any], root: npt.NDArray[np.float64] | None, trials: npt.NDArray[np.intp]
) -> npt.NDArray[Any]:
    """What a mean subtracts from the rows of some trials."""
    return mean if root is None else (root[trials, None] * mean).astype(mean.dtype)


def _on_targets(
    left: Array,
    right: Array,
    solver: Solver,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    root: npt.NDArray[np.float64] | None,
    ops: Ops,
    rounding: float = _EPS,
    filled: tuple[float, int] = (0.0, 0),
) -> System:
    """A system applied to targets: rows of `left` that share a row of the targets are summed."""
    dtype = dtype_of(left)
    values = weighted(ops.get(left), None if root is None else root[train])
    mean_left = ops.put(values.sum(axis=0, dtype=np.float64), dtype)
    rows, sums = _collapse(values, target_rows[train])
    summed = left if sums is values and root is None else ops.put(sums, dtype)
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
    condition = solver.condition(float(plan.alphas[0]))
    rounding = float(np.finfo(plan.gram_dtype).eps) * condition
    if plan.wide:  # products with a basis round as those with the rows do, before they are squared
        rounding += float(np.finfo(plan.dtype).eps) * condition**0.5
    return rounding


def wider(plan: Plan, *, folds: bool) -> list[Plan]:
    """The plan, and the same with more of it in float64."""
    if plan.dtype == DOUBLE:
        return [plan]
    between = [replace(plan, wide=True)] if folds and plan.solver == "primal" else []
    return [plan, *between, replace(plan, dtype=DOUBLE)]


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
    full = make(replace(plan, dtype=DOUBLE, wide=False))
    # Targets are projected in single precision still.
    ratio = float(np.finfo(SINGLE).eps / np.finfo(DOUBLE).eps)
    return full if full is not None and full.rounding * ratio <= FOLD_LIMIT[SINGLE] else None


def _primal(trials: Trials) -> Design | None:
    x, plan, ops, run = trials.x, trials.plan, trials.ops, trials.run
    target_rows, dead, root = trials.target_rows, trials.scaler.dead, trials.root
    n, p = x.shape
    held_out = [held for _, held in trials.parts()]
    parts = [slice(held[0], held[-1] + 1) for held in held_out] or [slice(None)]
    # Repeats are summed anyway; a slice of the rows keeps all of them in memory.
    alone = int(target_rows.max()) + 1 == n
    total, sums, moments = np.zeros((p, p), plan.gram_dtype), [], []
    grams: deque[FloatArray] = deque()
    jobs = (
        (
            x[rows] if alone else x[rows].copy(),
            target_rows[rows],
            None if root is None else root[rows],
            plan,
            ops,
        )
        for rows in parts
    )
    for gram, column_sums, moment in run(_fold_moments, jobs):
        total += gram
        sums.append(column_sums)
        moments.append(moment)
        if held_out:
            grams.append(gram)
    del gram  # the folds overwrite theirs, one after the other
    everything = np.sum(sums, axis=0)
    n_train: list[float] = [n - len(held) for held in held_out]
    if root is not None:
        n_train = [float(root @ root - root[held] @ root[held]) for held in held_out]
    means = [
        (everything - held) / count if plan.fit_intercept else np.zeros(p)
        for held, count in zip(sums, n_train, strict=False)
    ]

    def centred(fold: int) -> tuple[Any, ...]:
        gram, mean = grams.popleft(), means[fold]
        # What came from a worker may not be written to.
        gram = np.subtract(total, gram, out=gram if gram.flags.writeable else None)
        if plan.fit_intercept:
            centre = (mean * np.sqrt(n_train[fold])).astype(plan.gram_dtype)
            for some in row_chunks(gram):
                gram[some] -= centre[some, None] * centre
        rows = x[parts[fold]] - _constant(mean.astype(plan.dtype), root, held_out[fold])
        return gram, rows, mean * n_train[fold], held_out[fold], dead, plan, ops

    folds: list[System] = []
    measured = False  # the first fold
    if held_out:
        for system in run(_primal_system, (centred(fold) for fold in range(len(parts)))):
            if system is None:
                return None
            trusted = system.rounding <= FOLD_LIMIT[plan.dtype]
            if not folds and not trusted:
                # One fold shows that a precision is not enough before the others are decomposed.
                if measure_primal(x, root, plan, [system], means[:1])[0] > FOLD_ERROR:
                    return None
                trusted = measured = True
            if trials.forms is not None:
                others = [m.sums for fold, m in enumerate(moments) if fold != len(folds)]
                projected = projections(system.left, others)
                trials.forms.add(len(folds), system, projected, target_rows)
                del projected
                if trusted:
                    system.drop()
            folds.append(system)

    def on_all_rows(wide: Plan) -> System | None:
        gram = total if wide is plan else _gram(x, wide, ops)
        job = (gram, None, np.zeros(p), np.arange(0), dead, wide, ops, trials.columns)
        return next(iter(run(_primal_system, [job])))  # type: ignore[no-any-return]

    def measure(full: System) -> npt.NDArray[np.float64]:
        doubtful = [k for k, f in enumerate(folds) if not f.dropped and k >= measured]
        systems, centres = [folds[k] for k in doubtful], [means[k] for k in doubtful]
        return measure_primal(x, root, plan, [*systems, full], [*centres, np.zeros(p)])

    full = _full_system(on_all_rows, measure, folds, plan)
    if full is None:
        return None
    return trials.design("primal", folds, full, moments)


def _gram(x: FloatArray, plan: Plan, ops: Ops, *, of_rows: bool = False) -> FloatArray:
    part = ops.put(x, plan.gram_dtype)
    return ops.get(part @ part.T if of_rows else part.T @ part)


def _fold_moments(
    x: FloatArray,
    target_rows: npt.NDArray[np.intp],
    root: npt.NDArray[np.float64] | None,
    plan: Plan,
    ops: Ops,
) -> tuple[FloatArray, npt.NDArray[np.float64], Moments]:
    """Gram matrix, column sums and rows by target of the trials of one fold."""
    by_weight = weighted(x, root)
    distinct, collapsed = _collapse(by_weight, target_rows)
    moments = Moments(ops.put(collapsed, plan.dtype), distinct)
    return _gram(x, plan, ops), by_weight.sum(axis=0, dtype=np.float64), moments


def _primal_system(
    gram: FloatArray,
    rows: FloatArray | None,
    mean_left: npt.NDArray[np.float64],
    held: npt.NDArray[np.intp],
    dead: npt.NDArray[np.bool_],
    plan: Plan,
    ops: Ops,
    columns: int = 0,
) -> System | None:
    """The fit on all rows when there are no held-out `rows`; None if rounding is too large."""
    if not representable(gram, plan):
        return None
    filled = _fill(gram, dead)
    basis, solver = factorize(ops.put(gram, plan.gram_dtype), ops, columns)
    rounding = _rounding(solver, plan)
    if not rounding <= HOPELESS[plan.dtype]:
        return None
    mean = ops.put(ops.put(mean_left, plan.gram_dtype) @ basis, plan.dtype)
    basis = ops.put(basis, plan.dtype)
    right = basis if rows is None else ops.put(rows, plan.dtype) @ basis
    return System(basis, None, mean, right, solver, held, rounding, filled)


def _dual(trials: Trials) -> Design | None:
    x, plan, ops, run = trials.x, trials.plan, trials.ops, trials.run
    target_rows, root = trials.target_rows, trials.root
    kernel = _gram(x, plan, ops, of_rows=True)
    folds: list[System] = []
    jobs = ((train, held, target_rows, root, plan, ops) for train, held in trials.parts())
    for system in run(_dual_fold, jobs, (kernel,)):
        if system is None:
            return None
        if trials.forms is not None and system.rows is not None:
            forms = trials.forms
            columns = np.argsort(forms.place[system.rows])
            forms.add(len(folds), system, system.left[columns].T.copy(), target_rows)
        folds.append(system)

    def on_all_rows(wide: Plan) -> System | None:
        gram = kernel if wide is plan else _gram(x, wide, ops, of_rows=True)
        job = (gram, x, target_rows, root, wide, ops, trials.columns)
        return next(iter(run(_dual_full, [job])))  # type: ignore[no-any-return]

    def measure(full: System) -> npt.NDArray[np.float64]:
        return np.append(np.zeros(len(folds)), measure_dual(x, root, plan, full))

    full = _full_system(on_all_rows, measure, folds, plan)
    if full is None:
        return None
    return trials.design("dual", folds, full, [])


def _dual_fold(
    kernel: FloatArray,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    root: npt.NDArray[np.float64] | None,
    plan: Plan,
    ops: Ops,
) -> System | None:
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(held, train)]
    own = None if root is None else root[train]
    if plan.fit_intercept and own is not None:
        mean = _mean(inner, own)
        deviation = mean - own * (own @ mean / (own @ own))
        outer -= _constant(deviation.astype(plan.dtype), root, held)
        inner -= _constant(mean.astype(plan.dtype), root, train)
        inner -= np.outer(deviation, own).astype(plan.dtype)
    elif plan.fit_intercept:
        # Rows of `outer` need not be centred themselves: they meet targets without a mean.
        mean = inner.mean(axis=0, dtype=np.float64)
        outer -= (mean - mean.mean()).astype(plan.dtype)
        inner -= mean.astype(plan.dtype)
        inner -= (mean - mean.mean())[:, None].astype(plan.dtype)
    found = _kernel_system(inner, own, FOLD_LIMIT, plan, ops)
    if found is None:
        return None
    basis, solver, rounding, filled = found
    right = ops.put(outer, plan.dtype) @ basis
    return _on_targets(basis, right, solver, train, held, target_rows, root, ops, rounding, filled)


def _dual_full(
    kernel: FloatArray,
    x: FloatArray,
    target_rows: npt.NDArray[np.intp],
    root: npt.NDArray[np.float64] | None,
    plan: Plan,
    ops: Ops,
    columns: int,
) -> System | None:
    found = _kernel_system(kernel, root, HOPELESS, plan, ops, columns)
    if found is None:
        return None
    basis, solver, rounding, filled = found
    right, everything = ops.put(x, plan.dtype).T @ basis, np.arange(len(x))
    return _on_targets(
        basis, right, solver, everything, everything[:0], target_rows, root, ops, rounding, filled
    )


def _kernel_system(
    kernel: FloatArray,
    root: npt.NDArray[np.float64] | None,
    limit: dict[np.dtype[Any], float],
    plan: Plan,
    ops: Ops,
    columns: int = 0,
) -> tuple[Array, Solver, float, tuple[float, int]] | None:
    """Basis, solver, rounding and filled direction of a centred kernel, which is overwritten."""
    if not representable(kernel, plan):
        return None
    filled = (0.0, 0)
    if plan.fit_intercept:
        # Centring removes the constant direction; it gets an eigenvalue of ordinary size.
        value = float(kernel.diagonal().mean(dtype=np.float64))
        filled = (value, 1)
        if root is None:
            kernel += kernel.dtype.type(value / len(kernel))
        else:
            kernel += (value / (root @ root) * np.outer(root, root)).astype(kernel.dtype)
    basis, solver = factorize(ops.put(kernel, plan.dtype), ops, columns)
    rounding = _rounding(solver, plan)
    return (basis, solver, rounding, filled) if rounding <= limit[plan.dtype] else None


def _fill(gram: FloatArray, dead: npt.NDArray[np.bool_]) -> tuple[float, int]:
    """Give columns without any variance a diagonal of ordinary size, in place."""
    columns = np.flatnonzero(dead)
    value = float(gram.diagonal()[~dead].mean()) if len(columns) < len(dead) else 1.0
    gram[columns, columns] = value
    return value, len(columns)
