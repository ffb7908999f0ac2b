r"""Exact leave-one-group-out residuals from the fit on all trials.

For a group g the residuals of the fit without it are :math:`(I - H_{gg})^{-1} (y_g - \hat y_g)`,
H being the map from targets to fitted values with its intercept (Hastie et al. 2009, eq. 7.64, in
blocks). So thousands of folds cost one decomposition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array
from calcarine.linear._checks import FloatArray, RidgeError
from calcarine.linear._design import Design
from calcarine.linear._targets import Block, Table

_CHUNK_VALUES = 16_000_000


class LeaveOut:
    """Blocks of :math:`(I - H)^{-1}` for every group and penalty, for any block of targets.

    Parameters
    ----------
    design : Design
        Of all trials; its folds are not used.
    x : ndarray, shape (n, p)
        The scaled rows that were decomposed.
    groups : ndarray, shape (n,)
        Group of each trial, as whole numbers from 0.
    """

    def __init__(self, design: Design, x: FloatArray, groups: npt.NDArray[np.intp]) -> None:
        self.design = design
        ops, plan, full = design.ops, design.plan, design.full
        in_basis = ops.put(x, plan.dtype) @ full.right if full.trials is None else full.trials
        self.rows: Array = in_basis
        sizes = np.bincount(groups)
        order, ends = np.argsort(groups, kind="stable"), np.cumsum(sizes)
        self.members = [
            np.stack([order[ends[g] - size : ends[g]] for g in np.flatnonzero(sizes == size)])
            for size in np.unique(sizes)
        ]
        self.inverses = [self._inverses(float(alpha)) for alpha in plan.alphas]

    def _inverses(self, alpha: float) -> list[Any]:
        ops, plan, full = self.design.ops, self.design.plan, self.design.full
        n, r = self.rows.shape
        dual = self.design.kind == "dual"
        value, count = full.filled
        mean = (alpha / (value + alpha) if dual and count else 1.0) / n * plan.fit_intercept
        answer = []
        for members in self.members:
            blocks = np.empty((*members.shape, members.shape[1]))
            step = max(1, _CHUNK_VALUES // (members.shape[1] * r))
            for start in range(0, len(members), step):
                index = members[start : start + step]
                rows = self.rows[index.ravel()]
                solved = full.solver.solve(rows.T, alpha).T
                shape = (*index.shape, r)
                parts = rows.reshape(shape) @ solved.reshape(shape).swapaxes(1, 2)
                blocks[start : start + step] = ops.get(parts)
            eye = np.eye(members.shape[1])
            inner = (alpha * blocks if dual else eye - blocks) - mean
            if np.linalg.cond(inner).max() > 1e-3 / np.finfo(plan.dtype).eps:
                raise np.linalg.LinAlgError("a group alone decides a direction")
            answer.append(ops.put(np.linalg.inv(inner), plan.dtype))
        return answer

    def table(self, block: Block) -> Table:
        """Held-out r2 of every penalty for a block of targets."""
        design, ops = self.design, self.design.ops
        plan, n_targets = design.plan, block.full.shape[1]
        truth = block.centred[design.target_rows]
        dual = design.kind == "dual"
        residual = np.zeros((len(plan.alphas), n_targets))
        for index, alpha in enumerate(plan.alphas):
            fitted = self.rows @ design.full.solver.solve(block.full, float(alpha))
            error = fitted * float(alpha) if dual else truth - fitted
            for members, inverse in zip(self.members, self.inverses[index], strict=True):
                shape = (*members.shape, n_targets)
                left_out = inverse @ error[members.ravel()].reshape(shape)
                residual[index] += ops.column_dots(*[left_out.reshape(-1, n_targets)] * 2)
        r2 = 1.0 - residual / np.where(block.constant, 1.0, block.total)
        r2[:, block.constant] = 0.0
        return Table(r2, r2)


def group_numbers(groups: npt.ArrayLike | None, n_rows: int) -> npt.NDArray[np.intp]:
    """Groups as whole numbers from 0; every row its own group when there are none.

    Raises
    ------
    RidgeError
        When there are fewer than two groups.
    """
    if groups is None:
        return np.arange(n_rows)
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    if numbers.max() < 1:
        raise RidgeError("groups holds one group only; leaving it out leaves nothing to fit.")
    return np.asarray(numbers)
