"""What a ridge fit computes with, and whether its precision is enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array, Ops, Runner, dtype_of
from calcarine.linear._predictors import (
    ColumnScaler,
    RootWeights,
    Rows,
    Splits,
    count_rows,
    row_chunks,
)
from calcarine.linear._quadratic_forms import QuadraticForms
from calcarine.linear._solvers import Solver
from calcarine.linear._validation import FloatArray

SINGLE: np.dtype[Any] = np.dtype(np.float32)
DOUBLE: np.dtype[Any] = np.dtype(np.float64)
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class FitSettings:
    """Checked settings of one fit.

    With `wide`, Gram matrices are computed and decomposed in float64 and everything that is
    multiplied with targets stays in `dtype`: a Gram matrix squares the condition number of X, the
    basis of its decomposition does not.
    """

    alphas: npt.NDArray[np.float64]
    fit_intercept: bool
    standardize: bool
    solver: str
    dtype: np.dtype[Any]
    wide: bool = False

    @property
    def gram_dtype(self) -> np.dtype[Any]:
        """Precision of Gram matrices."""
        return DOUBLE if self.wide else self.dtype


@dataclass
class Decomposition:
    r"""Decomposed training rows: :math:`right (T + \alpha)^{-1} left^T` maps targets to weights.

    Attributes
    ----------
    left : array, shape (k, r)
        Applied to the moments :math:`X^T y` (k = p), or to the targets themselves.
    rows : ndarray, shape (k,), or None
        The rows of the targets that `left` is applied to; None means the moments.
    mean_left : ndarray, shape (r,)
        Projection by `left` of a target that is 1 in every training row.
    right : array, shape (m, r)
        Map to predictions of the held-out rows or, for the fit on all rows, to weights (m = p).
    solver : Spectral or BlockTridiagonal
    held : ndarray
        The held-out trials; empty for the fit on all rows.
    train : ndarray or None
        The training trials of a fold; None where folds partition the trials.
    rounding : float
        Rounding error times condition number at the smallest penalty.
    lost : float or None
        Relative error of the residual sum of squares, where it was measured.
    filled : tuple of float and int
        Eigenvalue and number of null directions of X (constant columns, the intercept). They are
        given an eigenvalue of ordinary size, which changes no solution but the condition number.
    trials : array, shape (n, r), or None
        `left` before rows were weighted and summed by target; for the fit on all rows only.
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
    train: Rows | None = None

    def drop(self) -> None:
        """Free the matrices that quadratic forms have replaced."""
        self.left = self.right = self.left[:0]

    @property
    def dropped(self) -> bool:
        """Whether `left` and `right` were freed."""
        return len(self.left) == 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(self.left)


@dataclass
class SummedRows:
    """Scaled predictors of one fold, summed over the trials that share a row of the targets.

    Sums are weighted by sample weight. `rows` are the rows of the targets. Where folds do not
    partition the trials, these are the weighted predictors of all trials, not summed.
    """

    sums: Array
    rows: npt.NDArray[np.intp]


