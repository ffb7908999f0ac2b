"""Banded ridge against the closed form, scikit-learn, himalaya and its own invariances."""

import warnings

import numpy as np
import pandas as pd
import pytest
from himalaya.ridge import GroupRidgeCV as HimalayaGroupRidgeCV
from himalaya.scoring import r2_score_split
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import PredefinedSplit
from sklearn.utils.estimator_checks import parametrize_with_checks

from calcarine.errors import CalcarineError
from calcarine.linear import (
    BandedRidgeCV,
    RidgeEdgeWarning,
    banded_ridge_cv,
    grouped_folds,
    partition_variance,
    ridge_cv,
    split_r2,
)

ALPHAS = np.logspace(-1, 5, 13)
GAMMAS = np.array([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")


def make_data(n=90, widths=(6, 9, 4), t=6, *, seed=0, noise=1.0):
    """Three repeats a stimulus; target j hears mostly space j modulo S; scales and means differ."""
    rng = np.random.default_rng(seed)
    Xs, signal = [], np.zeros((n, t))
    for s, width in enumerate(widths):
        latent = np.repeat(rng.normal(size=(n // 3, width)), 3, axis=0)
        latent += 0.3 * rng.normal(size=(n, width))
        heard = np.where(np.arange(t) % len(widths) == s, 1.0, 0.1)
        signal += latent @ rng.normal(size=(width, t)) / np.sqrt(width) * heard
        Xs.append(latent * rng.uniform(0.1, 10, width) + 3 * rng.normal(size=width))
    Y = signal + noise * rng.normal(size=(n, t)) + 5.0
    return Xs, Y, np.repeat(np.arange(n // 3), 3)


def scaled(Xs, standardize=True):
    return [X / X.std(axis=0) if standardize else X for X in Xs]


def closed_form(Xs, Y, penalties, fit_intercept=True):
    """Weights and intercept from the block-penalised normal equations."""
    X = np.concatenate(Xs, axis=1)
    diagonal = np.diag(np.repeat(penalties, [x.shape[1] for x in Xs]))
    x_mean, y_mean = X.mean(axis=0) * fit_intercept, Y.mean(axis=0) * fit_intercept
    Z = X - x_mean
    weights = np.linalg.solve(Z.T @ Z + diagonal, Z.T @ (Y - y_mean))
    return weights, y_mean - x_mean @ weights


def refitted(Xs, Y, penalties, folds, fit_intercept=True):
    """Held-out predictions by fitting once per fold."""
    guess = np.empty_like(Y)
    for fold in np.unique(folds):
        train, held = folds != fold, folds == fold
        weights, intercept = closed_form([X[train] for X in Xs], Y[train], penalties, fit_intercept)
        guess[held] = np.concatenate([X[held] for X in Xs], axis=1) @ weights + intercept
    return guess


@pytest.mark.parametrize("widths", [(6, 9, 4), (50, 70, 30)])
@pytest.mark.parametrize(("fit_intercept", "standardize"), [(1, 1), (1, 0), (0, 1), (0, 0)])
@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_agrees_with_the_normal_equations(widths, fit_intercept, standardize, solver):
    Xs, Y, groups = make_data(widths=widths)
    result = banded_ridge_cv(
        Xs,
        Y,
        alphas=[7.0],
        gammas=GAMMAS[:1],
        groups=groups,
        fit_intercept=bool(fit_intercept),
        standardize=bool(standardize),
        solver=solver,
    )
    Zs = scaled(Xs, standardize)
    weights, intercept = closed_form(Zs, Y, 7.0 / GAMMAS[0], fit_intercept)
    scale = np.concatenate([X.std(axis=0) if standardize else X[0] * 0 + 1 for X in Xs])
    np.testing.assert_allclose(
        np.concatenate(result.coefs) * scale[:, None], weights, rtol=1e-8, atol=1e-11
    )
    np.testing.assert_allclose(result.intercept, intercept, rtol=1e-8, atol=1e-9)
    guess = refitted(Zs, Y, 7.0 / GAMMAS[0], grouped_folds(groups, 5), fit_intercept)
    expected = r2_score(Y, guess, multioutput="raw_values")
    np.testing.assert_allclose(result.cv_scores, expected, rtol=1e-9, atol=1e-10)
    assert result.solver == solver


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("score", ["r2", "correlation"])
def test_choice_is_the_best_of_all_refits(solver, score):
    """Every gamma with every alpha, as if fitted anew for every fold."""
    Xs, Y, groups = make_data()
    result = banded_ridge_cv(
        Xs, Y, alphas=ALPHAS, gammas=GAMMAS, groups=groups, solver=solver, score=score
    )
    folds = grouped_folds(groups, 5)
    table = np.empty((len(GAMMAS), len(ALPHAS), Y.shape[1]))
    for g, gamma in enumerate(GAMMAS):
        for a, alpha in enumerate(ALPHAS):
            live = np.flatnonzero(gamma)
            Zs = [scaled(Xs)[s] for s in live]
            guess, truth = refitted(Zs, Y, alpha / gamma[live], folds), Y.copy()
            if score == "r2":
                table[g, a] = r2_score(truth, guess, multioutput="raw_values")
                continue
            for fold in range(5):
                for values in (guess, truth):
                    values[folds == fold] -= values[folds == fold].mean(axis=0)
            size = np.sqrt((guess**2).sum(axis=0) * (truth**2).sum(axis=0))
            table[g, a] = (guess * truth).sum(axis=0) / size
    np.testing.assert_allclose(result.cv_scores, table.max(axis=(0, 1)), rtol=1e-8)
    best = [np.unravel_index(table[:, :, j].argmax(), table.shape[:2]) for j in range(6)]
    np.testing.assert_array_equal(result.gamma.T, [GAMMAS[g] for g, _ in best])
    np.testing.assert_array_equal(result.alpha, [ALPHAS[a] for _, a in best])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(result.penalties, result.alpha / result.gamma)
    assert len({g for g, _ in best}) > 1


@pytest.mark.parametrize("widths", [(6, 9, 4), (50, 70, 30)])
def test_agrees_with_scikit_learn_on_scaled_columns(widths):
    """Ridge on columns times the root of gamma, at what the search has chosen."""
    Xs, Y, groups = make_data(widths=widths)
    result = banded_ridge_cv(Xs, Y, alphas=ALPHAS, groups=groups, n_candidates=10)
    for j in range(Y.shape[1]):
        Z = np.concatenate(
            [Z * np.sqrt(g) for Z, g in zip(scaled(Xs), result.gamma[:, j], strict=True)], axis=1
        )
        oracle = Ridge(alpha=result.alpha[j], solver="svd").fit(Z, Y[:, j])
        np.testing.assert_allclose(result.predict(Xs)[:, j], oracle.predict(Z), rtol=1e-8)
    np.testing.assert_allclose(result.gamma.sum(axis=0), 1.0)
    np.testing.assert_allclose(
        np.concatenate(Xs, axis=1) @ np.concatenate(result.coefs) + result.intercept,
        result.predict(Xs),
        rtol=1e-9,
    )


@pytest.mark.parametrize("width", [19, 150])
@pytest.mark.parametrize("score", ["r2", "correlation"])
def test_one_space_is_ridge(width, score):
    Xs, Y, groups = make_data(widths=(width,))
    options = {"alphas": ALPHAS, "groups": groups, "score": score}
    result, oracle = banded_ridge_cv(Xs, Y, **options), ridge_cv(Xs[0], Y, **options)
    np.testing.assert_array_equal(result.alpha, oracle.alpha)
    np.testing.assert_array_equal(result.gamma, np.ones((1, 6)))
    np.testing.assert_allclose(result.predict(Xs), oracle.predict(Xs[0]), rtol=1e-8)
    np.testing.assert_allclose(result.coefs[0], oracle.coef, rtol=1e-6, atol=1e-10)


def test_fixed_solution_is_that_of_himalaya():
    Xs, Y, groups = make_data()
    Zs = [Z - Z.mean(axis=0) for Z in scaled(Xs)]
    result = banded_ridge_cv(Xs, Y, alphas=[20.0], gammas=GAMMAS[:1], groups=groups)
    theirs = HimalayaGroupRidgeCV(
        groups="input",
        cv=3,
        solver_params={"n_iter": GAMMAS[:1], "alphas": np.array([20.0]), "progress_bar": False},
    ).fit(Zs, Y - Y.mean(axis=0))
    scale = np.concatenate([X.std(axis=0) for X in Xs])
    np.testing.assert_allclose(
        np.concatenate(result.coefs) * scale[:, None], theirs.coef_, rtol=1e-8, atol=1e-11
    )
    np.testing.assert_allclose(np.log(result.gamma / result.alpha), theirs.deltas_, rtol=1e-9)


def test_search_finds_what_fifty_random_draws_find():
    """Their choice is scored by the exact cross-validation that chose ours."""
    Xs, Y, groups = make_data(90, (15, 20, 10), 12, seed=3)
    folds = grouped_folds(groups, 5)
    theirs = HimalayaGroupRidgeCV(
        groups="input",
        cv=PredefinedSplit(folds),
        random_state=0,
        fit_intercept=True,
        solver_params={"n_iter": 50, "alphas": ALPHAS, "progress_bar": False},
    ).fit(scaled(Xs), Y)
    guesses = [
        refitted(scaled(Xs), Y[:, j : j + 1], np.exp(-theirs.deltas_[:, j]), folds)
        for j in range(12)
    ]
    expected = r2_score(Y, np.concatenate(guesses, axis=1), multioutput="raw_values")
    result = banded_ridge_cv(Xs, Y, alphas=ALPHAS, groups=groups)
    assert len(result.candidates) <= 48
    assert result.cv_scores.mean() >= expected.mean()
    assert (result.cv_scores >= expected - 0.01).all()


def test_targets_find_their_space():
    """Against much noise in the other spaces, banded ridge predicts new rows better than ridge."""
    Xs, Y, groups = make_data(210, (30, 40, 20), 9, seed=5, noise=0.5)
    fit, test = slice(0, 120), slice(120, 210)
    result = banded_ridge_cv([X[fit] for X in Xs], Y[fit], alphas=ALPHAS, groups=groups[fit])
    plain = ridge_cv(np.concatenate(Xs, axis=1)[fit], Y[fit], alphas=ALPHAS, groups=groups[fit])
    np.testing.assert_array_equal(result.gamma.argmax(axis=0), np.arange(9) % 3)
    ours = r2_score(Y[test], result.predict([X[test] for X in Xs]))
    assert ours > r2_score(Y[test], plain.predict(np.concatenate(Xs, axis=1)[test])) + 0.05


def test_more_candidates_go_on_from_fewer():
    Xs, Y, groups = make_data()
    options = {"alphas": ALPHAS, "groups": groups}
    few = banded_ridge_cv(Xs, Y, n_candidates=8, **options)
    many = banded_ridge_cv(Xs, Y, n_candidates=20, **options)
    assert 8 == len(few.candidates) < len(many.candidates) <= 20
    np.testing.assert_array_equal(many.candidates[:8], few.candidates)
    assert (many.cv_scores >= few.cv_scores).all()
    assert many.cv_scores.mean() > few.cv_scores.mean()
    np.testing.assert_allclose(few.candidates[1:4].max(axis=1), 1.0)
    one = banded_ridge_cv(Xs, Y, n_candidates=1, **options)
    assert one.candidates.shape == (1, 3)


def test_blocks_names_and_single_precision_change_little():
    Xs, Y, groups = make_data()
    options = {"alphas": ALPHAS, "groups": groups, "n_candidates": 6}
    whole = banded_ridge_cv(Xs, Y, **options)
    blocks = banded_ridge_cv(Xs, Y, block_size=4, **options)
    np.testing.assert_allclose(blocks.predict(Xs), whole.predict(Xs), rtol=1e-9)
    named = dict(zip("abc", Xs, strict=True))
    result = banded_ridge_cv(named, Y, **options)
    assert (result.names, whole.names) == (("a", "b", "c"), ("0", "1", "2"))
    np.testing.assert_array_equal(result.predict(dict(reversed(named.items()))), whole.predict(Xs))
    single = banded_ridge_cv(Xs, Y.astype("f4"), dtype="float32", **options)
    assert {coef.dtype for coef in single.coefs} == {np.dtype("f4")}
    np.testing.assert_allclose(single.cv_scores, whole.cv_scores, atol=1e-3)
    parts = whole.predict_spaces(Xs)
    np.testing.assert_allclose(parts.sum(axis=0) + whole.y_mean, whole.predict(Xs), rtol=1e-10)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-6, 1e6),
    flip=st.booleans(),
    shift=st.floats(-10, 10),
    wide=st.booleans(),
)
def test_scaling_a_space_changes_nothing_when_standardised(seed, scale, flip, shift, wide):
    Xs, Y, groups = make_data(30, (5, 20 if wide else 3), 3, seed=seed)
    factor = -scale if flip else scale
    moved = [Xs[0], (Xs[1] + shift) * factor]
    options = {"alphas": [1.0, 10.0, 100.0], "groups": groups, "gammas": [[0.3, 0.7], [1, 0]]}
    a, b = banded_ridge_cv(Xs, Y, **options), banded_ridge_cv(moved, Y, **options)
    np.testing.assert_allclose(b.cv_scores, a.cv_scores, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(b.predict(moved), a.predict(Xs), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(b.coefs[1] * factor, a.coefs[1], rtol=1e-6, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.permutations(range(3)))
def test_permuted_spaces_give_permuted_results(seed, order):
    Xs, Y, groups = make_data(45, (4, 6, 3), 3, seed=seed)
    options = {"alphas": ALPHAS, "groups": groups, "n_candidates": 7}
    a = banded_ridge_cv(Xs, Y, **options)
    b = banded_ridge_cv([Xs[s] for s in order], Y, **options)
    np.testing.assert_allclose(b.candidates, a.candidates[:, order], rtol=1e-9)
    np.testing.assert_allclose(b.cv_scores, a.cv_scores, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(b.gamma, a.gamma[order], rtol=1e-9)
    np.testing.assert_allclose(b.coefs[0], a.coefs[order[0]], rtol=1e-6, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), fit_intercept=st.booleans(), offset=st.floats(-5, 5))
def test_shares_sum_to_the_r2(seed, fit_intercept, offset):
    Xs, Y, groups = make_data(45, (4, 6, 3), 3, seed=seed)
    result = banded_ridge_cv(
        Xs, Y, alphas=ALPHAS, groups=groups, n_candidates=6, fit_intercept=fit_intercept
    )
    test, Y_test, _ = make_data(30, (4, 6, 3), 3, seed=seed + 1)
    Y_test += offset
    expected = r2_score(Y_test, result.predict(test), multioutput="raw_values")
    shares = split_r2(result, test, Y_test)
    np.testing.assert_allclose(shares.sum(axis=0), expected, rtol=1e-8, atol=1e-9)


def test_shares_are_those_of_himalaya():
    Xs, Y, groups = make_data()
    Xs, Y = [X - X.mean(axis=0) for X in Xs], Y - Y.mean(axis=0)
    result = banded_ridge_cv(
        Xs, Y, alphas=ALPHAS, groups=groups, n_candidates=6, fit_intercept=False
    )
    theirs = r2_score_split(Y, result.predict_spaces(Xs))
    np.testing.assert_allclose(split_r2(result, Xs, Y), theirs, rtol=1e-9, atol=1e-12)


def test_variance_partition_tells_the_spaces_apart():
    Xs, Y, groups = make_data(300, (5, 8, 4), 6, seed=2, noise=0.5)
    fit, test = slice(0, 180), slice(180, 300)
    named = dict(zip(("edges", "words", "faces"), Xs, strict=True))
    train = {name: X[fit] for name, X in named.items()}
    fresh = {name: X[test] for name, X in named.items()}
    options = {"alphas": ALPHAS, "groups": groups[fit], "n_candidates": 8}
    parts = partition_variance(train, Y[fit], fresh, Y[test], **options)
    assert parts.names == ("edges", "words", "faces")
    full = banded_ridge_cv(train, Y[fit], **options)
    expected = r2_score(Y[test], full.predict(fresh), multioutput="raw_values")
    np.testing.assert_allclose(parts.r2, expected, rtol=1e-9)
    np.testing.assert_allclose(parts.shares.sum(axis=0), expected, rtol=1e-9)
    own = np.arange(6) % 3
    np.testing.assert_array_equal(parts.shares.argmax(axis=0), own)
    np.testing.assert_array_equal(parts.unique.argmax(axis=0), own)
    assert (parts.unique[own, np.arange(6)] > 0.4).all()
    without = banded_ridge_cv([Xs[0][fit], Xs[2][fit]], Y[fit], **options)
    rest = r2_score(Y[test], without.predict([Xs[0][test], Xs[2][test]]), multioutput="raw_values")
    np.testing.assert_allclose(parts.unique[1], expected - rest, atol=1e-3)
    again = partition_variance(train, Y[fit], fresh, Y[test], result=full, **options)
    assert again.result is full
    np.testing.assert_allclose(again.unique, parts.unique, rtol=1e-9)


def test_variance_of_the_only_space_is_its_own():
    Xs, Y, groups = make_data(widths=(6,))
    parts = partition_variance(Xs, Y, Xs, Y, alphas=[1.0], groups=groups)
    np.testing.assert_allclose(parts.unique[0], parts.r2, rtol=1e-9)
    np.testing.assert_allclose(parts.shares[0], parts.r2, rtol=1e-9)


def test_constant_targets_of_the_test_have_no_variance_to_share():
    Xs, Y, groups = make_data()
    fresh = Y.copy()
    fresh[:, 2] = 4.1
    parts = partition_variance(Xs, Y, Xs, fresh, alphas=[1.0], groups=groups, n_candidates=2)
    assert not parts.shares[:, 2].any() and not parts.unique[:, 2].any() and parts.r2[2] == 0


@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_hard_columns(solver):
    """Constant and duplicate columns, a space without variance, a constant target."""
    Xs, Y, groups = make_data()
    Xs[0][:, 2] = 7.3
    Xs[1][:, 3] = Xs[1][:, 2]
    Xs.append(np.full((90, 2), 0.1))
    Y[:, 4] = -2.2
    options = {"alphas": ALPHAS, "groups": groups, "n_candidates": 9, "solver": solver}
    result = banded_ridge_cv(Xs, Y, **options)
    assert not result.coefs[0][2].any() and not result.coefs[3].any() and not result.gamma[3].any()
    assert np.isinf(result.penalties[3]).all()
    np.testing.assert_allclose(result.coefs[1][3], result.coefs[1][2], rtol=1e-6, atol=1e-10)
    assert result.cv_scores[4] == 0
    np.testing.assert_allclose(result.predict(Xs)[:, 4], -2.2, rtol=1e-13)
    bare = banded_ridge_cv(Xs[:3], Y, **options)
    np.testing.assert_allclose(result.predict(Xs), bare.predict(Xs[:3]), rtol=1e-9)


def test_nothing_varies():
    result = banded_ridge_cv([np.ones((20, 2)), np.zeros((20, 1))], np.arange(20.0), alphas=[1.0])
    np.testing.assert_allclose(result.predict([np.ones((3, 2)), np.zeros((3, 1))]), 9.5)
    np.testing.assert_allclose(result.gamma.sum(axis=0), 1.0)
    assert result.cv_scores[0] < 0


@pytest.mark.parametrize("widths", [(1, 2), (120, 2)])
@pytest.mark.parametrize("standardize", [True, False])
def test_scales_ten_orders_apart(widths, standardize):
    """The search balances the spaces, so each can be found without standardising."""
    Xs, Y, groups = make_data(90, widths, 2, seed=1, noise=0.3)
    Y[:, 0] += 2 * Xs[0][:, 0] / Xs[0][:, 0].std()
    Xs = [Xs[0] * 1e-5, Xs[1] * 1e5]
    result = banded_ridge_cv(
        Xs, Y, alphas=np.logspace(-12, 12, 49), groups=groups, standardize=standardize
    )
    for s in range(2):
        alone = banded_ridge_cv(
            Xs[s : s + 1],
            Y,
            alphas=np.logspace(-14, 14, 57),
            groups=groups,
            standardize=standardize,
        )
        assert result.cv_scores[s] > alone.cv_scores[s] - 0.02
        assert widths[s] > 100 or result.cv_scores[s] > 0.5
    assert np.isfinite(np.concatenate(result.coefs)).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize(("n", "width"), [(12, 60), (150, 2)])
def test_extreme_shapes_and_penalties(n, width, solver, dtype):
    rng = np.random.default_rng(0)
    Xs = [rng.normal(size=(n, width)) for _ in range(2)]
    y = Xs[0][:, 0] + 0.1 * rng.normal(size=n)
    result = banded_ridge_cv(
        Xs, y, alphas=np.logspace(-30, 30, 21), solver=solver, dtype=dtype, n_candidates=6
    )
    assert result.coefs[0].shape == (width, 1)
    assert np.isfinite(np.concatenate(result.coefs)).all()
    assert result.cv_scores[0] > (0.9 if n == 150 else -0.5)
    guess = refitted(scaled(Xs), y[:, None], np.full(2, 2.0), grouped_folds(None, 5, n_rows=n))
    fixed = banded_ridge_cv(Xs, y, alphas=[1.0], gammas=[[0.5, 0.5]], solver=solver, dtype=dtype)
    expected = r2_score(y, guess[:, 0])
    np.testing.assert_allclose(
        fixed.cv_scores[0], expected, rtol=1e-4 if dtype[-1] == "2" else 1e-9
    )


def test_solver_is_chosen_by_shape():
    Xs, Y, _ = make_data()
    assert banded_ridge_cv(Xs, Y, alphas=[1.0], n_candidates=1).solver == "primal"
    assert (
        banded_ridge_cv([X[:20] for X in Xs], Y[:20], alphas=[1.0], n_candidates=1).solver == "dual"
    )


def test_edges_warn_in_one_sentence():
    Xs, Y, groups = make_data(noise=0.01)
    with pytest.warns(RidgeEdgeWarning, match=r"100.0% chose the lowest") as caught:
        banded_ridge_cv(Xs, Y, alphas=[1e3, 1e4], groups=groups, n_candidates=4)
    assert "widen alphas" in str(caught[0].message) and "\n" not in str(caught[0].message)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        banded_ridge_cv(Xs, Y, alphas=[1.0], groups=groups, n_candidates=4)
        Xs, Y, groups = make_data()
        banded_ridge_cv(Xs, Y, alphas=np.logspace(-6, 8, 29), groups=groups, n_candidates=4)


def _spoil(matrix, place):
    spoiled = matrix.copy()
    spoiled[place] = np.nan
    return spoiled


def test_unusable_input_is_told():
    Xs, Y, groups = make_data()
    named = {"edges": Xs[0], "words": _spoil(Xs[1], (4, 7))}
    cases = [
        ((named, Y), {}, r"Xs\['words'\] holds NaN.*row 4 column 7 \(nan\)"),
        (([Xs[0], _spoil(Xs[1], (5, 0))], Y), {}, r"Xs\[1\] holds NaN.*row 5 column 0"),
        ((Xs, _spoil(Y, (8, 1))), {}, "Y holds NaN.*row 8 column 1"),
        (([], Y), {}, "Xs is empty"),
        (({}, Y), {}, "Xs is empty"),
        ((np.stack([Xs[0], Xs[0]]), Y), {}, "Xs is a ndarray; pass a list"),
        (({1: Xs[0]}, Y), {}, "key 1; name every space by a string"),
        (([Xs[0], Xs[1][:-2]], Y), {}, r"Xs\[1\] has 88 rows but Xs\[0\] has 90"),
        ((Xs, Y[:-1]), {}, r"Xs\[0\] has 90 rows but Y has 89"),
        (([Xs[0][:, 0]], Y), {}, r"Xs\[0\] has one dimension"),
        (([Xs[0][:, :0]], Y), {}, r"Xs\[0\] is empty"),
        (([np.full((90, 2), "a")], Y), {}, "not numeric"),
        ((Xs, Y), {"groups": groups[:-1]}, "groups labels 89 rows"),
        ((Xs, Y), {"groups": groups // 10}, r"only 3 group\(s\) for n_folds=5"),
        ((Xs, Y), {"alphas": [0.0, 1.0]}, "alphas holds 0"),
        ((Xs, Y), {"alphas": [-1.0]}, "alphas holds -1"),
        ((Xs, Y), {"alphas": []}, "at least one penalty"),
        ((Xs, Y), {"gammas": [[0.5, 0.5]]}, r"gammas has shape \(1, 2\) for 3 space"),
        ((Xs, Y), {"gammas": [0.2, 0.3, 0.5]}, "one row per candidate"),
        ((Xs, Y), {"gammas": [[0.5, 0.5, 0.5]]}, "row 0; pass weights.*sum to 1"),
        ((Xs, Y), {"gammas": [[1.5, -0.5, 0.0]]}, "not negative"),
        ((Xs, Y), {"n_candidates": 0}, "n_candidates is 0"),
        ((Xs, Y), {"random_state": -1}, "random_state is -1"),
        ((Xs, Y), {"score": "mse"}, "'r2' or 'correlation'"),
        ((Xs, Y), {"solver": "gpu"}, "solver is 'gpu'"),
        ((Xs, Y), {"dtype": "int8"}, "dtype is 'int8'"),
        ((Xs, Y), {"block_size": 0}, "block_size is 0"),
        ((Xs, Y), {"score": "correlation", "n_folds": 90}, "two trials in every fold"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(CalcarineError, match=message) as caught:
            banded_ridge_cv(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_unusable_test_data_are_told():
    Xs, Y, groups = make_data()
    result = banded_ridge_cv(Xs, Y, alphas=[1.0], groups=groups, n_candidates=1)
    cases = [
        (lambda: result.predict(Xs[:2]), "Xs has 2 spaces but the fit had 3"),
        (lambda: result.predict(dict(zip("abc", Xs, strict=True))), r"Xs has the spaces \['a'"),
        (lambda: result.predict([Xs[0], Xs[1][:, 1:], Xs[2]]), r"Xs\[1\] has 8 columns.*had 9"),
        (lambda: result.predict([Xs[0], Xs[1], _spoil(Xs[2], (1, 2))]), "row 1 column 2"),
        (lambda: split_r2(result, Xs, Y[:, 1:]), "Y_test has 5 targets but the fit had 6"),
        (lambda: split_r2(result, Xs, Y[1:]), "Xs_test has 90 rows but Y_test has 89"),
        (lambda: split_r2(result, Xs, _spoil(Y, (3, 0))), "Y_test holds NaN.*row 3 column 0"),
        (lambda: partition_variance(Xs, Y, Xs, Y, gammas=GAMMAS), "gammas cannot be fixed"),
    ]
    for call, message in cases:
        with pytest.raises(CalcarineError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@parametrize_with_checks([BandedRidgeCV(), BandedRidgeCV(scoring="correlation", n_folds=3)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_estimator_is_the_function():
    """Columns of a space need not lie together."""
    Xs, Y, groups = make_data()
    rng = np.random.default_rng(1)
    labels = np.repeat(["b", "c", "a"], [6, 9, 4])
    order = rng.permutation(19)
    X = pd.DataFrame(np.concatenate(Xs, axis=1)[:, order], columns=[f"x{i}" for i in range(19)])
    model = BandedRidgeCV(labels[order], alphas=ALPHAS, n_candidates=6).fit(X, Y, groups)
    result = banded_ridge_cv([Xs[2], Xs[0], Xs[1]], Y, alphas=ALPHAS, groups=groups, n_candidates=6)
    assert model.space_names_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(model.gamma_, result.gamma, rtol=1e-9)
    np.testing.assert_allclose(model.predict(X), result.predict([Xs[2], Xs[0], Xs[1]]), rtol=1e-8)
    np.testing.assert_allclose(model.best_score_, result.cv_scores, rtol=1e-8)
    np.testing.assert_allclose(model.x_mean_, X.to_numpy().mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(X.to_numpy() @ model.coef_.T + model.intercept_, model.predict(X))
    assert model.score(X, Y) == pytest.approx(r2_score(Y, result.predict([Xs[2], Xs[0], Xs[1]])))
    vector = BandedRidgeCV(labels[order], alphas=ALPHAS, n_candidates=6).fit(X, Y[:, 0], groups)
    assert vector.coef_.shape == (19,) and vector.gamma_.shape == (3,)
    assert np.ndim(vector.alpha_) == np.ndim(vector.intercept_) == 0
    assert vector.predict(X).shape == (90,)


def test_estimator_mistakes_are_told():
    Xs, Y, groups = make_data()
    X = np.concatenate(Xs, axis=1)
    with pytest.raises(CalcarineError, match="not fitted") as caught:
        BandedRidgeCV().predict(X)
    assert isinstance(caught.value, NotFittedError)
    with pytest.raises(CalcarineError, match="target y is None"):
        BandedRidgeCV().fit(X, None)
    with pytest.raises(CalcarineError, match=r"shape \(18,\) but X has 19 columns"):
        BandedRidgeCV(np.zeros(18)).fit(X, Y, groups)
    with pytest.raises(CalcarineError, match="feature_groups holds NaN"):
        BandedRidgeCV(np.full(19, np.nan)).fit(X, Y, groups)
    with pytest.raises(CalcarineError, match="mixes kinds"):
        BandedRidgeCV(np.array(["a", 1] * 9 + ["b"], dtype=object)).fit(X, Y, groups)
    with pytest.raises(CalcarineError, match=r"X holds NaN.*row 7 column 3"):
        BandedRidgeCV().fit(_spoil(X, (7, 3)), Y, groups)
