"""Decompositions of the predictors: primal (X'X), dual (XX') and by singular values."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array, Ops, dtype_of
from calcarine.linear._decomposed_predictors import (
    FOLD_ERROR,
    FOLD_LIMIT,
    HOPELESS,
    DecomposedPredictors,
    Decomposition,
    FitSettings,
    ScaledTrials,
    SummedRows,
    decompose_all_rows,
    gram_matrix,
    measure_dual,
    measure_primal,
    representable,
    rounding_error,
)
from calcarine.linear._predictors import (
    RootWeights,
    Rows,
    mean_of_rows,
    row_chunks,
    sum_by_target,
    weighted,
    weighted_mean,
)
from calcarine.linear._quadratic_forms import projections
from calcarine.linear._solvers import EigenSolver, Solver, factorize
from calcarine.linear._validation import FloatArray


@dataclass
class _FoldSums:
    """Sums over the held-out rows of each fold, and over all rows.

    Attributes
    ----------
    held : list of ndarray
        Held-out trials of each fold; empty where only all rows are decomposed.
    slices : list of slice
        The same trials as slices where they are; one slice of all rows without folds.
    total : ndarray, shape (p, p)
        Gram matrix of all rows; the decomposition of all rows overwrites it.
    grams : deque of ndarray
        Gram matrices of the folds; each is removed when its fold is decomposed. Empty where folds
        do not partition the trials.
    column_sums : list of ndarray, shape (p,)
    summed_rows : list of SummedRows
    n_train : list of float
        Number of training rows of each fold, or the sum of their weights.
    means : list of ndarray, shape (p,)
        Means of the training rows of each fold, 0 without an intercept.
    """

    held: list[npt.NDArray[np.intp]]
    slices: list[slice] | list[Rows]
    total: FloatArray
    grams: deque[FloatArray] = field(default_factory=deque)
    column_sums: list[npt.NDArray[np.float64]] = field(default_factory=list)
    summed_rows: list[SummedRows] = field(default_factory=list)
    n_train: list[float] = field(default_factory=list)
    means: list[npt.NDArray[np.float64]] = field(default_factory=list)


@dataclass
class _PrimalFitOnAllRows:
    """Decomposes the Gram matrix of all rows; see `FullFit`.

    `measured` is the number of folds that were measured before: 0 or 1.
    """

    trials: ScaledTrials
    sums: _FoldSums
    folds: list[Decomposition]
    measured: int

    def decompose(self, settings: FitSettings) -> Decomposition | None:
        """Decompose in the precision of `settings`."""
        trials, total = self.trials, self.sums.total
        same = settings is trials.settings
        gram = total if same else gram_matrix(trials.x, settings, trials.ops)
        zero, constant = np.zeros(len(total)), trials.scaler.constant
        job = (gram, None, zero, np.arange(0), constant, settings, trials.ops, trials.columns)
        return next(iter(trials.run(_decompose_gram, [job])))  # type: ignore[no-any-return]

    def errors(self, full: Decomposition) -> npt.NDArray[np.float64]:
        """Measure the folds that are still unmeasured, and `full`."""
        doubtful = [
            k for k, fold in enumerate(self.folds) if not fold.dropped and k >= self.measured
        ]
        parts = [self.folds[k] for k in doubtful]
        means = [self.sums.means[k] for k in doubtful]
        trials = self.trials
        zero = np.zeros(trials.x.shape[1])
        return measure_primal(
            trials.x, trials.root, trials.settings, [*parts, full], [*means, zero]
        )


def decompose_primal(trials: ScaledTrials) -> DecomposedPredictors | None:
    """Decompose X'X of all rows and of the training rows of every fold.

    Returns
    -------
    DecomposedPredictors or None
        None when the precision of the settings is not enough.
    """
    sums = _sum_folds(trials)
    decomposed = _decompose_folds(trials, sums)
    if decomposed is None:
        return None
    folds, measured = decomposed
    full = decompose_all_rows(
        _PrimalFitOnAllRows(trials, sums, folds, measured), folds, trials.settings
    )
    return None if full is None else trials.decomposed("primal", folds, full, sums.summed_rows)


def _sum_folds(trials: ScaledTrials) -> _FoldSums:
    """Sum over the rows of each fold, and subtract from the sums of all rows for the means."""
    if not trials.partitioned:
        return _sum_overlapping(trials)
    x, settings, root = trials.x, trials.settings, trials.root
    n, p = x.shape
    held = [held for _, held in trials.folds()]
    slices = [slice(rows[0], rows[-1] + 1) for rows in held] or [slice(None)]
    sums = _FoldSums(held, slices, np.zeros((p, p), settings.gram_dtype))
    for gram, column_sums, rows in trials.run(_sum_rows, _row_jobs(trials, slices)):
        sums.total += gram
        sums.column_sums.append(column_sums)
        sums.summed_rows.append(rows)
        if held:
            sums.grams.append(gram)
    everything = np.sum(sums.column_sums, axis=0)
    sums.n_train = [n - len(rows) for rows in held]
    if root is not None:
        sums.n_train = [float(root @ root - root[rows] @ root[rows]) for rows in held]
    sums.means = [
        (everything - own) / count if settings.fit_intercept else np.zeros(p)
        for own, count in zip(sums.column_sums, sums.n_train, strict=False)
    ]
    return sums


def _sum_overlapping(trials: ScaledTrials) -> _FoldSums:
    """Return the sums over all rows and the means of training rows, for folds that overlap."""
    x, settings, root = trials.x, trials.settings, trials.root
    held = [held for _, held in trials.folds()]
    total = next(iter(trials.run(gram_matrix, [(x, settings, trials.ops)])))
    sums = _FoldSums(held, held, total)
    everything = trials.ops.put(weighted(x, root), settings.dtype)
    sums.summed_rows = [SummedRows(everything, trials.target_rows)]
    for train, _ in trials.folds():
        ones = np.ones(len(train)) if root is None else root[train]
        mean = weighted_mean(x[train], ones) if settings.fit_intercept else np.zeros(x.shape[1])
        sums.means.append(mean)
        sums.n_train.append(float(ones @ ones))
    return sums


def _row_jobs(trials: ScaledTrials, slices: list[slice]) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of `_sum_rows` for each fold."""
    # Rows that share a target are summed into a new array anyway. A view would keep all rows alive.
    alone = int(trials.target_rows.max()) + 1 == len(trials.x)
    return (
        (
            trials.x[rows] if alone else trials.x[rows].copy(),
            trials.target_rows[rows],
            None if trials.root is None else trials.root[rows],
            trials.settings,
            trials.ops,
        )
        for rows in slices
    )


