"""Ridge against scikit-learn, the closed form and its own invariances."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from calcarine.errors import CalcarineError
from calcarine.linear import (
    RidgeEdgeWarning,
    _decompositions,
    _fit,
    _quadratic_forms,
    grouped_folds,
    ridge_cv,
)

ALPHAS = np.logspace(-1, 4, 11)
pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")


def make_data(n=90, p=20, t=6, *, seed=0, noise=1.0):
    """Three repeats a stimulus; column means and scales differ, as voxels' do."""
    rng = np.random.default_rng(seed)
    latent = np.repeat(rng.normal(size=(n // 3, p)), 3, axis=0) + 0.3 * rng.normal(size=(n, p))
    weights = rng.normal(size=(p, t)) / np.sqrt(p)
    Y = latent @ weights + noise * rng.normal(size=(n, t)) * np.linspace(0.2, 3, t) + 5.0
    X = latent * rng.uniform(0.1, 10, p) + rng.normal(size=p) * 3
    return X, Y, np.repeat(np.arange(n // 3), 3)


def pipeline(alpha=1.0, *, fit_intercept=True, standardize=True):
    steps = [StandardScaler(with_mean=fit_intercept)] if standardize else []
    return make_pipeline(*steps, Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd"))


def ridge(alpha, **options):
    return Ridge(alpha=alpha, fit_intercept=options.get("fit_intercept", True), solver="svd")


def scaled(X, *, fit_intercept=True, standardize=True):
    """Columns as the fit scales them: once, on all rows that it is given."""
    return StandardScaler(with_mean=fit_intercept).fit_transform(X) if standardize else X


@pytest.mark.parametrize("shape", [(90, 20), (60, 150)])
@pytest.mark.parametrize(("fit_intercept", "standardize"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_agrees_with_scikit_learn(shape, fit_intercept, standardize):
    X, Y, groups = make_data(*shape)
    options = {"fit_intercept": bool(fit_intercept), "standardize": bool(standardize)}
    result = ridge_cv(X, Y, alphas=ALPHAS, groups=groups, **options)
    split = PredefinedSplit(grouped_folds(groups, 5))
    table = np.array(
        [
            r2_score(
                Y,
                cross_val_predict(ridge(alpha, **options), scaled(X, **options), Y, cv=split),
                multioutput="raw_values",
            )
            for alpha in ALPHAS
        ]
    )
    np.testing.assert_array_equal(result.alpha, ALPHAS[table.argmax(axis=0)])
    np.testing.assert_allclose(result.cv_scores, table.max(axis=0), rtol=1e-8)
    np.testing.assert_allclose(result.cv_curve, table.mean(axis=1), rtol=1e-8)
    assert len(set(result.alpha)) > 1
    for target, alpha in enumerate(result.alpha):
        oracle = pipeline(alpha, **options).fit(X, Y[:, target])
        np.testing.assert_allclose(result.predict(X)[:, target], oracle.predict(X), rtol=1e-8)
        scale = oracle[0].scale_ if standardize else 1.0
        np.testing.assert_allclose(
            result.coef[:, target], oracle[-1].coef_ / scale, rtol=1e-6, atol=1e-10
        )


def test_one_alpha_for_all_agrees_with_grid_search():
    X, Y, groups = make_data()
    split = PredefinedSplit(grouped_folds(groups, 5))
    # Folds of equal size: the mean of the folds' squared errors is the pooled one.
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    search = GridSearchCV(
        ridge(1.0), {"alpha": ALPHAS}, cv=split, scoring="neg_mean_squared_error"
    ).fit(scaled(X), Y)
    result = ridge_cv(X, Y, alphas=ALPHAS, groups=groups, alpha_per="all")
    assert set(result.alpha) == {search.best_params_["alpha"]}
    np.testing.assert_allclose(
        result.cv_curve, 1 + search.cv_results_["mean_test_score"], rtol=1e-9
    )
    np.testing.assert_allclose(result.predict(X), search.predict(scaled(X)), rtol=1e-8, atol=1e-10)


def test_closed_form_with_several_penalties():
    X, Y, groups = make_data()
    result = ridge_cv(X, Y, alphas=ALPHAS, groups=groups)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    for target, alpha in enumerate(result.alpha):
        weights = np.linalg.solve(Z.T @ Z + alpha * np.eye(20), Z.T @ (Y - Y.mean(0))[:, target])
        np.testing.assert_allclose(result.coef[:, target], weights / X.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(result.predict(X), X @ result.coef + result.intercept, rtol=1e-10)


@pytest.mark.parametrize("shape", [(90, 20), (30, 200)])
@pytest.mark.parametrize("score", ["r2", "correlation"])
def test_primal_equals_dual(shape, score):
    X, Y, groups = make_data(*shape)
    options = {"alphas": ALPHAS, "groups": groups, "score": score}
    primal = ridge_cv(X, Y, solver="primal", **options)
    dual = ridge_cv(X, Y, solver="dual", **options)
    np.testing.assert_array_equal(primal.alpha, dual.alpha)
    np.testing.assert_allclose(primal.coef, dual.coef, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(primal.cv_scores, dual.cv_scores, rtol=1e-8)
    assert (primal.solver, dual.solver) == ("primal", "dual")
    assert ridge_cv(X, Y, **options).solver == ("dual" if shape[0] < shape[1] else "primal")


@pytest.mark.parametrize(
    ("p", "cv", "solver"),
    [
        (72, "kfold", "primal"),
        (73, "kfold", "dual"),
        (90, "kfold", "dual"),
        (90, "gcv", "primal"),
        (90, "logo", "primal"),
        (91, "gcv", "dual"),
    ],
)
def test_the_solver_follows_the_smallest_training_set(p, cv, solver):
    """A fold with fewer rows than columns has a singular primal Gram matrix."""
    X, Y, _ = make_data(90, p)
    options = {"alphas": ALPHAS, "cv": cv}
    result = ridge_cv(X, Y, **options)
    assert result.solver == solver
    other = ridge_cv(X, Y, solver={"primal": "dual", "dual": "primal"}[solver], **options)
    np.testing.assert_array_equal(result.alpha, other.alpha)
    np.testing.assert_allclose(result.cv_scores, other.cv_scores, rtol=1e-7, atol=1e-9)


def test_correlation_is_pooled_within_folds():
    X, Y, groups = make_data()
    result = ridge_cv(X, Y, alphas=ALPHAS, groups=groups, score="correlation")
    folds = grouped_folds(groups, 5)
    split = PredefinedSplit(folds)
    for target, alpha in enumerate(result.alpha):
        truth = Y[:, target].copy()
        guess = cross_val_predict(ridge(alpha), scaled(X), truth, cv=split)
        for fold in range(5):
            truth[folds == fold] -= truth[folds == fold].mean()
            guess[folds == fold] -= guess[folds == fold].mean()
        expected = truth @ guess / np.sqrt((truth @ truth) * (guess @ guess))
        np.testing.assert_allclose(result.cv_scores[target], expected, rtol=1e-9)


def test_blocks_and_single_precision_change_little():
    X, Y, groups = make_data()
    whole = ridge_cv(X, Y, alphas=ALPHAS, groups=groups)
    blocks = ridge_cv(X, Y, alphas=ALPHAS, groups=groups, block_size=4)
    single = ridge_cv(X, Y.astype("f4"), alphas=ALPHAS, groups=groups, dtype="float32")
    np.testing.assert_allclose(blocks.coef, whole.coef, rtol=1e-10)
    np.testing.assert_array_equal(blocks.alpha, whole.alpha)
    assert single.coef.dtype == np.float32
    np.testing.assert_allclose(single.predict(X), whole.predict(X), rtol=1e-4)


@pytest.mark.parametrize("shape", [(90, 20), (30, 200)])
@pytest.mark.parametrize("alpha", [0.0, 1e-13])
def test_tiny_penalty_on_collinear_voxels_is_least_squares_of_minimal_norm(shape, alpha):
    X, Y, groups = make_data(*shape)
    X[:, 1] = X[:, 0]
    result = ridge_cv(X, Y, alphas=[alpha], groups=groups)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = np.linalg.pinv(Z, rcond=1e-12) @ (Y - Y.mean(axis=0))
    np.testing.assert_allclose(result.coef * X.std(axis=0)[:, None], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(90, 20), (30, 200)])
def test_constant_voxels_get_zero_and_duplicates_share(shape):
    X, Y, groups = make_data(*shape)
    X[:, 3], X[:, 7], X[:, 5] = 0.1, 0.0, X[:, 4]
    X[:, 9] = 0.0
    X[groups == 0, 9] = 1.0  # constant in the training rows of one fold
    result = ridge_cv(X, Y, alphas=ALPHAS, groups=groups)
    assert np.isfinite(result.coef).all()
    assert (result.coef[[3, 7]] == 0).all()
    np.testing.assert_allclose(result.coef[4], result.coef[5], rtol=1e-8, atol=1e-12)
    kept = np.setdiff1d(np.arange(shape[1]), [3, 7])
    without = ridge_cv(X[:, kept], Y, alphas=ALPHAS, groups=groups)
    np.testing.assert_allclose(result.coef[kept], without.coef, rtol=1e-8, atol=1e-12)


def test_nothing_varies():
    result = ridge_cv(np.ones((20, 3)), np.arange(20.0))
    np.testing.assert_array_equal(result.coef, 0)
    np.testing.assert_allclose(result.predict(np.ones((1, 3))), 9.5)


def test_constant_target_predicts_its_constant():
    X, Y, groups = make_data()
    Y[:, 2] = 0.1
    result = ridge_cv(X, Y, alphas=ALPHAS, groups=groups)
    assert (result.coef[:, 2] == 0).all()
    assert result.cv_scores[2] == 0
    assert result.alpha[2] == ALPHAS[-1]
    np.testing.assert_allclose(result.predict(X)[:, 2], 0.1, rtol=1e-14)


def test_vector_is_one_target():
    X, Y, groups = make_data()
    vector = ridge_cv(X, Y[:, 0], alphas=ALPHAS, groups=groups)
    matrix = ridge_cv(X, Y[:, :1], alphas=ALPHAS, groups=groups)
    assert vector.coef.shape == (20, 1)
    np.testing.assert_array_equal(vector.coef, matrix.coef)


def test_held_out_rows_reach_no_mean_or_weight():
    """A wild group raises its own fold's error and leaves the other folds' means out of it."""
    X, Y, groups = make_data()
    folds = grouped_folds(groups, 5)
    result = ridge_cv(X, Y, alphas=[10.0], groups=groups, standardize=False)
    held = folds == 2
    moved = X.copy()
    moved[held] = moved[held] * 50 + 1000
    scores = ridge_cv(moved, Y, alphas=[10.0], groups=groups, standardize=False).cv_scores
    split = PredefinedSplit(folds)
    expected = r2_score(
        Y, cross_val_predict(ridge(10.0), moved, Y, cv=split), multioutput="raw_values"
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-8)
    assert (scores < result.cv_scores).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-100, 100), wide=st.booleans())
def test_shifting_targets_shifts_the_intercept(seed, shift, wide):
    X, Y, groups = make_data(30, 50 if wide else 8, 3, seed=seed)
    a = ridge_cv(X, Y, alphas=[10.0], groups=groups)
    b = ridge_cv(X, Y + shift, alphas=[10.0], groups=groups)
    np.testing.assert_allclose(b.intercept, a.intercept + shift, atol=1e-8)
    np.testing.assert_allclose(b.coef, a.coef, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(b.cv_scores, a.cv_scores, rtol=1e-6, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-6, 1e6),
    flip=st.booleans(),
    shift=st.floats(-10, 10),
)
def test_scaling_a_voxel_changes_nothing_when_standardised(seed, scale, flip, shift):
    X, Y, groups = make_data(30, 8, 3, seed=seed)
    factor = -scale if flip else scale
    moved = X.copy()
    moved[:, 2] = (X[:, 2] + shift) * factor
    a = ridge_cv(X, Y, alphas=[10.0], groups=groups)
    b = ridge_cv(moved, Y, alphas=[10.0], groups=groups)
    np.testing.assert_allclose(b.predict(moved), a.predict(X), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(b.coef[2] * factor, a.coef[2], rtol=1e-6, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), copies=st.integers(2, 4))
def test_duplicated_rows_are_a_smaller_penalty(seed, copies):
    """k copies of every row, kept in their groups, equal the rows once with alpha / k."""
    X, Y, groups = make_data(30, 8, 3, seed=seed)
    once = ridge_cv(X, Y, alphas=ALPHAS / copies, groups=groups)
    again = ridge_cv(
        *(np.concatenate([v] * copies) for v in (X, Y)),
        alphas=ALPHAS,
        groups=np.concatenate([groups] * copies),
    )
    np.testing.assert_allclose(again.cv_curve, once.cv_curve, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(again.cv_scores, once.cv_scores, rtol=1e-7, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_row_order_changes_nothing(seed):
    X, Y, groups = make_data(30, 8, 3, seed=seed)
    order = np.random.default_rng(seed).permutation(30)
    a = ridge_cv(X, Y, alphas=[10.0], groups=groups)
    b = ridge_cv(X[order], Y[order], alphas=[10.0], groups=groups[order])
    np.testing.assert_allclose(b.coef, a.coef, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(b.cv_scores, a.cv_scores, rtol=1e-7, atol=1e-10)


def test_low_edge_warns_in_one_sentence():
    X, Y, groups = make_data(noise=0.01)
    with pytest.warns(RidgeEdgeWarning, match=r"100.0% chose the lowest alpha \(1000\)") as caught:
        result = ridge_cv(X, Y, alphas=[1e3, 1e4], groups=groups)
    assert "add smaller values" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert (result.edge_fraction_low, result.edge_fraction_high) == (1.0, 0.0)


def test_high_edge_warns_for_predictable_targets():
    X, Y, groups = make_data()
    with pytest.warns(RidgeEdgeWarning, match="highest alpha.*add larger"):
        result = ridge_cv(X, Y, alphas=[1e-5, 1e-4, 1e-3], groups=groups)
    assert result.edge_fraction_high == 1.0


def test_targets_without_signal_may_choose_the_highest():
    X, Y, groups = make_data()
    Y[:, 1:] = np.random.default_rng(1).normal(size=Y[:, 1:].shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = ridge_cv(X, Y, alphas=np.logspace(-2, 8, 21), groups=groups)
        ridge_cv(X, Y, alphas=[10.0], groups=groups)
    assert (result.alpha == 1e8).sum() >= 1
    assert result.edge_fraction_high == 0


def _spoil(matrix, places, value):
    spoiled = matrix.copy()
    for place in places:
        spoiled[place] = value
    return spoiled


def test_unusable_input_is_told():
    X, Y, groups = make_data()
    five = [(i, 2 * i) for i in range(1, 6)]
    cases = [
        ((_spoil(X, [(4, 7)], np.nan), Y), {}, r"X holds NaN.*row 4 column 7 \(nan\) \(counted"),
        ((X, _spoil(Y, [(88, 1)], -np.inf)), {}, r"Y holds.*row 88 column 1 \(-inf\)"),
        ((X, _spoil(Y.astype("f4"), [(8, 1)], np.inf)), {}, "row 8 column 1"),
        ((_spoil(X, five, np.nan), Y), {}, "row 1 column 2.*row 3 column 6.*and 2 more"),
        ((_spoil(X, [(0, 0)], 1e200), Y), {}, "beyond"),
        ((X, Y[:-1]), {}, "X has 90 rows but Y has 89"),
        ((X[:, 0], Y), {}, "one dimension"),
        ((X[None], Y), {}, "3 dimensions"),
        ((X[:, :0], Y), {}, "empty"),
        ((X + 1j, Y), {}, "complex"),
        ((X, np.full(90, "word")), {}, "Y is not numeric"),
        (([[1, 2], [3]], Y), {}, "rectangular"),
        ((X, Y), {"groups": groups[:-1]}, "groups labels 89 rows but X has 90"),
        ((X, Y), {"groups": groups // 10}, r"only 3 group\(s\) for n_folds=5"),
        ((X, Y), {"alphas": [1.0, -2.0]}, "alphas holds -2"),
        ((X, Y), {"alphas": [np.nan]}, "alphas holds nan"),
        ((X, Y), {"alphas": []}, "at least one penalty"),
        ((X, Y), {"alphas": ["a"]}, "alphas is not numeric"),
        ((X, Y), {"alpha_per": "voxel"}, "'target' or 'all'"),
        ((X, Y), {"score": "mse"}, "'r2' or 'correlation'"),
        ((X, Y), {"solver": "gpu"}, "solver is 'gpu'"),
        ((X, Y), {"dtype": "int8"}, "dtype is 'int8'"),
        ((X, Y), {"block_size": 0}, "block_size is 0"),
        ((X, Y), {"score": "correlation", "n_folds": 90}, "two stimuli in every fold"),
        (
            (X, Y[:30]),
            {"score": "correlation", "n_folds": 30, "target_rows": np.arange(90) // 3},
            "two stimuli in every fold",
        ),
        ((X, Y), {"groups": [[1, 2], *range(89)]}, "groups holds lists of ids"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(CalcarineError, match=message) as caught:
            ridge_cv(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_agrees_with_himalaya():
    solvers = pytest.importorskip("himalaya.ridge")
    X, Y, groups = make_data()
    Z, T = (X - X.mean(axis=0)) / X.std(axis=0), Y - Y.mean(axis=0)
    result = ridge_cv(X, Y, alphas=ALPHAS, groups=groups)
    theirs = solvers.Ridge(alpha=result.alpha, fit_intercept=False).fit(Z, T)
    np.testing.assert_allclose(result.coef * X.std(axis=0)[:, None], theirs.coef_, rtol=1e-6)


# Precision


def relative_error(guess, truth):
    """Largest over targets, relative to how much the predictions vary."""
    return (
        np.linalg.norm(guess - truth, axis=0) / np.linalg.norm(truth - truth.mean(0), axis=0)
    ).max()


def powerlaw(n, p, power=1.0, t=8, seed=0):
    """Voxels whose principal components fall off as a power law, in single precision."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.normal(size=(p, p)))[0]
    stimuli = np.repeat(rng.normal(size=(n // 3, p)), 3, axis=0)
    parts = (stimuli + 0.5 * rng.normal(size=(n, p))) * np.arange(1, p + 1.0) ** (-power / 2)
    X = parts @ mixing.T
    Y = X @ rng.normal(size=(p, t))
    Y = Y / Y.std(axis=0) + rng.normal(size=(n, t))
    return X.astype("f4"), Y.astype("f4"), np.repeat(np.arange(n // 3), 3)


def in_both_precisions(X, Y, **options):
    single = ridge_cv(X, Y, dtype="float32", **options)
    double = ridge_cv(X.astype(float), Y.astype(float), dtype="float64", **options)
    assert (single.coef.dtype, double.coef.dtype) == (np.float32, np.float64)
    return single, double


@pytest.mark.parametrize("shape", [(300, 60), (60, 300), (150, 140), (60, 20)])
@pytest.mark.parametrize("power", [0.5, 2.0])
@pytest.mark.parametrize("cv", ["kfold", "logo", "gcv"])
def test_single_precision_predicts_like_double(shape, power, cv):
    X, Y, groups = powerlaw(*shape, power)
    for alphas in ([0.1], [10.0], np.logspace(-2, 6, 9)):
        single, double = in_both_precisions(X, Y, alphas=alphas, groups=groups, cv=cv)
        np.testing.assert_array_equal(single.alpha, double.alpha)
        assert relative_error(single.predict(X), double.predict(X)) < 1e-4
        np.testing.assert_allclose(single.cv_scores, double.cv_scores, rtol=1e-3, atol=2e-3)


def _duplicated(X):
    X[:, 1::2] = X[:, : X.shape[1] // 2 * 2 : 2]


def _constant(X):
    X[:, ::7], X[:, 3] = 3.3, 0.0


HARD = {
    "ten orders of magnitude": lambda X, Y: X.__imul__(np.logspace(-5, 5, X.shape[1])),
    "duplicates": lambda X, Y: _duplicated(X),
    "constants": lambda X, Y: _constant(X),
    "a large offset": lambda X, Y: X.__iadd__(1000),
    "tiny voxels": lambda X, Y: X.__imul__(1e-20),
    "enormous voxels": lambda X, Y: X.__imul__(1e20),
    "tiny targets": lambda X, Y: Y.__imul__(1e-25),
    "enormous targets": lambda X, Y: Y.__imul__(1e25),
}


@pytest.mark.parametrize("kind", sorted(HARD))
@pytest.mark.parametrize("shape", [(60, 20), (30, 120)])
@pytest.mark.parametrize("standardize", [True, False])
def test_hard_input_in_single_precision(kind, shape, standardize):
    X, Y, groups = powerlaw(*shape)
    HARD[kind](X, Y)
    assert X.dtype == Y.dtype == np.float32
    for cv in ("kfold", "logo"):
        for alphas in ([1e-8], [1e-2], [1e12], np.logspace(-8, 12, 11)):
            options = {"alphas": alphas, "standardize": standardize, "cv": cv, "groups": groups}
            single, double = in_both_precisions(X, Y, **options)
            np.testing.assert_allclose(single.cv_scores, double.cv_scores, rtol=1e-3, atol=2e-3)
            same = single.alpha == double.alpha
            assert (np.abs(double.cv_scores - single.cv_scores)[~same] < 1e-4).all()
            size = Y.std(axis=0, dtype=float) * np.sqrt(len(Y))
            error = np.linalg.norm(single.predict(X) - double.predict(X), axis=0)
            assert (error[same] < 1e-4 * size[same]).all()


@pytest.mark.parametrize("shape", [(60, 20), (30, 120)])
@pytest.mark.parametrize(("dtype", "factor"), [("float32", 1e3), ("float64", 1e7)])
def test_wild_fold_does_not_cost_the_others_their_digits(shape, dtype, factor):
    """Gram matrices are all sums less those of the fold; where that cancels, more digits help."""
    X, Y, groups = powerlaw(*shape)
    folds = grouped_folds(groups, 5)
    X[folds == 1] *= factor
    result = ridge_cv(X, Y, alphas=[100.0], groups=groups, standardize=False, dtype=dtype)
    expected = cross_val_predict(
        ridge(100.0), X.astype(float), Y.astype(float), cv=PredefinedSplit(folds)
    )
    expected = 1 - ((Y - expected) ** 2).sum(axis=0) / ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(result.cv_scores, expected, rtol=1e-5)
    assert result.coef.dtype == dtype


def test_hard_targets_are_not_projected_in_single_precision():
    """What is left beside the rounding of the stored weights."""
    X, Y, groups = powerlaw(60, 20)
    X[30:33] *= 1e4
    single, double = in_both_precisions(
        X, Y, alphas=[1e-2], groups=groups, cv="gcv", standardize=False
    )
    assert relative_error(single.predict(X), double.predict(X)) < 6e-4


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 4.0, 6.0])
@pytest.mark.parametrize("options", [{}, {"cv": "gcv"}, {"solver": "dual"}])
def test_single_precision_is_kept_where_it_measures_well_and_only_there(power, options):
    X, Y, groups = powerlaw(60, 20, power)
    single, double = in_both_precisions(X, Y, alphas=[1e-3], groups=groups, **options)
    assert relative_error(single.predict(X), double.predict(X)) < 1e-4
    if power in (1.0, 6.0) and options == {"cv": "gcv"}:  # between, either may do
        assert single.precision == ("float32" if power == 1.0 else "float64")


@pytest.mark.parametrize("search", ["full", "local"])
@pytest.mark.parametrize(
    ("power", "lowest", "precision"), [(4.0, 1e-3, "float32"), (6.0, 1e-7, "float64")]
)
def test_gram_matrices_in_float64_keep_the_rest_in_float32(
    power, lowest, precision, search, monkeypatch
):
    """Only the Gram matrix squares the condition number, so folds of float32 may do beside it."""
    X, Y, groups = powerlaw(90, 20, power, t=300)
    decomposed = []
    original = _decompositions.factorize

    def seen(gram, *rest):
        decomposed.append(gram.dtype.name)
        return original(gram, *rest)

    monkeypatch.setattr(_decompositions, "factorize", seen)
    options = {"alphas": np.logspace(np.log10(lowest), 4, 12), "groups": groups, "search": search}
    for pays in (False, True):
        monkeypatch.setattr(_quadratic_forms, "forms_pay", lambda *sizes, pays=pays: pays)
        decomposed.clear()
        single = ridge_cv(X, Y, dtype="float32", **options)
        assert decomposed[:2] == ["float32", "float64"]  # one fold is enough to see it
        assert single.precision == precision
        double = ridge_cv(X.astype(float), Y.astype(float), dtype="float64", **options)
        assert np.mean(single.alpha == double.alpha) > 0.99
        same = single.alpha == double.alpha
        assert relative_error(single.predict(X)[:, same], double.predict(X)[:, same]) < 1e-4


def test_a_large_fold_does_not_cancel_in_the_sums_of_the_others(rng):
    parts = [rng.normal(size=(3, 4)).astype("f4") for _ in range(5)]
    parts[2] *= 1e7
    for count in (2, 3, 5):
        found = list(map(np.copy, _fit._leaving_out([part.copy() for part in parts[:count]])))
        assert len(found) == count
        for k, others in enumerate(found):
            exact = sum(part.astype(float) for j, part in enumerate(parts[:count]) if j != k)
            np.testing.assert_allclose(others, exact, rtol=1e-5)


def test_precision_and_solver_follow_the_input():
    X, Y, groups = powerlaw(60, 20, 4.0)
    told = [
        ({"alphas": [1e5]}, ("float32", "primal")),
        ({"alphas": [1e5], "solver": "dual"}, ("float32", "dual")),
        ({"alphas": [1e-4]}, ("float32", "primal")),
        ({"alphas": [1e-4], "cv": "gcv"}, ("float64", "primal")),
    ]
    for options, expected in told:
        result = ridge_cv(X, Y, groups=groups, **options)
        assert (result.precision, result.solver) == expected
        assert result.coef.dtype == np.float32
    X[:, 1] = X[:, 0]
    result = ridge_cv(X, Y, groups=groups, alphas=[1e-10])
    assert (result.precision, result.solver) == ("float64", "svd")
    assert ridge_cv(X.astype(float), Y, alphas=[1e5]).precision == "float64"
    for dtype in ("f2", "f4"):
        assert ridge_cv(X.astype(dtype), Y, alphas=[1e5]).coef.dtype == np.float32
    for dtype in ("f8", "i4", "u1", "?"):
        varied = (X.mean(axis=0) < X).astype(dtype)
        assert ridge_cv(varied, Y, alphas=[1e5]).coef.dtype == np.float64


def test_units_of_targets_and_voxels_change_nothing_but_the_units():
    X, Y, groups = powerlaw(60, 20)
    X, Y = X.astype(float), Y.astype(float)
    plain = ridge_cv(X, Y, alphas=ALPHAS, groups=groups)
    for power in (-250, 100):
        other = ridge_cv(X, Y * 2.0**power, alphas=ALPHAS, groups=groups)
        np.testing.assert_allclose(other.coef, plain.coef * 2.0**power, rtol=1e-12)
        np.testing.assert_allclose(other.cv_curve, plain.cv_curve, rtol=1e-12)
        other = ridge_cv(
            X * 2.0**power,
            Y,
            alphas=ALPHAS * 4.0**power,
            groups=groups,
            standardize=False,
        )
        plain_ = ridge_cv(X, Y, alphas=ALPHAS, groups=groups, standardize=False)
        np.testing.assert_allclose(other.cv_curve, plain_.cv_curve, rtol=1e-8)


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("power", [-66, 66])
def test_units_whose_squares_single_precision_does_not_hold(solver, power):
    X, Y, groups = powerlaw(60, 20)
    options = {"groups": groups, "standardize": False, "solver": solver}
    plain = ridge_cv(X, Y, alphas=ALPHAS, **options)
    other = ridge_cv(X * np.float32(2.0**power), Y, alphas=ALPHAS * 4.0**power, **options)
    np.testing.assert_allclose(other.cv_curve, plain.cv_curve, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other.coef * 2.0**power, plain.coef, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("shape", "dtype"), [((300, 270), "float32"), ((270, 300), "float64")])
@pytest.mark.parametrize("options", [{}, {"cv": "gcv"}, {"cv": "logo"}, {"search": "local"}])
def test_torch_gives_what_numpy_does(shape, dtype, options):
    """Every operation of a fit on a device, here the processor; 270 columns make a band."""
    X, Y, groups = powerlaw(*shape, 0.5)
    options = {"groups": groups, "alphas": np.logspace(0, 5, 6), "dtype": dtype, **options}
    ours = ridge_cv(X, Y, **options)
    theirs = ridge_cv(X, Y, device="torch:cpu", **options)
    np.testing.assert_array_equal(theirs.alpha, ours.alpha)
    assert relative_error(theirs.predict(X), ours.predict(X)) < 1e-5
    np.testing.assert_allclose(theirs.cv_scores, ours.cv_scores, atol=1e-5)
    assert type(theirs.coef) is np.ndarray


def test_torch_with_correlation_repeats_hard_input_and_shared_penalties():
    X, Y, _ = powerlaw(60, 20)
    rows = np.arange(60) // 3
    for options in (
        {"score": "correlation"},
        {"alpha_per": "all"},
        {"alphas": [1e-10, 1.0]},
        {"alphas": [1e-10, 1.0], "cv": "logo"},
        {"alphas": [1e-10, 1.0], "cv": "gcv", "fit_intercept": False},
    ):
        ours = ridge_cv(X, Y[::3], target_rows=rows, **options)
        theirs = ridge_cv(X, Y[::3], target_rows=rows, device="torch:cpu", **options)
        assert theirs.solver == ours.solver
        assert relative_error(theirs.predict(X), ours.predict(X)) < 1e-4


@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_predictions_that_do_not_vary_in_a_fold_correlate_with_nothing(rng, solver):
    """Folds of one stimulus: what is left of a constant is rounding."""
    g = np.repeat(np.arange(24), 3)
    X = rng.normal(size=(24, 10))[g]
    Y = X @ rng.normal(size=(10, 5)) + 0.1 * rng.normal(size=(72, 5))
    options = {"groups": g, "score": "correlation", "solver": solver}
    alone = ridge_cv(X, Y, n_folds=24, **options)
    together = ridge_cv(X, Y, n_folds=5, **options)
    assert not np.any(alone.cv_scores)
    assert np.all((together.cv_scores > 0.9) & (together.cv_scores <= 1))


@pytest.mark.parametrize("options", [{"cv": "gcv"}, {"search": "local"}, {"memory": np.inf}])
def test_predictors_without_variance_predict_the_mean(rng, options):
    Y = rng.normal(size=(10, 3))
    fit = ridge_cv(np.ones((10, 3)), Y, **options)
    np.testing.assert_allclose(fit.predict(np.ones((2, 3))), np.tile(Y.mean(0), (2, 1)), atol=1e-6)
