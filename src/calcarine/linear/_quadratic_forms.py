r"""Held-out squared errors of very many targets, as one quadratic form per penalty.

Predictions of held-out trials are linear in the targets, so the sum of squared errors over all
folds is :math:`y^T M(\alpha) y`, with one matrix M per penalty for all targets and one row per
stimulus. Computing these matrices costs as much as thousands of targets do. After that a target
takes half a matrix product per penalty, and no projection on the decompositions of the folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array, Ops
from calcarine.linear._predictors import RootWeights, count_rows
from calcarine.linear._solvers import SUBSTITUTION, Solver, factor_values

_ROWS_AT_ONCE = 512


class FormSettings(Protocol):
    """The settings of a fit that quadratic forms depend on."""

    @property
    def alphas(self) -> npt.NDArray[np.float64]: ...
    @property
    def fit_intercept(self) -> bool: ...
    @property
    def solver(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


@dataclass
class QuadraticForms:
    """Matrices of held-out squared errors; only their upper triangles are used.

    Attributes
    ----------
    order : ndarray
        Rows of the targets, sorted by fold.
    starts : ndarray, shape (n_folds + 1,)
        Start of each fold in `order`.
    counts : ndarray
        Number of trials of each row of `order`, or the sum of their weights.
    matrices : list of arrays
        One per penalty.
    root : ndarray or None
        Square root of the weight of each trial.
    """

    alphas: npt.NDArray[np.float64]
    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    counts: npt.NDArray[np.float64]
    matrices: list[Array]
    fit_intercept: bool
    ops: Ops
    root: RootWeights | None = None

    @classmethod
    def empty(
        cls,
        alphas: npt.NDArray[np.float64],
        fit_intercept: bool,
        dtype: np.dtype[Any],
        fold_of_row: npt.NDArray[np.intp],
        target_rows: npt.NDArray[np.intp],
        root: RootWeights | None,
        ops: Ops,
    ) -> QuadraticForms | None:
        """Return forms without any fold; None if a row of the targets has trials in two folds."""
        n_folds = int(fold_of_row.max()) + 1
        parts = [np.unique(target_rows[fold_of_row == k]) for k in range(n_folds)]
        order = np.concatenate(parts)
        if len(order) != int(target_rows.max()) + 1:
            return None
        starts = np.cumsum([0, *(len(part) for part in parts)])
        matrices = [np.zeros((len(order),) * 2, dtype) for _ in alphas]
        counts = count_rows(target_rows, root)[order]
        return cls(alphas, order, starts, counts, matrices, fit_intercept, ops, root)

    def add(
        self,
        fold: int,
        projected: Array,
        held: npt.NDArray[np.intp],
        mean_left: Array,
        right: Array,
        solver: Solver,
        target_rows: npt.NDArray[np.intp],
    ) -> None:
        """Add the held-out errors of a fold.

        Parameters
        ----------
        fold : int
        projected : array, shape (r, rows of the targets that the fold is trained on)
            Projection of targets that are 1 in one row and 0 elsewhere, in the order of the
            forms; overwritten.
        held, mean_left, right, solver
            From the decomposition of the fold.
        target_rows : ndarray
            Row of the targets of every trial.
        """
        low, high = self.starts[fold], self.starts[fold + 1]
        share = np.delete(self.counts, np.s_[low:high])
        share = (share / share.sum()).astype(projected.dtype) * self.fit_intercept
        projected -= mean_left[:, None] * share
        own = self.place[target_rows[held]] - low
        by_row = np.argsort(own, kind="stable")
        columns = np.ascontiguousarray(right[by_row].T)
        solved = np.empty_like(columns)
        held_root = None
        if self.root is not None:
            held_root = self.root[held][by_row, None].astype(columns.dtype)
        for alpha, matrix in zip(self.alphas, self.matrices, strict=True):
            solver.solve(columns, float(alpha), solved)
            predicted = solved.T @ projected
            predicted += share if held_root is None else held_root * share
            self._add_products(matrix, predicted, low, high)
            if held_root is not None:  # errors of the held-out targets are weighted too
                predicted *= held_root
            self._add_own(matrix, predicted, own[by_row], low, high)
        solver.forget()

    def _add_products(self, matrix: Array, predicted: Array, low: int, high: int) -> None:
        """Add the squares of predictions, by rows and only above the diagonal."""
        before, after = predicted[:, :low], predicted[:, low:]
        for rows in self._rows(low):
            matrix[rows, rows.start : low] += before[:, rows].T @ before[:, rows.start :]
            matrix[rows, high:] += before[:, rows].T @ after
        rest = matrix[high:, high:]
        for rows in self._rows(len(rest)):
            rest[rows, rows.start :] += after[:, rows].T @ after[:, rows.start :]

    def _add_own(
        self, matrix: Array, predicted: Array, own: npt.NDArray[np.intp], low: int, high: int
    ) -> None:
        """Add the products of predictions with held-out targets, and the targets' squares."""
        firsts = np.searchsorted(own, np.arange(high - low))
        alone = len(firsts) == len(own)
        sums = predicted if alone else np.add.reduceat(predicted, firsts, axis=0)
        matrix[:low, low:high] -= sums[:, :low].T
        matrix[low:high, high:] -= sums[:, low:]
        diagonal = np.arange(low, high)
        matrix[diagonal, diagonal] += self.counts[low:high].astype(matrix.dtype)

    def finish(self) -> None:
        """Double the upper triangles, so that the lower ones need not be read."""
        for matrix in self.matrices:
            for rows in self._rows(len(matrix)):
                block = matrix[rows, rows]
                matrix[rows, rows] = 2 * np.triu(block, 1) + np.diag(block.diagonal())
                matrix[rows, rows.stop :] *= 2

    def errors(self, index: int, targets: Array) -> npt.NDArray[np.float64]:
        """Return the held-out squared error at one penalty; `targets` sorted by `order`."""
        total = np.zeros(targets.shape[1])
        for rows in self._rows(len(self.order)):
            product = self.matrices[index][rows, rows.start :] @ targets[rows.start :]
            total += self.ops.column_dots(product, targets[rows])
        return np.maximum(total, 0.0)

    def _rows(self, size: int) -> list[slice]:
        step = min(max(len(self.order) // 10, 64), _ROWS_AT_ONCE)
        return [slice(i, min(i + step, size)) for i in range(0, size, step)]

    @property
    def place(self) -> npt.NDArray[np.intp]:
        """Position of each row of the targets in `order`."""
        return np.argsort(self.order)

    @property
    def n_bytes(self) -> int:
        """Bytes of the matrices."""
        return sum(int(matrix.nbytes) for matrix in self.matrices)


def projections(basis: Array, parts: list[Array]) -> Array:
    """Return the rows of all parts projected on the basis, one column each."""
    out = np.empty((basis.shape[1], sum(map(len, parts))), basis.dtype)
    stop = 0
    for part in parts:
        start, stop = stop, stop + len(part)
        np.matmul(basis.T, part.T, out=out[:, start:stop])
    return out


def forms_pay(
    n_trials: int,
    rank: int,
    n_rows: int,
    n_folds: int,
    n_alphas: int,
    n_targets: int,
    n_tried: int,
) -> bool:
    """Return whether quadratic forms take fewer multiplications than predicting all targets.

    Parameters
    ----------
    n_trials, rank, n_rows : int
        Number of trials, order of the decompositions, rows of the targets.
    n_folds, n_alphas, n_targets : int
    n_tried : int
        Penalties tried for a target.
    """
    held, train = n_trials / n_folds, n_rows * (1 - 1 / n_folds)
    once = rank**2 * train + n_alphas * held * (rank * (train + SUBSTITUTION) + train**2 / 2)
    each = n_tried * n_rows**2 / 2
    plain = n_folds * rank * (rank + n_tried * (held + SUBSTITUTION))
    return n_folds * once + n_targets * each < n_targets * plain


def forms_values(n_trials: int, rank: int, n_rows: int, n_folds: int, n_alphas: int) -> int:
    """Return how many numbers the forms and their computation hold."""
    held = -(-n_trials // n_folds)
    making = n_rows * (rank + 2 * held + _ROWS_AT_ONCE) + 3 * rank * held
    return n_alphas * (n_rows**2 + factor_values(rank)) + making


def forms_for(
    shape: tuple[int, int],
    fold_of_row: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    root: RootWeights | None,
    settings: FormSettings,
    ops: Ops,
    targets: tuple[int, int],
    spare: float,
) -> QuadraticForms | None:
    """Return empty forms where they save time and fit into `spare` bytes, otherwise None.

    `targets` is the number of targets, and the number of penalties tried for each.
    """
    n_folds, n_alphas = int(fold_of_row.max()) + 1, len(settings.alphas)
    rank = shape[settings.solver == "primal"]
    sizes = (shape[0], rank, int(target_rows.max()) + 1, n_folds, n_alphas)
    if settings.dtype.itemsize * forms_values(*sizes) > spare or not forms_pay(*sizes, *targets):
        return None
    alphas, fit_intercept, dtype = settings.alphas, settings.fit_intercept, settings.dtype
    return QuadraticForms.empty(alphas, fit_intercept, dtype, fold_of_row, target_rows, root, ops)
