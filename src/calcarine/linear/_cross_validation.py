"""Scores of penalties: K-fold, leave-one-group-out and generalised cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array, dtype_of
from calcarine.linear._decomposed_predictors import (
    DecomposedPredictors,
    Decomposition,
    TargetBlock,
    residuals_are_sound,
)
from calcarine.linear._predictors import CHUNK_VALUES
from calcarine.linear._quadratic_forms import QuadraticForms
from calcarine.linear._validation import FloatArray

Evaluate = Callable[[Sequence[int], slice | npt.NDArray[np.intp]], None]
"""Computes the sums of some penalties for some targets, over all folds."""

_PROBES = 32
_RUN, _GAP = 48, 8
_ROUNDING = 1e3
_LARGEST_ERROR = 1e-2


@dataclass
class PenaltyScores:
    """Held-out score and r2, shape (n_alphas, t); NaN where a penalty was not tried."""

    score: npt.NDArray[np.float64]
    r2: npt.NDArray[np.float64]


def best_penalty(score: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the index of the best score of each column; of equal scores the larger penalty."""
    known = np.where(np.isnan(score), -np.inf, score)
    return np.asarray(len(score) - 1 - np.argmax(known[::-1], axis=0))


def gcv_scores(design: DecomposedPredictors, block: TargetBlock) -> PenaltyScores:
    r"""Return the generalised cross-validation of Golub, Heath & Wahba (1979) as an r2.

    1 - n RSS(alpha) / (n - 1 - df(alpha))^2 * n / TSS is the r2 of leave-one-out predictions with
    every leverage replaced by the mean leverage. Sample weights are taken as precisions: n is the
    number of trials with a weight above 0, and both sums of squares are weighted. Where the
    decomposition spans the targets, residuals and remaining degrees of freedom are both computed
    without their common factor alpha.
    """
    ops, settings, n = design.ops, design.settings, design.n_counted
    scores = np.empty((len(settings.alphas), block.full.shape[1]))
    total = np.where(block.constant, 1.0, block.total)
    squares = design.total_weight  # of targets in units of their root mean square
    own = ops.column_dots(block.full, block.full) if design.kind == "svd" else 0.0
    alphas = [float(alpha) for alpha in settings.alphas]
    sums = design.full.solver.sums(block.full, alphas)
    for index, (alpha, (size, along)) in enumerate(zip(alphas, sums, strict=True)):
        if design.spans:
            residual = size
        elif design.kind == "svd":
            residual = np.maximum(squares - own, 0) + alpha**2 * size
        else:
            residual = squares - along - alpha * size
        free = max(design.degrees_left(alpha), np.finfo(np.float64).tiny ** 0.5)
        scores[index] = 1.0 - n * np.maximum(residual, 0) / free**2 * n / total
    scores[:, block.constant] = 0.0
    return PenaltyScores(scores, scores)


def gcv_is_sound(design: DecomposedPredictors) -> bool:
    """Return whether residuals are exact enough for generalised cross-validation."""
    share = design.degrees_left(float(design.settings.alphas[0])) / design.n_counted
    return design.kind != "primal" or residuals_are_sound(design.full, share)


