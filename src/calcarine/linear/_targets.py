"""One block of targets: its penalties, its held-out scores and its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array
from calcarine.linear._checks import FloatArray
from calcarine.linear._design import Design, is_constant
from calcarine.linear._factor import Spectral
from calcarine.linear._forms import Forms
from calcarine.linear._precision import residuals_are_sound

if TYPE_CHECKING:
    from calcarine.linear._leave_out import LeaveOut

Evaluate = Callable[[int, slice | npt.NDArray[np.intp]], None]
"""Computes the sums of one penalty for some targets, over all folds."""

_PROBES = 32
_RUN, _GAP = 48, 8


@dataclass
class Block:
    """Targets, centred over all trials, with what every fold needs of them.

    Attributes
    ----------
    centred : array, shape (rows of the targets, t)
        Divided by `scale`, so that single precision neither overflows nor underflows.
    mean, scale : ndarray, shape (t,)
        Mean over trials, 0 without an intercept, and root mean square about that.
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


@dataclass
class Table:
    """Scores, shape (n_alphas, t); NaN where a penalty was not tried. `r2` is there always."""

    score: npt.NDArray[np.float64]
    r2: npt.NDArray[np.float64]


def solve_block(
    design: Design,
    left_out: LeaveOut | None,
    how: Choice,
    y: npt.NDArray[np.float64],
    out: FloatArray | None = None,
) -> Answer:
    """Score the penalties of a block of targets, shape (rows of Y, t), and fit its weights.

    The weights go to `out`, shape (p, t), if it is given.
    """
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
    n = design.n_rows
    mean = counts @ y / n
    centred = y - mean
    squares = counts @ np.square(centred)
    constant = is_constant(mean, np.sqrt(squares / n), n) | (squares == 0)
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
            left_out = np.bincount(design.target_rows[system.held], minlength=len(counts))
            train_mean[k] = -(left_out @ centred) / (n - len(system.held))
    shift = ops.put(train_mean, plan.dtype)
    projected: list[Array] = []
    if design.kind == "primal":
        parts = [moments.sums.T @ on_device[moments.rows] for moments in design.moments]
        everything = ops.empty(tuple(parts[0].shape), parts[0])
        everything[...] = 0
        for part in parts:
            everything += part
        for k, system in enumerate(systems):
            parts[k] -= everything
            b = system.left.T @ parts[k]
            b *= -1
            b -= system.mean_left[:, None] * shift[k]
            projected.append(b)
            parts[k] = None
        full = design.full.left.T @ ops.put(everything, design.full.dtype)
    else:
        for k, system in enumerate(systems):
            b = system.left.T @ on_device[system.rows]
            b -= system.mean_left[:, None] * shift[k]
            projected.append(b)
        full = design.full.left.T @ ops.put(on_device[design.full.rows], design.full.dtype)
    return Block(on_device, mean, scale, squares / scale**2, constant, projected, full, shift)


def gcv_table(design: Design, block: Block) -> Table:
    r"""Generalised cross-validation (Golub, Heath & Wahba 1979) as an r2.

    1 - n RSS(alpha) / (n - 1 - df(alpha))^2 * n / TSS: the score of the mean leave-one-out error
    with every leverage replaced by their mean. Where the design spans the targets, the common
    factor alpha of both residual and remaining degrees of freedom is left out.
    """
    ops, plan, n = design.ops, design.plan, design.n_rows
    scores = np.empty((len(plan.alphas), block.full.shape[1]))
    total = np.where(block.constant, 1.0, block.total)
    squares = float(n)  # of targets in units of their root mean square
    own = ops.column_dots(block.full, block.full) if design.kind == "svd" else 0.0
    for index, (alpha, size, along) in enumerate(_solution_sums(design, block)):
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


