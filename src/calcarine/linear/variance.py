"""Variance partitioning: the share of each feature space in the r2 on test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calcarine.linear._banded_inputs import Spaces
from calcarine.linear._scaling import constant_columns
from calcarine.linear._validation import (
    FloatArray,
    RidgeSettingError,
    RidgeShapeError,
    as_matrix,
    check_finite,
)
from calcarine.linear.banded_ridge import BandedRidgeResult, banded_ridge_cv

__all__ = ["VariancePartition", "partition_variance", "split_r2"]


@dataclass(frozen=True)
class VariancePartition:
    """Variance of test rows that each feature space explains.

    Attributes
    ----------
    names : tuple of str, length S
        Names of the spaces.
    r2 : ndarray, shape (t,)
        1 - (squared error of the full model) / (sum of squares about the test mean).
    shares : ndarray, shape (S, t)
        Product measure of each space; sums to `r2` over the spaces. See `split_r2`.
    unique : ndarray, shape (S, t)
        `r2` minus the r2 of the model refitted without the space, with newly chosen penalties.
    result : BandedRidgeResult
        The full model.
    """

    names: tuple[str, ...]
    r2: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    unique: npt.NDArray[np.float64]
    result: BandedRidgeResult


def split_r2(
    result: BandedRidgeResult, Xs_test: Spaces, Y_test: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    r"""Divide the r2 on test rows over the spaces by the product measure.

    The share of space s is :math:`\sum_i \hat y_{s,i} (2 y_i - \hat y_i) / \sum_i y_i^2` with y
    about its test mean (Dupre la Tour et al. 2022); it can be negative. Predictions are about the
    mean of the targets at the fit. If it differs from the test mean, the difference is divided
    over the spaces in proportion to gamma, so that the shares still sum to the r2.

    Parameters
    ----------
    result : BandedRidgeResult
    Xs_test : list or dict of array-like, each of shape (m, p_s)
    Y_test : array-like, shape (m, t) or (m,)

    Returns
    -------
    ndarray, shape (S, t)
        Zero for a target that is constant over the test rows.

    Raises
    ------
    RidgeError
        When shapes do not match the fit or a value is not finite.
    """
    y = _check_test_targets(Y_test, len(result.y_mean))
    return product_measure(result.predict_spaces(Xs_test), result.gamma, result.y_mean, y)


def product_measure(
    parts: npt.NDArray[np.float64],
    gamma: npt.NDArray[np.float64],
    y_mean: npt.NDArray[np.float64],
    y: npt.ArrayLike,
    sample_weight: npt.NDArray[np.float64] | None = None,
    names: tuple[str, str] = ("Xs_test", "Y_test"),
) -> npt.NDArray[np.float64]:
    """Return the shares of the r2 from predictions by each space; see `split_r2`.

    Parameters
    ----------
    parts : ndarray, shape (S, m, t)
        Contribution of each space to the deviation from `y_mean`; overwritten.
    gamma : ndarray, shape (S, t)
    y_mean : ndarray, shape (t,)
        Mean of the targets at the fit.
    y : array-like, shape (m, t) or (m,)
    sample_weight : ndarray, shape (m,), optional
        Weight of each row.
    names : tuple of two str
        Names of the predicted rows and of `y` in error messages.

    Returns
    -------
    ndarray, shape (S, t)

    Raises
    ------
    RidgeError
        When `y` does not match or a value is not finite.
    """
    targets = _check_test_targets(y, len(y_mean), names[1])
    _check_same_rows(parts.shape[1], len(targets), names)
    weights = np.ones(len(targets)) if sample_weight is None else sample_weight
    mean = weights @ targets / weights.sum()
    centred = targets - mean
    total = weights @ centred**2
    total[constant_columns(targets[weights > 0])] = 0.0
    parts += (gamma * (y_mean - mean))[:, None]
    rest = 2 * centred - parts.sum(axis=0)
    shares = np.einsum("smt,mt->st", parts, weights[:, None] * rest)
    return np.asarray(np.divide(shares, total, out=np.zeros_like(shares), where=total > 0))


def partition_variance(
    Xs: Spaces,
    Y: npt.ArrayLike,
    Xs_test: Spaces,
    Y_test: npt.ArrayLike,
    *,
    result: BandedRidgeResult | None = None,
    **options: Any,
) -> VariancePartition:
    """Fit the full model and the model without each space, and compare them on test rows.

    Parameters
    ----------
    Xs : list or dict of array-like, each of shape (n, p_s)
        Feature spaces of the fit.
    Y : array-like, shape (n, t) or (n,)
        Targets of the fit.
    Xs_test : list or dict of array-like, each of shape (m, p_s)
        The same spaces for test rows.
    Y_test : array-like, shape (m, t) or (m,)
        Their targets.
    result : BandedRidgeResult, optional
        The full model, if already fitted on these data with these options.
    **options
        Passed to `banded_ridge_cv` for every fit. `gammas` is not possible, because each fit
        searches for its own.

    Returns
    -------
    VariancePartition

    Raises
    ------
    RidgeError
        As in `banded_ridge_cv`, and when test data do not match.

    Notes
    -----
    Without the only space of a model, the prediction is the mean of the targets (0 without an
    intercept).
    """
    if "gammas" in options:
        raise RidgeSettingError(
            "gammas cannot be fixed here; leave it out, because each fit searches for its own."
        )
    full = banded_ridge_cv(Xs, Y, **options) if result is None else result
    y = _check_test_targets(Y_test, len(full.y_mean))
    shares = split_r2(full, Xs_test, y)
    r2 = _r2(y, full.predict(Xs_test))
    unique = np.empty_like(shares)
    for s, name in enumerate(full.names):
        if len(full.names) == 1:
            predicted: FloatArray = np.broadcast_to(full.y_mean, y.shape)
        else:
            without = banded_ridge_cv(_drop(Xs, s, name), Y, **options)
            predicted = without.predict(_drop(Xs_test, s, name))
        unique[s] = r2 - _r2(y, predicted)
    return VariancePartition(full.names, r2, shares, unique, full)


def _check_test_targets(
    Y_test: npt.ArrayLike, n_targets: int, name: str = "Y_test"
) -> npt.NDArray[np.float64]:
    y = as_matrix(Y_test, name)
    check_finite(y, name)
    if y.shape[1] != n_targets:
        raise RidgeShapeError(
            f"{name} has {y.shape[1]} targets but the fit had {n_targets}; "
            "pass the same targets in the same order."
        )
    return y.astype(np.float64, copy=False)


def _check_same_rows(n_x: int, n_y: int, names: tuple[str, str] = ("Xs_test", "Y_test")) -> None:
    if n_x != n_y:
        raise RidgeShapeError(
            f"{names[0]} has {n_x} rows but {names[1]} has {n_y}; pass one row per trial in both."
        )


def _about_mean(
    y: FloatArray,
) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Return targets about their mean (m, t), and their sums of squares (t,), 0 if constant."""
    centred = y - y.mean(axis=0)
    return centred, np.where(constant_columns(y), 0.0, np.einsum("ij,ij->j", centred, centred))


def _r2(y: FloatArray, predicted: FloatArray) -> npt.NDArray[np.float64]:
    _check_same_rows(len(predicted), len(y))
    total = _about_mean(y)[1]
    error = ((y - predicted) ** 2).sum(axis=0)
    return np.where(total > 0, 1.0 - error / np.where(total > 0, total, 1.0), 0.0)


def _drop(Xs: Spaces, position: int, name: str) -> Spaces:
    if isinstance(Xs, Mapping):
        return {key: Xs[key] for key in Xs if key != name}
    return [space for s, space in enumerate(Xs) if s != position]
