r"""Ridge regression with an exact, grouped cross-validation of the penalty.

For every target the weights minimise :math:`\|y - Xw\|^2 + \alpha \|w\|^2`. One decomposition of
the training responses per fold serves every penalty and every target (Hoerl & Kennard 1970;
Hastie et al. 2009, eq. 3.47). It is the map from voxels to latents of Takagi & Nishimoto
(2023, section 3.3) and the voxel-wise encoding model of their section 3.4.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calcarine.linear._checks import (
    FloatArray,
    RidgeError,
    as_matrix,
    check_alphas,
    check_choice,
    check_count,
    check_finite,
)
from calcarine.linear.folds import grouped_folds

DEFAULT_ALPHAS: npt.NDArray[np.float64] = np.logspace(-2, 8, 21)
"""Penalties tried when none are given: half-decades from 0.01 to 1e8."""
DEFAULT_ALPHAS.flags.writeable = False

EDGE_SHARE = 0.05
"""Share of predictable targets on an end of the penalty grid above which a fit warns."""

_GRAM_PRECISION = 1e-5
_PREDICT_ROWS = 64
_EPS = float(np.finfo(np.float64).eps)


class RidgeEdgeWarning(UserWarning):
    """Many targets chose the lowest or highest penalty, so the best may lie outside the grid."""


@dataclass(frozen=True)
class RidgeResult:
    """Weights of a ridge fit in the units of X, with what the cross-validation found.

    Attributes
    ----------
    coef : ndarray, shape (p, t)
        Weights on the *unscaled* columns of X; ``X @ coef + intercept`` predicts.
    intercept : ndarray, shape (t,)
        Zeros without an intercept.
    alpha : ndarray, shape (t,)
        Chosen penalty of each target.
    cv_scores : ndarray, shape (t,)
        Held-out score of each target at its `alpha`; 0 for a constant target.
    cv_curve : ndarray, shape (n_alphas,)
        Held-out score of each of `alphas`, mean over targets.
    alphas : ndarray, shape (n_alphas,)
        Penalties tried, ascending.
    x_mean, x_scale : ndarray, shape (p,)
        Mean and scale by which the columns were standardised (0 and 1 where they were not).
    y_mean : ndarray, shape (t,)
        Mean of each target over the rows of the fit (0 without an intercept).
    solver : {"primal", "dual"}
        Whether the p x p or the n x n Gram matrix was decomposed.
    edge_fraction_low, edge_fraction_high : float
        Share of the targets with a held-out r2 above 0 that chose the lowest or highest penalty;
        0 when only one penalty was tried.
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

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
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


@dataclass(frozen=True)
class _Plan:
    """The checked settings of one call."""

    alphas: npt.NDArray[np.float64]
    fit_intercept: bool
    standardize: bool
    solver: str
    block_size: int
    dtype: np.dtype[Any]

    def blocks(self, n_targets: int) -> Iterator[slice]:
        for start in range(0, n_targets, self.block_size):
            yield slice(start, min(start + self.block_size, n_targets))