class LeaveOneGroupOut:
    r"""Exact leave-one-group-out residuals from the fit on all trials.

    For a group g the residuals of the fit without it are
    :math:`(I - H_{gg})^{-1} (y_g - \hat y_g)`, where H maps targets to fitted values, including
    the intercept (Hastie et al. 2009, eq. 7.64, in blocks). So thousands of folds cost one
    decomposition. The inverse blocks are computed once per penalty, for all blocks of targets.
    Where the decomposition spans the targets, :math:`I - H` and the residuals are both kept
    without their common factor alpha, so that they stay exact when alpha goes to 0.

    Parameters
    ----------
    design : DecomposedPredictors
        Only its fit on all trials is used.
    x : ndarray, shape (n, p)
        The scaled rows that were decomposed.
    groups : ndarray, shape (n,)
        Group of each trial, as whole numbers from 0.

    Raises
    ------
    numpy.linalg.LinAlgError
        When :math:`I - H` of a group is rounding error at the smallest penalty.
    """

    def __init__(
        self, design: DecomposedPredictors, x: FloatArray, groups: npt.NDArray[np.intp]
    ) -> None:
        ops, full = design.ops, design.full
        self.spread: Array | None = None
        if full.trials is None:
            self.rows = ops.put(x, full.dtype) @ full.right
        elif design.spans:
            self.rows = full.trials
        else:
            self.spread = full.solver.eigen**0.5  # type: ignore[union-attr]
            self.rows = full.trials * self.spread
        # Trials without weight have no held-out error.
        order = np.arange(len(groups)) if design.root is None else np.flatnonzero(design.root)
        order = order[np.argsort(groups[order], kind="stable")]
        sizes = np.bincount(groups[order])
        ends = np.cumsum(sizes)
        self.members = [
            np.stack([order[ends[g] - size : ends[g]] for g in np.flatnonzero(sizes == size)])
            for size in np.unique(sizes[sizes > 0])
        ]
        self.inverses = [self._inverses(design, float(alpha)) for alpha in design.settings.alphas]

    def _inverses(self, design: DecomposedPredictors, alpha: float) -> list[Array]:
        ops, settings, full = design.ops, design.settings, design.full
        n, r = self.rows.shape
        value, count = full.filled
        mean = float(settings.fit_intercept) / design.total_weight
        if design.spans:
            mean = 1.0 / (value + alpha) / design.total_weight if count else 0.0
        ones = np.ones(n) if design.root is None else design.root
        inverses = []
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
            inverses.append(ops.put(inverse, full.dtype))
        return inverses

    def scores(self, design: DecomposedPredictors, block: TargetBlock) -> PenaltyScores:
        """Return the held-out r2 of every penalty for a block of targets."""
        ops, settings, n_targets = design.ops, design.settings, block.full.shape[1]
        targets = ops.put(block.centred, design.full.dtype)[design.target_rows]
        if design.root is not None:
            targets = targets * ops.put(design.root, design.full.dtype)[:, None]
        projected = block.full if self.spread is None else block.full * self.spread[:, None]
        residual = np.zeros((len(settings.alphas), n_targets))
        for index, alpha in enumerate(settings.alphas):
            fitted = self.rows @ design.full.solver.solve(projected, float(alpha))
            error = fitted if design.spans else targets - fitted
            for members, inverse in zip(self.members, self.inverses[index], strict=True):
                shape = (*members.shape, n_targets)
                left_out = inverse @ error[members.ravel()].reshape(shape)
                residual[index] += ops.column_dots(*[left_out.reshape(-1, n_targets)] * 2)
        r2 = 1.0 - residual / np.where(block.constant, 1.0, block.total)
        r2[:, block.constant] = 0.0
        return PenaltyScores(r2, r2)


def leave_out_bytes(groups: npt.NDArray[np.intp], rank: int, n_alphas: int) -> int:
    """Return the most bytes that `LeaveOneGroupOut` takes."""
    blocks = int((np.bincount(groups) ** 2).sum())
    return 8 * (len(groups) * rank + (n_alphas + 4) * blocks) + 3 * 8 * min(
        CHUNK_VALUES, len(groups) * rank
    )


def kfold_scores(
    design: DecomposedPredictors, block: TargetBlock, *, correlation: bool, search: str
) -> PenaltyScores:
    """Return held-out scores of every penalty, or of those around each target's best.

    Parameters
    ----------
    design : DecomposedPredictors
    block : TargetBlock
    correlation : bool
        Score by correlation instead of r2.
    search : {"full", "local"}
        "local" starts at the penalty that generalised cross-validation chooses and tries
        neighbouring penalties until both neighbours of the best are worse. Where the highest
        penalty is best, it also tries the third highest.
    """
    n_alphas = len(design.settings.alphas)
    local = search == "local" and n_alphas > 3 and not _is_cheap(design)
    order: Any = slice(None)
    if local:
        start = best_penalty(gcv_scores(design, block).score)
        order = np.argsort(start, kind="stable")  # a penalty is then tried for adjacent columns
    sums = _HeldOutSums(n_alphas, block.total[order], block.constant[order], correlation)
    evaluate: Evaluate
    if design.forms is not None:
        evaluate = _ByQuadraticForms(design.forms, block, sums, order)
    else:
        evaluate = _ByPrediction(design, block, sums, order)
    if local:
        _climb(evaluate, sums, _shifted_start(start[order], evaluate, sums))
    else:
        for index in range(n_alphas):
            evaluate([index], slice(None))
    back = np.argsort(order) if local else order
    r2 = sums.r2()[:, back]
    return PenaltyScores(sums.correlations()[:, back] if correlation else r2, r2)