def _solution_sums(
    design: Design, block: Block
) -> Iterator[tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64] | float]]:
    """Every penalty with the squares of its solutions, and their products with what they solve.

    The products are 0 where the band was solved and nobody needs them.
    """
    ops, solver, out = design.ops, design.full.solver, None
    if isinstance(solver, Spectral):
        # In units of the largest eigenvalue, whose square may be no number.
        unit = float(abs(solver.eigen).max()) or 1.0
        inverse = unit * np.stack([solver.inverse(float(alpha)) for alpha in design.plan.alphas])
        sums = ops.weighted_squares(np.concatenate([inverse**2, inverse]), block.full, unit**-0.5)
        squares, products = np.split(sums, 2)
        yield from zip(map(float, design.plan.alphas), squares / unit, products, strict=True)
        return
    for penalty in design.plan.alphas:
        out = solver.solve(block.full, float(penalty), out)
        along = 0.0 if design.spans else ops.column_dots(block.full, out)
        yield float(penalty), ops.column_dots(out, out), along


def gcv_is_sound(design: Design) -> bool:
    """Whether rounding leaves enough of the residuals for generalised cross-validation."""
    share = design.free(float(design.plan.alphas[0])) / design.n_rows
    return design.kind != "primal" or residuals_are_sound(design.full, share)


def fold_table(design: Design, block: Block, *, correlation: bool, search: str) -> Table:
    """Held-out scores of every penalty, or of those around each target's best.

    Parameters
    ----------
    design, block : Design, Block
    correlation : bool
        Score by correlation; r2 is given beside it.
    search : {"full", "local"}
        "local" starts where generalised cross-validation points and tries neighbouring penalties
        until both neighbours of the best are worse, and where the highest is best the last but two.
    """
    n_alphas, n_targets = len(design.plan.alphas), block.full.shape[1]
    sums = _Sums(n_alphas, n_targets)
    local = search == "local" and n_alphas > 3 and not _is_cheap(design)
    order: Any = slice(None)
    if local:
        guess = best_penalty(gcv_table(design, block).score)
        order = np.argsort(guess, kind="stable")  # penalties then go to neighbouring columns
    evaluate: Evaluate
    if design.forms is not None:
        evaluate = _ByForms(design.forms, block, sums, order)
    else:
        evaluate = _Evaluation(design, block, sums, correlation, order)
    total, constant = block.total[order], block.constant[order]
    score = sums.correlation if correlation else lambda: sums.r2(total, constant)
    if local:
        _climb(evaluate, score, _start(guess[order], evaluate, score, n_alphas), n_alphas)
    else:
        for index in range(n_alphas):
            evaluate(index, slice(None))
    back = np.argsort(order) if local else order
    r2 = sums.r2(total, constant)[:, back]
    return Table(score()[:, back] if correlation else r2, r2)


def _is_cheap(design: Design) -> bool:
    """Whether trying every penalty costs no more than finding out which to try."""
    forms, solver = design.forms, design.full.solver
    return forms is not None and len(forms.order) ** 2 <= 3 * solver.size * solver.substitution