@dataclass
class DecomposedPredictors:
    """Everything that a fit knows about X.

    Attributes
    ----------
    settings : FitSettings
    kind : {"primal", "dual", "svd"}
        What was decomposed: X'X, XX' or X.
    scaler : ColumnScaler
    n_rows : int
        Number of trials.
    target_rows : ndarray of int, shape (n,)
        Row of the targets of each trial.
    folds : list of Decomposition
        For the training rows of each fold.
    full : Decomposition
        Of all rows.
    summed_rows : list of SummedRows
        For "primal", the rows of each fold.
    forms : QuadraticForms or None
        Replace the decompositions of the folds where that is faster.
    root : ndarray, shape (n,), or None
        Square roots of the sample weights, None where all are 1.
    held_counts : ndarray or None
        Number of times that each row of the targets is held out, over trials and folds, or the
        sum of their weights; None where folds partition the trials, so that it is `counts`.
    """

    settings: FitSettings
    kind: str
    scaler: ColumnScaler
    n_rows: int
    target_rows: npt.NDArray[np.intp]
    folds: list[Decomposition]
    full: Decomposition
    summed_rows: list[SummedRows]
    ops: Ops
    forms: QuadraticForms | None = None
    root: RootWeights | None = None
    held_counts: npt.NDArray[np.float64] | None = None

    @property
    def counts(self) -> npt.NDArray[np.float64]:
        """Number of trials of each row of the targets, or the sum of their weights."""
        return count_rows(self.target_rows, self.root)

    @property
    def n_counted(self) -> int:
        """Number of trials with a weight above 0."""
        return self.n_rows if self.root is None else int(np.count_nonzero(self.root))

    @property
    def total_weight(self) -> float:
        """Sum of the sample weights; the number of trials without weights."""
        return float(self.n_rows) if self.root is None else float(self.root @ self.root)

    @property
    def spans(self) -> bool:
        r"""Whether `left` spans every target; residuals are then :math:`\alpha (T + \alpha)^{-1}`.

        That form is exact even where fitted values are so close to the targets that a difference
        would be rounding error only.
        """
        everything = self.n_counted - int(self.settings.fit_intercept)
        return self.kind == "dual" or (self.kind == "svd" and self.full.solver.size == everything)

    def degrees_left(self, alpha: float) -> float:
        """Return trials minus intercept minus degrees of freedom, over `alpha` if it `spans`."""
        solver, (value, count) = self.full.solver, self.full.filled
        trace = solver.trace_inverse(alpha)
        if self.spans:
            # Trials without weight are null directions of the kernel.
            unused = self.n_rows - self.n_counted if self.kind == "dual" else 0
            trace -= unused / alpha if unused else 0.0
            return trace - (count / (value + alpha) if count else 0.0)
        lost = count * value / (value + alpha) if count else 0.0
        used = solver.size - alpha * trace - lost
        return self.n_counted - int(self.settings.fit_intercept) - used

    @property
    def n_bytes(self) -> int:
        """Bytes of all matrices, including the factors of every penalty."""
        arrays = [m.sums for m in self.summed_rows]
        factors = 0
        for part in [*self.folds, self.full]:
            arrays += [part.left, part.right]
            arrays += [] if part.trials is None else [part.trials]
            if not part.dropped:
                factors += part.solver.n_bytes(len(self.settings.alphas))
        if self.forms is not None:
            factors += self.forms.n_bytes
        distinct = {id(array): array for array in arrays}.values()
        total = factors + sum(int(np.prod(a.shape)) * dtype_of(a).itemsize for a in distinct)
        if self.held_counts is not None and self.summed_rows:
            total += int(arrays[0].nbytes)  # the training rows of one fold are a copy
        return total

    @property
    def bytes_per_target(self) -> int:
        """Bytes that one target of a block takes while it is solved."""
        folds = [] if self.forms is not None else self.folds
        ranks = [part.solver.size for part in folds]
        held = max((len(part.held) for part in folds), default=0)
        weights, rank, rows = len(self.full.right), self.full.solver.size, len(self.counts)
        narrow = sum(ranks) + max(ranks, default=0) + 4 * held + rows
        moments = len(self.summed_rows) * (1 if self.forms is not None else 2) + 1
        narrow += weights * moments if self.summed_rows else rows
        narrow += 0 if self.forms is None else 4 * rows
        narrow += 0 if self.held_counts is None else self.n_rows  # targets of training trials
        wide = 3 * rank + weights + (0 if self.folds else 4 * self.n_rows)
        item, wide_item = self.settings.dtype.itemsize, self.full.dtype.itemsize
        return int(narrow * item + wide * wide_item + 3 * DOUBLE.itemsize * rows)


@dataclass
class TargetBlock:
    """Targets centred over all trials, and their projections.

    Attributes
    ----------
    centred : array, shape (rows of the targets, t)
        Divided by `scale`, so that float32 neither overflows nor underflows.
    mean, scale : ndarray, shape (t,)
        Mean over trials (0 without an intercept) and root mean square about it. Both, and `total`,
        are weighted by sample weight.
    total : ndarray, shape (t,)
        Sum of squares about the mean, in units of `scale`. Where folds do not partition the
        trials, this is over the held-out trials, each as often as it is held out.
    constant : ndarray of bool, shape (t,)
        Targets whose `total` is rounding error.
    projected : list of arrays, shape (r, t)
        Training targets of each fold, projected by `Decomposition.left`.
    full : array, shape (r, t)
        Targets of all trials, projected in the same way.
    train_mean : ndarray, shape (n_folds, t)
    """

    centred: Array
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    constant: npt.NDArray[np.bool_]
    projected: list[Array]
    full: Array
    train_mean: Array


