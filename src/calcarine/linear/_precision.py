"""Whether a precision is enough: estimated from condition numbers or measured with probes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calcarine.linear._backends import Array
from calcarine.linear._design import DOUBLE, SINGLE, Decomposition, FitSettings
from calcarine.linear._io import row_chunks
from calcarine.linear._scaling import RootWeights
from calcarine.linear._solvers import Solver
from calcarine.linear._validation import FloatArray

LIMIT: dict[np.dtype[Any], float] = {SINGLE: 1e-4, DOUBLE: 1e-5}
"""Rounding times condition number of a Gram matrix up to which its weights are trusted unmeasured.

Relative errors of predictions are of the order of that product or below, mostly far below.
"""
FOLD_LIMIT: dict[np.dtype[Any], float] = {SINGLE: 1e-2, DOUBLE: 1e-5}
"""The same for a fold, which only has to rank penalties."""
HOPELESS: dict[np.dtype[Any], float] = {SINGLE: 0.5, DOUBLE: 1e-5}
"""Above this product a decomposition is not worth measuring."""
ERROR, FOLD_ERROR = 1e-4, 1e-3
"""Largest relative errors of predictions that are accepted when they are measured."""
_RESIDUAL_ERROR = 1e-3
_PROBES = 4


class FullFit(Protocol):
    """Decomposes all rows in a given precision, and measures the errors of decompositions."""

    def decompose(self, settings: FitSettings) -> Decomposition | None:
        """Return the decomposition, or None when rounding errors are too large."""

    def errors(self, full: Decomposition) -> npt.NDArray[np.float64]:
        """Return relative errors of predictions: of doubtful folds, then of `full`."""


def representable(gram: FloatArray, settings: FitSettings) -> bool:
    """Return whether a Gram matrix does not underflow and the largest penalty not overflow."""
    info, trace = np.finfo(settings.dtype), float(np.trace(gram, dtype=np.float64))
    return float(info.tiny / info.eps) <= trace and float(settings.alphas[-1]) <= largest(settings)


def largest(settings: FitSettings) -> float:
    """Return the largest sum of squares that can be computed with without losing digits."""
    info = np.finfo(settings.dtype)
    return float(info.max * info.eps)


def rounding_error(solver: Solver, settings: FitSettings) -> float:
    """Return rounding times condition number of a Gram matrix at the smallest penalty.

    Rows so large that subtracting them from the sum over all rows cancels digits are training
    rows of other folds, and raise the condition number there.
    """
    condition = solver.condition(float(settings.alphas[0]))
    rounding = float(np.finfo(settings.gram_dtype).eps) * condition
    if settings.wide:  # products with the basis round as those with the rows do, before squaring
        rounding += float(np.finfo(settings.dtype).eps) * condition**0.5
    return rounding


def wider(settings: FitSettings, *, folds: bool) -> list[FitSettings]:
    """Return the settings, followed by the same with more of the fit in float64."""
    if settings.dtype == DOUBLE:
        return [settings]
    between = [replace(settings, wide=True)] if folds and settings.solver == "primal" else []
    return [settings, *between, replace(settings, dtype=DOUBLE)]


def decompose_all_rows(
    fit: FullFit, folds: list[Decomposition], settings: FitSettings
) -> Decomposition | None:
    """Return the decomposition of all rows, in float64 if needed.

    Returns
    -------
    Decomposition or None
        None when the folds need float64 too.
    """
    full = fit.decompose(settings)
    if settings.dtype == DOUBLE:
        return full
    doubtful = any(fold.rounding > FOLD_LIMIT[SINGLE] for fold in folds)
    if full is not None and (doubtful or full.rounding > LIMIT[SINGLE]):
        *of_folds, of_weights = fit.errors(full)
        if max(of_folds, default=0.0) > FOLD_ERROR:
            return None
        if of_weights <= ERROR:
            return full
    elif doubtful:
        return None
    elif full is not None:
        return full
    full = fit.decompose(replace(settings, dtype=DOUBLE, wide=False))
    # Targets are still projected in float32.
    ratio = float(np.finfo(SINGLE).eps / np.finfo(DOUBLE).eps)
    return full if full is not None and full.rounding * ratio <= FOLD_LIMIT[SINGLE] else None


def residuals_are_sound(full: Decomposition, share: float) -> bool:
    """Return whether generalised cross-validation can trust the residuals of a primal fit.

    The residual sum of squares may be as small as the square of `share`, the share of degrees of
    freedom that is left.
    """
    if full.lost is not None:
        return full.lost <= _RESIDUAL_ERROR
    return full.rounding <= FOLD_LIMIT[SINGLE] * share**2


def measure_primal(
    x: FloatArray,
    root: RootWeights | None,
    settings: FitSettings,
    parts: list[Decomposition],
    means: list[npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    r"""Return relative errors of predictions at the smallest penalty, for targets of pure noise.

    Noise has the same variance in every direction of X, which no measured target has. The weights
    w of a probe leave the residual :math:`X^T (y - Xw) - \alpha w`, computed in float64 in one pass
    over the rows. Solving for it gives the error of w up to the square of its relative size.

    Parameters
    ----------
    x : ndarray, shape (n, p)
        Scaled rows in the precision of the settings.
    root : ndarray, shape (n,), or None
        Square roots of the sample weights, by which the rows are multiplied.
    settings : FitSettings
    parts : list of Decomposition
        The last is that of all rows; its `lost` is set.
    means : list of ndarray, shape (p,)
        Mean that each part subtracts from the rows.
    """
    p, alpha, ops = x.shape[1], float(settings.alphas[0]), parts[0].solver.ops
    train, ones, probes = _training_probes(len(x), root, settings, parts)
    solved, w = _solve_probes(x, probes, settings, parts)
    gradient, drift, size = _gradients(x, w, means, (train, ones, probes))
    gradient = gradient.reshape(p, len(parts), _PROBES) - alpha * w
    errors = np.empty(len(parts))
    for k, (part, mean) in enumerate(zip(parts, means, strict=True)):
        gap = gradient[:, k] - np.outer(mean, drift[k])
        s = part.solver.solve(part.left.T @ ops.put(gap, settings.dtype), alpha)
        if len(part.held):
            error, prediction = ops.get(part.right @ s), ops.get(part.right @ solved[k][1])
        else:
            error, prediction = (
                x @ v.astype(settings.dtype) for v in (ops.get(part.left @ s), w[:, k])
            )
        errors[k] = _largest_ratio(error, prediction)
    b, s = solved[-1]
    shortcut = np.square(probes[:, -1]).sum(axis=0) - ops.column_dots(b, s)
    shortcut -= alpha * ops.column_dots(s, s)
    parts[-1].lost = float(np.max(np.abs(shortcut / size - 1)))
    return np.where(np.isfinite(errors), errors, np.inf)


def _training_probes(
    n: int, root: RootWeights | None, settings: FitSettings, parts: list[Decomposition]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the training rows of each part (n, k), its constant vector, and centred probes."""
    train = np.ones((n, len(parts)))
    for k, part in enumerate(parts):
        train[part.held, k] = 0.0
        if part.train is not None:
            train[:, k] = 0.0
            train[part.train, k] = 1.0
    probes = np.random.default_rng(0).standard_normal((n, 1, _PROBES)) * train[:, :, None]
    ones = train if root is None else train * root[:, None]  # what an intercept adds to
    if settings.fit_intercept:
        along = np.einsum("nk,nkr->kr", ones, probes) / np.square(ones).sum(axis=0)[:, None]
        probes -= along * ones[:, :, None]
    return train, ones, probes


