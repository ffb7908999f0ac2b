"""How penalties are chosen: generalised cross-validation, leaving groups out, local search."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV as SklearnRidgeCV

from calcarine.errors import CalcarineError
from calcarine.linear import (
    RidgeCV,
    RidgeError,
    _cross_validation,
    _decompositions,
    _quadratic_forms,
    _solvers,
    load,
    ridge_cv,
    save,
)
from calcarine.linear._quadratic_forms import QuadraticForms

ALPHAS = np.logspace(-1, 4, 11)
SHAPES = [(60, 20), (30, 80)]
pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")


def make_data(n=60, p=20, t=5, *, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.3, 3, p) + rng.normal(size=p)
    Y = X @ rng.normal(size=(p, t)) / np.sqrt(p)
    Y += rng.normal(size=(n, t)) * np.linspace(0.3, 3, t) + 2.0
    return X, Y


def scaled(X, *, fit_intercept=True, standardize=True):
    return (X - X.mean(axis=0) * fit_intercept) / (X.std(axis=0) if standardize else 1.0)


def hat_matrix(Z, alpha, *, fit_intercept=True):
    """Map from targets to fitted values, with the intercept."""
    n = len(Z)
    centre = np.eye(n) - fit_intercept / n
    Z = centre @ Z
    return Z @ np.linalg.solve(Z.T @ Z + alpha * np.eye(Z.shape[1]), Z.T) + (np.eye(n) - centre)


def gcv_by_hat_matrix(Z, Y, alphas, *, fit_intercept=True):
    """1 - n RSS / (n - trace H)^2 * n / TSS; all centring is inside H."""
    n, table = len(Z), []
    for alpha in alphas:
        H = hat_matrix(Z, alpha, fit_intercept=fit_intercept)
        rss = ((Y - H @ Y) ** 2).sum(axis=0)
        table.append(n * rss / (n - np.trace(H)) ** 2 * n)
    return 1 - np.array(table) / ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)


def refit_without_each_group(Z, Y, groups, alphas, *, fit_intercept=True):
    """Means are learned without the group; the scale of the columns is that of all rows."""
    left_out = np.empty((len(alphas), *Y.shape))
    for index, alpha in enumerate(alphas):
        for group in np.unique(groups):
            train, held = groups != group, groups == group
            x_mean, y_mean = (v[train].mean(axis=0) * fit_intercept for v in (Z, Y))
            A, b = Z[train] - x_mean, Y[train] - y_mean
            weights = A.T @ np.linalg.solve(A @ A.T + alpha * np.eye(len(A)), b)
            left_out[index, held] = Y[held] - (Z[held] - x_mean) @ weights - y_mean
    return left_out


def r2(residuals, Y):
    return 1 - (residuals**2).sum(axis=1) / ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)


def check_choice(result, table, alphas=ALPHAS, **close):
    """Curve, choice and score are those of a table of scores, (n_alphas, t)."""
    close = close or {"rtol": 1e-8, "atol": 1e-10}
    np.testing.assert_allclose(result.cv_curve, table.mean(axis=1), **close)
    np.testing.assert_array_equal(result.alpha, alphas[table.argmax(axis=0)])
    np.testing.assert_allclose(result.cv_scores, table.max(axis=0), **close)


# Generalised cross-validation


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"standardize": False}])
def test_gcv_agrees_with_the_hat_matrix(shape, solver, options):
    X, Y = make_data(*shape)
    result = ridge_cv(X, Y, alphas=ALPHAS, cv="gcv", solver=solver, **options)
    intercept = {"fit_intercept": options.get("fit_intercept", True)}
    table = gcv_by_hat_matrix(scaled(X, **options), Y, ALPHAS, **intercept)
    check_choice(result, table, rtol=1e-6, atol=1e-7)
    assert result.solver == solver
    assert len(set(result.alpha)) > 1


@pytest.mark.parametrize("shape", SHAPES)
def test_gcv_by_singular_values_and_block_tridiagonal_factors(shape, monkeypatch):
    X, Y = make_data(*shape)
    X[:, 1] = X[:, 0]
    alphas = np.concatenate([[1e-13], ALPHAS])
    result = ridge_cv(X, Y, alphas=alphas, cv="gcv", solver="primal")
    assert result.solver == "svd"
    table = gcv_by_hat_matrix(scaled(X), Y, ALPHAS)
    np.testing.assert_allclose(result.cv_curve[1:], table.mean(axis=1), rtol=1e-8)
    monkeypatch.setattr(_solvers, "_use_eigenvectors", lambda size, columns: False)
    for solver in ("primal", "dual"):
        banded = ridge_cv(X, Y, alphas=ALPHAS, cv="gcv", solver=solver)
        check_choice(banded, table)


@pytest.mark.parametrize("size", [1e-80, 1e80])
def test_gcv_does_not_hang_on_the_unit_of_x(size):
    X, Y = make_data(60, 20)
    options = {"cv": "gcv", "standardize": False, "solver": "primal"}
    expected = ridge_cv(X, Y, alphas=ALPHAS, **options)
    found = ridge_cv(X * size, Y, alphas=ALPHAS * size**2, **options)
    np.testing.assert_allclose(found.cv_curve, expected.cv_curve, rtol=1e-9)
    np.testing.assert_allclose(found.alpha, expected.alpha * size**2, rtol=1e-12)


@pytest.mark.parametrize("shape", [(402, 282), (282, 402)])
@pytest.mark.parametrize("options", [{"cv": "gcv"}, {"search": "local"}, {"dtype": "float32"}])
def test_eigenvectors_for_many_targets_change_nothing(shape, options, monkeypatch):
    X, Y, groups = simulated(*shape, t=1500)
    kinds = []
    factorize = _solvers.factorize

    def noted(*given):
        found = factorize(*given)
        kinds.append(type(found[1]).__name__)
        return found

    monkeypatch.setattr(_decompositions, "factorize", noted)
    by_vectors = ridge_cv(X, Y, groups=groups, **options)
    assert kinds[-1] == "EigenSolver"
    monkeypatch.setattr(_solvers, "_use_eigenvectors", lambda size, columns: False)
    by_band = ridge_cv(X, Y, groups=groups, **options)
    assert kinds[-1] == "BlockTridiagonal"
    single = "dtype" in options
    np.testing.assert_allclose(
        by_band.cv_scores, by_vectors.cv_scores, atol=1e-4 if single else 1e-9
    )
    assert (by_band.alpha == by_vectors.alpha).mean() > (0.999 if single else 0.9999)
    np.testing.assert_allclose(
        by_band.coef, by_vectors.coef, atol=(1e-3 if single else 1e-9) * abs(by_band.coef).max()
    )


def test_gcv_of_a_fit_that_interpolates():
    """With more voxels than trials residuals and degrees of freedom go to 0 together."""
    X, Y = make_data(30, 80)
    alphas = np.array([0.0, 1e-9, 1e-6, 1.0])
    result = ridge_cv(X, Y, alphas=alphas, cv="gcv")
    K = scaled(X) @ scaled(X).T
    values, vectors = np.linalg.eigh(K)
    values, vectors = values[1:], vectors[:, 1:]  # without the constant
    table = []
    for alpha in alphas:
        residual = ((vectors.T @ Y / (values + alpha)[:, None]) ** 2).sum(axis=0)
        table.append(30 * 30 * residual / (1 / (values + alpha)).sum() ** 2)
    table = 1 - np.array(table) / ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(result.cv_curve, table.mean(axis=1), rtol=1e-8)
    primal = ridge_cv(X, Y, alphas=alphas, cv="gcv", solver="primal")
    assert primal.solver == "svd"
    np.testing.assert_allclose(primal.cv_curve, result.cv_curve, rtol=1e-6)


def test_gcv_where_a_gram_matrix_keeps_the_weights_but_not_the_residuals():
    X, Y = make_data(30, 80)
    for alpha in (1e-6, 1e-4, 1e-2):
        options = {"alphas": [alpha, 1.0], "cv": "gcv"}
        primal, dual = (ridge_cv(X, Y, solver=s, **options) for s in ("primal", "dual"))
        np.testing.assert_allclose(primal.cv_curve, dual.cv_curve, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_gcv_comes_near_leaving_one_out(shape):
    X, Y = make_data(*shape, t=30)
    result = ridge_cv(X, Y, alphas=ALPHAS, cv="gcv", standardize=False)
    theirs = SklearnRidgeCV(ALPHAS, alpha_per_target=True).fit(X, Y)
    steps = np.abs(np.log10(result.alpha) - np.log10(theirs.alpha_)) / 0.5
    assert (steps < 1.5).mean() > 0.8
    loo = 1 + theirs.best_score_ / Y.var(axis=0)
    np.testing.assert_allclose(result.cv_scores.mean(), loo.mean(), atol=0.02)
    np.testing.assert_allclose(result.cv_scores, loo, atol=0.2)


# Leaving one group out


GROUPINGS = {
    "pairs": lambda n: np.arange(n) // 2,
    "unequal": lambda n: np.repeat(np.arange(n), np.arange(n) % 4 + 1)[:n],
    "scattered words": lambda n: np.array(["b", "a", "c", "d", "e", "f", "g"])[np.arange(n) % 7],
    "halves": lambda n: np.arange(n) % 2,
}


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grouping", sorted(GROUPINGS))
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_logo_equals_explicit_refits(shape, solver, grouping, fit_intercept):
    X, Y = make_data(*shape)
    groups = GROUPINGS[grouping](shape[0])
    result = ridge_cv(
        X, Y, alphas=ALPHAS, cv="logo", groups=groups, solver=solver, fit_intercept=fit_intercept
    )
    Z = scaled(X, fit_intercept=fit_intercept)
    table = r2(refit_without_each_group(Z, Y, groups, ALPHAS, fit_intercept=fit_intercept), Y)
    check_choice(result, table)
    assert result.solver == solver
    whole = ridge_cv(X, Y, alphas=ALPHAS, cv="gcv", solver=solver, fit_intercept=fit_intercept)
    same = result.alpha == whole.alpha
    np.testing.assert_allclose(result.coef[:, same], whole.coef[:, same], rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_logo_by_singular_values_and_block_tridiagonal_factors(shape, monkeypatch):
    X, Y = make_data(*shape)
    X[:, 1] = X[:, 0]
    groups = GROUPINGS["unequal"](shape[0])
    # Without a penalty, leaving groups out is minimum norm; with fewer voxels, least squares.
    alphas = np.concatenate([[1e-13], ALPHAS])
    result = ridge_cv(X, Y, alphas=alphas, cv="logo", groups=groups, solver="primal")
    assert result.solver == "svd"
    table = r2(refit_without_each_group(scaled(X), Y, groups, ALPHAS), Y)
    np.testing.assert_allclose(result.cv_curve[1:], table.mean(axis=1), rtol=1e-8)
    monkeypatch.setattr(_solvers, "_use_eigenvectors", lambda size, columns: False)
    for solver in ("primal", "dual"):
        check_choice(ridge_cv(X, Y, alphas=ALPHAS, cv="logo", groups=groups, solver=solver), table)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [0.0, 1e-10, 1e-7])
@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_logo_without_a_penalty(shape, alpha, solver):
    X, Y = make_data(*shape)
    groups = np.arange(shape[0]) // 2
    result = ridge_cv(X, Y, alphas=[alpha], cv="logo", groups=groups, solver=solver)
    Z, residuals = scaled(X), np.empty_like(Y)
    for group in np.unique(groups):
        train, held = groups != group, groups == group
        A = Z[train] - Z[train].mean(axis=0)
        weights = np.linalg.pinv(A, rcond=1e-10) @ (Y[train] - Y[train].mean(axis=0))
        guess = (Z[held] - Z[train].mean(axis=0)) @ weights + Y[train].mean(axis=0)
        residuals[held] = Y[held] - guess
    np.testing.assert_allclose(result.cv_scores, r2(residuals[None], Y)[0], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_without_groups_it_is_leave_one_out(shape, solver):
    X, Y = make_data(*shape)
    options = {"alphas": ALPHAS, "cv": "logo", "standardize": False, "solver": solver}
    result = ridge_cv(X, Y, **options)
    for target in range(Y.shape[1]):
        theirs = SklearnRidgeCV(ALPHAS, store_cv_results=True).fit(X, Y[:, target])
        # (n, n_alphas) of squared leave-one-out residuals
        curve = 1 - theirs.cv_results_.sum(axis=0) / (Y[:, target].var() * len(Y))
        alone = ridge_cv(X, Y[:, target], **options)
        np.testing.assert_allclose(alone.cv_curve, curve, rtol=1e-7, atol=1e-9)
        assert result.alpha[target] == theirs.alpha_


@pytest.mark.parametrize("shape", [(90, 20), (45, 120)])
def test_logo_in_single_precision(shape):
    X, Y = make_data(*shape)
    X, Y, groups = X.astype("f4"), Y.astype("f4"), np.arange(shape[0]) // 3
    single = ridge_cv(X, Y, alphas=ALPHAS, cv="logo", groups=groups)
    double = ridge_cv(X, Y, alphas=ALPHAS, cv="logo", groups=groups, dtype="float64")
    assert (single.coef.dtype, double.coef.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(single.alpha, double.alpha)
    np.testing.assert_allclose(single.cv_curve, double.cv_curve, atol=1e-5)


def test_a_group_that_alone_decides_a_direction_is_told():
    """Least squares without the only row in which a voxel varies knows nothing of that voxel."""
    X, Y = make_data(40, 5)
    X[:, 2] = 0.0
    X[3, 2] = 1.0
    with pytest.raises(RidgeError, match="choose larger alphas or cv='kfold'") as caught:
        ridge_cv(X, Y, alphas=[0.0, 1.0], cv="logo")
    assert "\n" not in str(caught.value)
    result = ridge_cv(X, Y, alphas=[1e-4, 1.0], cv="logo")
    table = r2(refit_without_each_group(scaled(X), Y, np.arange(40), [1e-4, 1.0]), Y)
    check_choice(result, table, np.array([1e-4, 1.0]))


def test_unusable_groups_are_told():
    X, Y = make_data()
    cases = [
        ({"groups": np.zeros(60)}, "one group only"),
        ({"groups": np.arange(59)}, "groups labels 59 rows but X has 60"),
        ({"groups": np.arange(61)}, "groups labels 61 rows but X has 60"),
        ({"groups": np.where(np.arange(60) == 7, np.nan, 1.0)}, "no id at row 7"),
        ({"score": "correlation"}, "score='correlation' is defined for cv='kfold' only"),
    ]
    for options, message in cases:
        with pytest.raises(RidgeError, match=message) as caught:
            ridge_cv(X, Y, cv="logo", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(RidgeError, match="one row only"):
        ridge_cv(X[:1], Y[:1], cv="logo")


# Local search


def simulated(n, p, t=120, *, seed=1, repeats=3):
    """Correlated voxels, repeated stimuli, targets from none to much signal."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, p + 1.0) ** -0.5
    mixing = np.linalg.qr(rng.normal(size=(p, p)))[0]
    stimuli = np.repeat(rng.normal(size=(n // repeats, p)), repeats, axis=0)
    X = ((stimuli + 0.5 * rng.normal(size=(n, p))) * spectrum) @ mixing
    signal = X @ rng.normal(size=(p, t))
    signal /= signal.std(axis=0)
    share = np.linspace(0, 0.9, t)
    Y = signal * np.sqrt(share) + rng.normal(size=(n, t)) * np.sqrt(1 - share)
    return X, Y, np.repeat(np.arange(n // repeats), repeats)


@pytest.mark.parametrize("shape", [(180, 60), (90, 200)])
@pytest.mark.parametrize("score", ["r2", "correlation"])
def test_local_search_finds_what_the_full_one_does(shape, score):
    X, Y, groups = simulated(*shape)
    options = {"groups": groups, "alphas": np.logspace(-2, 8, 21), "score": score}
    full = ridge_cv(X, Y, **options)
    local = ridge_cv(X, Y, search="local", **options)
    assert len(set(full.alpha)) > 4
    # The curve of a target that is hardly predicted may have a second, lower peak.
    same = local.alpha == full.alpha
    assert same.mean() > 0.9
    assert (full.cv_scores - local.cv_scores).mean() < 1e-2
    assert score == "correlation" or same[full.cv_scores > 0.1].all()
    np.testing.assert_allclose(local.cv_scores[same], full.cv_scores[same], rtol=1e-9)
    np.testing.assert_allclose(local.coef[:, same], full.coef[:, same], rtol=1e-9, atol=1e-12)
    assert (full.cv_scores >= local.cv_scores - 1e-12).all()


def test_local_search_is_exact_where_curves_have_one_peak():
    X, Y, groups = simulated(180, 60)
    full = ridge_cv(X, Y, groups=groups)
    table = np.array([ridge_cv(X, Y, groups=groups, alphas=[a]).cv_scores for a in full.alphas])
    rises = np.diff(table, axis=0) >= 0
    one_peak = (np.diff(rises.astype(int), axis=0) <= 0).all(axis=0)
    assert one_peak.sum() > 50
    local = ridge_cv(X, Y, groups=groups, search="local")
    np.testing.assert_array_equal(local.alpha[one_peak], full.alpha[one_peak])


def test_local_search_tries_less_and_says_so(monkeypatch):
    X, Y, groups = simulated(90, 30, t=200)
    tried = []
    evaluate = _cross_validation._ByPrediction.__call__

    def counted(self, indices, columns):
        tried.append(len(indices) * np.arange(self.sums.target.size)[columns].size)
        evaluate(self, indices, columns)

    monkeypatch.setattr(_cross_validation._ByPrediction, "__call__", counted)
    result = ridge_cv(X, Y, groups=groups, search="local")
    assert sum(tried) < 0.5 * 21 * 200
    # A mean over the targets for which a penalty was tried would favour what few tried.
    assert np.isnan(result.cv_curve).any()
    assert np.isfinite(result.cv_scores).all()
    tried.clear()
    full = ridge_cv(X, Y, groups=groups)
    assert sum(tried) == 21 * 200
    known = np.isfinite(result.cv_curve)
    np.testing.assert_allclose(result.cv_curve[known], full.cv_curve[known], rtol=1e-9)
    few = ridge_cv(X, Y, groups=groups, search="local", alphas=[1.0, 10.0, 100.0])
    assert np.isfinite(few.cv_curve).all()


def test_local_search_ends_for_constant_and_enormous_targets():
    X, Y, groups = simulated(90, 30, t=6)
    Y[:, 0] = 3.0
    Y[:, 1] *= 1e60
    Y[:, 2] *= 1e-60
    for score in ("r2", "correlation"):
        result = ridge_cv(
            X.astype("f4"), Y, groups=groups, search="local", score=score, dtype="float64"
        )
        full = ridge_cv(X.astype("f4"), Y, groups=groups, score=score, dtype="float64")
        np.testing.assert_array_equal(result.alpha, full.alpha)
        assert result.cv_scores[0] == 0


def test_local_search_needs_a_penalty_for_each_target():
    X, Y = make_data()
    for options in ({"alpha_per": "all"}, {"alpha_per": [0, 0, 1, 1, 1]}, {"cv": "gcv"}):
        with pytest.raises(RidgeError, match=r"search='local' needs.*choose search='full'"):
            ridge_cv(X, Y, search="local", **options)


# Targets that share a penalty


def test_targets_of_a_label_share_the_penalty_of_their_mean_score():
    X, Y, groups = simulated(90, 30, t=12)
    labels = np.array(["low"] * 3 + ["mid"] * 4 + ["high"] * 5)
    order = np.random.default_rng(0).permutation(12)
    result = ridge_cv(X, Y[:, order], groups=groups, alpha_per=labels[order], block_size=5)
    for label in np.unique(labels):
        together = ridge_cv(X, Y[:, labels == label], groups=groups, alpha_per="all")
        mine = np.flatnonzero(labels[order] == label)
        assert set(result.alpha[mine]) == set(together.alpha)
        back = np.argsort(order[mine])
        np.testing.assert_allclose(result.coef[:, mine][:, back], together.coef, rtol=1e-9)
    assert len(set(result.alpha)) > 1
    for cv in ("logo", "gcv"):
        alone = ridge_cv(X, Y, groups=groups, cv=cv, alpha_per=np.arange(12))
        np.testing.assert_array_equal(alone.alpha, ridge_cv(X, Y, groups=groups, cv=cv).alpha)


def test_unusable_labels_are_told():
    X, Y = make_data()
    cases = [
        ([0, 1], r"alpha_per has shape \(2,\)"),
        (np.array([1, "a", None, 2, 3], dtype=object), "alpha_per mixes kinds"),
        ("some", "'target' or 'all'"),
    ]
    for alpha_per, message in cases:
        with pytest.raises(RidgeError, match=message):
            ridge_cv(X, Y, alpha_per=alpha_per)


# Targets with one row per stimulus


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("cv", ["kfold", "logo", "gcv"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_target_rows_equal_expanded_targets(solver, cv, shape, fit_intercept):
    n, p = shape
    rng = np.random.default_rng(3)
    rows = np.concatenate([np.arange(12), rng.integers(0, 12, n - 12)])  # unequal repeats
    rows = rng.permutation(rows)
    X, _ = make_data(n, p)
    Y = X[[np.flatnonzero(rows == row)[0] for row in range(12)]] @ rng.normal(size=(p, 4))
    options = {"alphas": ALPHAS, "cv": cv, "solver": solver, "fit_intercept": fit_intercept}
    few = ridge_cv(X, Y, target_rows=rows, **options)
    groups = {} if cv == "gcv" else {"groups": rows}
    expanded = ridge_cv(X, Y[rows], **groups, **options)
    np.testing.assert_array_equal(few.alpha, expanded.alpha)
    for name in ("coef", "intercept", "cv_scores", "cv_curve", "y_mean"):
        np.testing.assert_allclose(
            getattr(few, name), getattr(expanded, name), rtol=1e-7, atol=1e-10
        )
    other = np.arange(n) % 5
    if cv != "gcv":
        few = ridge_cv(X, Y, target_rows=rows, groups=other, **options)
        expanded = ridge_cv(X, Y[rows], groups=other, **options)
        np.testing.assert_allclose(few.cv_curve, expanded.cv_curve, rtol=1e-7, atol=1e-10)


def test_target_rows_by_singular_values_correlation_and_shared_penalties():
    X, _ = make_data(60, 20)
    X[:, 1] = X[:, 0]
    rows = np.random.default_rng(0).permutation(np.arange(60) // 3)
    Y = np.random.default_rng(1).normal(size=(20, 4))
    for options in (
        {"alphas": [1e-13, 1.0, 100.0]},
        {"alphas": [1e-13, 1.0, 100.0], "cv": "gcv"},
        {"alphas": ALPHAS, "score": "correlation"},
        {"alphas": ALPHAS, "alpha_per": "all"},
    ):
        few = ridge_cv(X, Y, target_rows=rows, **options)
        expanded = ridge_cv(X, Y[rows], groups=rows, **options)
        assert few.solver == expanded.solver
        np.testing.assert_allclose(few.cv_curve, expanded.cv_curve, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(few.predict(X), expanded.predict(X), rtol=1e-6, atol=1e-8)


def test_wrong_target_rows_are_told():
    X, Y = make_data(60)
    cases = [
        (np.arange(59), r"target_rows has shape \(59,\).*each of the 60 rows"),
        (np.arange(60.0), "float64; pass one whole number"),
        (np.arange(60)[:, None], r"shape \(60, 1\)"),
        (np.arange(60) - 1, "goes from -1 to 58"),
        (np.arange(60) + 1, "goes from 1 to 60"),
        (np.arange(60) // 2, "0 to 59; it goes from 0 to 29 and leaves out 30"),
    ]
    for rows, message in cases:
        with pytest.raises(RidgeError, match=message) as caught:
            ridge_cv(X, Y, target_rows=rows)
        assert "\n" not in str(caught.value)
    with pytest.raises(RidgeError, match="or target_rows with the row of Y of each trial"):
        ridge_cv(X, Y[:20])


# Estimators


@pytest.mark.parametrize(
    "settings",
    [
        {"cv": "gcv"},
        {"cv": "logo", "dtype": "float32"},
        {"search": "local"},
        {"search": "local", "scoring": "correlation", "device": "torch:cpu"},
        {"alpha_per": ["a", "a", "b", "b", "b"], "dtype": "auto"},
        {"alphas": [1e-13, 1.0]},
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_estimators_choose_alike_and_come_back_from_disk(settings, dtype, tmp_path):
    X, Y = make_data()
    X, Y, groups = X.astype(dtype), Y.astype(dtype), np.arange(60) // 3
    X[:, 1] = X[:, 0]
    model = RidgeCV(**settings).fit(X, Y, groups)
    options = {"score" if name == "scoring" else name: v for name, v in settings.items()}
    result = ridge_cv(X, Y, groups=groups, **options)
    np.testing.assert_array_equal(model.coef_.T, result.coef)
    np.testing.assert_array_equal(model.alpha_, result.alpha)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    assert loaded.coef_.dtype == ("f4" if settings.get("dtype") == "float32" else dtype)
    for name in ("coef_", "intercept_", "alpha_", "best_score_", "cv_curve_", "solver_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.fit(X, Y, groups).alpha_, model.alpha_)


def test_a_score_or_weight_that_is_no_number_does_not_come_back(tmp_path):
    X, Y = make_data()
    for name in ("coef_", "best_score_", "y_mean_"):
        model = RidgeCV(search="local").fit(X, Y)
        getattr(model, name)[..., 0] = np.nan
        save(model, tmp_path / "model")
        with pytest.raises(CalcarineError, match=f"{name} has a wrong shape or values"):
            load(tmp_path / "model")


@pytest.mark.parametrize("shape", [(90, 30), (60, 150), (1200, 40)])
@pytest.mark.parametrize(
    "options", [{}, {"alpha_per": "all"}, {"fit_intercept": False}, {"dtype": "float32"}]
)
@pytest.mark.parametrize("repeated", [False, True])
def test_quadratic_forms_score_as_predictions_do(shape, options, repeated, monkeypatch):
    """Errors from one matrix for all targets against those of predictions."""
    X, Y, groups = simulated(*shape, t=40)
    if repeated:  # trials of a stimulus in any order
        mixed = np.random.default_rng(3).permutation(shape[0])
        X, groups, Y = X[mixed], groups[mixed], Y[: groups.max() + 1]
        options = {**options, "target_rows": groups}
    tolerance = 1e-4 if "dtype" in options else 1e-9
    found = []
    for pays in (False, True):
        monkeypatch.setattr(_quadratic_forms, "forms_pay", lambda *sizes, pays=pays: pays)
        found.append(ridge_cv(X, Y, groups=groups, memory=1e9, **options))
    np.testing.assert_allclose(found[1].cv_scores, found[0].cv_scores, atol=tolerance)
    np.testing.assert_allclose(found[1].cv_curve, found[0].cv_curve, atol=tolerance)
    if "dtype" not in options:
        np.testing.assert_array_equal(found[1].alpha, found[0].alpha)
        return
    # Rounding may decide where penalties are equally good: no choice is worse than the other's.
    monkeypatch.undo()
    alphas = found[0].alphas
    one_each = [ridge_cv(X, Y, groups=groups, alphas=[a], **options).cv_scores for a in alphas]
    curves, targets = np.array(one_each), np.arange(Y.shape[1])
    for result in found:
        chosen = curves[np.searchsorted(alphas, result.alpha), targets]
        np.testing.assert_allclose(chosen, curves.max(axis=0), atol=1e-6)


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("search", ["full", "local"])
def test_quadratic_forms_whatever_the_order_of_the_targets_rows(solver, search, monkeypatch):
    X, Y, groups = simulated(120, 40, t=120)
    rows = np.random.default_rng(0).permutation(120)
    options = {"groups": groups, "solver": solver, "search": search, "memory": 1e9}
    for pays in (False, True):
        monkeypatch.setattr(_quadratic_forms, "forms_pay", lambda *sizes, pays=pays: pays)
        expected = ridge_cv(X, Y[rows], **options)
        found = ridge_cv(X, Y, target_rows=rows, **options)
        np.testing.assert_array_equal(found.alpha, expected.alpha)
        np.testing.assert_allclose(found.cv_curve, expected.cv_curve, rtol=1e-9)


def test_quadratic_forms_serve_the_local_search(monkeypatch):
    X, Y, groups = simulated(900, 30, t=300)
    monkeypatch.setattr(_quadratic_forms, "forms_pay", lambda *sizes: False)
    expected = ridge_cv(X, Y, groups=groups, search="local")
    monkeypatch.setattr(_quadratic_forms, "forms_pay", lambda *sizes: True)
    found = ridge_cv(X, Y, groups=groups, search="local")
    np.testing.assert_array_equal(found.alpha, expected.alpha)
    np.testing.assert_allclose(found.cv_scores, expected.cv_scores, atol=1e-9)
    assert np.isnan(found.cv_curve).any()


def test_quadratic_forms_only_where_they_pay_and_can_be(monkeypatch):
    made = []
    empty = QuadraticForms.empty.__func__

    def noted(cls, *rest):
        made.append(empty(cls, *rest))
        return made[-1]

    monkeypatch.setattr(QuadraticForms, "empty", classmethod(noted))
    X, Y, groups = simulated(60, 300, t=4000)
    ridge_cv(X, Y[:, :5], groups=groups)
    ridge_cv(X, Y, groups=groups, score="correlation")
    ridge_cv(X, Y, groups=groups, cv="gcv")
    assert not made
    with_forms = ridge_cv(X, Y, groups=groups)
    assert len(made) == 1
    assert made[0] is not None
    # The caller's groups may split the trials of a row of the targets over folds.
    rows, other = np.arange(60) // 2, np.arange(60) % 20
    split = ridge_cv(X, Y[:30], groups=other, target_rows=rows)
    assert made[1:] == [None]
    full = ridge_cv(X, Y[rows], groups=other)
    np.testing.assert_array_equal(split.alpha, full.alpha)
    assert with_forms.coef.shape == (300, 4000)
