"""One block of targets: its penalties, its held-out scores and its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array
from calcarine.linear._checks import FloatArray
from calcarine.linear._design import Design, is_constant
from calcarine.linear._scores import best_penalty, gcv_table
from calcarine.linear._search import fold_table
from calcarine.linear._weights import count_rows

if TYPE_CHECKING:
    from calcarine.linear._leave_out import LeaveOut


_KEPT = 100
"""Penalties up to which their factors are kept for the next block of targets."""


@dataclass
class Block:
    """Targets, centred over all trials, with what every fold needs of them.

    Attributes
    ----------
    centred : array, shape (rows of the targets, t)
        Divided by `scale`, so that single precision neither overflows nor underflows.
    mean, scale : ndarray, shape (t,)
        Mean over trials, 0 without an intercept, and root mean square about that. These and the
        sum below are weighted where trials have weights.
    total : ndarray, shape (t,)
        Sum of squares about the mean, in units of `scale`.
    constant : ndarray, shape (t,)
    projected : list of arrays, shape (r, t)
        What each fold's `System.left` makes of its training targets.
    full : array, shape (r, t)
        The same for all trials.
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
class Choice:
    """How penalties are chosen; `at_once` when each target has its own, so weights can follow."""

    cv: str
    search: str
    correlation: bool
    at_once: bool


@dataclass
class Answer:
    """What is known of a block of targets; `coef` only if penalties were chosen at once."""

    table: npt.NDArray[np.float64]
    r2: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    chosen: npt.NDArray[np.intp]
    coef: FloatArray | None


def solve_block(
    design: Design,
    left_out: LeaveOut | None,
    how: Choice,
    y: npt.NDArray[np.float64],
    out: FloatArray | None = None,
    fixed: npt.NDArray[np.intp] | None = None,
) -> Answer:
    """Score the penalties of a block of targets, shape (rows of Y, t), and fit its weights.

    The weights go to `out`, shape (p, t), if it is given. Where the penalties are `fixed`,
    nothing is scored.
    """
    if fixed is not None:
        block = open_block(design, y, folds=False)
        none = np.empty((0, y.shape[1]))
        return Answer(none, none, block.mean, fixed, weights(design, block, fixed, out))
    block = open_block(design, y, folds=how.cv == "kfold" and design.forms is None)
    if how.cv == "gcv":
        table = gcv_table(design, block)
    elif how.cv == "logo" and left_out is not None:
        table = left_out.table(design, block)
    else:
        table = fold_table(design, block, correlation=how.correlation, search=how.search)
    chosen = best_penalty(table.score)
    coef = weights(design, block, chosen, out) if how.at_once else None
    return Answer(table.score, table.r2, block.mean, chosen, coef)


def weigh_block(
    design: Design,
    y: npt.NDArray[np.float64],
    chosen: npt.NDArray[np.intp],
    out: FloatArray | None = None,
) -> FloatArray:
    """Weights (p, t) of a block of targets for penalties chosen elsewhere."""
    return weights(design, open_block(design, y, folds=False), chosen, out)


def open_block(design: Design, y: npt.NDArray[np.float64], *, folds: bool = True) -> Block:
    """Centre a block of targets and project it on every decomposition.

    Parameters
    ----------
    design : Design
    y : ndarray, shape (rows of the targets, t)
    folds : bool
        Whether the folds are wanted too, or only the fit on all trials.
    """
    plan, ops, counts = design.plan, design.ops, design.counts
    n = design.total_weight
    mean = counts @ y / n
    centred = y - mean
    squares = counts @ np.square(centred)
    constant = is_constant(mean, np.sqrt(squares / n), design.n_rows) | (squares == 0)
    if plan.fit_intercept:
        scale = np.sqrt(squares / n)
        centred[:, constant] = 0.0  # the rounding of the mean is no signal
    else:
        scale = np.sqrt(counts @ y**2 / n)
        centred, mean = y.copy(), np.zeros_like(mean)
    scale[(scale == 0) | (constant & plan.fit_intercept)] = 1.0
    centred /= scale
    on_device = ops.put(centred, plan.dtype)
    systems = design.folds if folds else []
    train_mean = np.zeros((len(systems), y.shape[1]))
    if plan.fit_intercept:
        for k, system in enumerate(systems):
            own = None if design.root is None else design.root[system.held]
            left_out = count_rows(design.target_rows[system.held], own, len(counts))
            train_mean[k] = -(left_out @ centred) / (n - left_out.sum())
    shift = ops.put(train_mean, plan.dtype)
    projected: list[Array] = []
    if design.kind == "primal":
        parts = [moments.sums.T @ on_device[moments.rows] for moments in design.moments]
        everything = ops.empty(tuple(parts[0].shape), parts[0])
        everything[...] = 0
        for part in parts:
            everything += part
        for system, others, away in zip(systems, _leaving_out(parts), shift, strict=False):
            b = system.left.T @ others
            b -= system.mean_left[:, None] * away
            projected.append(b)
        full = design.full.left.T @ ops.put(everything, design.full.dtype)
    else:
        for k, system in enumerate(systems):
            b = system.left.T @ on_device[system.rows]
            b -= system.mean_left[:, None] * shift[k]
            projected.append(b)
        full = design.full.left.T @ ops.put(on_device[design.full.rows], design.full.dtype)
    return Block(on_device, mean, scale, squares / scale**2, constant, projected, full, shift)


def _leaving_out(parts: list[Array]) -> Iterator[Array]:
    """Sums of all parts but one, for each in turn, without subtracting: a large one would cancel.

    The parts are overwritten.
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


def weights(
    design: Design,
    block: Block,
    chosen: npt.NDArray[np.intp],
    out: FloatArray | None = None,
) -> FloatArray:
    """Weights (p, t) in the units of X for one penalty per target; in `out` if it is given."""
    ops, plan = design.ops, design.plan
    solved = ops.empty(tuple(block.full.shape), block.full)
    for index in np.unique(chosen):
        columns = np.flatnonzero(chosen == index)
        alpha = float(plan.alphas[index])
        if len(columns) == len(chosen):
            design.full.solver.solve(block.full, alpha, solved)
        else:
            solved[:, columns] = design.full.solver.solve(block.full[:, columns], alpha)
        if len(plan.alphas) > _KEPT:
            design.full.solver.forget()
    tame = block.scale.min() > 1e-10 and block.scale.max() < 1e10
    if tame:  # fewer rows to multiply than after the product
        solved *= ops.put(block.scale, design.full.dtype)
    right = design.full.right
    if isinstance(right, np.ndarray) and out is not None and out.dtype == right.dtype:
        coef = np.matmul(right, solved, out=out)
    else:
        coef = ops.get(right @ solved)
    if not tame:
        coef *= block.scale
    if plan.standardize:
        coef /= design.scaler.scale[:, None]
    coef[design.scaler.dead] = 0.0
    return coef