def _solve_probes(
    x: FloatArray,
    probes: npt.NDArray[np.float64],
    settings: FitSettings,
    parts: list[Decomposition],
) -> tuple[list[tuple[Array, Array]], npt.NDArray[np.float64]]:
    """Return projected and solved probes of each part, and weights (p, k, probes)."""
    p, alpha, ops = x.shape[1], float(settings.alphas[0]), parts[0].solver.ops
    flat = probes.reshape(len(x), -1)
    moments = (x.T @ flat.astype(settings.dtype)).reshape(p, len(parts), _PROBES)
    solved, w = [], np.empty((p, len(parts), _PROBES))
    for k, part in enumerate(parts):
        b = part.left.T @ ops.put(moments[:, k], settings.dtype)
        s = part.solver.solve(b, alpha)
        solved.append((b, s))
        w[:, k] = ops.get(part.left @ s)
    return solved, w


def _gradients(
    x: FloatArray,
    w: npt.NDArray[np.float64],
    means: list[npt.NDArray[np.float64]],
    probing: tuple[npt.NDArray[np.float64], ...],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return X' of the residuals, their sums, and the squared residuals of the last part."""
    train, ones, probes = probing
    p, n_parts, _ = w.shape
    offsets = np.stack([mean @ w[:, k] for k, mean in enumerate(means)])
    gradient, size = np.zeros((p, n_parts * _PROBES)), np.zeros(_PROBES)
    drift = np.zeros((n_parts, _PROBES))
    for rows in row_chunks(x):
        chunk = x[rows].astype(np.float64)
        fitted = (chunk @ w.reshape(p, -1)).reshape(len(chunk), n_parts, _PROBES)
        fitted -= ones[rows, :, None] * offsets
        residual = (probes[rows] - fitted) * train[rows, :, None]
        gradient += chunk.T @ residual.reshape(len(chunk), -1)
        drift += np.einsum("nk,nkr->kr", ones[rows], residual)
        size += np.square(residual[:, -1]).sum(axis=0)
    return gradient, drift, size


def measure_dual(
    x: FloatArray, root: RootWeights | None, settings: FitSettings, full: Decomposition
) -> float:
    """Return the same error for the dual fit on all rows; see `measure_primal`."""
    alpha, n = float(settings.alphas[0]), len(x)
    probes = np.random.default_rng(0).standard_normal((n, _PROBES))
    if settings.fit_intercept:
        ones = np.ones(n) if root is None else root
        probes -= np.outer(ones, ones @ probes / (ones @ ones))
    v = _solve_dual(probes, full, settings)
    w = np.zeros((x.shape[1], _PROBES))
    for rows in row_chunks(x):
        w += x[rows].astype(np.float64).T @ v[rows]
    fitted = np.concatenate([x[rows].astype(np.float64) @ w for rows in row_chunks(x)])
    error = x.T @ _solve_dual(probes - fitted - alpha * v, full, settings)
    return _largest_ratio(x @ error, fitted)


def _solve_dual(
    y: npt.NDArray[np.float64], full: Decomposition, settings: FitSettings
) -> FloatArray:
    ops = full.solver.ops
    basis: Array = full.trials
    projected = basis.T @ ops.put(y, settings.dtype)
    return ops.get(basis @ full.solver.solve(projected, float(settings.alphas[0])))


def _largest_ratio(error: FloatArray, prediction: FloatArray) -> float:
    sizes = np.linalg.norm(prediction, axis=0)
    ratio = float(np.max(np.linalg.norm(error, axis=0) / np.where(sizes > 0, sizes, 1.0)))
    return ratio if np.isfinite(ratio) else np.inf
