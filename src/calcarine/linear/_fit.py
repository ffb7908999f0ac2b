"""The fit: predictors are decomposed, then targets are solved block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array
from calcarine.linear._cross_validation import (
    LeaveOneGroupOut,
    best_penalty,
    gcv_is_sound,
    gcv_scores,
    kfold_scores,
    leave_out_bytes,
)
from calcarine.linear._decomposed_predictors import (
    DOUBLE,
    DecomposedPredictors,
    Decomposition,
    FitSettings,
    ScaledTrials,
    SummedRows,
    TargetBlock,
    largest,
    wider,
)
from calcarine.linear._decompositions import decompose_dual, decompose_primal, decompose_svd
from calcarine.linear._inputs import PenaltyChoice, RidgeInputs
from calcarine.linear._predictors import (
    CHUNK_VALUES,
    ColumnScaler,
    RootWeights,
    Splits,
    count_rows,
    is_constant,
    read_columns,
    scaled_rows,
)
from calcarine.linear._quadratic_forms import QuadraticForms, forms_for
from calcarine.linear._results import BlockSolution, WeightMemory
from calcarine.linear._solvers import BLOCK, factor_values
from calcarine.linear._validation import FloatArray, RidgeError, RidgeSettingError

NEIGHBOURS = 4
"""Number of penalties that a local search typically tries for a target."""

Decomposed = tuple[DecomposedPredictors, LeaveOneGroupOut | None]


def free_memory(inputs: RidgeInputs) -> float | None:
    """Return the bytes left for decompositions and blocks of targets, None without a limit."""
    if inputs.memory is None:
        return None
    n_alphas, settings = len(inputs.settings.alphas), inputs.settings
    reserved = 2 * 8 * inputs.n_scored * inputs.n_targets
    if inputs.group_of_row is not None:
        rank = inputs.x.shape[settings.solver == "primal"]
        reserved += leave_out_bytes(inputs.group_of_row, rank, n_alphas)
    return inputs.memory - reserved


def decompose(
    inputs: RidgeInputs, scaler: ColumnScaler, room: float | None, resident: int
) -> Decomposed:
    """Decompose X in the first precision that is enough: as given, float64, singular values.

    Parameters
    ----------
    inputs : RidgeInputs
    scaler : ColumnScaler
    room : float or None
        Bytes that may be taken.
    resident : int
        Bytes of targets and weights that are in memory in any case.

    Returns
    -------
    decomposed : DecomposedPredictors
    left_out : LeaveOneGroupOut or None
        For ``cv="logo"``.

    Raises
    ------
    RidgeError
        When `room` is too small, or leaving out one group leaves the fit undefined.
    """
    order, splits, target_rows, root = _sort_by_fold(inputs)
    weighted = root is not None
    for settings in wider(inputs.settings, folds=splits is not None):
        needed = peak_bytes(inputs.x.shape, splits, settings, weighted=weighted)
        if settings.wide and room is not None and room < needed:
            continue
        check_room(room, needed, settings)
        if not settings.wide:  # else the rows have the right precision already
            values = scaled_rows(inputs.x, scaler, settings.dtype, order, root)
        trials = ScaledTrials(
            x=values,
            scaler=scaler,
            splits=splits,
            target_rows=target_rows,
            root=root,
            settings=settings,
            ops=inputs.ops,
            run=inputs.run,
            forms=_new_forms(
                inputs,
                splits,
                target_rows,
                root,
                settings,
                max(needed, resident) if room is None else room - needed,
            ),
            columns=_solved_columns(inputs),
        )
        decomposed = _decompose_gram(trials)
        if decomposed is not None:
            try:
                return _finish(decomposed, values, inputs)
            except np.linalg.LinAlgError:
                decomposed = None
    needed = peak_bytes(inputs.x.shape, splits, settings, svd=True, weighted=weighted)
    check_room(room, needed, settings)
    try:
        return _finish(decompose_svd(trials), values, inputs)
    except np.linalg.LinAlgError as error:
        raise RidgeError(
            "Leaving one group out makes the fit undefined at the smallest penalty; "
            "choose larger alphas or cv='kfold'."
        ) from error


def _sort_by_fold(
    inputs: RidgeInputs,
) -> tuple[
    npt.NDArray[np.intp] | None,
    Splits | None,
    npt.NDArray[np.intp],
    RootWeights | None,
]:
    """Return an order by fold and target, and folds, target rows and root weights in that order.

    The trials of a fold are a slice then. Where folds do not partition the trials there is none.
    """
    splits, rows, root = inputs.splits, inputs.target_rows, inputs.root
    if splits is None or splits.fold_of_row is None:
        return None, splits, rows, root
    order = np.lexsort((rows, splits.fold_of_row))
    by_fold = Splits(splits.fold_of_row[order])
    return order, by_fold, rows[order], None if root is None else root[order]


def _new_forms(
    inputs: RidgeInputs,
    splits: Splits | None,
    target_rows: npt.NDArray[np.intp],
    root: RootWeights | None,
    settings: FitSettings,
    spare: float,
) -> QuadraticForms | None:
    """Return quadratic forms where they save time and fit into `spare` bytes."""
    fold_of_row = None if splits is None else splits.fold_of_row
    if fold_of_row is None:
        return None
    n_served = inputs.n_targets if not inputs.choice.correlation and inputs.local else 0
    n_tried = NEIGHBOURS if inputs.choice.search == "local" else len(settings.alphas)
    n, p = inputs.x.shape
    return forms_for(
        (n, p), fold_of_row, target_rows, root, settings, inputs.ops, (n_served, n_tried), spare
    )


def _solved_columns(inputs: RidgeInputs) -> int:
    """Return the number of columns that the fit on all rows is solved for, over all penalties."""
    n_targets, n_alphas = inputs.n_targets, len(inputs.settings.alphas)
    if inputs.fixed is not None:  # factors of each penalty cost as much as some columns do
        return n_targets + BLOCK * n_alphas
    # Generalised cross-validation solves for all penalties; a local search begins with it.
    every = inputs.choice.cv != "kfold" or inputs.choice.search == "local"
    return n_targets * (1 + every * n_alphas)


def _decompose_gram(trials: ScaledTrials) -> DecomposedPredictors | None:
    """Decompose Gram matrices of all rows and of the training rows of every fold.

    None when the penalties are too small for this precision of a Gram matrix. All rows may be
    decomposed in float64 and the folds in float32, because ranking penalties needs less.
    """
    extreme = max(float(trials.x.max()), -float(trials.x.min()))
    if not extreme**2 * trials.x.size <= largest(trials.settings):
        return None
    return decompose_dual(trials) if trials.settings.solver == "dual" else decompose_primal(trials)


def _finish(
    decomposed: DecomposedPredictors, values: FloatArray, inputs: RidgeInputs
) -> Decomposed:
    """Prepare leaving groups out; raise LinAlgError where cross-validation would be unsound."""
    left_out = None
    if inputs.group_of_row is not None:
        left_out = LeaveOneGroupOut(decomposed, values, inputs.group_of_row)
    if inputs.choice.cv == "gcv" and not gcv_is_sound(decomposed):
        raise np.linalg.LinAlgError("no degrees of freedom are left")
    decomposed.full.trials = None  # only needed to leave groups out
    return decomposed, left_out


def peak_bytes(
    shape: tuple[int, ...],
    splits: Splits | None,
    settings: FitSettings,
    *,
    svd: bool = False,
    weighted: bool = False,
) -> int:
    """Return the most bytes that decomposing in the precision of the settings may take."""
    n, p = shape
    n_folds = 0 if splits is None else len(splits)
    order = n if settings.solver == "dual" else p
    own = (3 * order**2 + n * p) * weighted  # rows and bases that are weighted are copies
    if splits is not None and splits.fold_of_row is None:  # training rows, and rows held out often
        own += (3 * n + sum(len(held) for _, held in splits)) * p
    chunks = 3 * 8 * min(CHUNK_VALUES + p, n * p)
    if settings.wide:
        values = (n_folds + 6) * order**2 + 3 * n * p + (n_folds + 1) * factor_values(order) + own
        return values * DOUBLE.itemsize + chunks
    copies = 2 if settings.dtype.itemsize < 8 else 1
    squares, rows = n_folds + 1 + 4 * copies, 2 + 2 * copies
    values = squares * order**2 + rows * n * p + (n_folds + 1) * factor_values(order) + own
    values += (n_folds + 2) * n * p if svd else 0
    return values * settings.dtype.itemsize + chunks


def check_room(room: float | None, needed: int, settings: FitSettings) -> None:
    """Raise unless `needed` bytes fit into `room`."""
    if room is not None and room < needed:
        raise RidgeSettingError(
            f"memory leaves {room / 1e9:.3f} GB for decompositions in {settings.dtype.name}, which "
            f"may take {needed / 1e9:.3f} GB; give {(needed - room) / 1e9:.3f} GB more, or choose "
            "fewer folds or cv='gcv'."
        )


_KEPT = 100
"""Number of penalties up to which their factors are kept for the next block of targets."""


def solve_block(
    design: DecomposedPredictors,
    left_out: LeaveOneGroupOut | None,
    choice: PenaltyChoice,
    y: npt.NDArray[np.float64],
    out: FloatArray | None = None,
    fixed: npt.NDArray[np.intp] | None = None,
) -> BlockSolution:
    """Score the penalties of a block of targets and compute its weights.

    Parameters
    ----------
    design : DecomposedPredictors
    left_out : LeaveOneGroupOut or None
        For ``cv="logo"``.
    choice : PenaltyChoice
    y : ndarray, shape (rows of the targets, t)
    out : ndarray, shape (p, t), optional
        Array for the weights.
    fixed : ndarray of int, shape (t,), optional
        Index of the penalty of each target; nothing is scored then.
    """
    if fixed is not None:
        block = open_block(design, y, folds=False)
        none = np.empty((0, y.shape[1]))
        coef = solve_weights(design, block, fixed, out)
        return BlockSolution(none, none, block.mean, fixed, coef)
    block = open_block(design, y, folds=choice.cv == "kfold" and design.forms is None)
    if choice.cv == "gcv":
        scores = gcv_scores(design, block)
    elif choice.cv == "logo" and left_out is not None:
        scores = left_out.scores(design, block)
    else:
        scores = kfold_scores(design, block, correlation=choice.correlation, search=choice.search)
    chosen = best_penalty(scores.score)
    weights = solve_weights(design, block, chosen, out) if choice.at_once else None
    return BlockSolution(scores.score, scores.r2, block.mean, chosen, weights)


def fit_block_weights(
    design: DecomposedPredictors,
    y: npt.NDArray[np.float64],
    chosen: npt.NDArray[np.intp],
    out: FloatArray | None = None,
) -> FloatArray:
    """Return the weights (p, t) of a block of targets for penalties that were chosen before."""
    return solve_weights(design, open_block(design, y, folds=False), chosen, out)


def block_slices(
    inputs: RidgeInputs, room: float | None, design: DecomposedPredictors
) -> list[slice]:
    """Return the blocks of targets, as large as `room` and the block size allow."""
    n_targets = inputs.n_targets
    size = min(inputs.block_size, n_targets)
    if room is not None:
        taken = design.n_bytes
        check_room(room, taken + design.bytes_per_target, design.settings)
        size = min(size, int((room - taken) // design.bytes_per_target))
    return [slice(i, min(i + size, n_targets)) for i in range(0, n_targets, size)]


def solve_blocks(
    inputs: RidgeInputs,
    blocks: list[slice],
    store: WeightMemory,
    design: DecomposedPredictors,
    left_out: LeaveOneGroupOut | None,
) -> None:
    """Solve the blocks of targets that the store does not hold yet."""
    started: deque[slice] = deque()
    jobs = _unsolved(inputs, blocks, store, started)
    for solution in inputs.run(solve_block, jobs, (design, left_out, inputs.choice)):
        store.keep(started.popleft(), solution)


def _unsolved(
    inputs: RidgeInputs, blocks: list[slice], store: WeightMemory, started: deque[slice]
) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of `solve_block`; blocks are appended to `started`."""
    for block in blocks:
        values = read_columns(inputs.y, block, "Y")
        if not store.has(block, values):
            started.append(block)
            fixed = None if inputs.fixed is None else inputs.fixed[block]
            yield values, store.buffer(block), fixed


