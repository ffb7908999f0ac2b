"""The result of a ridge fit: prediction, warnings about penalties, and printing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calcarine.display import html_table, text_table
from calcarine.linear._io import as_source, release, row_chunks
from calcarine.linear._validation import (
    FloatArray,
    RidgeShapeError,
    check_finite,
)

_PREDICT_ROWS = 64
_PREDICT_COLUMNS = 8192


def predict_linear(
    X: npt.ArrayLike,
    coef: FloatArray,
    x_mean: FloatArray,
    y_mean: FloatArray,
    out: FloatArray | None = None,
) -> FloatArray:
    """Predict ``(X - x_mean) @ coef + y_mean`` in float64, independent of the batch size.

    Rows are multiplied in padded batches of one fixed size, so that a row gives the same
    prediction alone as among a thousand others. The mean is subtracted first: predictors with a
    large offset would otherwise cancel against the intercept.

    Parameters
    ----------
    X : array-like, shape (m, p)
        A zarr array, HDF5 data set or memory map is read in chunks of rows.
    coef : ndarray, shape (p, t)
        May be a memory map, as after a fit with `out`.
    x_mean : ndarray, shape (p,)
    y_mean : ndarray, shape (t,)
    out : ndarray, shape (m, t), optional
        Array for the result. Pass a memory map for predictions larger than memory.

    Returns
    -------
    ndarray, shape (m, t)

    Raises
    ------
    RidgeError
        When X has another number of columns than the fit or values that are not finite, or when
        `out` has another shape or is not a floating point array.
    """
    x = as_source(X, "X")
    if np.ndim(X) != 2 or x.shape[1] != coef.shape[0]:
        raise RidgeShapeError(
            f"X has shape {np.shape(X)} but the fit had {coef.shape[0]} columns; "
            "pass a 2-D array with the same voxels in the same order."
        )
    shape = (x.shape[0], coef.shape[1])
    if out is None:
        out = np.empty(shape)
    elif out.shape != shape or np.dtype(out.dtype).kind != "f":
        raise RidgeShapeError(
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


EDGE_SHARE = 0.05
"""A fit warns when more predictable targets than this choose an end of the penalty grid."""


class RidgeEdgeWarning(UserWarning):
    """Many targets chose the lowest or highest penalty; the best may lie outside the grid."""


def edge_fractions(
    best: npt.NDArray[np.intp], predictable: npt.NDArray[np.bool_], n_alphas: int
) -> tuple[float, float]:
    """Return the share of predictable targets that chose the first and the last penalty."""
    chosen = best[predictable]
    if chosen.size == 0 or n_alphas == 1:
        return 0.0, 0.0
    return float(np.mean(chosen == 0)), float(np.mean(chosen == n_alphas - 1))


def warn_at_edges(
    low: float, high: float, alphas: npt.NDArray[np.float64], predictable: str
) -> None:
    """Warn when over `EDGE_SHARE` of the predictable targets chose an end of the penalties."""
    if low + high <= EDGE_SHARE:
        return
    parts, remedies = [], []
    if low > 0:
        parts.append(f"{low:.1%} chose the lowest alpha ({alphas[0]:g})")
        remedies.append("smaller")
    if high > 0:
        parts.append(f"{high:.1%} chose the highest alpha ({alphas[-1]:g})")
        remedies.append("larger")
    warnings.warn(
        f"Of the targets with a held-out {predictable}, {' and '.join(parts)}; "
        f"widen alphas: add {' and '.join(remedies)} values.",
        RidgeEdgeWarning,
        stacklevel=4,  # this function, the fit and its decorator
    )


def range_of(values: FloatArray) -> str:
    """Return "lowest to highest" of some numbers, or the only one."""
    low, high = np.min(values), np.max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def median_score(scores: FloatArray) -> str:
    """Return the median of held-out scores as text."""
    known = scores[~np.isnan(scores)]
    return f"{np.median(known):.3g}" if known.size else "none (penalties are fixed)"


@dataclass(frozen=True, repr=False)
class RidgeResult:
    """Weights of a ridge fit in the units of X, with the chosen penalties and their scores.

    Attributes
    ----------
    coef : ndarray, shape (p, t)
        Weights on the *unscaled* columns of X; ``X @ coef + intercept`` predicts.
    intercept : ndarray, shape (t,)
        Zeros without an intercept.
    alpha : ndarray, shape (t,)
        Chosen penalty of each target.
    cv_scores : ndarray, shape (t,)
        Held-out score of each target at its `alpha`, over the held-out rows of all folds together,
        each as often as it is held out; 0 for a target that is constant over them, NaN for fixed
        penalties.
    cv_curve : ndarray, shape (n_alphas,)
        Held-out score of each of `alphas`, mean over targets. NaN for fixed penalties, and for
        penalties that ``search="local"`` tried for some targets only, because means over different
        targets are not comparable.
    alphas : ndarray, shape (n_alphas,)
        Penalties tried, ascending.
    x_mean, x_scale : ndarray, shape (p,)
        Mean and scale of the columns (0 and 1 without centring and standardisation).
    y_mean : ndarray, shape (t,)
        Mean of each target over the rows of the fit (0 without an intercept).
    solver : {"primal", "dual", "svd"}
        What was decomposed: the p x p or the n x n Gram matrix or, for penalties too small for a
        Gram matrix, X itself.
    precision : {"float32", "float64"}
        Precision in which the weights were computed. It is "float64" where "float32" was given but
        would have lost too many digits.
    edge_fraction_low, edge_fraction_high : float
        Share of the targets with a held-out r2 above 0 that chose the lowest or the highest
        penalty; 0 when only one penalty was tried.
    """

    coef: FloatArray
    intercept: FloatArray
    alpha: npt.NDArray[np.float64]
    cv_scores: npt.NDArray[np.float64]
    cv_curve: npt.NDArray[np.float64]
    alphas: npt.NDArray[np.float64]
    x_mean: npt.NDArray[np.float64]
    x_scale: npt.NDArray[np.float64]
    y_mean: npt.NDArray[np.float64]
    solver: str
    edge_fraction_low: float
    edge_fraction_high: float
    precision: str = "float64"

    def predict(self, X: npt.ArrayLike) -> FloatArray:
        """Predict the targets of the rows of X; see `predict_linear`.

        Parameters
        ----------
        X : array-like, shape (m, p)

        Returns
        -------
        ndarray, shape (m, t)
            In float64.
        """
        return predict_linear(X, self.coef, self.x_mean, self.y_mean)

    def _facts(self) -> dict[str, object]:
        p, t = self.coef.shape
        return {
            "weights": f"{p} predictors x {t} targets, {self.coef.dtype}",
            "penalties": f"{len(self.alphas)} tried, chosen {range_of(self.alpha)}",
            "median held-out score": median_score(self.cv_scores),
            "solver": self.solver,
        }

    def __repr__(self) -> str:
        return text_table("RidgeResult", self._facts())

    def _repr_html_(self) -> str:
        return html_table("RidgeResult", self._facts())
