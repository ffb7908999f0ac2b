"""Scores of penalties, and generalised cross-validation, which needs one decomposition alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calcarine.linear._design import Design
from calcarine.linear._precision import residuals_are_sound

if TYPE_CHECKING:
    from calcarine.linear._targets import Block


@dataclass
class Table:
    """Scores, shape (n_alphas, t); NaN where a penalty was not tried. `r2` is there always."""

    score: npt.NDArray[np.float64]
    r2: npt.NDArray[np.float64]


def best_penalty(score: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Index of the best score of each column; of equals the last, the larger penalty."""
    known = np.where(np.isnan(score), -np.inf, score)
    return np.asarray(len(score) - 1 - np.argmax(known[::-1], axis=0))


def gcv_table(design: Design, block: Block) -> Table:
    r"""Generalised cross-validation (Golub, Heath & Wahba 1979) as an r2.

    1 - n RSS(alpha) / (n - 1 - df(alpha))^2 * n / TSS: the score of the mean leave-one-out error
    with every leverage replaced by their mean. Sample weights are taken as precisions: n is the
    number of trials that have any, and both sums of squares are weighted. Where the design spans
    the targets, the common factor alpha of both residual and remaining degrees of freedom is left
    out.
    """
    ops, plan, n = design.ops, design.plan, design.n_counted
    scores = np.empty((len(plan.alphas), block.full.shape[1]))
    total = np.where(block.constant, 1.0, block.total)
    squares = design.total_weight  # of targets in units of their root mean square
    own = ops.column_dots(block.full, block.full) if design.kind == "svd" else 0.0
    alphas = [float(alpha) for alpha in plan.alphas]
    sums = design.full.solver.sums(block.full, alphas)
    for index, (alpha, (size, along)) in enumerate(zip(alphas, sums, strict=True)):
        if design.spans:
            residual = size
        elif design.kind == "svd":
            residual = np.maximum(squares - own, 0) + alpha**2 * size
        else:
            residual = squares - along - alpha * size
        free = max(design.free(alpha), np.finfo(np.float64).tiny ** 0.5)
        scores[index] = 1.0 - n * np.maximum(residual, 0) / free**2 * n / total
    scores[:, block.constant] = 0.0
    return Table(scores, scores)


def gcv_is_sound(design: Design) -> bool:
    """Whether rounding leaves enough of the residuals for generalised cross-validation."""
    share = design.free(float(design.plan.alphas[0])) / design.n_counted
    return design.kind != "primal" or residuals_are_sound(design.full, share)