def fit_blocks_weights(
    inputs: RidgeInputs,
    blocks: list[slice],
    store: WeightMemory,
    design: DecomposedPredictors,
    chosen: npt.NDArray[np.intp],
) -> None:
    """Compute the weights of the blocks that the store does not hold yet, at chosen penalties."""
    started: deque[slice] = deque()
    jobs = _unweighed(inputs, blocks, store, chosen, started)
    for coef in inputs.run(fit_block_weights, jobs, (replace(design, folds=[]),)):
        block = started.popleft()
        store.keep_weights(block, chosen[block], coef)


def _unweighed(
    inputs: RidgeInputs,
    blocks: list[slice],
    store: WeightMemory,
    chosen: npt.NDArray[np.intp],
    started: deque[slice],
) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of `fit_block_weights`; blocks are appended to `started`."""
    for block in blocks:
        if not store.has_weights(block, chosen[block]):
            started.append(block)
            yield read_columns(inputs.y, block, "Y"), chosen[block], store.buffer(block)


def choose_shared(
    table: npt.NDArray[np.float64], labels: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return one penalty for all targets of a label, by their mean score; shape (t,)."""
    chosen = np.empty(len(labels), np.intp)
    for label in np.unique(labels):
        members = labels == label
        chosen[members] = best_penalty(table[:, members].mean(axis=1, keepdims=True))[0]
    return chosen


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
    if design.held_counts is not None and folds:
        total, constant = _held_out_total(design.held_counts, y)
        total = total / scale**2
    return TargetBlock(on_device, mean, scale, total, constant, projected, full, train_mean)