@dataclass(frozen=True)
class _Scaler:
    """Mean and scale of training columns; `dead` columns did not vary and get no weight."""

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    dead: npt.NDArray[np.bool_]

    def __call__(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        scaled = X - self.mean
        scaled /= self.scale
        scaled[:, self.dead] = 0.0
        return scaled


@dataclass(frozen=True)
class _Spectrum:
    """Training responses decomposed so that w(alpha) = right @ (left.T @ y / (eigen + alpha))."""

    left: FloatArray
    right: FloatArray
    eigen: FloatArray


@dataclass(frozen=True)
class _Scores:
    """Held-out scores, each of shape (n_alphas, t)."""

    r2: npt.NDArray[np.float64]
    correlation: npt.NDArray[np.float64] | None


def ridge_cv(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    alphas: npt.ArrayLike = DEFAULT_ALPHAS,
    groups: npt.ArrayLike | None = None,
    n_folds: int = 5,
    fit_intercept: bool = True,
    standardize: bool = True,
    alpha_per: Literal["target", "all"] = "target",
    score: Literal["r2", "correlation"] = "r2",
    solver: Literal["auto", "primal", "dual"] = "auto",
    dtype: npt.DTypeLike = "float64",
    block_size: int = 1024,
) -> RidgeResult:
    """Fit ridge regression, choosing the penalty of each target by grouped cross-validation.

    Means and scales are learned inside each fold from its training rows alone. The final fit
    uses all rows.

    Parameters
    ----------
    X : array-like, shape (n, p)
        Predictors, one row per trial (responses for a decoder, features for an encoding model).
    Y : array-like, shape (n, t) or (n,)
        Targets, read `block_size` columns at a time in their own dtype.
    alphas : array-like, shape (n_alphas,)
        Penalties to try, on the standardised columns if `standardize`. Zero means least squares
        of minimal norm.
    groups : array-like, shape (n,), optional
        Stimulus id of each trial; a group is never split over folds. Without it every row is a
        group of its own, which is only right if no stimulus is repeated.
    n_folds : int
        Number of folds, see `calcarine.linear.grouped_folds`.
    fit_intercept : bool
        Centre the columns and the targets.
    standardize : bool
        Divide each column by its standard deviation (ddof 0).
    alpha_per : {"target", "all"}
        One penalty per target, or one for all by the mean score over targets. Of equal scores
        the larger penalty wins.
    score : {"r2", "correlation"}
        "r2" is 1 - (sum of squared held-out residuals over all folds) / (sum of squares of Y about
        its mean). "correlation" is Pearson's between held-out predictions and targets, both centred
        within each fold and then pooled: the means of the folds differ from each other in
        opposite directions in prediction and truth, which would bias it downwards.
    solver : {"auto", "primal", "dual"}
        "auto" is dual when n < p. All give the same weights up to rounding.
    dtype : {"float64", "float32"}
        Precision of the products with Y and of the weights; decompositions, means and sums are
        float64 always.
    block_size : int
        Targets handled at once; temporary memory is about ``4 * max(n, p) * block_size`` values.

    Returns
    -------
    RidgeResult

    Warns
    -----
    RidgeEdgeWarning
        When over 5 % of the targets with a held-out r2 above 0 chose an end of `alphas`. Targets
        without signal choose the highest penalty rightly and are not counted.

    Raises
    ------
    RidgeError
        A `CalcarineError`: values that are not finite (row and column are named), shapes that do
        not match, fewer groups than folds, a negative penalty or an unknown setting.

    Notes
    -----
    A column that does not vary in the training rows gets zero weight, unless both `fit_intercept`
    and `standardize` are False: that is plain ridge on X as it is, where a constant column may be
    the caller's own intercept.
    """
    check_choice(alpha_per, ("target", "all"), "alpha_per")
    check_choice(score, ("r2", "correlation"), "score")
    x, y = _check_data(X, Y)
    plan = _Plan(
        alphas=check_alphas(alphas),
        fit_intercept=bool(fit_intercept),
        standardize=bool(standardize),
        solver=_choose_solver(solver, *x.shape),
        block_size=check_count(block_size, 1, "block_size"),
        dtype=_check_dtype(dtype),
    )
    fold_of_row = grouped_folds(groups, n_folds, n_rows=len(x))
    if score == "correlation" and np.bincount(fold_of_row).min() < 2:
        raise RidgeError(
            "score='correlation' needs at least two trials in every fold; choose fewer folds."
        )
    scores = _cross_validate(x, y, fold_of_row, plan, with_correlation=score == "correlation")
    table = scores.r2 if scores.correlation is None else scores.correlation
    curve = table.mean(axis=1)
    best = np.full(y.shape[1], _last_argmax(curve)) if alpha_per == "all" else _last_argmax(table)
    targets = np.arange(y.shape[1])
    low, high = _edge_fractions(best, scores.r2[best, targets], len(plan.alphas))
    _warn_at_edges(low, high, plan.alphas)
    chosen = plan.alphas[best]
    coef, scaler, y_mean = _fit(x, y, chosen, plan)
    return RidgeResult(
        coef=coef,
        intercept=(y_mean - scaler.mean @ coef).astype(plan.dtype),
        alpha=chosen,
        cv_scores=table[best, targets],
        cv_curve=curve,
        alphas=plan.alphas,
        x_mean=scaler.mean,
        x_scale=scaler.scale,
        y_mean=y_mean,
        solver=plan.solver,
        edge_fraction_low=low,
        edge_fraction_high=high,
    )


def predict_linear(
    X: npt.ArrayLike, coef: FloatArray, x_mean: FloatArray, y_mean: FloatArray
) -> npt.NDArray[np.float64]:
    """Predict ``(X - x_mean) @ coef + y_mean`` in float64, whatever the size of the batch.

    Rows go through the matrix product in padded batches of one fixed size, so the library
    underneath takes the same path for one row as for a thousand. Subtracting the mean first
    keeps predictors with a large offset from cancelling against the intercept.

    Parameters
    ----------
    X : array-like, shape (m, p)
    coef : ndarray, shape (p, t)
    x_mean : ndarray, shape (p,)
    y_mean : ndarray, shape (t,)

    Returns
    -------
    ndarray, shape (m, t)

    Raises
    ------
    RidgeError
        When X has another number of columns than the fit, or values that are not finite.
    """
    x = as_matrix(X, "X")
    if np.ndim(X) != 2 or x.shape[1] != coef.shape[0]:
        raise RidgeError(
            f"X has shape {np.shape(X)} but the fit had {coef.shape[0]} columns; "
            "pass a 2-D array with the same voxels in the same order."
        )
    check_finite(x, "X")
    weights = np.asarray(coef, dtype=np.float64)
    out = np.empty((len(x), weights.shape[1]))
    for start in range(0, len(x), _PREDICT_ROWS):
        rows = x[start : start + _PREDICT_ROWS]
        padded = np.zeros((_PREDICT_ROWS, x.shape[1]))
        padded[: len(rows)] = rows
        padded[: len(rows)] -= x_mean
        out[start : start + _PREDICT_ROWS] = (padded @ weights)[: len(rows)]
    out += y_mean
    return out


def _check_data(
    X: npt.ArrayLike, Y: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    x, y = as_matrix(X, "X"), as_matrix(Y, "Y")
    if np.ndim(X) != 2:
        raise RidgeError("X has one dimension; pass a 2-D array with one row per trial.")
    if len(x) != len(y):
        raise RidgeError(f"X has {len(x)} rows but Y has {len(y)}; pass one row per trial in both.")
    check_finite(x, "X")
    check_finite(y, "Y")
    return x.astype(np.float64, copy=False), y


def _check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = np.dtype(object)
    if checked not in (np.dtype("float64"), np.dtype("float32")):
        raise RidgeError(f"dtype is {dtype!r}; choose 'float64' or 'float32'.")
    return checked


def _choose_solver(solver: str, n_rows: int, n_columns: int) -> str:
    check_choice(solver, ("auto", "primal", "dual"), "solver")
    if solver != "auto":
        return solver
    return "dual" if n_rows < n_columns else "primal"


def _constant(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which columns vary by no more than the rounding of their mean; shape (k,)."""
    rounding = len(matrix) * _EPS * np.abs(matrix.mean(axis=0))
    return np.asarray(matrix.std(axis=0) <= rounding)


def _fit_scaler(x: npt.NDArray[np.float64], plan: _Plan) -> _Scaler:
    constant = _constant(x)
    mean = x.mean(axis=0) if plan.fit_intercept else np.zeros(x.shape[1])
    scale = np.where(constant, 1.0, x.std(axis=0)) if plan.standardize else np.ones(x.shape[1])
    dead = constant if plan.fit_intercept or plan.standardize else np.zeros_like(constant)
    return _Scaler(mean, scale, dead)


def _decompose(x: npt.NDArray[np.float64], plan: _Plan) -> _Spectrum:
    """Decompose scaled training rows (n, p) through their smaller (or asked for) Gram matrix."""
    gram = x @ x.T if plan.solver == "dual" else x.T @ x
    eigen, vectors = np.linalg.eigh(gram)
    # A Gram matrix squares the condition number: its small eigenvalues are wrong by about
    # eps * largest, which only a penalty well above that forgives.
    if plan.alphas[0] * _GRAM_PRECISION < _EPS * eigen[-1]:
        return _decompose_svd(x, plan)
    projected = x.T @ vectors if plan.solver == "dual" else x @ vectors
    left, right = (vectors, projected) if plan.solver == "dual" else (projected, vectors)
    return _cast(left, right, np.maximum(eigen, 0.0), plan)


def _decompose_svd(x: npt.NDArray[np.float64], plan: _Plan) -> _Spectrum:
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = s > max(x.shape) * _EPS * s[0]
    s = s[kept]
    return _cast(u[:, kept] * s, vt[kept].T, s**2, plan)


def _cast(left: FloatArray, right: FloatArray, eigen: FloatArray, plan: _Plan) -> _Spectrum:
    return _Spectrum(
        left.astype(plan.dtype, copy=False),
        right.astype(plan.dtype, copy=False),
        eigen,
    )


def _shrink(projected: FloatArray, eigen: FloatArray, alpha: Any) -> FloatArray:
    """Divide (r, block) projections by eigenvalue plus penalty (a number, or one per target)."""
    denominator = eigen[:, None] + alpha
    # Zero only for a null direction under a zero penalty, which minimal norm leaves out.
    inverse = np.divide(1.0, denominator, out=np.zeros_like(denominator), where=denominator > 0)
    return np.asarray(projected * inverse.astype(projected.dtype, copy=False))


def _column_means(y: npt.NDArray[Any], plan: _Plan) -> npt.NDArray[np.float64]:
    if not plan.fit_intercept:
        return np.zeros(y.shape[1])
    return np.asarray(y.mean(axis=0, dtype=np.float64))


def _cross_validate(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[Any],
    fold_of_row: npt.NDArray[np.intp],
    plan: _Plan,
    *,
    with_correlation: bool,
) -> _Scores:
    shape = (len(plan.alphas), y.shape[1])
    residual = np.zeros(shape)
    moments = _Moments(np.zeros(shape), np.zeros(shape), np.zeros(shape[1]))
    for fold in range(int(fold_of_row.max()) + 1):
        train, held = np.flatnonzero(fold_of_row != fold), np.flatnonzero(fold_of_row == fold)
        scaler = _fit_scaler(x[train], plan)
        spectrum = _decompose(scaler(x[train]), plan)
        held_right = scaler(x[held]).astype(plan.dtype, copy=False) @ spectrum.right
        for block in plan.blocks(y.shape[1]):
            y_train, y_held = y[train, block], y[held, block]
            mean = _column_means(y_train, plan)
            projected = spectrum.left.T @ (y_train - mean).astype(plan.dtype, copy=False)
            truth = (y_held - mean).astype(plan.dtype, copy=False)
            if with_correlation:
                moments.add_truth(truth, block)
            for index, alpha in enumerate(plan.alphas):
                guess = held_right @ _shrink(projected, spectrum.eigen, alpha)
                residual[index, block] += _dots(truth - guess, truth - guess)
                if with_correlation:
                    moments.add_guess(index, truth, guess, block)
    total, constant = _total_squares(y, plan)
    r2 = 1.0 - residual / np.where(constant, 1.0, total)
    r2[:, constant] = 0.0
    return _Scores(r2, moments.correlation(constant) if with_correlation else None)


@dataclass(frozen=True)
class _Moments:
    """Sums of products of held-out predictions and targets, centred within folds."""

    cross: npt.NDArray[np.float64]
    guess: npt.NDArray[np.float64]
    truth: npt.NDArray[np.float64]

    def add_truth(self, truth: FloatArray, block: slice) -> None:
        centred = truth - truth.mean(axis=0)
        self.truth[block] += _dots(centred, centred)

    def add_guess(self, index: int, truth: FloatArray, guess: FloatArray, block: slice) -> None:
        centred = guess - guess.mean(axis=0)
        self.cross[index, block] += _dots(centred, truth)
        self.guess[index, block] += _dots(centred, centred)

    def correlation(self, constant: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        size = np.sqrt(self.guess) * np.sqrt(self.truth)
        table = np.zeros_like(size)
        np.divide(self.cross, size, out=table, where=size > 0)
        table[:, constant] = 0.0
        return table


def _dots(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    """Column-wise dot products, summed in float64."""
    return np.asarray(np.einsum("ij,ij->j", a, b, dtype=np.float64))


def _total_squares(
    y: npt.NDArray[Any], plan: _Plan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Sum of squares about the mean, and which targets are constant; both of shape (t,)."""
    total, constant = np.empty(y.shape[1]), np.empty(y.shape[1], dtype=bool)
    for block in plan.blocks(y.shape[1]):
        values = y[:, block].astype(np.float64)
        total[block], constant[block] = len(values) * values.var(axis=0), _constant(values)
    return total, constant | (total == 0)


def _last_argmax(scores: npt.NDArray[np.float64]) -> Any:
    """Index of the maximum along the first axis; of equals the last, the larger penalty."""
    return len(scores) - 1 - np.argmax(scores[::-1], axis=0)


def _edge_fractions(
    best: npt.NDArray[np.intp], r2: npt.NDArray[np.float64], n_alphas: int
) -> tuple[float, float]:
    chosen = best[r2 > 0]
    if chosen.size == 0 or n_alphas == 1:
        return 0.0, 0.0
    return float(np.mean(chosen == 0)), float(np.mean(chosen == n_alphas - 1))


def _warn_at_edges(low: float, high: float, alphas: npt.NDArray[np.float64]) -> None:
    if low + high <= EDGE_SHARE:
        return
    parts, mends = [], []
    if low > 0:
        parts.append(f"{low:.1%} chose the lowest alpha ({alphas[0]:g})")
        mends.append("smaller")
    if high > 0:
        parts.append(f"{high:.1%} chose the highest alpha ({alphas[-1]:g})")
        mends.append("larger")
    warnings.warn(
        f"Of the targets with a held-out r2 above 0, {' and '.join(parts)}; "
        f"add {' and '.join(mends)} values to alphas.",
        RidgeEdgeWarning,
        stacklevel=3,
    )


def _fit(
    x: npt.NDArray[np.float64], y: npt.NDArray[Any], alpha: npt.NDArray[np.float64], plan: _Plan
) -> tuple[FloatArray, _Scaler, npt.NDArray[np.float64]]:
    """Weights (p, t) in the units of X for one penalty per target, on all rows."""
    scaler = _fit_scaler(x, plan)
    spectrum = _decompose(scaler(x), plan)
    coef: FloatArray = np.empty((x.shape[1], y.shape[1]), dtype=plan.dtype)
    y_mean = np.empty(y.shape[1])
    for block in plan.blocks(y.shape[1]):
        values = y[:, block].astype(np.float64)
        constant = _constant(values) & plan.fit_intercept
        y_mean[block] = _column_means(values, plan)
        values -= y_mean[block]
        values[:, constant] = 0.0  # the rounding of the mean is no signal
        projected = spectrum.left.T @ values.astype(plan.dtype, copy=False)
        coef[:, block] = spectrum.right @ _shrink(projected, spectrum.eigen, alpha[block])
    coef /= scaler.scale[:, None].astype(plan.dtype)
    coef[scaler.dead] = 0.0
    return coef, scaler, y_mean
