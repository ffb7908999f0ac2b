"""What scikit-learn's own tools read from the estimators, and what they pass to them."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save as format_safetensors
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.linear_model import Ridge
from sklearn.linear_model import RidgeCV as SklearnRidgeCV

from calcarine.linear import BandedRidgeCV, RidgeCV, load

pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")

ESTIMATORS = [RidgeCV, BandedRidgeCV]


def make_data(n=60, p=12, t=3, seed=0):
    """Columns 1 and 9 carry the signal."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    W = np.zeros((p, t))
    W[[1, 9]] = rng.normal(size=(2, t)) + 2
    return X, X @ W + 5 + 0.5 * rng.normal(size=(n, t))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("alpha", [0.1, 30.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("target", [slice(None), slice(0, 1), 0])
def test_coef_is_that_of_scikit_learn(estimator, alpha, fit_intercept, target):
    X, Y = make_data()
    y = Y[:, target]
    options = {"alphas": [alpha], "standardize": False, "fit_intercept": fit_intercept}
    model = estimator(**options).fit(X, y)
    theirs = Ridge(alpha, fit_intercept=fit_intercept).fit(X, y)
    if y.shape[1:] == (1,):  # as LinearRegression; Ridge differs between versions
        assert model.coef_.shape == (1, 12)
    else:
        assert model.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(
        model.coef_, theirs.coef_.reshape(model.coef_.shape), rtol=1e-8, atol=1e-8
    )
    if fit_intercept:
        assert np.shape(model.intercept_) == np.shape(theirs.intercept_)
    np.testing.assert_allclose(model.intercept_, theirs.intercept_, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.predict(X), X @ model.coef_.T + model.intercept_, rtol=1e-9)


@pytest.mark.parametrize("n", [60, 10])  # primal and dual
def test_coef_of_columns_that_are_scattered_over_spaces(n):
    X, Y = make_data(n)
    labels = np.tile(["b", "a", "c"], 4)
    model = BandedRidgeCV(labels, alphas=[1.0], n_candidates=1, standardize=False).fit(X, Y)
    scale = np.sqrt(model.gamma_[np.searchsorted(model.space_names_, labels)])
    for target in range(3):
        theirs = Ridge(model.alpha_[target]).fit(X * scale[:, target], Y[:, target])
        np.testing.assert_allclose(
            model.coef_[target], theirs.coef_ * scale[:, target], rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("target", [slice(None), 0])
def test_feature_selection_keeps_what_scikit_learn_keeps(estimator, target):
    X, Y = make_data()
    y = Y[:, target]
    for selector in (
        lambda model: RFE(model, n_features_to_select=2),
        lambda model: SelectFromModel(model, threshold=-np.inf, max_features=2),
    ):
        theirs = selector(SklearnRidgeCV()).fit(X, y).get_support()
        ours = selector(estimator()).fit(X, y).get_support()
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(np.flatnonzero(ours), [1, 9])


def test_weights_are_turned_without_a_copy():
    X, Y = make_data(20, 12, 40)
    model = RidgeCV().fit(X, Y)
    assert model.coef_.shape == (40, 12) and model.coef_.base is not None
    assert model.coef_.flags.f_contiguous


@pytest.mark.parametrize("vector", [False, True])
def test_files_of_the_layout_before_this_one_are_read(vector, tmp_path):
    """Weights lie on disk as (p, t), whatever the attribute's shape."""
    rng = np.random.default_rng(0)
    p, t = 3, 1 if vector else 2
    coef = rng.normal(size=(p, t))
    tensors = {
        "coef_": coef,
        **{name: np.full(t, 2.0) for name in ("intercept_", "alpha_", "best_score_", "y_mean_")},
        "x_mean_": np.zeros(p),
        "x_scale_": np.ones(p),
        "alphas_": np.ones(1),
        "cv_curve_": np.ones(1),
    }
    content = format_safetensors(tensors)
    (tmp_path / "old.safetensors").write_bytes(content)
    params = {"alphas": [1.0], "cv": "kfold", "n_folds": 5, "search": "full", "device": "cpu"}
    params |= {"fit_intercept": True, "standardize": True, "alpha_per": "target"}
    params |= {"scoring": "r2", "solver": "auto", "dtype": "auto", "block_size": None}
    about = {
        "format": "calcarine-ridge-2",
        "params": params,
        "solver": "primal",
        "edge_fractions": [0.0, 0.0],
        "vector_target": vector,
        "feature_names": None,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (tmp_path / "old.json").write_text(json.dumps(about))
    model = load(tmp_path / "old")
    X = rng.normal(size=(4, p))
    assert model.coef_.shape == ((p,) if vector else (t, p))
    expected = X @ coef + 2
    np.testing.assert_allclose(model.predict(X), expected[:, 0] if vector else expected)
