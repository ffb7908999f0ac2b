"""Checks of arguments. Each error names the argument, what is wrong with it and how to fix it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_array, validate_data

from calcarine.errors import CalcarineError, SettingError, ShapeError

FloatArray = npt.NDArray[np.floating[Any]]

LARGEST_VALUE = 1e100
"""Larger values are refused: they overflow when squared and summed."""

_ROWS_AT_ONCE = 1024
_SHOWN = 3


class RidgeError(CalcarineError, ValueError):
    """The data or a setting of a ridge fit or prediction is invalid."""


class RidgeSettingError(RidgeError, SettingError):
    """A setting of a ridge fit does not exist or does not fit the data."""


class RidgeShapeError(RidgeError, ShapeError):
    """An array of a ridge fit or prediction has the wrong shape or number of rows."""


class RidgeTypeError(RidgeError, TypeError):
    """The data of a ridge fit or prediction is not an array of numbers."""


class RidgeNotFittedError(RidgeError, NotFittedError):  # type: ignore[misc]
    """The estimator is not fitted yet."""


def as_matrix(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Return `values` as a real 2-D array, one column for a vector; no copy where none is needed.

    Parameters
    ----------
    values : array-like, shape (n,) or (n, k)
    name : str
        Name of the argument in error messages.

    Returns
    -------
    ndarray, shape (n, k)
        In its own dtype if that is boolean, integer or floating, else float64.

    Raises
    ------
    RidgeError
        When it is not numeric, complex, empty or of three and more dimensions.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise RidgeShapeError(
            f"{name} is not a rectangular array ({error}); give every row the same length."
        ) from error
    if array.ndim not in (1, 2):
        raise RidgeShapeError(
            f"{name} has {array.ndim} dimensions; pass a 2-D array with one row per trial."
        )
    if array.dtype.kind not in "biuf":
        array = _as_float(array, name)
    matrix = array[:, None] if array.ndim == 1 else array
    if matrix.size == 0:
        raise RidgeShapeError(
            f"{name} is empty (shape {matrix.shape}); pass at least one row and one column."
        )
    return matrix


def _as_float(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if array.dtype.kind == "c":
        raise RidgeError(f"{name} is complex; pass its real part or its magnitude.")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise RidgeTypeError(
            f"{name} is not numeric ({error}); pass an array of numbers."
        ) from error


def check_finite(
    matrix: npt.NDArray[Any], name: str, *, first_row: int = 0, first_column: int = 0
) -> None:
    """Raise when a value is NaN, infinite or beyond `LARGEST_VALUE`.

    Parameters
    ----------
    matrix : ndarray, shape (n, k)
    name : str
        Name of the argument in error messages.
    first_row, first_column : int
        Position of the matrix in the array that the user passed.

    Raises
    ------
    RidgeError
        With the row and column of the first three such values, counted from 0.
    """
    if matrix.dtype.kind != "f":
        return
    limit = matrix.dtype.type(min(LARGEST_VALUE, float(np.finfo(matrix.dtype).max)))
    shown: list[str] = []
    total = 0
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        block = matrix[start : start + _ROWS_AT_ONCE]
        good = np.abs(block) <= limit
        if good.all():
            continue
        places = np.argwhere(~good)
        total += len(places)
        for row, column in places[: _SHOWN - len(shown)]:
            place = f"row {first_row + start + row} column {first_column + column}"
            shown.append(f"{place} ({block[row, column]})")
    if total:
        more = f" and {total - len(shown)} more" if total > len(shown) else ""
        raise RidgeError(
            f"{name} holds NaN, inf or a value beyond {LARGEST_VALUE:g} at {', '.join(shown)}{more}"
            " (counted from 0); drop or fill those values before fitting or predicting."
        )


def check_choice(value: object, allowed: tuple[str, ...], name: str) -> None:
    """Raise `RidgeError` when `value` is not one of the words in `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        words = " or ".join(repr(word) for word in allowed)
        raise RidgeSettingError(f"{name} is {value!r}; choose {words}.")


def check_count(value: object, least: int, name: str) -> int:
    """Return `value` as an int; raise `RidgeError` unless it is a whole number >= `least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or int(value) < least:  # type: ignore[call-overload]
        raise RidgeSettingError(f"{name} is {value!r}; choose a whole number of at least {least}.")
    return int(value)  # type: ignore[call-overload,no-any-return]


