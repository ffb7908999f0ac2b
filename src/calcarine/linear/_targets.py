"""A block of targets: centred and projected on every decomposition, and solved for weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array
from calcarine.linear._design import DecomposedPredictors, Decomposition
from calcarine.linear._scaling import count_rows, is_constant
from calcarine.linear._validation import FloatArray

_KEPT = 100
"""Number of penalties up to which their factors are kept for the next block of targets."""


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
        Sum of squares about the mean, in units of `scale`.
    constant : ndarray of bool, shape (t,)
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


def open_block(
    design: DecomposedPredictors, y: npt.NDArray[np.float64], *, folds: bool = True
) -> TargetBlock:
    """Centre a block of targets and project it on every decomposition.

    Parameters
    ----------
    design : DecomposedPredictors
    y : ndarray, shape (rows of the targets, t)
    folds : bool
        Whether to project on the folds too, not only on the fit on all trials.
    """
    settings, ops, counts = design.settings, design.ops, design.counts
    n = design.total_weight
    mean = counts @ y / n
    centred = y - mean
    squares = counts @ np.square(centred)
    constant = is_constant(mean, np.sqrt(squares / n), design.n_rows) | (squares == 0)
    if settings.fit_intercept:
        scale = np.sqrt(squares / n)
        centred[:, constant] = 0.0  # what is left is the rounding of the mean
    else:
        scale = np.sqrt(counts @ y**2 / n)
        centred, mean = y.copy(), np.zeros_like(mean)
    scale[(scale == 0) | (constant & settings.fit_intercept)] = 1.0
    centred /= scale
    on_device = ops.put(centred, settings.dtype)
    held_out = design.folds if folds else []
    train_mean = ops.put(_training_means(design, held_out, centred), settings.dtype)
    project = _project_primal if design.kind == "primal" else _project_dual
    projected, full = project(design, held_out, on_device, train_mean)
    total = squares / scale**2
    return TargetBlock(on_device, mean, scale, total, constant, projected, full, train_mean)


def _training_means(
    design: DecomposedPredictors, folds: list[Decomposition], centred: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the means of centred targets over the training trials of each fold."""
    counts, n = design.counts, design.total_weight
    means = np.zeros((len(folds), centred.shape[1]))
    if design.settings.fit_intercept:
        for k, fold in enumerate(folds):
            own = None if design.root is None else design.root[fold.held]
            left_out = count_rows(design.target_rows[fold.held], own, len(counts))
            means[k] = -(left_out @ centred) / (n - left_out.sum())
    return means


def _project_primal(
    design: DecomposedPredictors, folds: list[Decomposition], targets: Array, train_mean: Array
) -> tuple[list[Array], Array]:
    """Project the moments X'y of the training trials of each fold, and of all trials."""
    ops = design.ops
    parts = [part.sums.T @ targets[part.rows] for part in design.summed_rows]
    everything = ops.empty(tuple(parts[0].shape), parts[0])
    everything[...] = 0
    for part in parts:
        everything += part
    projected = []
    for fold, others, mean in zip(folds, _leaving_out(parts), train_mean, strict=False):
        b = fold.left.T @ others
        b -= fold.mean_left[:, None] * mean
        projected.append(b)
    return projected, design.full.left.T @ ops.put(everything, design.full.dtype)


def _project_dual(
    design: DecomposedPredictors, folds: list[Decomposition], targets: Array, train_mean: Array
) -> tuple[list[Array], Array]:
    """Project the targets of the training trials of each fold, and of all trials."""
    full, projected = design.full, []
    for fold, mean in zip(folds, train_mean, strict=True):
        b = fold.left.T @ targets[fold.rows]
        b -= fold.mean_left[:, None] * mean
        projected.append(b)
    return projected, full.left.T @ design.ops.put(targets[full.rows], full.dtype)


def _leaving_out(parts: list[Array]) -> Iterator[Array]:
    """Yield the sum of all other parts for each part, which are overwritten.

    Nothing is subtracted from the sum of all: a large part would cancel digits of the others.
    """
    before, after = parts[0], [parts[-1]]
    for part in reversed(parts[1:-1]):
        after.append(after[-1] + part)
    yield after.pop()
    for part in parts[1:-1]:
        others = after.pop()
        others += before
        before += part
        yield others
    yield before


def solve_weights(
    design: DecomposedPredictors,
    block: TargetBlock,
    chosen: npt.NDArray[np.intp],
    out: FloatArray | None = None,
) -> FloatArray:
    """Return weights (p, t) in the units of X for one penalty per target, in `out` if given."""
    ops, settings = design.ops, design.settings
    solved = ops.empty(tuple(block.full.shape), block.full)
    for index in np.unique(chosen):
        columns = np.flatnonzero(chosen == index)
        alpha = float(settings.alphas[index])
        if len(columns) == len(chosen):
            design.full.solver.solve(block.full, alpha, solved)
        else:
            solved[:, columns] = design.full.solver.solve(block.full[:, columns], alpha)
        if len(settings.alphas) > _KEPT:
            design.full.solver.forget()
    in_range = block.scale.min() > 1e-10 and block.scale.max() < 1e10
    if in_range:  # before the product there are fewer rows to multiply
        solved *= ops.put(block.scale, design.full.dtype)
    right = design.full.right
    if isinstance(right, np.ndarray) and out is not None and out.dtype == right.dtype:
        coef = np.matmul(right, solved, out=out)
    else:
        coef = ops.get(right @ solved)
    if not in_range:
        coef *= block.scale
    if settings.standardize:
        coef /= design.scaler.scale[:, None]
    coef[design.scaler.constant] = 0.0
    return coef
