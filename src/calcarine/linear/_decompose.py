"""The decompositions of a fit, in the first precision that is enough, within its memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calcarine.linear._cross_validation import LeaveOneGroupOut, gcv_is_sound, leave_out_bytes
from calcarine.linear._design import DOUBLE, DecomposedPredictors, FitSettings, ScaledTrials
from calcarine.linear._dual import decompose_dual, decompose_svd
from calcarine.linear._inputs import RidgeInputs
from calcarine.linear._io import CHUNK_VALUES
from calcarine.linear._precision import largest, wider
from calcarine.linear._primal import decompose_primal
from calcarine.linear._quadratic_forms import QuadraticForms, forms_for
from calcarine.linear._scaling import ColumnScaler, RootWeights, scaled_rows
from calcarine.linear._solvers import BLOCK, factor_values
from calcarine.linear._validation import (
    FloatArray,
    RidgeError,
    RidgeSettingError,
)
from calcarine.linear.folds import Splits

_NEIGHBOURS = 4
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
    n_tried = _NEIGHBOURS if inputs.choice.search == "local" else len(settings.alphas)
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
