"""Whether a precision is enough: estimated from condition numbers, or measured on probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._arrays import Array
from calcarine.linear._checks import FloatArray
from calcarine.linear._sources import row_chunks

if TYPE_CHECKING:
    from calcarine.linear._design import Plan, System

SINGLE: np.dtype[Any] = np.dtype(np.float32)
DOUBLE: np.dtype[Any] = np.dtype(np.float64)
LIMIT: dict[np.dtype[Any], float] = {SINGLE: 1e-4, DOUBLE: 1e-5}
"""Rounding times condition number of a Gram matrix up to which its weights are trusted unseen.

Relative errors of predictions are of the order of that product or below, mostly far below.
"""
FOLD_LIMIT: dict[np.dtype[Any], float] = {SINGLE: 1e-2, DOUBLE: 1e-5}
"""The same for a fold, which only has to rank penalties."""
HOPELESS: dict[np.dtype[Any], float] = {SINGLE: 0.5, DOUBLE: 1e-5}
"""Up to which a decomposition is worth measuring."""
ERROR, FOLD_ERROR = 1e-4, 1e-3
"""Largest relative error of predictions accepted where it is measured."""
_LOST = 1e-3
_PROBES = 4


def representable(gram: FloatArray, plan: Plan) -> bool:
    """Whether a Gram matrix does not underflow, nor the largest penalty overflow."""
    info, trace = np.finfo(plan.dtype), float(np.trace(gram, dtype=np.float64))
    return float(info.tiny / info.eps) <= trace and float(plan.alphas[-1]) <= largest(plan)


def largest(plan: Plan) -> float:
    """Largest sum of squares that keeps its digits beside what is computed from it."""
    info = np.finfo(plan.dtype)
    return float(info.max * info.eps)


def residuals_are_sound(full: System, share: float) -> bool:
    """Whether generalised cross-validation can trust the residual sum of squares of a primal fit.

    They may be as small as the square of `share`, the share of degrees of freedom that is left.
    """
    if full.lost is not None:
        return full.lost <= _LOST
    return full.rounding <= FOLD_LIMIT[SINGLE] * share**2


def measure_primal(
    x: FloatArray,
    root: npt.NDArray[np.float64] | None,
    plan: Plan,
    systems: list[System],
    means: list[npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    r"""Relative errors of predictions at the smallest penalty, for targets of pure noise.

    Noise asks every direction of X alike, which no measured target does. The weights w of a probe
    leave the residual :math:`X^T (y - Xw) - \alpha w`, found in float64 in one pass over the rows;
    solving for it gives the error of w up to the square of its relative size.

    Parameters
    ----------
    x : ndarray, shape (n, p)
        Scaled rows in the precision of the plan.
    root : ndarray, shape (n,), or None
        Roots of the sample weights, by which the rows were multiplied.
    plan : Plan
    systems : list of System
        The last is the fit on all rows; its `lost` is set.
    means : list of ndarray, shape (p,)
        What each system subtracts from the rows.
    """
    (n, p), alpha = x.shape, float(plan.alphas[0])
    ops = systems[0].solver.ops
    train = np.ones((n, len(systems)))
    for k, system in enumerate(systems):
        train[system.held, k] = 0.0
    probes = np.random.default_rng(0).standard_normal((n, 1, _PROBES)) * train[:, :, None]
    ones = train if root is None else train * root[:, None]  # what an intercept adds to
    if plan.fit_intercept:
        along = np.einsum("nk,nkr->kr", ones, probes) / np.square(ones).sum(axis=0)[:, None]
        probes -= along * ones[:, :, None]
    flat = probes.reshape(n, -1)
    moments = (x.T @ flat.astype(plan.dtype)).reshape(p, len(systems), _PROBES)
    solved, w = [], np.empty((p, len(systems), _PROBES))
    for k, system in enumerate(systems):
        b = system.left.T @ ops.put(moments[:, k], plan.dtype)
        s = system.solver.solve(b, alpha)
        solved.append((b, s))
        w[:, k] = ops.get(system.left @ s)
    offsets = np.stack([mean @ w[:, k] for k, mean in enumerate(means)])
    pulled, size = np.zeros((p, flat.shape[1])), np.zeros(_PROBES)
    drift = np.zeros((len(systems), _PROBES))
    for rows in row_chunks(x):
        chunk = x[rows].astype(np.float64)
        fitted = (chunk @ w.reshape(p, -1)).reshape(len(chunk), len(systems), _PROBES)
        fitted -= ones[rows, :, None] * offsets
        residual = (probes[rows] - fitted) * train[rows, :, None]
        pulled += chunk.T @ residual.reshape(len(chunk), -1)
        drift += np.einsum("nk,nkr->kr", ones[rows], residual)
        size += np.square(residual[:, -1]).sum(axis=0)
    pulled = pulled.reshape(p, len(systems), _PROBES) - alpha * w
    errors = np.empty(len(systems))
    for k, (system, mean) in enumerate(zip(systems, means, strict=True)):
        gap = pulled[:, k] - np.outer(mean, drift[k])
        s = system.solver.solve(system.left.T @ ops.put(gap, plan.dtype), alpha)
        if len(system.held):
            wrong, right = ops.get(system.right @ s), ops.get(system.right @ solved[k][1])
        else:
            wrong, right = (x @ v.astype(plan.dtype) for v in (ops.get(system.left @ s), w[:, k]))
        errors[k] = _largest_ratio(wrong, right)
    b, s = solved[-1]
    shortcut = np.square(probes[:, -1]).sum(axis=0) - ops.column_dots(b, s)
    shortcut -= alpha * ops.column_dots(s, s)
    systems[-1].lost = float(np.max(np.abs(shortcut / size - 1)))
    return np.where(np.isfinite(errors), errors, np.inf)


def measure_dual(
    x: FloatArray, root: npt.NDArray[np.float64] | None, plan: Plan, full: System
) -> float:
    """The same for the fit on all rows by the kernel of the rows; see `measure_primal`."""
    ops, alpha, n = full.solver.ops, float(plan.alphas[0]), len(x)
    basis: Array = full.trials

    def solve(y: npt.NDArray[np.float64]) -> FloatArray:
        return ops.get(basis @ full.solver.solve(basis.T @ ops.put(y, plan.dtype), alpha))

    probes = np.random.default_rng(0).standard_normal((n, _PROBES))
    if plan.fit_intercept:
        ones = np.ones(n) if root is None else root
        probes -= np.outer(ones, ones @ probes / (ones @ ones))
    v = solve(probes)
    w = np.zeros((x.shape[1], _PROBES))
    for rows in row_chunks(x):
        w += x[rows].astype(np.float64).T @ v[rows]
    fitted = np.concatenate([x[rows].astype(np.float64) @ w for rows in row_chunks(x)])
    error = x.T @ solve(probes - fitted - alpha * v)
    return _largest_ratio(x @ error, fitted)


def _largest_ratio(wrong: FloatArray, right: FloatArray) -> float:
    sizes = np.linalg.norm(right, axis=0)
    ratio = float(np.max(np.linalg.norm(wrong, axis=0) / np.where(sizes > 0, sizes, 1.0)))
    return ratio if np.isfinite(ratio) else np.inf