def _sum_rows(
    x: FloatArray,
    target_rows: npt.NDArray[np.intp],
    root: RootWeights | None,
    settings: FitSettings,
    ops: Ops,
) -> tuple[FloatArray, npt.NDArray[np.float64], SummedRows]:
    """Return Gram matrix, column sums and rows by target of the trials of one fold."""
    by_weight = weighted(x, root)
    distinct, summed = sum_by_target(by_weight, target_rows)
    rows = SummedRows(ops.put(summed, settings.dtype), distinct)
    return gram_matrix(x, settings, ops), by_weight.sum(axis=0, dtype=np.float64), rows


def _decompose_folds(
    trials: ScaledTrials, sums: _FoldSums
) -> tuple[list[Decomposition], int] | None:
    """Decompose the training rows of every fold.

    Returns
    -------
    tuple of list and int, or None
        The decompositions and how many of them were measured; None when the precision is not
        enough.
    """
    folds: list[Decomposition] = []
    measured = 0
    decompose = _decompose_gram if trials.partitioned else _decompose_rows
    jobs = (_training_job(trials, sums, fold) for fold in range(len(sums.held)))
    for fold in trials.run(decompose, jobs):
        if fold is None:
            return None
        fold.train = trials.training(len(folds))
        trusted = fold.rounding <= FOLD_LIMIT[trials.settings.dtype]
        if not folds and not trusted:
            # The first fold shows that a precision is not enough before others are decomposed.
            errors = measure_primal(trials.x, trials.root, trials.settings, [fold], sums.means[:1])
            if errors[0] > FOLD_ERROR:
                return None
            trusted, measured = True, 1
        if trials.forms is not None:
            _add_to_forms(trials, sums, len(folds), fold)
            if trusted:
                fold.drop()
        folds.append(fold)
    return folds, measured