def _is_cheap(design: DecomposedPredictors) -> bool:
    """Return whether trying every penalty costs no more than finding out which to try."""
    forms, solver = design.forms, design.full.solver
    return forms is not None and len(forms.order) ** 2 <= 3 * solver.size * solver.substitution


class _HeldOutSums:
    """Sums over held-out trials, each of shape (n_alphas, t); NaN until a penalty is tried.

    `total` and `constant` are those of the targets, shape (t,).
    """

    def __init__(
        self,
        n_alphas: int,
        total: npt.NDArray[np.float64],
        constant: npt.NDArray[np.bool_],
        correlation: bool,
    ) -> None:
        self.total, self.constant, self.correlation = total, constant, correlation
        shape = (n_alphas, len(total))
        self.residual = np.full(shape, np.nan)
        self.cross, self.predicted = np.full(shape, np.nan), np.full(shape, np.nan)
        self.rounding = np.zeros(shape)
        self.target = np.zeros(len(total))

    def scores(self) -> npt.NDArray[np.float64]:
        """Return what chooses the penalties: r2 or correlation."""
        return self.correlations() if self.correlation else self.r2()

    def r2(self) -> npt.NDArray[np.float64]:
        """Return the r2 of every penalty; 0 for constant targets."""
        r2 = 1.0 - self.residual / np.where(self.constant, 1.0, self.total)
        r2[:, self.constant] = np.where(np.isnan(r2[:, self.constant]), np.nan, 0.0)
        return r2

    def correlations(self) -> npt.NDArray[np.float64]:
        """Return the correlation of every penalty; 0 where predictions are rounding errors."""
        size = np.sqrt(self.predicted) * np.sqrt(self.target)
        table = np.where(np.isnan(size), np.nan, 0.0)
        varies = (size > 0) & (self.predicted > self.rounding)
        np.divide(self.cross, size, out=table, where=varies)
        return table


def _shifted_start(
    start: npt.NDArray[np.intp], evaluate: Evaluate, sums: _HeldOutSums
) -> npt.NDArray[np.intp]:
    """Return where to begin: the choice of generalised cross-validation, corrected.

    Repeats of a stimulus are not independent, which generalised cross-validation ignores. Its
    choice is off in one direction, and by about the same for all targets. The full curves of a
    few targets show by how much.
    """
    n_alphas, n_targets = sums.residual.shape
    probes = np.unique(np.linspace(0, n_targets - 1, min(_PROBES, n_targets)).astype(np.intp))
    evaluate(range(n_alphas), probes)
    best = best_penalty(sums.scores()[:, probes])
    shift = int(np.round(np.median(best - start[probes])))
    return np.clip(start + shift, 0, n_alphas - 1)


def _climb(evaluate: Evaluate, sums: _HeldOutSums, start: npt.NDArray[np.intp]) -> None:
    """Try neighbours of the best penalty so far until no target has an untried one."""
    n_alphas = len(sums.residual)
    targets = np.arange(len(start))
    wanted = np.zeros((n_alphas, len(start)), bool)
    for step in (-1, 0, 1):
        wanted[np.clip(start + step, 0, n_alphas - 1), targets] = True
    while True:
        untried = wanted & np.isnan(sums.scores())
        if not untried.any():
            return
        for index in np.flatnonzero(untried.any(axis=1)):
            for columns in _pieces(np.flatnonzero(untried[index])):
                evaluate([int(index)], columns)
        best = best_penalty(sums.scores())
        wanted = np.zeros_like(wanted)
        for step in (-1, 1):
            wanted[np.clip(best + step, 0, n_alphas - 1), targets] = True
        # Targets without signal: a curve that ends high may be higher still two steps before.
        wanted[-3, targets[best == n_alphas - 1]] = True


