"""The decompositions of a fit, in the first precision that is enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Ops
from calcarine.linear._checks import FloatArray, RidgeError
from calcarine.linear._design import Design, Plan, Runner, Scaler, scaled_rows
from calcarine.linear._forms import forms_for
from calcarine.linear._leave_out import LeaveOut
from calcarine.linear._prepare import Trials, peak_bytes, prepare, prepare_hard, wider
from calcarine.linear._scores import gcv_is_sound
from calcarine.linear._sources import Matrix


@dataclass(frozen=True)
class Demand:
    """What targets will ask of the decompositions.

    Attributes
    ----------
    for_forms : int
        Targets that quadratic forms could serve.
    tried : int
        Penalties tried for each.
    solved : int
        Columns that the fit on all rows is solved for, over all penalties.
    in_memory : int
        Bytes of targets and weights that are in memory whatever is done.
    """

    for_forms: int
    tried: int
    solved: int
    in_memory: int


def decompose(
    x: Matrix,
    scaler: Scaler,
    fold_of_row: npt.NDArray[np.intp] | None,
    groups: npt.NDArray[np.intp] | None,
    cv: str,
    rows: npt.NDArray[np.intp],
    root: npt.NDArray[np.float64] | None,
    plan: Plan,
    ops: Ops,
    run: Runner,
    room: float | None,
    demand: Demand,
) -> tuple[Design, LeaveOut | None]:
    """Decompose in the first precision that is enough: as asked, float64, singular values."""
    n_folds, order = 0, None
    if fold_of_row is not None:  # the trials of a fold are a slice then, ordered as its targets are
        n_folds, order = int(fold_of_row.max()) + 1, np.lexsort((rows, fold_of_row))
        fold_of_row, rows = fold_of_row[order], rows[order]
        root = None if root is None else root[order]

    def finished(design: Design, values: FloatArray) -> tuple[Design, LeaveOut | None]:
        left_out = None if groups is None else LeaveOut(design, values, groups)
        if cv == "gcv" and not gcv_is_sound(design):
            raise np.linalg.LinAlgError("no degrees of freedom are left")
        design.full.trials = None  # only for leaving out
        return design, left_out

    n, p = x.shape
    for attempt in wider(plan, folds=fold_of_row is not None):
        needed = peak_bytes(n, p, n_folds, attempt, weighted=root is not None)
        if attempt.wide and room is not None and room < needed:
            continue
        check_room(room, needed, attempt)
        if not attempt.wide:  # else they are there
            values = scaled_rows(x, scaler, attempt.dtype, order, root)
        forms = None  # by default in no more memory than float64, or the data, take anyway
        if fold_of_row is not None:
            spare = max(needed, demand.in_memory) if room is None else room - needed
            served = (demand.for_forms, demand.tried)
            forms = forms_for((n, p), fold_of_row, rows, root, attempt, ops, served, spare)
        trials = Trials(
            values, scaler, fold_of_row, rows, root, attempt, ops, run, forms, demand.solved
        )
        design = prepare(trials)
        if design is not None:
            try:
                return finished(design, values)
            except np.linalg.LinAlgError:
                design = None
    needed = peak_bytes(n, p, n_folds, attempt, hard=True, weighted=root is not None)
    check_room(room, needed, attempt)
    design = prepare_hard(trials)
    try:
        return finished(design, values)
    except np.linalg.LinAlgError as error:
        raise RidgeError(
            "Leaving one group out makes the fit undefined at the smallest penalty; "
            "choose larger alphas or cv='kfold'."
        ) from error


def check_room(room: float | None, needed: int, plan: Plan) -> None:
    """Raise one sentence unless so many bytes are in the bound, if there is one."""
    if room is not None and room < needed:
        raise RidgeError(
            f"memory leaves {room / 1e9:.3f} GB for decompositions in {plan.dtype.name}, which may "
            f"take {needed / 1e9:.3f} GB; give {(needed - room) / 1e9:.3f} GB more, or choose "
            "fewer folds or cv='gcv'."
        )