@dataclass(frozen=True)
class ScaledTrials:
    """Scaled rows of X, and how to decompose them.

    Attributes
    ----------
    x : ndarray, shape (n, p)
        In the precision of the settings, sorted by fold where folds partition the trials. With
        sample weights, rows are multiplied by their square roots: ridge of such rows is weighted
        ridge if `root` takes the place of the constant vector.
    splits : Splits or None
        None where only the fit on all rows is needed.
    target_rows : ndarray of int, shape (n,)
    root : ndarray, shape (n,), or None
        Square roots of the sample weights.
    columns : int
        Number of columns that the fit on all rows is solved for, over all penalties.
    """

    x: FloatArray
    scaler: ColumnScaler
    splits: Splits | None
    target_rows: npt.NDArray[np.intp]
    root: RootWeights | None
    settings: FitSettings
    ops: Ops
    run: Runner
    forms: QuadraticForms | None = None
    columns: int = 0

    @property
    def partitioned(self) -> bool:
        """Whether folds, if any, partition the trials, so that sums over one give all others."""
        return self.splits is None or self.splits.fold_of_row is not None

    def folds(self) -> Iterator[tuple[Rows, Rows]]:
        """Yield training and held-out trials of every fold."""
        return iter(() if self.splits is None else self.splits)

    def training(self, fold: int) -> Rows | None:
        """Return the training trials of a fold, None where folds partition the trials."""
        if self.splits is None or self.partitioned:
            return None
        return self.splits.pairs[fold][0]

    def _held_counts(self) -> npt.NDArray[np.float64] | None:
        if self.splits is None or self.partitioned:
            return None
        times = self.splits.times_held(len(self.x)).astype(np.float64)
        times *= 1.0 if self.root is None else self.root**2
        return np.bincount(self.target_rows, times).astype(np.float64)

    def decomposed(
        self,
        kind: str,
        folds: list[Decomposition],
        full: Decomposition,
        summed_rows: list[SummedRows],
    ) -> DecomposedPredictors:
        """Return the decompositions of these trials as one object."""
        forms = self.forms
        if kind == "svd":
            forms = None
        elif forms is not None:
            forms.finish()
            for fold in folds:
                fold.drop()
        return DecomposedPredictors(
            settings=self.settings,
            kind=kind,
            scaler=self.scaler,
            n_rows=len(self.x),
            target_rows=self.target_rows,
            folds=folds,
            full=full,
            summed_rows=summed_rows,
            ops=self.ops,
            forms=forms,
            root=self.root,
            held_counts=self._held_counts(),
        )


def gram_matrix(
    x: FloatArray, settings: FitSettings, ops: Ops, *, of_rows: bool = False
) -> FloatArray:
    """Return X'X, or XX' of the rows."""
    part = ops.put(x, settings.gram_dtype)
    return ops.get(part @ part.T if of_rows else part.T @ part)


LIMIT: dict[np.dtype[Any], float] = {SINGLE: 1e-4, DOUBLE: 1e-5}
"""Rounding times condition number of a Gram matrix up to which its weights are trusted unmeasured.

Relative errors of predictions are of the order of that product or below, mostly far below.
"""
FOLD_LIMIT: dict[np.dtype[Any], float] = {SINGLE: 1e-2, DOUBLE: 1e-5}
"""The same for a fold, which only has to rank penalties."""
HOPELESS: dict[np.dtype[Any], float] = {SINGLE: 0.5, DOUBLE: 1e-5}
"""Above this product a decomposition is not worth measuring."""
ERROR, FOLD_ERROR = 1e-4, 1e-3
"""Largest relative errors of predictions that are accepted when they are measured."""
_RESIDUAL_ERROR = 1e-3
_PROBES = 4


class FullFit(Protocol):
    """Decomposes all rows in a given precision, and measures the errors of decompositions."""

    def decompose(self, settings: FitSettings) -> Decomposition | None:
        """Return the decomposition, or None when rounding errors are too large."""

    def errors(self, full: Decomposition) -> npt.NDArray[np.float64]:
        """Return relative errors of predictions: of doubtful folds, then of `full`."""


def representable(gram: FloatArray, settings: FitSettings) -> bool:
    """Return whether a Gram matrix does not underflow and the largest penalty not overflow."""
    info, trace = np.finfo(settings.dtype), float(np.trace(gram, dtype=np.float64))
    return float(info.tiny / info.eps) <= trace and float(settings.alphas[-1]) <= largest(settings)


def largest(settings: FitSettings) -> float:
    """Return the largest sum of squares that can be computed with without losing digits."""
    info = np.finfo(settings.dtype)
    return float(info.max * info.eps)