def best_penalty(score: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Index of the best score of each column; of equals the last, the larger penalty."""
    known = np.where(np.isnan(score), -np.inf, score)
    return np.asarray(len(score) - 1 - np.argmax(known[::-1], axis=0))


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


def _start(
    guess: npt.NDArray[np.intp],
    evaluate: Evaluate,
    score: Callable[[], npt.NDArray[np.float64]],
    n_alphas: int,
) -> npt.NDArray[np.intp]:
    """Where to begin: generalised cross-validation, moved by what full curves of a few show.

    Repeats of a stimulus are not independent, which generalised cross-validation does not know:
    it errs to one side, and by much the same for all targets.
    """
    n_targets = len(guess)
    probes = np.unique(np.linspace(0, n_targets - 1, min(_PROBES, n_targets)).astype(np.intp))
    for index in range(n_alphas):
        evaluate(index, probes)
    truth = best_penalty(score()[:, probes])
    shift = int(np.round(np.median(truth - guess[probes])))
    return np.clip(guess + shift, 0, n_alphas - 1)


def _climb(
    evaluate: Evaluate,
    score: Callable[[], npt.NDArray[np.float64]],
    start: npt.NDArray[np.intp],
    n_alphas: int,
) -> None:
    """Try neighbours of the best penalty so far until no target has an untried one."""
    targets = np.arange(len(start))
    wanted = np.zeros((n_alphas, len(start)), bool)
    for step in (-1, 0, 1):
        wanted[np.clip(start + step, 0, n_alphas - 1), targets] = True
    while True:
        open_ = wanted & np.isnan(score())
        if not open_.any():
            return
        for index in np.flatnonzero(open_.any(axis=1)):
            for columns in _pieces(np.flatnonzero(open_[index])):
                evaluate(int(index), columns)
        best = best_penalty(score())
        wanted = np.zeros_like(wanted)
        for step in (-1, 1):
            wanted[np.clip(best + step, 0, n_alphas - 1), targets] = True
        # Targets without signal: a curve that ends high may have been higher two steps before.
        wanted[-3, targets[best == n_alphas - 1]] = True


def _pieces(columns: npt.NDArray[np.intp]) -> Iterator[slice | npt.NDArray[np.intp]]:
    """Long runs, small gaps included, as slices, which need no copy; what is left together."""
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > _GAP) + 1)
    rest = [run for run in runs if len(run) < _RUN]
    for run in runs:
        if len(run) >= _RUN:
            yield slice(int(run[0]), int(run[-1]) + 1)
    if rest:
        yield np.concatenate(rest)


class _Sums:
    """Sums over held-out trials, each of shape (n_alphas, t); NaN until a penalty is tried."""

    def __init__(self, n_alphas: int, n_targets: int) -> None:
        shape = (n_alphas, n_targets)
        self.residual = np.full(shape, np.nan)
        self.cross, self.guess = np.full(shape, np.nan), np.full(shape, np.nan)
        self.truth = np.zeros(n_targets)

    def r2(
        self, total: npt.NDArray[np.float64], constant: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        r2 = 1.0 - self.residual / np.where(constant, 1.0, total)
        r2[:, constant] = np.where(np.isnan(r2[:, constant]), np.nan, 0.0)
        return r2

    def correlation(self) -> npt.NDArray[np.float64]:
        size = np.sqrt(self.guess) * np.sqrt(self.truth)
        table = np.where(np.isnan(size), np.nan, 0.0)
        np.divide(self.cross, size, out=table, where=size > 0)
        return table


class _ByForms:
    """Computes the sums of one penalty for some targets, put into `order`, by quadratic forms."""

    def __init__(self, forms: Forms, block: Block, sums: _Sums, order: Any) -> None:
        self.forms, self.sums = forms, sums
        self.targets = block.centred[forms.order][:, order]

    def __call__(self, index: int, columns: slice | npt.NDArray[np.intp]) -> None:
        errors = self.forms.errors(index, self.targets[:, columns])
        self.sums.residual[index, columns] = errors


class _Evaluation:
    """Computes the same sums from predictions, and those for correlations."""

    def __init__(
        self, design: Design, block: Block, sums: _Sums, correlation: bool, order: Any
    ) -> None:
        self.design, self.sums, self.correlation = design, sums, correlation
        self.projected, self.truth = [], []
        for k, system in enumerate(design.folds):
            rows = design.target_rows[system.held]
            truth = (block.centred[rows] - block.train_mean[k])[:, order]
            if correlation:
                centred = _centred(truth)
                sums.truth += design.ops.column_dots(centred, centred)
            self.truth.append(truth)
            self.projected.append(block.projected[k][:, order])
            block.projected[k] = None  # where targets were put in order, one of the two is enough

    def __call__(self, index: int, columns: slice | npt.NDArray[np.intp]) -> None:
        design, ops = self.design, self.design.ops
        alpha = float(design.plan.alphas[index])
        residual, cross, size = (np.zeros(self.sums.truth[columns].shape) for _ in range(3))
        for k, system in enumerate(design.folds):
            truth = self.truth[k][:, columns]
            guess = system.right @ system.solver.solve(self.projected[k][:, columns], alpha)
            if self.correlation:
                centred = _centred(guess)
                cross += ops.column_dots(centred, truth)
                size += ops.column_dots(centred, centred)
            guess -= truth
            residual += ops.column_dots(guess, guess)
        self.sums.residual[index, columns] = residual
        self.sums.cross[index, columns], self.sums.guess[index, columns] = cross, size


def _centred(values: Array) -> Array:
    return values - values.mean(0)
