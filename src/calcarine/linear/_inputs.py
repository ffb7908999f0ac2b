"""The arguments of a ridge fit, checked and resolved into one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Ops, Runner, ops_for, runner_for
from calcarine.linear._design import FitSettings
from calcarine.linear._io import ComputedMatrix, Matrix, as_source, in_memory
from calcarine.linear._scaling import RootWeights
from calcarine.linear._validation import (
    RidgeSettingError,
    RidgeShapeError,
    check_alpha_per,
    check_alphas,
    check_choice,
    check_count,
    check_cv,
    check_dtype,
    check_finite,
    check_fixed,
    check_memory,
    check_target_rows,
    check_trained,
    check_weights,
)
from calcarine.linear.folds import Splits, group_numbers, make_splits

_METHODS = ("kfold", "logo", "gcv", "fixed")
_BLOCK, _BLOCK_VALUES = 1024, 4_000_000
"""Smallest default number of targets in a block, and number of values up to which it may grow."""


@dataclass(frozen=True)
class PenaltyChoice:
    """How penalties are chosen.

    With `at_once` each target has a penalty of its own, so that the weights of a block follow as
    soon as it is scored.
    """

    cv: str
    search: str
    correlation: bool
    at_once: bool


@dataclass(frozen=True)
class RidgeInputs:
    """Checked arguments of a ridge fit.

    Attributes
    ----------
    x, y : matrices, shapes (n, p) and (rows of the targets, t)
    target_rows : ndarray of int, shape (n,)
        Row of y of each trial.
    weights : ndarray, shape (n,), or None
        Sample weights.
    splits : Splits or None
        For K-fold and given folds.
    group_of_row : ndarray of int, shape (n,), or None
        For leaving out one group at a time.
    fixed : ndarray of int, shape (t,), or None
        Index of the given penalty of each target.
    shared : ndarray of int, shape (t,), or None
        Label of each target; targets with one label share a penalty.
    block_size : int
        Largest number of targets in a block.
    memory : float or None
        Bytes that the fit may take.
    local : bool
        Whether everything is computed by numpy in this process.
    """

    x: Matrix
    y: Matrix
    target_rows: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64] | None
    settings: FitSettings
    choice: PenaltyChoice
    splits: Splits | None
    group_of_row: npt.NDArray[np.intp] | None
    fixed: npt.NDArray[np.intp] | None
    shared: npt.NDArray[np.intp] | None
    block_size: int
    memory: float | None
    ops: Ops
    run: Runner
    local: bool

    @property
    def root(self) -> RootWeights | None:
        """Square roots of the sample weights."""
        return None if self.weights is None else np.sqrt(self.weights)

    @property
    def n_targets(self) -> int:
        return int(self.y.shape[1])

    @property
    def n_scored(self) -> int:
        """Number of penalties that every target is scored for."""
        return len(self.settings.alphas) if self.fixed is None else 0


def check_inputs(
    X: npt.ArrayLike,
    Y: npt.ArrayLike | ComputedMatrix,
    *,
    alphas: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    cv: Any,
    n_folds: int,
    search: str,
    fit_intercept: bool,
    standardize: bool,
    alpha_per: Any,
    score: str,
    solver: str,
    dtype: npt.DTypeLike,
    target_rows: npt.ArrayLike | None,
    block_size: int | None,
    memory: float | None,
    device: str,
    client: Any,
) -> RidgeInputs:
    """Check the arguments of `calcarine.linear.ridge_cv`, which describes them."""
    method = check_cv(cv, _METHODS)
    _check_words(method, search, score, solver)
    x, y = _check_data(X, Y)
    rows = check_target_rows(target_rows, x.shape[0], y.shape[0])
    weights = check_weights(sample_weight, x.shape[0])
    memory = check_memory(memory)
    fixed = shared = None
    if method == "fixed":
        penalties, fixed = check_fixed(alphas, alpha_per, y.shape[1])
    else:
        penalties, shared = check_alphas(alphas), check_alpha_per(alpha_per, y.shape[1])
    if search == "local" and (method != "kfold" or shared is not None):
        raise RidgeShapeError(
            "search='local' needs cv='kfold' and alpha_per='target', because it tries other "
            "penalties for every target; choose search='full'."
        )
    if target_rows is not None and groups is None:
        groups = rows
    ops, run = ops_for(device), runner_for(client)
    local = client is None and ops.device == "cpu"
    if block_size is None:
        block_size = _large_block(x.shape, y.shape[0]) if local else _BLOCK
    block_size = check_count(block_size, 1, "block_size")
    precision = check_dtype(dtype, auto=_own_precision(x))
    splits = group_of_row = None
    if method == "kfold":
        splits = _check_folds(cv, n_folds, groups, x, y)
        splits.check_weights(weights)
        if score == "correlation":
            _check_two_stimuli(splits, rows, weights)
    elif method == "logo":
        group_of_row = group_numbers(groups, x.shape[0])
        check_trained(weights, group_of_row, "group")
    kind = _choose_solver(solver, x.shape, splits)
    return RidgeInputs(
        x=x,
        y=y,
        target_rows=rows,
        weights=weights,
        settings=FitSettings(penalties, bool(fit_intercept), bool(standardize), kind, precision),
        choice=PenaltyChoice(method, search, score == "correlation", shared is None),
        splits=splits,
        group_of_row=group_of_row,
        fixed=fixed,
        shared=shared,
        block_size=block_size,
        memory=memory,
        ops=ops,
        run=run,
        local=local,
    )


def _check_words(method: str, search: str, score: str, solver: str) -> None:
    check_choice(search, ("full", "local"), "search")
    check_choice(score, ("r2", "correlation"), "score")
    check_choice(solver, ("auto", "primal", "dual"), "solver")
    if score == "correlation" and method != "kfold":
        raise RidgeSettingError(
            "score='correlation' is defined for cv='kfold' only; choose score='r2'."
        )


def _check_data(X: npt.ArrayLike, Y: npt.ArrayLike | ComputedMatrix) -> tuple[Matrix, Matrix]:
    """Return X and Y as matrices in memory or on disk."""
    x, y = as_source(X, "X"), as_source(Y, "Y")
    if isinstance(x, np.ndarray) and np.ndim(X) != 2:
        raise RidgeShapeError("X has one dimension; pass a 2-D array with one row per trial.")
    if in_memory(y):
        check_finite(y, "Y")  # before hours of work; values on disk are checked when they are read
    return x, y


def _own_precision(x: Matrix) -> str:
    """Return the precision that "auto" stands for."""
    small = np.dtype(x.dtype).kind == "f" and np.dtype(x.dtype).itemsize <= 4
    return "float32" if small else "float64"


def _large_block(shape: tuple[int, ...], n_rows: int) -> int:
    """Return a number of targets large enough for fast products and small enough for caches."""
    values, weights = max(n_rows, min(shape)), shape[1] / 4
    return int(min(max(_BLOCK_VALUES / max(values, weights), _BLOCK), 4 * _BLOCK))


def _check_folds(
    cv: Any, n_folds: int, groups: npt.ArrayLike | None, x: Matrix, y: Matrix
) -> Splits:
    """Return the folds; a splitter gets X in memory, and y if it is one target."""
    n_rows = x.shape[0]
    single = in_memory(y) and y.shape == (n_rows, 1)
    return make_splits(
        cv,
        n_folds,
        groups,
        n_rows,
        X=x if in_memory(x) else None,
        y=np.asarray(y)[:, 0] if single else None,
    )


def _check_two_stimuli(
    splits: Splits,
    rows: npt.NDArray[np.intp],
    weights: npt.NDArray[np.float64] | None,
) -> None:
    counted = np.full(len(rows), True) if weights is None else weights > 0
    if any(len(np.unique(rows[held[counted[held]]])) < 2 for _, held in splits):
        raise RidgeSettingError(
            "score='correlation' needs at least two stimuli in every fold; choose fewer folds."
        )


def _choose_solver(solver: str, shape: tuple[int, ...], splits: Splits | None) -> str:
    """Return "dual" where the smallest training set has fewer rows than columns."""
    if solver != "auto":
        return solver
    fewest = shape[0] if splits is None else splits.fewest
    return "dual" if fewest < shape[1] else "primal"