def rounding_error(solver: Solver, settings: FitSettings) -> float:
    """Return rounding times condition number of a Gram matrix at the smallest penalty.

    Rows so large that subtracting them from the sum over all rows cancels digits are training
    rows of other folds, and raise the condition number there.
    """
    condition = solver.condition(float(settings.alphas[0]))
    rounding = float(np.finfo(settings.gram_dtype).eps) * condition
    if settings.wide:  # products with the basis round as those with the rows do, before squaring
        rounding += float(np.finfo(settings.dtype).eps) * condition**0.5
    return rounding


def wider(settings: FitSettings, *, folds: bool) -> list[FitSettings]:
    """Return the settings, followed by the same with more of the fit in float64."""
    if settings.dtype == DOUBLE:
        return [settings]
    between = [replace(settings, wide=True)] if folds and settings.solver == "primal" else []
    return [settings, *between, replace(settings, dtype=DOUBLE)]


def decompose_all_rows(
    fit: FullFit, folds: list[Decomposition], settings: FitSettings
) -> Decomposition | None:
    """Return the decomposition of all rows, in float64 if needed.

    Returns
    -------
    Decomposition or None
        None when the folds need float64 too.
    """
    full = fit.decompose(settings)
    if settings.dtype == DOUBLE:
        return full
    doubtful = any(fold.rounding > FOLD_LIMIT[SINGLE] for fold in folds)
    if full is not None and (doubtful or full.rounding > LIMIT[SINGLE]):
        *of_folds, of_weights = fit.errors(full)
        if max(of_folds, default=0.0) > FOLD_ERROR:
            return None
        if of_weights <= ERROR:
            return full
    elif doubtful:
        return None
    elif full is not None:
        return full
    full = fit.decompose(replace(settings, dtype=DOUBLE, wide=False))
    # Targets are still projected in float32.
    ratio = float(np.finfo(SINGLE).eps / np.finfo(DOUBLE).eps)
    return full if full is not None and full.rounding * ratio <= FOLD_LIMIT[SINGLE] else None


def residuals_are_sound(full: Decomposition, share: float) -> bool:
    """Return whether generalised cross-validation can trust the residuals of a primal fit.

    The residual sum of squares may be as small as the square of `share`, the share of degrees of
    freedom that is left.
    """
    if full.lost is not None:
        return full.lost <= _RESIDUAL_ERROR
    return full.rounding <= FOLD_LIMIT[SINGLE] * share**2


