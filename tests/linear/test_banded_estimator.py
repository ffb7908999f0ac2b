"""The banded ridge estimator: predictions and scores by space, and its files."""

import json

import numpy as np
import pandas as pd
import pytest
from himalaya.ridge import GroupRidgeCV as HimalayaGroupRidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from calcarine.errors import CalcarineError
from calcarine.linear import BandedRidgeCV, RidgeCV, banded_ridge_cv, load, save

pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")

ALPHAS = np.logspace(-1, 4, 11)
LABELS = np.tile(["v1", "it", "ffa"], 5)


def make_data(n=60, p=15, t=4, seed=0, shift=100.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.5, 3, p)
    Y = X @ rng.normal(size=(p, t)) + 3 * rng.normal(size=(n, t)) + 7
    return X + shift, Y


@pytest.fixture(scope="module")
def fitted():
    X, Y = make_data()
    return BandedRidgeCV(LABELS, alphas=ALPHAS, n_candidates=6).fit(X, Y)


@parametrize_with_checks([BandedRidgeCV(alphas=[0.1, 1.0, 10.0], cv=KFold(3), standardize=False)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("target", [slice(None), slice(0, 1), 0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_predictions_of_the_spaces_sum_to_the_prediction(target, fit_intercept):
    X, Y = make_data(shift=3)
    y = Y[:, target]
    model = BandedRidgeCV(LABELS, alphas=ALPHAS, n_candidates=6, fit_intercept=fit_intercept)
    model.fit(X, y)
    parts = model.predict(X, split=True)
    assert parts.shape == (3, *y.shape)
    np.testing.assert_allclose(parts.sum(axis=0) + model.intercept_, model.predict(X), rtol=1e-9)
    for name, part in zip(model.space_names_, parts, strict=True):
        own = name == LABELS
        np.testing.assert_allclose(part, X[:, own] @ model.coef_[..., own].T, rtol=1e-8, atol=1e-8)
    alone = model.predict(X[:1], split=True)
    np.testing.assert_allclose(alone[:, 0], parts[:, 0], rtol=1e-12)


@pytest.mark.parametrize("target", [slice(None), 0])
@pytest.mark.parametrize("weigh", [True, False])
def test_scores_of_the_spaces_sum_to_the_r2(target, weigh):
    X, Y = make_data()
    test, Y_test = make_data(30, seed=1)
    y, y_test = Y[:, target], Y_test[:, target] + 0.5
    weights = np.random.default_rng(2).integers(0, 4, 30) if weigh else None
    model = BandedRidgeCV(LABELS, alphas=ALPHAS, n_candidates=6).fit(X, y)
    shares = model.score(test, y_test, weights, split=True)
    expected = r2_score(
        y_test, model.predict(test), sample_weight=weights, multioutput="raw_values"
    )
    assert shares.shape == (3, *y.shape[1:])
    np.testing.assert_allclose(np.atleast_1d(shares.sum(axis=0)), expected, rtol=1e-8)
    assert model.score(test, y_test, weights) == pytest.approx(expected.mean())
    if weigh:
        often = [part.repeat(weights, axis=0) for part in (test, y_test)]
        np.testing.assert_allclose(shares, model.score(*often, split=True), rtol=1e-8)


def test_splits_are_those_of_himalaya():
    """Theirs know no intercept, so data are centred."""
    X, Y = make_data(shift=0)
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    gammas = np.array([[0.2, 0.3, 0.5]])
    numbers = np.unique(LABELS, return_inverse=True)[1]
    options = {"n_iter": gammas, "alphas": np.array([5.0]), "progress_bar": False}
    theirs = HimalayaGroupRidgeCV(groups=numbers, cv=KFold(3), solver_params=options).fit(X, Y)
    ours = BandedRidgeCV(LABELS, alphas=[5.0], fit_intercept=False, standardize=False).fit(X, Y)
    # The search chooses gammas of its own; both are given the same solution.
    result = banded_ridge_cv(
        [X[:, numbers == s] for s in range(3)],
        Y,
        alphas=[5.0],
        gammas=gammas,
        fit_intercept=False,
        standardize=False,
    )
    ours.coef_ = np.empty((4, 15))
    for s in range(3):
        ours.coef_[:, numbers == s] = result.coefs[s].T
    ours.gamma_ = result.gamma
    np.testing.assert_allclose(np.concatenate(result.coefs), theirs.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        ours.predict(X, split=True), theirs.predict(X, split=True), rtol=1e-8, atol=1e-9
    )
    np.testing.assert_allclose(
        ours.score(X, Y, split=True), theirs.score(X, Y, split=True), rtol=1e-8, atol=1e-10
    )


def test_choices_are_those_of_himalaya_with_its_own_loss():
    """Its default loss, the mean squared error, pools over folds as r2 does here."""
    X, Y = make_data(120, 15, 80, seed=5, shift=0)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    gammas = np.random.default_rng(0).dirichlet(np.ones(3), 12)
    numbers = np.unique(LABELS, return_inverse=True)[1]
    options = {"n_iter": gammas, "alphas": ALPHAS, "progress_bar": False}
    theirs = HimalayaGroupRidgeCV(
        groups=numbers, cv=KFold(4), fit_intercept=True, solver_params=options
    ).fit(X, Y)
    result = banded_ridge_cv(
        [X[:, numbers == s] for s in range(3)],
        Y,
        alphas=ALPHAS,
        gammas=gammas,
        standardize=False,
        cv=KFold(4),
    )
    assert len(np.unique(result.alpha)) > 2 and len(np.unique(result.gamma[0])) > 2
    np.testing.assert_allclose(np.log(result.gamma / result.alpha), theirs.deltas_, rtol=1e-9)


def test_splits_that_do_not_fit_are_refused(fitted):
    X, Y = make_data()
    for call, message in [
        (lambda: BandedRidgeCV().predict(X, split=True), "not fitted"),
        (lambda: BandedRidgeCV().score(X, Y, split=True), "not fitted"),
        (lambda: fitted.predict(X[:, 1:], split=True), "14 features"),
        (lambda: fitted.score(X, Y[:, 1:], split=True), "y has 3 targets but the fit had 4"),
        (lambda: fitted.score(X, Y[1:], split=True), "X has 60 rows but y has 59"),
        (lambda: fitted.score(X, np.full_like(Y, np.nan), split=True), "y holds NaN"),
        (lambda: fitted.score(X, Y, np.ones(3), split=True), r"sample_weight has shape \(3,\)"),
        (lambda: fitted.predict(np.full_like(X, np.inf), split=True), "X holds NaN, inf"),
    ]:
        with pytest.raises(CalcarineError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [slice(None), 0])
@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.tolist(), np.tile([3, 1, 2], 5), np.tile([0.5, 1.5, 2.5], 5), None]
)
def test_round_trip(labels, target, tmp_path):
    X, Y = make_data()
    frame = pd.DataFrame(X, columns=[f"voxel{i}" for i in range(15)])
    model = BandedRidgeCV(labels, alphas=ALPHAS, n_candidates=np.int64(6), dtype="float32")
    model.fit(frame, Y[:, target])
    for stem in save(model, tmp_path / "model"):
        loaded = load(stem)
        assert isinstance(loaded, BandedRidgeCV)
        assert set(vars(loaded)) == set(vars(model))
        for name in (name for name in vars(model) if name.endswith("_")):
            assert np.shape(getattr(loaded, name)) == np.shape(getattr(model, name))
            np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
        for split in (True, False):
            np.testing.assert_array_equal(
                loaded.predict(frame, split=split), model.predict(frame, split=split)
            )
    np.testing.assert_array_equal(loaded.fit(frame, Y[:, target]).coef_, model.coef_)


def test_the_penalty_of_a_space_without_weight_comes_back(tmp_path):
    X, Y = make_data()
    X[:, LABELS == "it"] = 1.0
    model = BandedRidgeCV(LABELS, alphas=ALPHAS).fit(X, Y)
    assert np.isinf(model.penalties_).any()
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").penalties_, model.penalties_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "calcarine-ridge-2"}, "params do not match RidgeCV"),
        ({"space_names": ["a"]}, "its spaces do not match"),
        ({"solver": "svd"}, "solver is unknown"),
        ({"params": {}}, "params do not match BandedRidgeCV"),
    ],
)
def test_edited_descriptions_are_noticed(fitted, change, message, tmp_path):
    _, path = save(fitted, tmp_path / "model")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CalcarineError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma_", np.nan), ("penalties_", np.nan), ("coef_", np.inf), ("column_spaces_", 3)],
)
def test_spoiled_weights_are_noticed(name, value, tmp_path):
    model = BandedRidgeCV(LABELS, alphas=ALPHAS, n_candidates=3).fit(*make_data())
    getattr(model, name)[..., 0] = value
    save(model, tmp_path / "model")
    with pytest.raises(CalcarineError, match=r"wrong shape|do not exist"):
        load(tmp_path / "model")


def test_other_things_are_not_saved(tmp_path):
    with pytest.raises(CalcarineError, match="not fitted"):
        save(BandedRidgeCV(), tmp_path / "model")
    with pytest.raises(CalcarineError, match="Only a RidgeCV or a BandedRidgeCV"):
        save(RidgeCV, tmp_path / "model")
