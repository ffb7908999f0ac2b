"""Predictions of a linear fit, for rows in memory or on disk."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calcarine.linear._checks import FloatArray, RidgeError, check_finite
from calcarine.linear._sources import as_source, release, row_chunks

_PREDICT_ROWS = 64
_PREDICT_COLUMNS = 8192


def predict_linear(
    X: npt.ArrayLike,
    coef: FloatArray,
    x_mean: FloatArray,
    y_mean: FloatArray,
    out: FloatArray | None = None,
) -> FloatArray:
    """Predict ``(X - x_mean) @ coef + y_mean`` in float64, whatever the size of the batch.

    Rows go through the matrix product in padded batches of one fixed size, so the library
    underneath takes the same path for one row as for a thousand. Subtracting the mean first
    keeps predictors with a large offset from cancelling against the intercept.

    Parameters
    ----------
    X : array-like, shape (m, p)
        A zarr array, HDF5 data set or memory map is read in chunks of rows.
    coef : ndarray, shape (p, t)
        May be a memory map, as from a fit with `out`.
    x_mean : ndarray, shape (p,)
    y_mean : ndarray, shape (t,)
    out : ndarray, shape (m, t), optional
        Filled and returned; a memory map takes predictions larger than memory.

    Returns
    -------
    ndarray, shape (m, t)

    Raises
    ------
    RidgeError
        When X has another number of columns than the fit, or values that are not finite, or `out`
        has another shape or cannot hold floating point numbers.
    """
    x = as_source(X, "X")
    if np.ndim(X) != 2 or x.shape[1] != coef.shape[0]:
        raise RidgeError(
            f"X has shape {np.shape(X)} but the fit had {coef.shape[0]} columns; "
            "pass a 2-D array with the same voxels in the same order."
        )
    shape = (x.shape[0], coef.shape[1])
    if out is None:
        out = np.empty(shape)
    elif out.shape != shape or np.dtype(out.dtype).kind != "f":
        raise RidgeError(
            f"out has shape {out.shape} and type {out.dtype} but the prediction has shape {shape}; "
            "pass a floating point array of that shape."
        )
    for rows in row_chunks(x):
        chunk = np.asarray(x[rows])
        check_finite(chunk, "X", first_row=rows.start)
        for first in range(0, shape[1], _PREDICT_COLUMNS):
            columns = slice(first, first + _PREDICT_COLUMNS)
            weights = np.asarray(coef[:, columns], dtype=np.float64)
            for start in range(0, len(chunk), _PREDICT_ROWS):
                part = chunk[start : start + _PREDICT_ROWS]
                padded = np.zeros((_PREDICT_ROWS, x.shape[1]))
                padded[: len(part)] = part
                padded[: len(part)] -= x_mean
                here = slice(rows.start + start, rows.start + start + len(part))
                out[here, columns] = (padded @ weights)[: len(part)] + y_mean[columns]
            release(coef)
            release(out)
        release(x)
    return out