def measure_primal(
    x: FloatArray,
    root: RootWeights | None,
    settings: FitSettings,
    parts: list[Decomposition],
    means: list[npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    r"""Return relative errors of predictions at the smallest penalty, for targets of pure noise.

    Noise has the same variance in every direction of X, which no measured target has. The weights
    w of a probe leave the residual :math:`X^T (y - Xw) - \alpha w`, computed in float64 in one pass
    over the rows. Solving for it gives the error of w up to the square of its relative size.

    Parameters
    ----------
    x : ndarray, shape (n, p)
        Scaled rows in the precision of the settings.
    root : ndarray, shape (n,), or None
        Square roots of the sample weights, by which the rows are multiplied.
    settings : FitSettings
    parts : list of Decomposition
        The last is that of all rows; its `lost` is set.
    means : list of ndarray, shape (p,)
        Mean that each part subtracts from the rows.
    """
    p, alpha, ops = x.shape[1], float(settings.alphas[0]), parts[0].solver.ops
    train, ones, probes = _training_probes(len(x), root, settings, parts)
    solved, w = _solve_probes(x, probes, settings, parts)
    gradient, drift, size = _gradients(x, w, means, (train, ones, probes))
    gradient = gradient.reshape(p, len(parts), _PROBES) - alpha * w
    errors = np.empty(len(parts))
    for k, (part, mean) in enumerate(zip(parts, means, strict=True)):
        gap = gradient[:, k] - np.outer(mean, drift[k])
        s = part.solver.solve(part.left.T @ ops.put(gap, settings.dtype), alpha)
        if len(part.held):
            error, prediction = ops.get(part.right @ s), ops.get(part.right @ solved[k][1])
        else:
            error, prediction = (
                x @ v.astype(settings.dtype) for v in (ops.get(part.left @ s), w[:, k])
            )
        errors[k] = _largest_ratio(error, prediction)
    b, s = solved[-1]
    shortcut = np.square(probes[:, -1]).sum(axis=0) - ops.column_dots(b, s)
    shortcut -= alpha * ops.column_dots(s, s)
    parts[-1].lost = float(np.max(np.abs(shortcut / size - 1)))
    return np.where(np.isfinite(errors), errors, np.inf)


def _training_probes(
    n: int, root: RootWeights | None, settings: FitSettings, parts: list[Decomposition]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the training rows of each part (n, k), its constant vector, and centred probes."""
    train = np.ones((n, len(parts)))
    for k, part in enumerate(parts):
        train[part.held, k] = 0.0
        if part.train is not None:
            train[:, k] = 0.0
            train[part.train, k] = 1.0
    probes = np.random.default_rng(0).standard_normal((n, 1, _PROBES)) * train[:, :, None]
    ones = train if root is None else train * root[:, None]  # what an intercept adds to
    if settings.fit_intercept:
        along = np.einsum("nk,nkr->kr", ones, probes) / np.square(ones).sum(axis=0)[:, None]
        probes -= along * ones[:, :, None]
    return train, ones, probes


def _solve_probes(
    x: FloatArray,
    probes: npt.NDArray[np.float64],
    settings: FitSettings,
    parts: list[Decomposition],
) -> tuple[list[tuple[Array, Array]], npt.NDArray[np.float64]]:
    """Return projected and solved probes of each part, and weights (p, k, probes)."""
    p, alpha, ops = x.shape[1], float(settings.alphas[0]), parts[0].solver.ops
    flat = probes.reshape(len(x), -1)
    moments = (x.T @ flat.astype(settings.dtype)).reshape(p, len(parts), _PROBES)
    solved, w = [], np.empty((p, len(parts), _PROBES))
    for k, part in enumerate(parts):
        b = part.left.T @ ops.put(moments[:, k], settings.dtype)
        s = part.solver.solve(b, alpha)
        solved.append((b, s))
        w[:, k] = ops.get(part.left @ s)
    return solved, w


def _gradients(
    x: FloatArray,
    w: npt.NDArray[np.float64],
    means: list[npt.NDArray[np.float64]],
    probing: tuple[npt.NDArray[np.float64], ...],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return X' of the residuals, their sums, and the squared residuals of the last part."""
    train, ones, probes = probing
    p, n_parts, _ = w.shape
    offsets = np.stack([mean @ w[:, k] for k, mean in enumerate(means)])
    gradient, size = np.zeros((p, n_parts * _PROBES)), np.zeros(_PROBES)
    drift = np.zeros((n_parts, _PROBES))
    for rows in row_chunks(x):
        chunk = x[rows].astype(np.float64)
        fitted = (chunk @ w.reshape(p, -1)).reshape(len(chunk), n_parts, _PROBES)
        fitted -= ones[rows, :, None] * offsets
        residual = (probes[rows] - fitted) * train[rows, :, None]
        gradient += chunk.T @ residual.reshape(len(chunk), -1)
        drift += np.einsum("nk,nkr->kr", ones[rows], residual)
        size += np.square(residual[:, -1]).sum(axis=0)
    return gradient, drift, size


def measure_dual(
    x: FloatArray, root: RootWeights | None, settings: FitSettings, full: Decomposition
) -> float:
    """Return the same error for the dual fit on all rows; see `measure_primal`."""
    alpha, n = float(settings.alphas[0]), len(x)
    probes = np.random.default_rng(0).standard_normal((n, _PROBES))
    if settings.fit_intercept:
        ones = np.ones(n) if root is None else root
        probes -= np.outer(ones, ones @ probes / (ones @ ones))
    v = _solve_dual(probes, full, settings)
    w = np.zeros((x.shape[1], _PROBES))
    for rows in row_chunks(x):
        w += x[rows].astype(np.float64).T @ v[rows]
    fitted = np.concatenate([x[rows].astype(np.float64) @ w for rows in row_chunks(x)])
    error = x.T @ _solve_dual(probes - fitted - alpha * v, full, settings)
    return _largest_ratio(x @ error, fitted)


def _solve_dual(
    y: npt.NDArray[np.float64], full: Decomposition, settings: FitSettings
) -> FloatArray:
    ops = full.solver.ops
    basis: Array = full.trials
    projected = basis.T @ ops.put(y, settings.dtype)
    return ops.get(basis @ full.solver.solve(projected, float(settings.alphas[0])))


def _largest_ratio(error: FloatArray, prediction: FloatArray) -> float:
    sizes = np.linalg.norm(prediction, axis=0)
    ratio = float(np.max(np.linalg.norm(error, axis=0) / np.where(sizes > 0, sizes, 1.0)))
    return ratio if np.isfinite(ratio) else np.inf
