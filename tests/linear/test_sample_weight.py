"""Sample weights against scikit-learn's Ridge and against rows that are there several times."""

import itertools

import numpy as np
import pytest
import zarr
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit

from calcarine.errors import CalcarineError
from calcarine.linear import _quadratic_forms, banded_ridge_cv, ridge_cv
from calcarine.linear._backends import NumpyOps
from calcarine.linear._decomposed_predictors import (
    DOUBLE,
    FitSettings,
    ScaledTrials,
    measure_dual,
    measure_primal,
)
from calcarine.linear._decompositions import decompose_dual, decompose_primal
from calcarine.linear._predictors import Splits, fit_scaler, scaled_rows

pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")

ALPHAS = np.array([0.1, 3.0, 100.0, 3000.0])


def make_data(n=48, p=7, t=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.2, 5, p) + rng.normal(size=p)
    Y = X @ rng.normal(size=(p, t)) / 3 + 4 * rng.normal(size=(n, t)) * rng.uniform(0.1, 3, t) + 2
    folds = rng.permutation(np.arange(n) % 4)
    weights = rng.integers(0, 4, n).astype(float)
    return X, Y, folds, weights


def weighted_std(X, weights):
    mean = weights @ X / weights.sum()
    return np.sqrt(weights @ (X - mean) ** 2 / weights.sum())


def refit(X, Y, folds, weights, alpha, *, fit_intercept, standardize, score="r2"):
    """Held-out scores by refitting without each fold, and the weights of all rows."""
    scale = weighted_std(X, weights) if standardize else np.ones(X.shape[1])
    kept = weights > 0  # scikit-learn loses digits where n < p and a weight is zero
    error, cross, sizes = np.zeros(Y.shape[1]), np.zeros(Y.shape[1]), np.zeros((2, Y.shape[1]))
    for fold in np.unique(folds):
        train, held = (folds != fold) & kept, folds == fold
        model = Ridge(alpha, fit_intercept=fit_intercept, solver="svd")
        model.fit(X[train] / scale, Y[train], sample_weight=weights[train])
        guess, own = model.predict(X[held] / scale), weights[held]
        error += own @ (Y[held] - guess) ** 2
        truth = Y[held] - own @ Y[held] / own.sum()
        guess = guess - own @ guess / own.sum()
        cross += own @ (truth * guess)
        sizes += own @ truth**2, own @ guess**2
    total = weights @ (Y - weights @ Y / weights.sum()) ** 2
    scores = 1 - error / total if score == "r2" else cross / np.sqrt(sizes.prod(axis=0))
    full = Ridge(alpha, fit_intercept=fit_intercept, solver="svd")
    full.fit(X[kept] / scale, Y[kept], sample_weight=weights[kept])
    return scores, full.coef_.T / scale[:, None], full.intercept_


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("p", [7, 90])
@pytest.mark.parametrize("score", ["r2", "correlation"])
def test_weighted_folds_are_those_of_refitting(fit_intercept, standardize, p, score):
    X, Y, folds, weights = make_data(p=p)
    weights = weights * np.random.default_rng(1).uniform(0.5, 2, len(weights))
    options = {"fit_intercept": fit_intercept, "standardize": standardize}
    result = ridge_cv(
        X,
        Y,
        alphas=ALPHAS,
        cv=PredefinedSplit(folds),
        sample_weight=weights,
        score=score,
        **options,
    )
    tables = [refit(X, Y, folds, weights, alpha, score=score, **options) for alpha in ALPHAS]
    scores = np.stack([table[0] for table in tables])
    np.testing.assert_allclose(result.cv_curve, scores.mean(axis=1), rtol=1e-7)
    np.testing.assert_array_equal(result.alpha, ALPHAS[scores.argmax(axis=0)])
    assert result.solver == ("primal" if p == 7 else "dual")
    for target, best in enumerate(scores.argmax(axis=0)):
        coef, intercept = tables[best][1:]
        np.testing.assert_allclose(result.coef[:, target], coef[:, target], rtol=1e-7, atol=1e-10)
        if fit_intercept:
            np.testing.assert_allclose(result.intercept[target], intercept[target], rtol=1e-7)