def _held_out_total(
    counts: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the sums of squares of held-out targets about their mean, and which are constant."""
    n = counts.sum()
    mean = counts @ y / n
    squares = counts @ np.square(y - mean)
    return squares, is_constant(mean, np.sqrt(squares / n), len(counts)) | (squares == 0)


def _training_means(
    design: DecomposedPredictors, folds: list[Decomposition], centred: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the means of centred targets over the training trials of each fold."""
    counts, n = design.counts, design.total_weight
    means = np.zeros((len(folds), centred.shape[1]))
    if design.settings.fit_intercept:
        for k, fold in enumerate(folds):
            if fold.train is not None:
                own = None if design.root is None else design.root[fold.train]
                trained = count_rows(design.target_rows[fold.train], own, len(counts))
                means[k] = trained @ centred / trained.sum()
                continue
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
    moments = _leaving_out(parts)
    if design.held_counts is not None:
        moments = _moments(design.summed_rows[0], folds, targets)
    for fold, others, mean in zip(folds, moments, train_mean, strict=False):
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


def _moments(everything: SummedRows, folds: list[Decomposition], targets: Array) -> Iterator[Array]:
    """Yield X'y of the training trials of each fold, for folds that overlap."""
    for fold in folds:
        rows = everything.rows[fold.train]
        yield everything.sums[fold.train].T @ targets[rows]


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
