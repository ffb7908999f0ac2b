"""Held-out scores of the folds: of every penalty, or of those around each target's best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array, dtype_of
from calcarine.linear._design import Design, System
from calcarine.linear._forms import Forms
from calcarine.linear._scores import Table, best_penalty, gcv_table

if TYPE_CHECKING:
    from calcarine.linear._targets import Block

Evaluate = Callable[[Sequence[int], slice | npt.NDArray[np.intp]], None]
"""Computes the sums of some penalties for some targets, over all folds."""

_PROBES = 32
_RUN, _GAP = 48, 8
_ROUNDING = 1e3


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
            evaluate([index], slice(None))
    back = np.argsort(order) if local else order
    r2 = sums.r2(total, constant)[:, back]
    return Table(score()[:, back] if correlation else r2, r2)


def _is_cheap(design: Design) -> bool:
    """Whether trying every penalty costs no more than finding out which to try."""
    forms, solver = design.forms, design.full.solver
    return forms is not None and len(forms.order) ** 2 <= 3 * solver.size * solver.substitution


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
    evaluate(range(n_alphas), probes)
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
                evaluate([int(index)], columns)
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
        self.rounding = np.zeros(shape)
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
        # What varies no more than rounding does correlates with nothing.
        varies = (size > 0) & (self.guess > self.rounding)
        np.divide(self.cross, size, out=table, where=varies)
        return table


class _ByForms:
    """Computes the sums of penalties for some targets, put into `order`, by quadratic forms."""

    def __init__(self, forms: Forms, block: Block, sums: _Sums, order: Any) -> None:
        self.forms, self.sums = forms, sums
        self.targets = block.centred[forms.order][:, order]

    def __call__(self, indices: Sequence[int], columns: slice | npt.NDArray[np.intp]) -> None:
        targets = self.targets[:, columns]
        for index in indices:
            self.sums.residual[index, columns] = self.forms.errors(index, targets)


class _Evaluation:
    """Computes the same sums from predictions, and those for correlations."""

    def __init__(
        self, design: Design, block: Block, sums: _Sums, correlation: bool, order: Any
    ) -> None:
        self.design, self.sums, self.correlation = design, sums, correlation
        self.projected, self.truth, self.ones = [], [], list[Array | None]()
        for k, system in enumerate(design.folds):
            rows = design.target_rows[system.held]
            truth = (block.centred[rows] - block.train_mean[k])[:, order]
            ones = None  # what an intercept adds to weighted rows
            if design.root is not None:
                ones = design.ops.put(design.root[system.held], dtype_of(truth))
                truth *= ones[:, None]
            self.ones.append(ones)
            if correlation:
                centred = _centred(truth, ones)
                sums.truth += design.ops.column_dots(centred, centred)
            self.truth.append(truth)
            self.projected.append(block.projected[k][:, order])
            block.projected[k] = None  # where targets were put in order, one of the two is enough

    def __call__(self, indices: Sequence[int], columns: slice | npt.NDArray[np.intp]) -> None:
        ops, sums = self.design.ops, self.sums
        alphas = [float(self.design.plan.alphas[index]) for index in indices]
        for index in indices:
            sums.residual[index, columns] = 0
            sums.cross[index, columns] = sums.guess[index, columns] = 0
            sums.rounding[index, columns] = 0
        for k, system in enumerate(self.design.folds):
            truth, projected = self.truth[k][:, columns], self.projected[k][:, columns]
            about = _centred(truth, self.ones[k]) if self.correlation else truth
            for index, guess in zip(indices, self._guesses(system, projected, alphas), strict=True):
                if self.correlation:
                    centred = _centred(guess, self.ones[k])
                    sums.cross[index, columns] += ops.column_dots(centred, about)
                    sums.guess[index, columns] += ops.column_dots(centred, centred)
                    least = (_ROUNDING * float(np.finfo(dtype_of(guess)).eps)) ** 2
                    sums.rounding[index, columns] += least * ops.column_dots(guess, guess)
                guess -= truth
                sums.residual[index, columns] += ops.column_dots(guess, guess)

    def _guesses(self, system: System, projected: Array, alphas: list[float]) -> list[Array]:
        """Predictions for held-out trials at every penalty, by one product."""
        if len(alphas) == 1:
            return [system.right @ system.solver.solve(projected, alphas[0])]
        rank, count = projected.shape
        solved = self.design.ops.empty((rank, len(alphas) * count), projected)
        parts = [slice(k * count, (k + 1) * count) for k in range(len(alphas))]
        for alpha, part in zip(alphas, parts, strict=True):
            solved[:, part] = system.solver.solve(projected, alpha)
        guesses = system.right @ solved
        return [guesses[:, part] for part in parts]


def _centred(values: Array, ones: Array | None) -> Array:
    """About the mean of the rows; of weighted rows, `ones` is what stands for a constant."""
    if ones is None:
        return values - values.mean(0)
    return values - ones[:, None] * ((ones @ values) / (ones @ ones))