SETTINGS = [
    {},
    {"score": "correlation"},
    {"solver": "dual"},
    {"solver": "dual", "score": "correlation"},
    {"alphas": [1e-13, 1.0]},  # singular values
    {"search": "local", "alphas": np.logspace(-2, 4, 9)},
    {"cv": "logo"},
    {"cv": "logo", "solver": "dual"},
    {"fit_intercept": False},
    {"fit_intercept": False, "standardize": False, "solver": "dual"},
    {"alpha_per": "all"},
    {"dtype": "float32"},
    {"dtype": "float32", "solver": "dual"},
    {"dtype": "float32", "alphas": [1e-4, 1.0]},
    {"cv": "fixed", "alphas": [1.0, 2.0, 3.0, 2.0, 1.0, 50.0]},
    {"device": "torch:cpu"},
    {"device": "torch:cpu", "solver": "dual", "score": "correlation"},
]


# Rows that are there twice leave no residuals of groups where there are as many columns.
SIZES = [*itertools.product(SETTINGS, [7, 40, 90]), ({"cv": "logo", "alphas": [1e-13, 1.0]}, 7)]


@pytest.mark.parametrize(("setting", "p"), SIZES, ids=str)
def test_a_whole_weight_is_a_row_that_is_there_so_often(setting, p):
    X, Y, folds, weights = make_data(p=p)
    setting = {"alphas": ALPHAS, **setting}
    often = weights.astype(int)
    groups = np.arange(len(X)) // 2  # a group is one fold
    folds = folds[groups * 2]

    def fit(X, Y, folds, groups, weights):
        cv = {"cv": PredefinedSplit(folds)} | setting
        return ridge_cv(X, Y, groups=groups, sample_weight=weights, **{**setting, **cv})

    ours = fit(X, Y, folds, groups, weights)
    repeated = fit(*(part.repeat(often, axis=0) for part in (X, Y, folds, groups)), None)
    rough = setting.get("dtype") == "float32"
    tolerance = {"rtol": 2e-3, "atol": 2e-3} if rough else {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_array_equal(ours.alpha, repeated.alpha)
    np.testing.assert_allclose(ours.cv_scores, repeated.cv_scores, **tolerance)
    np.testing.assert_allclose(ours.predict(X), repeated.predict(X), **tolerance)


@pytest.mark.parametrize("cv", ["kfold", "logo", "gcv", "fixed"])
@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("alphas", [[2.0], [1e-13]])  # the last by singular values
@pytest.mark.parametrize("p", [20, 90])
def test_a_trial_without_weight_is_not_there(cv, solver, alphas, p):
    X, Y, folds, weights = make_data(p=p)
    weights = weights * np.random.default_rng(1).uniform(0.5, 2, len(weights))
    groups = folds * 3 + np.arange(48) % 3  # of trials with and without weight
    weights[groups == groups[0]] = 0
    kept = weights > 0

    def fit(rows):
        choice = PredefinedSplit(folds[rows]) if cv == "kfold" else cv
        options = {"groups": groups[rows], "sample_weight": weights[rows], "solver": solver}
        return ridge_cv(X[rows], Y[rows], alphas=alphas, cv=choice, **options)

    ours, without = fit(np.arange(48)), fit(np.flatnonzero(kept))
    if alphas == [2.0]:
        assert ours.solver == without.solver
    np.testing.assert_allclose(ours.cv_scores, without.cv_scores, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.coef, without.coef, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("forms", [True, False])
@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_that_share_a_target(monkeypatch, forms, solver, dtype):
    """By quadratic forms and without them, weights are those of every trial."""
    made = []
    monkeypatch.setattr(_quadratic_forms, "forms_pay", lambda *sizes: made.append(1) or forms)
    X, Y, _, weights = make_data(n=48)
    rng = np.random.default_rng(3)
    rows = rng.permutation(np.arange(48) % 20)
    options = {"alphas": ALPHAS, "n_folds": 3, "solver": solver, "dtype": dtype, "groups": rows}
    options["memory"] = 1e9
    shared = ridge_cv(X, Y[:20], target_rows=rows, sample_weight=weights, **options)
    plain = ridge_cv(X, Y[:20][rows], sample_weight=weights, **options)
    assert made
    close = {"rtol": 1e-8, "atol": 1e-10} if dtype == "float64" else {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(shared.cv_curve, plain.cv_curve, **close)
    np.testing.assert_allclose(shared.coef, plain.coef, **close)
    folds = np.array([0, 1, 2])[np.arange(20) % 3][rows]
    given = ridge_cv(
        X,
        Y[:20],
        target_rows=rows,
        sample_weight=weights,
        **{**options, "cv": PredefinedSplit(folds)},
    )
    scores = [
        refit(X, Y[:20][rows], folds, weights, alpha, fit_intercept=True, standardize=True)[0]
        for alpha in ALPHAS
    ]
    np.testing.assert_allclose(given.cv_curve, np.mean(scores, axis=1), **close)


@pytest.mark.parametrize("p", [7, 90])
def test_generalised_cross_validation_takes_weights_as_precisions(p):
    """Weights times a number, and the penalty too, change nothing; the score is the textbook's."""
    X, Y, _, weights = make_data(p=p)
    once = ridge_cv(X, Y, alphas=ALPHAS, cv="gcv", sample_weight=weights)
    scaled = ridge_cv(X, Y, alphas=7 * ALPHAS, cv="gcv", sample_weight=7 * weights)
    np.testing.assert_allclose(once.cv_curve, scaled.cv_curve, rtol=1e-8)
    np.testing.assert_allclose(once.coef, scaled.coef, rtol=1e-7)
    kept = weights > 0
    X, Y, own = X[kept], Y[kept], weights[kept]
    Z = (X - own @ X / own.sum()) / weighted_std(X, own) * np.sqrt(own)[:, None]
    T = (Y - own @ Y / own.sum()) * np.sqrt(own)[:, None]
    n = len(Z)
    for alpha, score in zip(ALPHAS, once.cv_curve, strict=True):
        hat = Z @ np.linalg.solve(Z.T @ Z + alpha * np.eye(p), Z.T)
        left = n - 1 - np.trace(hat)
        r2 = 1 - n * ((T - hat @ T) ** 2).sum(axis=0) / left**2 * n / (T**2).sum(axis=0)
        np.testing.assert_allclose(score, r2.mean(), rtol=1e-7)


def test_precision_is_measured_with_weights():
    """What probes measure of a decomposition is its rounding, not the weights."""
    X, _, _, weights = make_data()
    scaler = fit_scaler(X, fit_intercept=True, standardize=True, sample_weight=weights)
    root = np.sqrt(weights)
    for solver in ("primal", "dual"):
        settings = FitSettings(np.array([0.1]), True, True, solver, DOUBLE)
        x = scaled_rows(X, scaler, DOUBLE, None, root)
        folds = np.repeat([0, 1, 2], 16)
        trials = ScaledTrials(
            x,
            scaler,
            Splits(folds),
            np.arange(48),
            root,
            settings,
            NumpyOps(),
            lambda f, jobs, shared=(): (f(*shared, *job) for job in jobs),
        )
        if solver == "primal":
            design = decompose_primal(trials)
            means = [root[folds != k] @ x[folds != k] / weights[folds != k].sum() for k in range(3)]
            errors = measure_primal(
                x, root, settings, [*design.folds, design.full], [*means, np.zeros(7)]
            )
            assert errors.max() < 1e-11
        else:
            design = decompose_dual(trials)
            assert measure_dual(x, root, settings, design.full) < 1e-11


@pytest.mark.parametrize("p", [7, 90])
def test_rows_on_disk_are_weighted_chunk_by_chunk(p, monkeypatch, tmp_path):
    """A chunk without any weight too."""
    X, Y, folds, weights = make_data(p=p)
    weights[10:20] = 0
    options = {"alphas": ALPHAS, "cv": PredefinedSplit(folds), "sample_weight": weights}
    expected = ridge_cv(X, Y, **options)
    monkeypatch.setattr("calcarine.linear._predictors.CHUNK_VALUES", 5 * p)
    on_disk = zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(5, p))
    result = ridge_cv(on_disk, Y, **options)
    np.testing.assert_allclose(result.coef, expected.coef, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.x_mean, weights @ X / weights.sum(), rtol=1e-10)
    np.testing.assert_allclose(result.x_scale, weighted_std(X, weights), rtol=1e-10)
    np.testing.assert_allclose(result.y_mean, weights @ Y / weights.sum(), rtol=1e-10)


def test_weights_decide_whether_a_folder_holds_the_same_fit(tmp_path):
    X, Y, _, weights = make_data()
    first = ridge_cv(X, Y, alphas=ALPHAS, sample_weight=weights, out=tmp_path / "fit")
    again = ridge_cv(X, Y, alphas=ALPHAS, sample_weight=weights, out=tmp_path / "fit")
    np.testing.assert_array_equal(first.coef, again.coef)
    with pytest.raises(CalcarineError, match="other data or settings"):
        ridge_cv(X, Y, alphas=ALPHAS, sample_weight=weights + 1, out=tmp_path / "fit")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(47), r"shape \(47,\) but X has 48 rows"),
        (np.ones((48, 1)), r"shape \(48, 1\)"),
        (["a"] * 48, "not numeric"),
        (np.r_[np.ones(47), -1], "is -1 at row 47"),
        (np.r_[np.nan, np.ones(47)], "is nan at row 0"),
        (np.r_[np.inf, np.ones(47)], "is inf at row 0"),
        (np.zeros(48), "zero for every trial"),
        (np.r_[np.ones(2), np.zeros(46)], "lie in one fold"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, message):
    X, Y, _, _ = make_data()
    folds = np.repeat([0, 1], 24)
    with pytest.raises(CalcarineError, match=message) as caught:
        ridge_cv(X, Y, sample_weight=weights, cv=PredefinedSplit(folds))
    assert "\n" not in str(caught.value)


def test_equal_weights_change_nothing_but_the_meaning_of_a_penalty():
    X, Y, _, _ = make_data()
    plain = ridge_cv(X, Y, alphas=ALPHAS)
    doubled = ridge_cv(X, Y, alphas=2 * ALPHAS, sample_weight=2.0)
    np.testing.assert_allclose(plain.coef, doubled.coef, rtol=1e-9)
    np.testing.assert_allclose(plain.cv_curve, doubled.cv_curve, rtol=1e-9)


@pytest.mark.parametrize("sizes", [(3, 4), (30, 60)])  # primal and dual
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("score", ["r2", "correlation"])
def test_weighted_banded_ridge_is_that_of_refitting(sizes, fit_intercept, standardize, score):
    X, Y, folds, weights = make_data(p=sum(sizes))
    weights = weights * np.random.default_rng(1).uniform(0.5, 2, len(weights))
    options = {"fit_intercept": fit_intercept, "standardize": standardize}
    spaces, gamma = np.split(X, sizes[:1], axis=1), np.array([0.2, 0.8])
    scale = weighted_std(X, weights) if standardize else np.ones(X.shape[1])
    scaled = X / scale * np.repeat(gamma, sizes) ** 0.5
    for alpha in (0.5, 50.0):
        result = banded_ridge_cv(
            spaces,
            Y,
            alphas=[alpha],
            gammas=[gamma],
            cv=PredefinedSplit(folds),
            sample_weight=weights,
            score=score,
            **options,
        )
        assert result.solver == ("primal" if sum(sizes) == 7 else "dual")
        expected, coef, intercept = refit(
            scaled,
            Y,
            folds,
            weights,
            alpha,
            score=score,
            fit_intercept=fit_intercept,
            standardize=False,
        )
        coef = coef * (np.repeat(gamma, sizes) ** 0.5 / scale)[:, None]
        np.testing.assert_allclose(result.cv_scores, expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(np.concatenate(result.coefs), coef, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(result.intercept, intercept, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("score", ["r2", "correlation"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_banded_ridge_takes_a_whole_weight_for_so_many_rows(solver, score, dtype):
    X, Y, folds, weights = make_data()
    often = weights.astype(int)
    options = {"alphas": ALPHAS, "solver": solver, "score": score, "dtype": dtype}
    options["n_candidates"] = 8

    def fit(X, Y, folds, weights):
        spaces = np.split(X, [2, 4], axis=1)
        return banded_ridge_cv(
            spaces, Y, cv=PredefinedSplit(folds), sample_weight=weights, **options
        )

    ours = fit(X, Y, folds, weights)
    repeated = fit(*(part.repeat(often, axis=0) for part in (X, Y, folds)), None)
    close = {"rtol": 1e-6, "atol": 1e-8} if dtype == "float64" else {"rtol": 1e-2, "atol": 1e-3}
    np.testing.assert_allclose(ours.gamma, repeated.gamma, **close)
    np.testing.assert_allclose(ours.cv_scores, repeated.cv_scores, **close)
    np.testing.assert_allclose(ours.intercept, repeated.intercept, **close)
    for mine, theirs in zip(ours.coefs, repeated.coefs, strict=True):
        np.testing.assert_allclose(mine, theirs, **close)
    for means in ("x_mean", "x_scale"):
        for mine, theirs in zip(getattr(ours, means), getattr(repeated, means), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-10)
