"""Dual decompositions: the n x n kernel XX', and the singular values of X itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array, Ops, dtype_of
from calcarine.linear._design import (
    DecomposedPredictors,
    Decomposition,
    FitSettings,
    ScaledTrials,
    gram_matrix,
)
from calcarine.linear._precision import (
    FOLD_LIMIT,
    HOPELESS,
    decompose_all_rows,
    measure_dual,
    representable,
    rounding_error,
)
from calcarine.linear._scaling import (
    RootWeights,
    mean_of_rows,
    sum_by_target,
    weighted,
    weighted_mean,
)
from calcarine.linear._solvers import EigenSolver, Solver, factorize
from calcarine.linear._validation import FloatArray

_EPS = float(np.finfo(np.float64).eps)


@dataclass
class _DualFitOnAllRows:
    """Decomposes the kernel of all rows; see `FullFit`."""

    trials: ScaledTrials
    kernel: FloatArray
    n_folds: int

    def decompose(self, settings: FitSettings) -> Decomposition | None:
        """Decompose in the precision of `settings`."""
        trials = self.trials
        kernel = self.kernel
        if settings is not trials.settings:
            kernel = gram_matrix(trials.x, settings, trials.ops, of_rows=True)
        job = (
            kernel,
            trials.x,
            trials.target_rows,
            trials.root,
            settings,
            trials.ops,
            trials.columns,
        )
        return next(iter(trials.run(_decompose_all, [job])))  # type: ignore[no-any-return]

    def errors(self, full: Decomposition) -> npt.NDArray[np.float64]:
        """Measure `full`; folds are decomposed only where they need no measuring."""
        trials = self.trials
        error = measure_dual(trials.x, trials.root, trials.settings, full)
        return np.append(np.zeros(self.n_folds), error)


def decompose_dual(trials: ScaledTrials) -> DecomposedPredictors | None:
    """Decompose XX' of all rows and of the training rows of every fold.

    Returns
    -------
    DecomposedPredictors or None
        None when the precision of the settings is not enough.
    """
    settings, root, ops = trials.settings, trials.root, trials.ops
    kernel = gram_matrix(trials.x, settings, ops, of_rows=True)
    folds: list[Decomposition] = []
    jobs = ((*rows, trials.target_rows, root, settings, ops) for rows in trials.folds())
    for fold in trials.run(_decompose_fold, jobs, (kernel,)):
        if fold is None:
            return None
        if trials.forms is not None and fold.rows is not None:
            forms = trials.forms
            columns = np.argsort(forms.place[fold.rows])
            projected = fold.left[columns].T.copy()
            forms.add(
                len(folds),
                projected,
                fold.held,
                fold.mean_left,
                fold.right,
                fold.solver,
                trials.target_rows,
            )
        fold.train = trials.training(len(folds))
        folds.append(fold)
    full = decompose_all_rows(_DualFitOnAllRows(trials, kernel, len(folds)), folds, settings)
    return None if full is None else trials.decomposed("dual", folds, full, [])


def decompose_svd(trials: ScaledTrials) -> DecomposedPredictors:
    """Decompose the rows themselves by singular values, for penalties of any size.

    A Gram matrix squares the condition number. This does not, at several times the cost.
    """
    everything = np.arange(len(trials.x))
    jobs = (
        (train, held, trials.target_rows, trials.root, trials.settings, trials.ops)
        for train, held in [*trials.folds(), (everything, everything[:0])]
    )
    *folds, full = trials.run(_singular_values, jobs, (trials.x,))
    for number, fold in enumerate(folds):
        fold.train = trials.training(number)
    return trials.decomposed("svd", folds, full, [])


def _singular_values(
    x: FloatArray,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    root: RootWeights | None,
    settings: FitSettings,
    ops: Ops,
) -> Decomposition:
    mean = np.zeros(x.shape[1])
    if settings.fit_intercept:
        mean = x[train].mean(axis=0) if root is None else weighted_mean(x[train], root[train])
    u, s, vt = ops.svd(ops.put(x[train] - mean_of_rows(mean, root, train), settings.dtype))
    values = ops.get(s)
    kept = int((values > max(len(train), x.shape[1]) * _EPS * values[0]).sum())
    u, s, right = u[:, :kept], s[:kept], vt[:kept].T * s[:kept]
    if len(held):
        right = ops.put(x[held] - mean_of_rows(mean, root, held), settings.dtype) @ right
    basis = _KernelBasis(u, EigenSolver(s * s, ops))
    return basis.on_targets(right, train, held, target_rows, root, ops)


def _decompose_fold(
    kernel: FloatArray,
    train: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    root: RootWeights | None,
    settings: FitSettings,
    ops: Ops,
) -> Decomposition | None:
    """Decompose the kernel of the training rows of a fold; None if rounding is too large."""
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(held, train)]
    own = None if root is None else root[train]
    if settings.fit_intercept and own is not None:
        mean = weighted_mean(inner, own)
        deviation = mean - own * (own @ mean / (own @ own))
        outer -= mean_of_rows(deviation.astype(settings.dtype), root, held)
        inner -= mean_of_rows(mean.astype(settings.dtype), root, train)
        inner -= np.outer(deviation, own).astype(settings.dtype)
    elif settings.fit_intercept:
        # Rows of `outer` need not be centred themselves: they are multiplied by centred targets.
        mean = inner.mean(axis=0, dtype=np.float64)
        outer -= (mean - mean.mean()).astype(settings.dtype)
        inner -= mean.astype(settings.dtype)
        inner -= (mean - mean.mean())[:, None].astype(settings.dtype)
    basis = _decompose_kernel(inner, own, FOLD_LIMIT, settings, ops)
    if basis is None:
        return None
    right = ops.put(outer, settings.dtype) @ basis.vectors
    return basis.on_targets(right, train, held, target_rows, root, ops)


def _decompose_all(
    kernel: FloatArray,
    x: FloatArray,
    target_rows: npt.NDArray[np.intp],
    root: RootWeights | None,
    settings: FitSettings,
    ops: Ops,
    columns: int,
) -> Decomposition | None:
    """Decompose the kernel of all rows; None if rounding is too large."""
    basis = _decompose_kernel(kernel, root, HOPELESS, settings, ops, columns)
    if basis is None:
        return None
    right, everything = ops.put(x, settings.dtype).T @ basis.vectors, np.arange(len(x))
    return basis.on_targets(right, everything, everything[:0], target_rows, root, ops)


@dataclass
class _KernelBasis:
    """Basis (n, r) and solver of a kernel, its rounding error and filled direction."""

    vectors: Array
    solver: Solver
    rounding: float = _EPS
    filled: tuple[float, int] = (0.0, 0)

    def on_targets(
        self,
        right: Array,
        train: npt.NDArray[np.intp],
        held: npt.NDArray[np.intp],
        target_rows: npt.NDArray[np.intp],
        root: RootWeights | None,
        ops: Ops,
    ) -> Decomposition:
        """Return a decomposition that applies to rows of the targets instead of trials."""
        left = self.vectors
        dtype = dtype_of(left)
        values = weighted(ops.get(left), None if root is None else root[train])
        mean_left = ops.put(values.sum(axis=0, dtype=np.float64), dtype)
        rows, sums = sum_by_target(values, target_rows[train])
        summed = left if sums is values and root is None else ops.put(sums, dtype)
        return Decomposition(
            left=summed,
            rows=rows,
            mean_left=mean_left,
            right=right,
            solver=self.solver,
            held=held,
            rounding=self.rounding,
            filled=self.filled,
            trials=None if len(held) else left,
        )


def _decompose_kernel(
    kernel: FloatArray,
    root: RootWeights | None,
    limit: dict[np.dtype[Any], float],
    settings: FitSettings,
    ops: Ops,
    columns: int = 0,
) -> _KernelBasis | None:
    """Decompose a centred kernel, which is overwritten; None if rounding exceeds `limit`."""
    if not representable(kernel, settings):
        return None
    filled = (0.0, 0)
    if settings.fit_intercept:
        # Centring removes the constant direction; it gets an eigenvalue of ordinary size.
        value = float(kernel.diagonal().mean(dtype=np.float64))
        filled = (value, 1)
        if root is None:
            kernel += kernel.dtype.type(value / len(kernel))
        else:
            kernel += (value / (root @ root) * np.outer(root, root)).astype(kernel.dtype)
    vectors, solver = factorize(ops.put(kernel, settings.dtype), ops, columns)
    rounding = rounding_error(solver, settings)
    if not rounding <= limit[settings.dtype]:
        return None
    return _KernelBasis(vectors, solver, rounding, filled)
