r"""Exact leave-one-group-out residuals from the fit on all trials.

For a group g the residuals of the fit without it are :math:`(I - H_{gg})^{-1} (y_g - \hat y_g)`,
H being the map from targets to fitted values with its intercept (Hastie et al. 2009, eq. 7.64, in
blocks). So thousands of folds cost one decomposition.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array
from calcarine.linear._checks import FloatArray, RidgeError
from calcarine.linear._design import Design
from calcarine.linear._scores import Table
from calcarine.linear._sources import CHUNK_VALUES
from calcarine.linear._targets import Block
from calcarine.linear.folds import check_labels, unique_labels

_LARGEST_ERROR = 1e-2


class LeaveOut:
    r"""Blocks of :math:`(I - H)^{-1}` for every group and penalty, for any block of targets.

    Where the design spans the targets, :math:`I - H` and the residuals are both kept without their
    common factor alpha, so that they stay exact when alpha goes to 0.

    Parameters
    ----------
    design : Design
        Of all trials; its folds are not used.
    x : ndarray, shape (n, p)
        The scaled rows that were decomposed.
    groups : ndarray, shape (n,)
        Group of each trial, as whole numbers from 0.

    Raises
    ------
    numpy.linalg.LinAlgError
        When rounding leaves nothing of :math:`I - H` for some group at the smallest penalty.
    """

    def __init__(self, design: Design, x: FloatArray, groups: npt.NDArray[np.intp]) -> None:
        ops, full = design.ops, design.full
        self.spread: Array | None = None
        if full.trials is None:
            self.rows = ops.put(x, full.dtype) @ full.right
        elif design.spans:
            self.rows = full.trials
        else:
            self.spread = full.solver.eigen**0.5  # type: ignore[union-attr]
            self.rows = full.trials * self.spread
        # Trials without weight have no errors.
        order = np.arange(len(groups)) if design.root is None else np.flatnonzero(design.root)
        order = order[np.argsort(groups[order], kind="stable")]
        sizes = np.bincount(groups[order])
        ends = np.cumsum(sizes)
        self.members = [
            np.stack([order[ends[g] - size : ends[g]] for g in np.flatnonzero(sizes == size)])
            for size in np.unique(sizes[sizes > 0])
        ]
        self.inverses = [self._inverses(design, float(alpha)) for alpha in design.plan.alphas]

    def _inverses(self, design: Design, alpha: float) -> list[Array]:
        ops, plan, full = design.ops, design.plan, design.full
        n, r = self.rows.shape
        value, count = full.filled
        mean = float(plan.fit_intercept) / design.total_weight
        if design.spans:
            mean = 1.0 / (value + alpha) / design.total_weight if count else 0.0
        ones = np.ones(n) if design.root is None else design.root
        answer = []
        for members in self.members:
            blocks = np.empty((*members.shape, members.shape[1]))
            step = max(1, CHUNK_VALUES // max(1, members.shape[1] * r))
            for start in range(0, len(members), step):
                index = members[start : start + step]
                rows = self.rows[index.ravel()]
                solved = full.solver.solve(rows.T, alpha).T
                shape = (*index.shape, r)
                parts = rows.reshape(shape) @ solved.reshape(shape).swapaxes(1, 2)
                blocks[start : start + step] = ops.get(parts)
            size = np.linalg.norm(blocks, axis=(1, 2)) if design.spans else 1.0
            own = ones[members]
            inner = blocks if design.spans else np.eye(members.shape[1]) - blocks
            inner = inner - mean * own[:, :, None] * own[:, None, :]
            inverse = np.linalg.inv(inner)
            error = full.rounding * size * np.linalg.norm(inverse, axis=(1, 2))
            if not (error <= _LARGEST_ERROR).all():
                raise np.linalg.LinAlgError("a group alone decides a direction")
            answer.append(ops.put(inverse, full.dtype))
        return answer

    def table(self, design: Design, block: Block) -> Table:
        """Held-out r2 of every penalty for a block of targets."""
        ops, plan, n_targets = design.ops, design.plan, block.full.shape[1]
        truth = ops.put(block.centred, design.full.dtype)[design.target_rows]
        if design.root is not None:
            truth = truth * ops.put(design.root, design.full.dtype)[:, None]
        projected = block.full if self.spread is None else block.full * self.spread[:, None]
        residual = np.zeros((len(plan.alphas), n_targets))
        for index, alpha in enumerate(plan.alphas):
            fitted = self.rows @ design.full.solver.solve(projected, float(alpha))
            error = fitted if design.spans else truth - fitted
            for members, inverse in zip(self.members, self.inverses[index], strict=True):
                shape = (*members.shape, n_targets)
                left_out = inverse @ error[members.ravel()].reshape(shape)
                residual[index] += ops.column_dots(*[left_out.reshape(-1, n_targets)] * 2)
        r2 = 1.0 - residual / np.where(block.constant, 1.0, block.total)
        r2[:, block.constant] = 0.0
        return Table(r2, r2)


def leave_out_bytes(groups: npt.NDArray[np.intp], rank: int, n_alphas: int) -> int:
    """Most memory that it takes beside its design."""
    blocks = int((np.bincount(groups) ** 2).sum())
    return 8 * (len(groups) * rank + (n_alphas + 4) * blocks) + 3 * 8 * min(
        CHUNK_VALUES, len(groups) * rank
    )


def group_numbers(groups: npt.ArrayLike | None, n_rows: int) -> npt.NDArray[np.intp]:
    """Groups as whole numbers from 0; every row its own group when there are none.

    Raises
    ------
    RidgeError
        When there are fewer than two groups, one is missing, or there is not one per row.
    """
    labels = np.arange(n_rows) if groups is None else check_labels(groups, n_rows)
    ids, numbers, _ = unique_labels(labels)
    if len(ids) < 2:
        kind = "X has one row" if groups is None else "groups holds one group"
        raise RidgeError(f"{kind} only; leaving it out leaves nothing to fit.")
    return numbers