def _training_job(trials: ScaledTrials, sums: _FoldSums, fold: int) -> tuple[Any, ...]:
    """Return the arguments of `_decompose_gram` for the training rows of a fold.

    Where folds do not partition the trials, those of `_decompose_rows`.
    """
    mean, settings, train = sums.means[fold], trials.settings, trials.training(fold)
    held, n_train = sums.held[fold], sums.n_train[fold]
    centre_rows = mean_of_rows(mean.astype(settings.dtype), trials.root, held)
    rows = trials.x[sums.slices[fold]] - centre_rows
    rest = (rows, mean * n_train, held, trials.scaler.constant, settings, trials.ops)
    if train is not None:
        return trials.x[train], mean, n_train, *rest
    gram = sums.grams.popleft()
    # An array that came from a worker is read-only.
    gram = np.subtract(sums.total, gram, out=gram if gram.flags.writeable else None)
    _centre(gram, mean, n_train, settings)
    return gram, *rest


def _decompose_rows(
    x: FloatArray,
    mean: npt.NDArray[np.float64],
    n_train: float,
    *rest: Any,
) -> Decomposition | None:
    """Decompose the Gram matrix of training rows; the other arguments as `_decompose_gram`."""
    settings, ops = rest[-2:]
    gram = gram_matrix(x, settings, ops)
    _centre(gram, mean, n_train, settings)
    return _decompose_gram(gram, *rest)


def _centre(
    gram: FloatArray, mean: npt.NDArray[np.float64], n_train: float, settings: FitSettings
) -> None:
    """Subtract the mean of the training rows from their Gram matrix, in place."""
    if settings.fit_intercept:
        centre = (mean * np.sqrt(n_train)).astype(settings.gram_dtype)
        for some in row_chunks(gram):
            gram[some] -= centre[some, None] * centre


def _add_to_forms(trials: ScaledTrials, sums: _FoldSums, number: int, fold: Decomposition) -> None:
    assert trials.forms is not None
    others = [rows.sums for k, rows in enumerate(sums.summed_rows) if k != number]
    projected = projections(fold.left, others)
    trials.forms.add(
        number,
        projected,
        fold.held,
        fold.mean_left,
        fold.right,
        fold.solver,
        trials.target_rows,
    )


def _decompose_gram(
    gram: FloatArray,
    rows: FloatArray | None,
    mean_left: npt.NDArray[np.float64],
    held: npt.NDArray[np.intp],
    constant: npt.NDArray[np.bool_],
    settings: FitSettings,
    ops: Ops,
    columns: int = 0,
) -> Decomposition | None:
    """Decompose a centred Gram matrix, which is overwritten.

    Without held-out `rows` it is that of all rows. None when rounding errors are too large.
    """
    if not representable(gram, settings):
        return None
    filled = _fill_constant_columns(gram, constant)
    basis, solver = factorize(ops.put(gram, settings.gram_dtype), ops, columns)
    rounding = rounding_error(solver, settings)
    if not rounding <= HOPELESS[settings.dtype]:
        return None
    mean = ops.put(ops.put(mean_left, settings.gram_dtype) @ basis, settings.dtype)
    basis = ops.put(basis, settings.dtype)
    right = basis if rows is None else ops.put(rows, settings.dtype) @ basis
    return Decomposition(basis, None, mean, right, solver, held, rounding, filled)


def _fill_constant_columns(gram: FloatArray, constant: npt.NDArray[np.bool_]) -> tuple[float, int]:
    """Give columns without variance a diagonal of ordinary size, in place."""
    columns = np.flatnonzero(constant)
    value = float(gram.diagonal()[~constant].mean()) if len(columns) < len(constant) else 1.0
    gram[columns, columns] = value
    return value, len(columns)


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
