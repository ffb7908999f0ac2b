"""Sample weights: how much each trial counts, and their roots, which rows are multiplied by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._checks import LARGEST_VALUE, FloatArray, RidgeError

Root = npt.NDArray[np.float64]
"""Roots of sample weights, shape (n,)."""


def check_weights(sample_weight: npt.ArrayLike | None, n_rows: int) -> Root | None:
    """Return one weight per trial, shape (n,); None where there are none.

    Raises
    ------
    RidgeError
        When there is not one weight per trial, one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RidgeError(
            f"sample_weight is not numeric ({error}); pass one number per trial."
        ) from error
    if weights.ndim == 0:
        weights = np.full(n_rows, float(weights))
    if weights.shape != (n_rows,):
        raise RidgeError(
            f"sample_weight has shape {weights.shape} but X has {n_rows} rows; "
            "pass one weight per trial."
        )
    wrong = np.flatnonzero(~((weights >= 0) & (weights <= LARGEST_VALUE)))
    if wrong.size:
        raise RidgeError(
            f"sample_weight is {weights[wrong[0]]:g} at row {wrong[0]}; "
            "weights must be finite and not negative."
        )
    if not weights.any():
        raise RidgeError("sample_weight is zero for every trial; give some a weight above zero.")
    return weights


def check_trained(weights: Root | None, part_of_row: npt.NDArray[np.intp], name: str) -> None:
    """Raise unless weight is left in training when a fold, or another part, is held out."""
    if weights is None:
        return
    heavy = np.unique(part_of_row[weights > 0])
    if len(heavy) < 2:
        raise RidgeError(
            f"All trials with a sample_weight above zero lie in one {name}, so nothing is left to "
            "train on when it is held out; give weight to trials of others."
        )


def count_rows(
    target_rows: npt.NDArray[np.intp], root: Root | None, n_rows: int = 0
) -> npt.NDArray[np.float64]:
    """Trials of each row of the targets, or their weights, whose roots are given, together."""
    weights = None if root is None else root**2
    return np.bincount(target_rows, weights, minlength=n_rows).astype(np.float64)


def weighted(values: npt.NDArray[Any], root: Root | None) -> FloatArray:
    """Rows times the roots of their weights, in the type of the values; as they are for None."""
    return values if root is None else values * root[:, None].astype(values.dtype)
