"""Folds given by scikit-learn, and penalties that are given instead of chosen."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    LeaveOneOut,
    LeavePGroupsOut,
    LeavePOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.preprocessing import StandardScaler

from calcarine.errors import CalcarineError
from calcarine.linear import (
    BandedRidgeCV,
    RidgeCV,
    _banded_inputs,
    _inputs,
    _solvers,
    banded_ridge_cv,
    iter_ridge_cv,
    load,
    ridge_cv,
    save,
)
from calcarine.linear._predictors import Splits

pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")

ALPHAS = np.array([0.1, 3.0, 100.0, 3000.0])
GROUPS = np.arange(40) // 2


def make_data(n=40, p=6, t=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    return X, X @ rng.normal(size=(p, t)) + 2 * rng.normal(size=(n, t))


def by_ridge(*args, **options):
    return ridge_cv(*args, alphas=ALPHAS, **options)


def by_banded_ridge(X, Y, **options):
    return banded_ridge_cv([X[:, :3], X[:, 3:]], Y, alphas=ALPHAS, n_candidates=4, **options)


def pooled_r2(X, Y, splits, alpha):
    scale, error = X.std(axis=0), 0
    for train, test in splits:
        model = Ridge(alpha).fit(X[train] / scale, Y[train])
        error = error + ((Y[test] - model.predict(X[test] / scale)) ** 2).sum(axis=0)
    return 1 - error / ((Y - Y.mean(axis=0)) ** 2).sum(axis=0)


@pytest.mark.parametrize(
    "cv",
    [
        KFold(4),
        KFold(3, shuffle=True, random_state=1),
        LeaveOneOut(),
        PredefinedSplit(np.arange(40) % 7),
        list(KFold(5).split(np.ones(40))),
        [(np.arange(40) % 2 == 0, np.arange(40) % 2 == 1), (np.arange(1, 40, 2), range(0, 40, 2))],
    ],
    ids=repr,
)
def test_held_out_scores_are_those_of_these_folds(cv):
    X, Y = make_data()
    splits = list(cv.split(X)) if hasattr(cv, "split") else cv
    splits = [[np.arange(40)[part] for part in map(np.asarray, pair)] for pair in splits]
    expected = np.stack([pooled_r2(X, Y, splits, alpha) for alpha in ALPHAS])
    result = ridge_cv(X, Y, alphas=ALPHAS, cv=cv)
    np.testing.assert_allclose(result.cv_curve, expected.mean(axis=1), rtol=1e-8)
    np.testing.assert_array_equal(result.alpha, ALPHAS[expected.argmax(axis=0)])
    again = ridge_cv(X, Y, alphas=ALPHAS, cv=iter(list(splits)))
    np.testing.assert_array_equal(again.coef, result.coef)
    one = banded_ridge_cv([X], Y, alphas=ALPHAS, cv=cv)
    np.testing.assert_allclose(one.cv_scores, expected.max(axis=0), rtol=1e-8)


@pytest.mark.parametrize("fit", [by_ridge, by_banded_ridge])
@pytest.mark.parametrize("number", [3, np.int64(3)])
def test_a_number_is_that_many_folds_over_groups(fit, number):
    X, Y = make_data()
    given = fit(X, Y, groups=GROUPS, cv=number)
    expected = fit(X, Y, groups=GROUPS, n_folds=3)
    np.testing.assert_array_equal(given.cv_scores, expected.cv_scores)


@pytest.mark.parametrize("fit", [by_ridge, by_banded_ridge])
def test_splitters_are_given_the_groups(fit):
    X, Y = make_data()
    for cv in (GroupKFold(4), LeaveOneGroupOut()):
        folds = np.empty(40, int)
        for fold, (_, test) in enumerate(cv.split(X, Y, GROUPS)):
            folds[test] = fold
        given = fit(X, Y, groups=GROUPS, cv=cv)
        expected = fit(X, Y, groups=GROUPS, cv=PredefinedSplit(folds))
        np.testing.assert_allclose(given.cv_scores, expected.cv_scores, rtol=1e-8)
    with pytest.raises(CalcarineError, match="groups"):
        fit(X, Y, cv=GroupKFold(4))


def test_a_splitter_may_look_at_a_single_target():
    X, _ = make_data()
    y = np.repeat([0, 1], 20)
    model = RidgeCV(ALPHAS, cv=StratifiedKFold(4)).fit(X, y)
    folds = StratifiedKFold(4).split(X, y)
    np.testing.assert_array_equal(model.coef_, RidgeCV(ALPHAS, cv=folds).fit(X, y).coef_)


@pytest.mark.parametrize("fit", [by_ridge, by_banded_ridge])
@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([(np.arange(40), np.arange(40))], "trains on rows that it holds out, such as row 0"),
        (
            [(np.arange(30), [3, 35])],
            "Fold 0 of cv trains on rows that it holds out, such as row 3",
        ),
        ([([], np.arange(40))], "no row to train on"),
        ([(np.arange(40), [])], "no row to hold out"),
        ([], "cv gives no fold"),
        ([(np.arange(20), np.arange(20, 41))], "names row 40 in fold 0 but X has 40 rows"),
        ([(np.arange(-1, 20), np.arange(20, 40))], "names row -1"),
        ([(np.arange(20) + 0.5, np.arange(20, 40))], "not a pair of training and test rows"),
        ([(np.r_[0, np.arange(20)], np.arange(20, 40))], "Fold 0 of cv names row 0 twice"),
        ([1, 2], "not a pair of training and test rows"),
        ([(1, 2, 3)], "not a pair"),
        (PredefinedSplit(np.arange(41)), "name"),
        (KFold(41), "KFold does not split these rows"),
        (LeavePOut(40), "does not split these rows|no row to train on"),
        (StratifiedKFold(3), "does not split these rows"),
        (KFold(4), "splits group 0 over training and test of fold 0"),
        (ShuffleSplit(3, random_state=0), "splits group"),
        ([([0, 1], [2, 20])], "splits group 0 over"),
        ("loo", "cv is 'loo'; choose 'kfold'"),
        (None, "cv is None"),
        (True, "cv is True"),
        (2.5, "cv is 2.5"),
        (1, "cv is 1"),
        (object, "choose a number of folds"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_folds_that_cannot_be_used_are_refused(fit, cv, message):
    X, Y = make_data()
    groups = np.arange(40) % 20
    with pytest.raises(CalcarineError, match=message) as caught:
        fit(X, Y, cv=cv, groups=groups)
    assert "\n" not in str(caught.value)


# Folds that leave rows out, or hold rows out several times


LEFT_OUT = PredefinedSplit(np.where(np.arange(40) % 3 == 0, -1, np.arange(40) // 2 % 4))
OVERLAPPING = [
    ShuffleSplit(4, test_size=0.3, random_state=0),
    ShuffleSplit(3, train_size=0.4, test_size=0.2, random_state=1),
    GroupShuffleSplit(5, random_state=1),
    RepeatedKFold(n_splits=4, n_repeats=2, random_state=0),
    TimeSeriesSplit(4),
    TimeSeriesSplit(3, gap=2, max_train_size=12),
    LEFT_OUT,
    LeavePGroupsOut(2),
    [(np.arange(5), [6]), (np.arange(8, 30), [6, 34, 39])],
]


def pooled_r2_of_splits(X, Y, splits, alpha, weights=None, *, intercept=True):
    """r2 of what Ridge of scikit-learn predicts for all held-out rows, which are pooled."""
    w = np.ones(len(X)) if weights is None else weights
    mean = w @ X / w.sum()
    X = X / np.sqrt(w @ (X - mean) ** 2 / w.sum())
    targets, guesses = [], []
    for train, test in splits:
        model = Ridge(alpha, fit_intercept=intercept)
        model.fit(X[train], Y[train], sample_weight=w[train])
        targets.append(Y[test])
        guesses.append(model.predict(X[test]))
    own = np.concatenate([w[test] for _, test in splits])
    targets, guesses = np.concatenate(targets), np.concatenate(guesses)
    return r2_score(targets, guesses, sample_weight=own, multioutput="raw_values")


def pairs_of(cv, X, groups):
    return list(cv.split(X, None, groups)) if hasattr(cv, "split") else cv


def over_groups(cv):
    return GROUPS if "Group" in type(cv).__name__ else None


@pytest.mark.parametrize("p", [6, 70])
@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize("cv", OVERLAPPING, ids=repr)
def test_any_folds_score_as_refits_by_scikit_learn_do(cv, weigh, p):
    X, Y = make_data(p=p)
    rng = np.random.default_rng(2)
    weights = rng.integers(1, 4, 40) * (np.arange(40) % 7 > 0).astype(float) if weigh else None
    groups = over_groups(cv)
    splits = pairs_of(cv, X, groups)
    for intercept in (True, False):
        expected = np.stack(
            [pooled_r2_of_splits(X, Y, splits, a, weights, intercept=intercept) for a in ALPHAS]
        )
        options = {
            "alphas": ALPHAS,
            "cv": cv,
            "groups": groups,
            "sample_weight": weights,
            "fit_intercept": intercept,
        }
        if not intercept:  # else the oracle's scales are about a mean that is subtracted
            options["standardize"] = True
        for solver in ("primal", "dual"):
            result = ridge_cv(X, Y, solver=solver, **options)
            np.testing.assert_allclose(result.cv_curve, expected.mean(axis=1), rtol=1e-8)
            np.testing.assert_allclose(result.cv_scores, expected.max(axis=0), rtol=1e-8)
            np.testing.assert_array_equal(result.alpha, ALPHAS[expected.argmax(axis=0)])
            whole = ridge_cv(
                X, Y, solver=solver, **{**options, "cv": "fixed", "alphas": result.alpha}
            )
            np.testing.assert_allclose(result.coef, whole.coef, rtol=1e-10, atol=1e-12)
            one = banded_ridge_cv([X], Y, solver=solver, **options)
            np.testing.assert_allclose(one.cv_scores, expected.max(axis=0), rtol=1e-8)
            np.testing.assert_allclose(one.coefs[0], result.coef, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("p", [6, 70])
@pytest.mark.parametrize("score", ["r2", "correlation"])
@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("fit", ["ridge", "local", "float32", "torch", "banded"])
def test_folds_that_partition_the_rows_score_alike_one_by_one(fit, solver, score, p, monkeypatch):
    X, Y = make_data(p=p)
    Y[:, 4] = 2.5
    weights = np.random.default_rng(1).uniform(0.5, 2, 40)
    options = {"cv": GroupKFold(4), "groups": GROUPS, "sample_weight": weights, "score": score}
    options |= {"solver": solver}
    options |= {"local": {"search": "local"}, "torch": {"device": "torch:cpu"}}.get(fit, {})
    if fit == "float32":
        X, Y = X.astype("f4"), Y.astype("f4")

    def run():
        if fit != "banded":
            return ridge_cv(X, Y, alphas=np.logspace(-2, 4, 9), **options)
        return banded_ridge_cv(
            [X[:, :3], X[:, 3:]], Y, alphas=ALPHAS, gammas=[[0.5, 0.5], [0.1, 0.9]], **options
        )

    together = run()
    for module in (_inputs, _banded_inputs):
        monkeypatch.setattr(module, "make_splits", one_by_one(module.make_splits))
    alone = run()
    close = {"rtol": 1e-3, "atol": 1e-3} if fit == "float32" else {"rtol": 1e-7, "atol": 1e-9}
    np.testing.assert_array_equal(alone.alpha, together.alpha)
    np.testing.assert_allclose(alone.cv_scores, together.cv_scores, **close)
    if fit == "banded":
        np.testing.assert_array_equal(alone.gamma, together.gamma)
        np.testing.assert_allclose(alone.coefs[1], together.coefs[1], **close)
    else:
        np.testing.assert_allclose(alone.cv_curve, together.cv_curve, **close)
        np.testing.assert_allclose(alone.predict(X), together.predict(X), **close)


def one_by_one(make_splits):
    """Folds as if they did not partition the rows."""
    return lambda *args, **options: Splits(None, list(make_splits(*args, **options)))


@pytest.mark.parametrize("cv", [ShuffleSplit(6, random_state=0), TimeSeriesSplit(4)], ids=repr)
@pytest.mark.parametrize("fit", [by_ridge, by_banded_ridge])
def test_correlations_are_of_rows_centred_in_each_fold(fit, cv):
    X, Y = make_data()
    scale, best = X.std(axis=0), np.full(5, -1.0)
    result = fit(X, Y, cv=cv, score="correlation")
    if fit is by_banded_ridge:  # of one gamma
        result = banded_ridge_cv([X], Y, alphas=ALPHAS, cv=cv, score="correlation")
    for alpha in ALPHAS:
        pooled = [[], []]
        for train, test in cv.split(X):
            guess = Ridge(alpha).fit(X[train] / scale, Y[train]).predict(X[test] / scale)
            for rows, values in zip(pooled, (guess, Y[test]), strict=True):
                rows.append(values - values.mean(axis=0))
        a, b = (np.concatenate(rows) for rows in pooled)
        best = np.maximum(
            best, (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        )
    np.testing.assert_allclose(result.cv_scores, best, rtol=1e-8)


@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_any_folds_in_blocks_with_shared_penalties_repeats_and_on_disk(solver, tmp_path):
    X, Y = make_data(80, 300, 150)
    rows = np.arange(80) % 40
    options = {"alphas": ALPHAS, "cv": GroupShuffleSplit(5, random_state=0), "solver": solver}
    repeated = {**options, "target_rows": rows}
    whole = ridge_cv(X, Y[:40], **repeated)
    by_trial = ridge_cv(X, Y[:40][rows], groups=rows, **options)
    np.testing.assert_allclose(whole.cv_scores, by_trial.cv_scores, rtol=1e-9)
    blocks = ridge_cv(X, Y[:40], block_size=64, out=tmp_path / "fit", **repeated)
    np.testing.assert_allclose(blocks.cv_scores, whole.cv_scores, rtol=1e-9)
    again = ridge_cv(X, Y[:40], block_size=64, out=tmp_path / "fit", **repeated)
    np.testing.assert_array_equal(again.coef, blocks.coef)
    with pytest.raises(CalcarineError, match="other data or settings"):
        other = {**repeated, "cv": GroupShuffleSplit(5, random_state=1)}
        ridge_cv(X, Y[:40], block_size=64, out=tmp_path / "fit", **other)
    labels = np.arange(150) % 2
    shared = ridge_cv(X, Y[:40], alpha_per=labels, **repeated)
    table = np.stack([ridge_cv(X, Y[:40], **{**repeated, "alphas": [a]}).cv_scores for a in ALPHAS])
    for label in (0, 1):
        expected = ALPHAS[table[:, labels == label].mean(axis=1).argmax()]
        assert set(shared.alpha[labels == label]) == {expected}
    streamed = [r.cv_scores for _, r in iter_ridge_cv(X, Y[:40], block_size=50, **repeated)]
    np.testing.assert_allclose(np.concatenate(streamed), whole.cv_scores, rtol=1e-9)


@pytest.mark.parametrize("p", [30, 300])
def test_any_folds_need_no_more_digits_than_refits(p):
    """Small penalties, where float32 and Gram matrices do not suffice."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, p)) * np.logspace(0, -4, p)
    Y = X @ rng.normal(size=(p, 3)) + 0.1 * rng.normal(size=(120, 3))
    cv = ShuffleSplit(3, random_state=0)
    for alphas in ([1e-9, 1.0], [1e-3, 1.0]):
        options = {"alphas": alphas, "cv": cv, "standardize": False}
        for solver in ("primal", "dual"):
            double = ridge_cv(X, Y, solver=solver, **options)
            single = ridge_cv(X.astype("f4"), Y, solver=solver, **options)
            expected = []
            for alpha in alphas:
                guesses, targets = [], []
                for train, test in cv.split(X):
                    model = Ridge(alpha, solver="svd").fit(X[train], Y[train])
                    guesses.append(model.predict(X[test]))
                    targets.append(Y[test])
                expected.append(r2_score(np.concatenate(targets), np.concatenate(guesses)))
            np.testing.assert_allclose(double.cv_curve, expected, rtol=1e-5)
            np.testing.assert_allclose(single.cv_curve, expected, rtol=2e-2, atol=2e-3)


