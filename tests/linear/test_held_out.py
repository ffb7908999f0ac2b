"""Held-out predictions for given penalties, against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from calcarine.linear import ComputedMatrix, RidgeError, grouped_folds, iter_held_out


def data(n=40, p=6, t=7):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p)) * np.geomspace(1, 9, p)
    return x, x @ rng.normal(size=(p, t)) + rng.normal(size=(n, t)) + 3


def collected(x, y, alphas, **options):
    n = len(x)
    found = np.full((n, y.shape[1]), np.nan)
    for rows, columns, predicted in iter_held_out(x, y, alphas, **options):
        assert np.isnan(found[rows, columns]).all()
        found[rows, columns] = predicted
    return found


@pytest.mark.parametrize("intercept", [True, False])
def test_they_are_those_of_scikit_learn(intercept):
    x, y = data()
    alphas = np.geomspace(0.1, 100, 7)
    groups = np.arange(40) // 2
    folds = grouped_folds(groups, 4)
    expected = np.empty_like(y)
    for fold in range(4):
        kept = folds != fold
        scaler = StandardScaler(with_mean=intercept).fit(x[kept])
        ridge = Ridge(alphas, fit_intercept=intercept).fit(scaler.transform(x[kept]), y[kept])
        expected[~kept] = ridge.predict(scaler.transform(x[~kept]))
    options = {"groups": groups, "n_folds": 4, "fit_intercept": intercept}
    np.testing.assert_allclose(collected(x, y, alphas, **options), expected, rtol=1e-6)


def test_targets_by_stimulus_and_in_blocks():
    x, y = data()
    of_trial = np.arange(40) // 2
    whole = collected(x, y[::2][of_trial], 3.0, groups=of_trial, n_folds=5)
    computed = ComputedMatrix((20, 7), np.float64, lambda columns: y[::2][:, columns])
    for targets in (y[::2], computed):
        blocks = collected(x, targets, 3.0, target_rows=of_trial, n_folds=5, block_size=3)
        np.testing.assert_allclose(blocks, whole, rtol=1e-6)


def test_a_row_for_each_trial_is_needed():
    x, y = data()
    with pytest.raises(RidgeError, match="names 39 rows for 40 trials"):
        next(iter_held_out(x, y, 1.0, target_rows=np.arange(39)))