def check_alphas(alphas: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the penalties in ascending order, without duplicates.

    Parameters
    ----------
    alphas : array-like, shape (n_alphas,) or a number

    Returns
    -------
    ndarray, shape (n_alphas,)

    Raises
    ------
    RidgeError
        When there is no penalty, or one is negative, infinite or not a number.
    """
    try:
        values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise RidgeSettingError(
            f"alphas is not numeric ({error}); pass a list of numbers."
        ) from error
    if values.ndim != 1 or values.size == 0:
        raise RidgeShapeError(
            f"alphas has shape {values.shape}; pass a list with at least one penalty."
        )
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise RidgeSettingError(
            f"alphas holds {wrong[0]:g}; penalties must be finite and not negative."
        )
    return np.unique(values)


def check_dtype(dtype: npt.DTypeLike, *, auto: npt.DTypeLike | None = None) -> np.dtype[Any]:
    """Return `dtype` as a numpy dtype; "auto" stands for the argument `auto`.

    Raises
    ------
    RidgeError
        When it is neither float32 nor float64.
    """
    if auto is not None and isinstance(dtype, str) and dtype == "auto":
        return np.dtype(auto)
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = np.dtype(object)
    if checked not in (np.dtype("float64"), np.dtype("float32")):
        words = "'float64' or 'float32'" if auto is None else "'auto', 'float64' or 'float32'"
        raise RidgeSettingError(f"dtype is {dtype!r}; choose {words}.")
    return checked


def check_weights(
    sample_weight: npt.ArrayLike | None, n_rows: int
) -> npt.NDArray[np.float64] | None:
    """Return one weight per trial, shape (n,), or None without weights.

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
        raise RidgeShapeError(
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


def check_trained(
    weights: npt.NDArray[np.float64] | None, part_of_row: npt.NDArray[np.intp], name: str
) -> None:
    """Raise when holding out one fold (or group) leaves no trial with a weight to train on."""
    if weights is None:
        return
    heavy = np.unique(part_of_row[weights > 0])
    if len(heavy) < 2:
        raise RidgeError(
            f"All trials with a sample_weight above zero lie in one {name}, so nothing is left to "
            "train on when it is held out; give weight to trials of others."
        )


def check_memory(memory: float | None) -> float | None:
    """Return the number of bytes, or None for no limit."""
    if memory is None or memory == float("inf"):
        return None
    is_number = isinstance(memory, int | float | np.number) and not isinstance(memory, bool)
    if not is_number or not memory > 0:
        raise RidgeSettingError(f"memory is {memory!r}; give a number of bytes above 0, or None.")
    return float(memory)


def check_target_rows(
    target_rows: npt.ArrayLike | None, n_rows: int, n_targets_rows: int
) -> npt.NDArray[np.intp]:
    """Return the row of Y of each trial: 0, 1, 2, ... without `target_rows`."""
    if target_rows is None:
        if n_rows != n_targets_rows:
            raise RidgeShapeError(
                f"X has {n_rows} rows but Y has {n_targets_rows}; pass one row per trial in both, "
                "or target_rows with the row of Y of each trial."
            )
        return np.arange(n_rows)
    rows = np.asarray(target_rows)
    if rows.shape != (n_rows,) or rows.dtype.kind not in "iu":
        raise RidgeShapeError(
            f"target_rows has shape {rows.shape} and type {rows.dtype}; "
            f"pass one whole number for each of the {n_rows} rows of X."
        )
    unused = np.setdiff1d(np.arange(n_targets_rows), rows)
    if len(unused) or rows.min() < 0 or rows.max() >= n_targets_rows:
        raise RidgeShapeError(
            f"target_rows must name every row of Y, 0 to {n_targets_rows - 1}; it goes from "
            f"{rows.min()} to {rows.max()} and leaves out {len(unused)}. Pass only used rows of Y."
        )
    return rows.astype(np.intp)


def check_alpha_per(alpha_per: Any, n_targets: int) -> npt.NDArray[np.intp] | None:
    """Return None for one penalty per target, otherwise a whole-number label per target."""
    if isinstance(alpha_per, str):
        check_choice(alpha_per, ("target", "all"), "alpha_per")
        return None if alpha_per == "target" else np.zeros(n_targets, np.intp)
    labels = np.asarray(alpha_per)
    if labels.shape != (n_targets,):
        raise RidgeShapeError(
            f"alpha_per has shape {labels.shape}; pass 'target', 'all' or a label for each of the "
            f"{n_targets} targets."
        )
    try:
        return np.asarray(np.unique(labels, return_inverse=True)[1])
    except TypeError as error:
        raise RidgeSettingError(
            f"alpha_per mixes kinds of label ({error}); use only numbers or only strings."
        ) from error


def check_cv(cv: Any, methods: tuple[str, ...]) -> str:
    """Return the method that `cv` stands for: "kfold" for a splitter, an int or given folds.

    Raises
    ------
    RidgeError
        When it is a string other than `methods`, or gives no folds.
    """
    if isinstance(cv, str) and cv in methods:
        return cv
    if cv is None or isinstance(cv, str | bytes | bool | float):
        words = ", ".join(repr(word) for word in methods)
        raise RidgeSettingError(
            f"cv is {cv!r}; choose {words}, a number of folds, a splitter of scikit-learn or a "
            "list of (train, test) row numbers."
        )
    return "kfold"


def check_fixed(
    alphas: npt.ArrayLike, alpha_per: Any, n_targets: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return the distinct penalties in ascending order, and the index of the penalty per target.

    Raises
    ------
    RidgeError
        When `alphas` holds neither one penalty nor one per target.
    """
    penalties = check_alphas(alphas)
    values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if len(values) not in (1, n_targets):
        raise RidgeShapeError(
            f"alphas holds {len(values)} penalties for {n_targets} target(s), and cv='fixed' "
            "chooses none; pass one for all targets, or one for each."
        )
    if not isinstance(alpha_per, str) or alpha_per != "target":
        raise RidgeSettingError(
            "alpha_per applies to penalties that are chosen; leave it out with cv='fixed'."
        )
    return penalties, np.searchsorted(penalties, np.broadcast_to(values, n_targets))


def validate_features(estimator: BaseEstimator, X: Any, **options: Any) -> npt.NDArray[Any]:
    """Check X as scikit-learn does, including feature names, but not whether values are finite."""
    try:
        return np.asarray(validate_data(estimator, X, ensure_all_finite=False, **options))
    except TypeError as error:
        raise RidgeTypeError(str(error)) from error
    except ValueError as error:
        raise RidgeError(str(error)) from error


def validate_targets(y: Any) -> npt.NDArray[Any]:
    """Check y as scikit-learn does, but not whether values are finite."""
    try:
        return np.asarray(check_array(y, ensure_2d=False, ensure_all_finite=False, input_name="y"))
    except TypeError as error:
        raise RidgeTypeError(str(error)) from error
    except ValueError as error:
        raise RidgeError(str(error)) from error
