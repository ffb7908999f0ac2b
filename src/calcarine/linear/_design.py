"""What a ridge fit computes with: settings, scaled trials, decompositions, blocks of targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array, Ops, Runner, dtype_of
from calcarine.linear._quadratic_forms import QuadraticForms
from calcarine.linear._scaling import ColumnScaler, RootWeights, count_rows
from calcarine.linear._solvers import Solver
from calcarine.linear._validation import FloatArray
from calcarine.linear.folds import Rows, Splits

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
        return np.bincount(self.target_rows, times)

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
