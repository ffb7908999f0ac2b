"""Targets, block by block: scored, given a penalty each, and solved for their weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._cross_validation import (
    LeaveOneGroupOut,
    best_penalty,
    gcv_scores,
    kfold_scores,
)
from calcarine.linear._decompose import check_room
from calcarine.linear._design import DecomposedPredictors
from calcarine.linear._inputs import PenaltyChoice, RidgeInputs
from calcarine.linear._io import BlockSolution, WeightMemory, read_columns
from calcarine.linear._targets import open_block, solve_weights
from calcarine.linear._validation import FloatArray


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


def weigh_block(
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


def weigh_blocks(
    inputs: RidgeInputs,
    blocks: list[slice],
    store: WeightMemory,
    design: DecomposedPredictors,
    chosen: npt.NDArray[np.intp],
) -> None:
    """Compute the weights of the blocks that the store does not hold yet, at chosen penalties."""
    started: deque[slice] = deque()
    jobs = _unweighed(inputs, blocks, store, chosen, started)
    for coef in inputs.run(weigh_block, jobs, (replace(design, folds=[]),)):
        block = started.popleft()
        store.keep_weights(block, chosen[block], coef)


def _unweighed(
    inputs: RidgeInputs,
    blocks: list[slice],
    store: WeightMemory,
    chosen: npt.NDArray[np.intp],
    started: deque[slice],
) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of `weigh_block`; blocks are appended to `started`."""
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
