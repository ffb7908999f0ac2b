"""Input checks of the linear room; each failure is one sentence naming what, where and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import NotFittedError

from calcarine.errors import CalcarineError

FloatArray = npt.NDArray[np.floating[Any]]

LARGEST_VALUE = 1e100
"""Values beyond this overflow when squared and summed, and no response is this large."""

_ROWS_AT_ONCE = 1024
_SHOWN = 3


class RidgeError(CalcarineError, ValueError):
    """A ridge fit or prediction was given input that it cannot use."""


class RidgeTypeError(RidgeError, TypeError):
    """A ridge fit or prediction was given something that is not an array of numbers."""


class RidgeNotFittedError(RidgeError, NotFittedError):  # type: ignore[misc]
    """An estimator was asked for what only a fitted one knows."""


def as_matrix(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Return `values` as a real 2-D array, one column for a vector; no copy where none is needed.

    Parameters
    ----------
    values : array-like, shape (n,) or (n, k)
    name : str
        What the error message calls it.

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
        raise RidgeError(
            f"{name} is not a rectangular array ({error}); give every row the same length."
        ) from error
    if array.ndim not in (1, 2):
        raise RidgeError(
            f"{name} has {array.ndim} dimensions; pass a 2-D array with one row per trial."
        )
    if array.dtype.kind not in "biuf":
        array = _as_float(array, name)
    matrix = array[:, None] if array.ndim == 1 else array
    if matrix.size == 0:
        raise RidgeError(
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
    """Raise when a value is NaN, infinite or beyond `LARGEST_VALUE`, naming the first few.

    Parameters
    ----------
    matrix : ndarray, shape (n, k)
    name : str
        What the error message calls it.
    first_row, first_column : int
        Where the matrix begins in the array that the user knows.

    Raises
    ------
    RidgeError
        Names row and column of the first three such values, counted from 0.
    """
    if matrix.dtype.kind != "f":
        return
    limit = matrix.dtype.type(min(LARGEST_VALUE, float(np.finfo(matrix.dtype).max)))
    found: list[str] = []
    total = 0
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        block = matrix[start : start + _ROWS_AT_ONCE]
        good = np.abs(block) <= limit
        if good.all():
            continue
        places = np.argwhere(~good)
        total += len(places)
        for row, column in places[: _SHOWN - len(found)]:
            place = f"row {first_row + start + row} column {first_column + column}"
            found.append(f"{place} ({block[row, column]})")
    if total:
        more = f" and {total - len(found)} more" if total > len(found) else ""
        raise RidgeError(
            f"{name} holds NaN, inf or a value beyond {LARGEST_VALUE:g} at {', '.join(found)}{more}"
            " (counted from 0); drop or fill those values before fitting or predicting."
        )


def check_choice(value: object, allowed: tuple[str, ...], name: str) -> None:
    """Raise `RidgeError` when `value` is not one of the words in `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        words = " or ".join(repr(word) for word in allowed)
        raise RidgeError(f"{name} is {value!r}; choose {words}.")


def check_count(value: object, least: int, name: str) -> int:
    """Return `value` as an int; raise `RidgeError` when it is no whole number >= `least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or int(value) < least:  # type: ignore[call-overload]
        raise RidgeError(f"{name} is {value!r}; choose a whole number of at least {least}.")
    return int(value)  # type: ignore[call-overload,no-any-return]


def check_alphas(alphas: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the penalties sorted and without doubles.

    Parameters
    ----------
    alphas : array-like, shape (n_alphas,) or a number

    Returns
    -------
    ndarray, shape (n_alphas,)

    Raises
    ------
    RidgeError
        When there is none, or one is negative, infinite or no number.
    """
    try:
        values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise RidgeError(f"alphas is not numeric ({error}); pass a list of numbers.") from error
    if values.ndim != 1 or values.size == 0:
        raise RidgeError(f"alphas has shape {values.shape}; pass a list with at least one penalty.")
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise RidgeError(f"alphas holds {wrong[0]:g}; penalties must be finite and not negative.")
    return np.unique(values)


def check_dtype(dtype: npt.DTypeLike, *, auto: npt.DTypeLike | None = None) -> np.dtype[Any]:
    """Return the precision that is meant; "auto" means `auto` where that is given.

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
        raise RidgeError(f"dtype is {dtype!r}; choose {words}.")
    return checked