def test_solver_is_chosen_by_the_cost_of_all_decompositions():
    """A small training set among many rows makes XX' no cheaper."""
    X, Y = make_data(80, 30)
    cv = ShuffleSplit(3, train_size=10, random_state=0)
    assert by_ridge(X, Y, cv=cv).solver == "primal"
    assert by_ridge(X[:28], Y[:28], cv=TimeSeriesSplit(3)).solver == "dual"


def test_targets_that_are_constant_where_they_are_held_out_score_zero():
    X, Y = make_data()
    Y[20:, 1] = 0.1
    cv = [(np.arange(20), np.arange(20, 30)), (np.arange(10), np.arange(30, 40))]
    for solver in ("primal", "dual"):
        result = by_ridge(X, Y, cv=cv, solver=solver)
        assert result.cv_scores[1] == 0 and result.alpha[1] == ALPHAS[-1]
        assert (result.cv_scores[[0, 2, 3, 4]] != 0).all() and result.coef[:, 1].any()
        banded = by_banded_ridge(X, Y, cv=cv, solver=solver)
        assert banded.cv_scores[1] == 0 and (banded.cv_scores[[0, 2, 3, 4]] != 0).all()


@pytest.mark.parametrize("fit", [by_ridge, by_banded_ridge])
def test_weights_and_scores_must_leave_something_in_each_fold(fit):
    X, Y = make_data()
    first = (np.arange(40) < 20).astype(float)
    halves = [(np.arange(20), np.arange(20, 40)), (np.arange(10), np.arange(10, 20))]
    with pytest.raises(CalcarineError, match="zero for every row that fold 0 of cv trains on"):
        fit(X, Y, cv=halves, sample_weight=1 - first)
    with pytest.raises(CalcarineError, match="zero for every row that cv holds out"):
        fit(X, Y, cv=halves[:1], sample_weight=first)
    with pytest.raises(CalcarineError, match="at least two"):
        fit(X, Y, cv=[(np.arange(20), [30]), (np.arange(20), [31, 32])], score="correlation")


