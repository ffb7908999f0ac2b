"""What a ridge fit costs: multiplications, from which its time follows, and memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calcarine.linear._decomposed_predictors import SINGLE, FitSettings
from calcarine.linear._fit import NEIGHBOURS, peak_bytes
from calcarine.linear._inputs import block_columns
from calcarine.linear._predictors import Splits
from calcarine.linear._quadratic_forms import forms_pay, forms_values
from calcarine.linear._solvers import EIGENVECTORS, SUBSTITUTION

__all__ = ["RidgeCost", "banded_ridge_cost", "ridge_cost"]

_REDUCTION = 2.0
"""Cost of the block tridiagonal form and its basis, in matrix products of its order."""
_EIGEN_COLUMN = 32
"""Cost of one row of a solution by eigenvectors, in multiplications of a large product."""


@dataclass(frozen=True)
class RidgeCost:
    """What a fit costs.

    Attributes
    ----------
    single, double : float
        Multiplications in float32 and in float64, in units of those of a large matrix product.
    memory : float
        Bytes at the peak, those of X, Y and the weights included.
    banded : bool
        Whether it is a banded ridge regression, whose products are slower.
    """

    single: float = 0.0
    double: float = 0.0
    memory: float = 0.0
    banded: bool = False


def ridge_cost(
    n_trials: int,
    n_features: int,
    n_targets: int,
    n_rows: int | None = None,
    n_folds: int = 5,
    n_alphas: int = 21,
    *,
    wide: bool = False,
    keeps_weights: bool = True,
) -> RidgeCost:
    """Return what `ridge_cv` costs for float32 predictors and folds of equal size.

    Parameters
    ----------
    n_trials, n_features, n_targets : int
        X is of shape (n_trials, n_features).
    n_rows : int, optional
        Rows of Y, fewer than the trials if stimuli are repeated; as many by default.
    n_folds, n_alphas : int
        Folds that choose the penalty, and number of penalties.
    wide : bool
        Whether Gram matrices are decomposed in float64, as ill-conditioned ones are.
    keeps_weights : bool
        Whether the weights of all targets are in memory at the same time.

    Returns
    -------
    RidgeCost
    """
    rows = n_trials if n_rows is None else n_rows
    dual = n_trials - -(-n_trials // n_folds) < n_features
    order = n_trials if dual else n_features
    rank = order * (1 - 1 / n_folds) if dual else float(order)
    held = n_trials / n_folds
    decomposing = n_trials * n_features * (n_features if not dual else n_trials) / 2
    decomposing += n_folds * _REDUCTION * rank**3 + _REDUCTION * order**3
    decomposing += n_folds * held * rank**2  # the basis of a fold times its held-out rows
    with_eigenvectors = n_targets * (1 + n_alphas) * SUBSTITUTION > EIGENVECTORS * order**2
    if with_eigenvectors:
        decomposing += EIGENVECTORS * order**3
    solving = n_alphas * order * (_EIGEN_COLUMN if with_eigenvectors else SUBSTITUTION)
    solving += order**2 + (n_features * order if dual else order**2 + rows * n_features)
    scoring = n_folds * rank * (rank + NEIGHBOURS * (held + SUBSTITUTION))
    single, values = n_targets * (solving + scoring), 0.0
    sizes = n_trials, round(rank), rows, n_folds, n_alphas
    if forms_pay(*sizes, n_targets, NEIGHBOURS):
        train = rows * (1 - 1 / n_folds)
        once = rank**2 * train
        once += n_alphas * held * (rank * (train + SUBSTITUTION) + train**2 / 2)
        single = n_targets * (solving + NEIGHBOURS * rows**2 / 2) + n_folds * once
        values = forms_values(*sizes)
    settings = FitSettings(
        np.ones(n_alphas), True, False, "dual" if dual else "primal", SINGLE, wide
    )
    splits = Splits(np.arange(n_trials) % n_folds)
    memory = peak_bytes((n_trials, n_features), splits, settings) + 4 * values
    memory += 4 * rows * n_targets
    block = min(block_columns((n_trials, n_features), rows), n_targets)
    memory += 4 * n_features * (n_targets if keeps_weights else block)
    if wide:
        return RidgeCost(single, decomposing, memory)
    return RidgeCost(single + decomposing, 0.0, memory)


def banded_ridge_cost(n_rows: int, n_features: int, n_targets: int, n_folds: int = 5) -> RidgeCost:
    """Return what `banded_ridge_cv` of two feature spaces costs.

    Parameters
    ----------
    n_rows : int
    n_features : int
        Of both spaces together.
    n_targets, n_folds : int

    Returns
    -------
    RidgeCost
    """
    order = min(n_rows, n_features) if n_folds * n_features**3 < n_rows**3 else n_rows
    decomposing = (_REDUCTION + EIGENVECTORS) * order**3 * (1 if order == n_rows else n_folds)
    penalties = _PENALTIES * order**3 / n_folds
    scoring = n_targets * order**2 * (2 + _PENALTIES)
    total = _CANDIDATES * (decomposing + penalties + scoring)
    total += n_rows**2 * n_features / 2
    memory = 4.0 * (6 * order**2 + 2 * n_rows * n_features + 5 * n_rows * n_targets)
    return RidgeCost(total, 0.0, memory + 4 * n_features * n_targets, banded=True)


_CANDIDATES, _PENALTIES = 10, 4
"""Shares of the spaces that a search tries, and penalties for each of them."""
