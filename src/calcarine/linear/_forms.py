r"""Held-out squared errors of very many targets, as one quadratic form per penalty.

Predictions for held-out trials are linear in the targets, so the sum of squared errors over all
folds is :math:`y^T M(\alpha) y` with one matrix for all targets, of the order of the number of
stimuli. Making the matrices costs as much as thousands of targets do; a target then needs no
projection on the decompositions of the folds, no substitution, and half of one matrix product a
penalty, which holds fewer numbers than the held-out trials of all folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array, Ops
from calcarine.linear._solvers import SUBSTITUTION, factor_values
from calcarine.linear._weights import count_rows

if TYPE_CHECKING:
    from calcarine.linear._design import Plan, System

_ROWS_AT_ONCE = 512


@dataclass
class Forms:
    """Matrices of squared errors; only what stands in their upper triangles is used.

    Attributes
    ----------
    order : ndarray
        Rows of the targets by fold.
    starts : ndarray, shape (n_folds + 1,)
        Where each fold begins in `order`.
    counts : ndarray
        Trials of each row of `order`, or their weights together.
    matrices : list of arrays
        One per penalty.
    root : ndarray or None
        Root of the weight of each trial.
    """

    alphas: npt.NDArray[np.float64]
    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    counts: npt.NDArray[np.float64]
    matrices: list[Array]
    fit_intercept: bool
    ops: Ops
    root: npt.NDArray[np.float64] | None = None

    @classmethod
    def empty(
        cls,
        plan: Plan,
        fold_of_row: npt.NDArray[np.intp],
        target_rows: npt.NDArray[np.intp],
        root: npt.NDArray[np.float64] | None,
        ops: Ops,
    ) -> Forms | None:
        """Without any fold yet; None if a row of the targets has trials in several folds."""
        n_folds = int(fold_of_row.max()) + 1
        parts = [np.unique(target_rows[fold_of_row == k]) for k in range(n_folds)]
        order = np.concatenate(parts)
        if len(order) != int(target_rows.max()) + 1:
            return None
        starts = np.cumsum([0, *(len(part) for part in parts)])
        matrices = [np.zeros((len(order),) * 2, plan.dtype) for _ in plan.alphas]
        counts = count_rows(target_rows, root)[order]
        return cls(plan.alphas, order, starts, counts, matrices, plan.fit_intercept, ops, root)

    def add(
        self,
        fold: int,
        system: System,
        projected: Array,
        target_rows: npt.NDArray[np.intp],
    ) -> None:
        """Add the held-out errors of a fold.

        Parameters
        ----------
        fold : int
        system : System
        projected : array, shape (r, rows of the targets that the fold is trained on)
            What the decomposition makes of a target that is 1 in one row, in the order of the
            forms; overwritten.
        target_rows : ndarray
            Row of the targets of every trial.
        """
        low, high = self.starts[fold], self.starts[fold + 1]
        share = np.delete(self.counts, np.s_[low:high])
        share = (share / share.sum()).astype(projected.dtype) * self.fit_intercept
        projected -= system.mean_left[:, None] * share
        own = self.place[target_rows[system.held]] - low
        by_row = np.argsort(own, kind="stable")
        firsts = np.searchsorted(own[by_row], np.arange(high - low))
        columns = np.ascontiguousarray(system.right[by_row].T)
        solved = np.empty_like(columns)
        own_root = None
        if self.root is not None:
            own_root = self.root[system.held][by_row, None].astype(columns.dtype)
        for alpha, matrix in zip(self.alphas, self.matrices, strict=True):
            system.solver.solve(columns, float(alpha), solved)
            guess = solved.T @ projected
            guess += share if own_root is None else own_root * share
            before, after = guess[:, :low], guess[:, low:]
            # By rows, without what is below the diagonal and without another such matrix.
            for rows in self._rows(low):
                matrix[rows, rows.start : low] += before[:, rows].T @ before[:, rows.start :]
                matrix[rows, high:] += before[:, rows].T @ after
            rest = matrix[high:, high:]
            for rows in self._rows(len(rest)):
                rest[rows, rows.start :] += after[:, rows].T @ after[:, rows.start :]
            if own_root is not None:  # it met no targets yet, whose errors are weighted too
                guess *= own_root
            sums = guess if len(firsts) == len(own) else np.add.reduceat(guess, firsts, axis=0)
            matrix[:low, low:high] -= sums[:, :low].T
            matrix[low:high, high:] -= sums[:, low:]
            diagonal = np.arange(low, high)
            matrix[diagonal, diagonal] += self.counts[low:high].astype(matrix.dtype)
        system.solver.forget()

    def finish(self) -> None:
        """Double what stands above the diagonal, so that the rest need not be read."""
        for matrix in self.matrices:
            for rows in self._rows(len(matrix)):
                block = matrix[rows, rows]
                matrix[rows, rows] = 2 * np.triu(block, 1) + np.diag(block.diagonal())
                matrix[rows, rows.stop :] *= 2

    def errors(self, index: int, targets: Array) -> npt.NDArray[np.float64]:
        """Sum of squared held-out errors at one penalty; `targets` in the order of the forms."""
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
        """Where in `order` each row of the targets stands."""
        return np.argsort(self.order)

    @property
    def n_bytes(self) -> int:
        """Memory of the matrices."""
        return sum(int(matrix.nbytes) for matrix in self.matrices)


def projections(basis: Array, parts: list[Array]) -> Array:
    """Rows of all parts in the basis, one column each, without a second copy."""
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
    """Whether quadratic forms take fewer multiplications than predictions of all targets.

    Parameters
    ----------
    n_trials, rank, n_rows : int
        Trials, order of the decompositions, rows of the targets.
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
    """How many numbers the forms hold, with what making them takes."""
    held = -(-n_trials // n_folds)
    making = n_rows * (rank + 2 * held + _ROWS_AT_ONCE) + 3 * rank * held
    return n_alphas * (n_rows**2 + factor_values(rank)) + making


def forms_for(
    shape: tuple[int, int],
    fold_of_row: npt.NDArray[np.intp],
    target_rows: npt.NDArray[np.intp],
    root: npt.NDArray[np.float64] | None,
    plan: Plan,
    ops: Ops,
    targets: tuple[int, int],
    spare: float,
) -> Forms | None:
    """Empty forms where they save time and fit into `spare` bytes; otherwise None.

    `targets` are how many they would serve, and how many penalties are tried for each.
    """
    n_folds, n_alphas = int(fold_of_row.max()) + 1, len(plan.alphas)
    rank = shape[plan.solver == "primal"]
    sizes = (shape[0], rank, int(target_rows.max()) + 1, n_folds, n_alphas)
    if plan.dtype.itemsize * forms_values(*sizes) > spare or not forms_pay(*sizes, *targets):
        return None
    return Forms.empty(plan, fold_of_row, target_rows, root, ops)