def test_memory_counts_the_folds(tmp_path):
    X, Y = make_data(200, 100)
    cv = ShuffleSplit(30, random_state=0)
    with pytest.raises(CalcarineError, match="memory leaves"):
        by_ridge(X, Y, cv=cv, memory=1e6)
    result = by_ridge(X, Y, cv=cv, memory=2e8)
    np.testing.assert_array_equal(result.alpha, by_ridge(X, Y, cv=cv).alpha)


@pytest.mark.parametrize("estimator", [RidgeCV, BandedRidgeCV])
def test_groups_and_weights_are_routed(estimator):
    """Through a grid search, whose folds are of groups, to folds of groups, weighted."""
    X, Y = make_data()
    y, weights = Y[:, 0], np.random.default_rng(0).integers(1, 4, 40)
    with config_context(enable_metadata_routing=True):
        model = estimator(alphas=ALPHAS, cv=GroupKFold(3))
        model.set_fit_request(groups=True, sample_weight=True)
        model.set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"standardize": [True, False]}, cv=GroupKFold(4))
        search.fit(X, y, groups=GROUPS, sample_weight=weights)
    best = search.best_estimator_
    direct = estimator(alphas=ALPHAS, cv=GroupKFold(3), standardize=best.standardize)
    direct.fit(X, y, groups=GROUPS, sample_weight=weights)
    np.testing.assert_array_equal(best.coef_, direct.coef_)
    scores = []
    for train, test in GroupKFold(4).split(X, y, GROUPS):
        direct.fit(X[train], y[train], groups=GROUPS[train], sample_weight=weights[train])
        scores.append(direct.score(X[test], y[test], sample_weight=weights[test]))
    assert search.best_score_ == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("n", [40, 5])  # primal and dual
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weigh", [True, False])
def test_fixed_penalties_are_those_of_scikit_learn(n, fit_intercept, weigh):
    X, Y = make_data(n)
    weights = np.random.default_rng(1).uniform(0.5, 2, n) if weigh else None
    alphas = np.array([10.0, 0.1, 500.0, 10.0, 1.0])
    options = {"cv": "fixed", "fit_intercept": fit_intercept, "standardize": False}
    model = RidgeCV(alphas, **options).fit(X, Y, sample_weight=weights)
    theirs = Ridge(alphas, fit_intercept=fit_intercept).fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(model.coef_, theirs.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.intercept_, theirs.intercept_, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(model.alpha_, alphas)
    assert np.isnan(model.best_score_).all() and model.edge_fractions_ == (0.0, 0.0)
    one = RidgeCV(3.0, **options).fit(X, Y[:, 0], sample_weight=weights)
    theirs = Ridge(3.0, fit_intercept=fit_intercept).fit(X, Y[:, 0], sample_weight=weights)
    np.testing.assert_allclose(one.coef_, theirs.coef_, rtol=1e-8, atol=1e-10)
    assert one.alpha_ == 3


@pytest.mark.parametrize("p", [20, 300])
def test_every_target_may_have_a_penalty_of_its_own(p, tmp_path):
    """More penalties than factors are kept of, in blocks, on disk, and continued."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(400, p)), rng.normal(size=(400, 150))
    alphas = rng.uniform(1, 1000, 150)
    options = {"cv": "fixed", "alphas": alphas, "block_size": 64, "standardize": False}
    result = ridge_cv(X, Y, out=tmp_path / "fit", **options)
    theirs = Ridge(alphas).fit(X, Y)
    np.testing.assert_allclose(result.coef, theirs.coef_.T, rtol=1e-7, atol=1e-10)
    again = ridge_cv(X, Y, out=tmp_path / "fit", **options)
    np.testing.assert_array_equal(again.coef, result.coef)
    np.testing.assert_array_equal(again.alpha, alphas)
    with pytest.raises(CalcarineError, match="other data or settings"):
        ridge_cv(X, Y, out=tmp_path / "fit", **{**options, "alphas": alphas[::-1]})


def test_factors_of_many_penalties_are_not_all_kept(monkeypatch):
    """Each would take as much memory as the basis of hundreds of columns."""
    kept = []

    def spy(self, alpha, cholesky=_solvers.BlockTridiagonal._cholesky):
        factors = cholesky(self, alpha)
        kept.append(len(self._cache))
        return factors

    monkeypatch.setattr(_solvers.BlockTridiagonal, "_cholesky", spy)
    monkeypatch.setattr(_solvers, "_use_eigenvectors", lambda size, columns: False)
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(100, 70)), rng.normal(size=(100, 110))
    alphas = rng.permutation(110) + 1.0
    result = ridge_cv(X, Y, cv="fixed", alphas=alphas, block_size=50, standardize=False)
    np.testing.assert_allclose(result.coef, Ridge(alphas).fit(X, Y).coef_.T, rtol=1e-7, atol=1e-10)
    assert len(kept) >= 110 and max(kept) <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": [1.0, 2.0]}, "holds 2 penalties for 5 target"),
        ({"alphas": [1.0, 2.0, -1.0, 2.0, 1.0]}, "must be finite and not negative"),
        ({"alphas": 1.0, "alpha_per": "all"}, "leave it out with cv='fixed'"),
        ({"alphas": 1.0, "search": "local"}, "needs cv='kfold'"),
        ({"alphas": 1.0, "score": "correlation"}, "cv='kfold' only"),
    ],
)
def test_fixed_penalties_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(CalcarineError, match=message):
        ridge_cv(*make_data(), cv="fixed", **options)


@pytest.mark.parametrize("estimator", [RidgeCV, BandedRidgeCV])
@pytest.mark.parametrize(
    "cv",
    [
        4,
        np.int64(4),
        KFold(4, shuffle=True, random_state=3),
        PredefinedSplit(np.arange(40) % 3),
        GroupKFold(4),
        ShuffleSplit(3, test_size=0.2, random_state=0),
        RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
        TimeSeriesSplit(3, gap=1),
        LEFT_OUT,
        list(KFold(3).split(np.ones(40))),
    ],
    ids=repr,
)
def test_cv_comes_back_from_disk(estimator, cv, tmp_path):
    X, Y = make_data()
    groups = GROUPS if isinstance(cv, GroupKFold) else None
    model = estimator(alphas=ALPHAS, cv=cv).fit(X, Y, groups)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model").fit(X, Y, groups)
    np.testing.assert_array_equal(again.coef_, model.coef_)


def test_fixed_penalties_come_back_from_disk(tmp_path):
    X, Y = make_data()
    model = RidgeCV([3.0, 1.0, 2.0, 1.0, 5.0], cv="fixed").fit(X, Y)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.fit(X, Y).coef_, model.coef_)


class _OwnSplitter(KFold):
    """Somebody's own code, which no file may name."""


def test_splitters_that_are_not_of_scikit_learn_are_not_saved(tmp_path):
    X, Y = make_data()
    model = RidgeCV(cv=_OwnSplitter(4)).fit(X, Y)
    with pytest.raises(CalcarineError, match="cv is a _OwnSplitter"):
        save(model, tmp_path / "model")


@pytest.mark.parametrize("splitter", ["GridSearchCV", "os.system", "StandardScaler", None])
def test_files_make_nothing_but_splitters(splitter, tmp_path):
    X, Y = make_data()
    _, about = save(RidgeCV(cv=KFold(4)).fit(X, Y), tmp_path / "model")
    text = about.read_text()
    named = "null" if splitter is None else f'"{splitter}"'
    assert '"KFold"' in text
    about.write_text(text.replace('"KFold"', named))
    with pytest.raises(CalcarineError, match="not a splitter of scikit-learn"):
        load(about)


@pytest.mark.parametrize("n_folds", [4, 5])
def test_penalties_are_those_of_himalaya_with_its_own_loss(n_folds):
    """Its default loss is a mean of squared errors, which pools as r2 does here."""
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV

    X, Y = make_data(120, 20, 60, seed=3)
    X = StandardScaler().fit_transform(X[:, :20])
    alphas, folds = np.logspace(-2, 4, 13), KFold(n_folds)
    theirs = HimalayaRidgeCV(alphas=alphas, fit_intercept=True, cv=folds).fit(X, Y)
    ours = RidgeCV(alphas, cv=folds, standardize=False).fit(X, Y)
    assert len(np.unique(ours.alpha_)) > 3
    np.testing.assert_allclose(ours.alpha_, theirs.best_alphas_, rtol=1e-12)  # of its logarithms
    assert np.abs(ours.coef_.T - theirs.coef_).max() < 1e-13
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-12)