def _pieces(columns: npt.NDArray[np.intp]) -> Iterator[slice | npt.NDArray[np.intp]]:
    """Yield long runs, including small gaps, as slices, which need no copy; the rest together."""
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > _GAP) + 1)
    rest = [run for run in runs if len(run) < _RUN]
    for run in runs:
        if len(run) >= _RUN:
            yield slice(int(run[0]), int(run[-1]) + 1)
    if rest:
        yield np.concatenate(rest)


class _ByQuadraticForms:
    """Computes the sums of penalties for some targets, sorted by `order`, by quadratic forms."""

    def __init__(
        self, forms: QuadraticForms, block: TargetBlock, sums: _HeldOutSums, order: Any
    ) -> None:
        self.forms, self.sums = forms, sums
        self.targets = block.centred[forms.order][:, order]

    def __call__(self, indices: Sequence[int], columns: slice | npt.NDArray[np.intp]) -> None:
        targets = self.targets[:, columns]
        for index in indices:
            self.sums.residual[index, columns] = self.forms.errors(index, targets)


class _ByPrediction:
    """Computes the same sums from predictions, and those for correlations."""

    def __init__(
        self, design: DecomposedPredictors, block: TargetBlock, sums: _HeldOutSums, order: Any
    ) -> None:
        self.design, self.sums = design, sums
        self.projected, self.targets, self.ones = [], [], list[Array | None]()
        for k, fold in enumerate(design.folds):
            rows = design.target_rows[fold.held]
            targets = (block.centred[rows] - block.train_mean[k])[:, order]
            ones = None  # what an intercept adds to weighted rows
            if design.root is not None:
                ones = design.ops.put(design.root[fold.held], dtype_of(targets))
                targets *= ones[:, None]
            self.ones.append(ones)
            if sums.correlation:
                centred = _centred(targets, ones)
                sums.target += design.ops.column_dots(centred, centred)
            self.targets.append(targets)
            self.projected.append(block.projected[k][:, order])
            block.projected[k] = None  # frees the unsorted copy

    def __call__(self, indices: Sequence[int], columns: slice | npt.NDArray[np.intp]) -> None:
        ops, sums = self.design.ops, self.sums
        alphas = [float(self.design.settings.alphas[index]) for index in indices]
        for index in indices:
            sums.residual[index, columns] = 0
            sums.cross[index, columns] = sums.predicted[index, columns] = 0
            sums.rounding[index, columns] = 0
        for k, fold in enumerate(self.design.folds):
            targets, projected = self.targets[k][:, columns], self.projected[k][:, columns]
            about = _centred(targets, self.ones[k]) if sums.correlation else targets
            predictions = self._predict(fold, projected, alphas)
            for index, predicted in zip(indices, predictions, strict=True):
                if sums.correlation:
                    centred = _centred(predicted, self.ones[k])
                    sums.cross[index, columns] += ops.column_dots(centred, about)
                    sums.predicted[index, columns] += ops.column_dots(centred, centred)
                    least = (_ROUNDING * float(np.finfo(dtype_of(predicted)).eps)) ** 2
                    sums.rounding[index, columns] += least * ops.column_dots(predicted, predicted)
                predicted -= targets
                sums.residual[index, columns] += ops.column_dots(predicted, predicted)

    def _predict(self, fold: Decomposition, projected: Array, alphas: list[float]) -> list[Array]:
        """Predict the held-out trials at every penalty, by one product."""
        if len(alphas) == 1:
            return [fold.right @ fold.solver.solve(projected, alphas[0])]
        rank, count = projected.shape
        solved = self.design.ops.empty((rank, len(alphas) * count), projected)
        parts = [slice(k * count, (k + 1) * count) for k in range(len(alphas))]
        for alpha, part in zip(alphas, parts, strict=True):
            solved[:, part] = fold.solver.solve(projected, alpha)
        predictions = fold.right @ solved
        return [predictions[:, part] for part in parts]


def _centred(values: Array, ones: Array | None) -> Array:
    """Subtract the mean of the rows; for weighted rows, `ones` replaces the constant vector."""
    if ones is None:
        return values - values.mean(0)
    return values - ones[:, None] * ((ones @ values) / (ones @ ones))