def test_r2_is_pooled_here_and_averaged_over_folds_by_himalaya():
    """Where folds differ in their spread the two differ, and so may penalties."""
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV
    from himalaya.scoring import r2_score

    X, Y = make_data(30, 12, 60, seed=4)
    alphas, folds = np.logspace(-2, 4, 13), KFold(5)
    params = {"score_func": r2_score}
    theirs = HimalayaRidgeCV(alphas=alphas, fit_intercept=True, cv=folds, solver_params=params).fit(
        X, Y
    )
    ours = RidgeCV(alphas, cv=folds, standardize=False).fit(X, Y)
    same = np.isclose(ours.alpha_, theirs.best_alphas_, rtol=1e-12)
    assert same.any() and not same.all()
    for target, alpha in enumerate(ours.alpha_):
        errors, single = 0.0, []
        for train, test in folds.split(X):
            guess = Ridge(alpha).fit(X[train], Y[train, target]).predict(X[test])
            own = ((Y[test, target] - guess) ** 2).sum()
            single.append(1 - own / ((Y[test, target] - Y[test, target].mean()) ** 2).sum())
            errors += own
        pooled = 1 - errors / ((Y[:, target] - Y[:, target].mean()) ** 2).sum()
        assert ours.best_score_[target] == pytest.approx(pooled)
        if same[target]:
            assert theirs.cv_scores_[target] == pytest.approx(np.mean(single), rel=1e-5)
