"""Decoders with the choices of the published code of Takagi & Nishimoto 2023."""

import numpy as np
import pytest
from sklearn.base import clone

from calcarine.brain import Responses
from calcarine.decoding import LatentRegression
from calcarine.decoding.ridge_fits import fit_ridge
from calcarine.linear import load, save

ALPHAS = np.logspace(-4, 4, 9)
N, REPEATS, VOXELS, TARGETS = 31, 3, 12, 9


@pytest.fixture
def work(rng):
    """Repeats in random order, voxels off zero, targets with a large mean."""
    targets = rng.standard_normal((N, TARGETS)) + 5
    order = rng.permutation(np.repeat(np.arange(N), REPEATS))
    weights = rng.standard_normal((TARGETS, VOXELS))
    data = (targets[order] - 5) @ weights + 4 * rng.standard_normal((len(order), VOXELS)) + 2
    ids = tuple(f"s{i:02d}" for i in range(N))
    shown = tuple(ids[i] for i in order)
    responses = Responses(data.astype(np.float64), shown, "train", np.zeros(len(order), np.int64))
    return responses, ids, targets, order


def test_it_is_the_pipeline_of_the_published_code(work, rng):
    """StandardScaler and himalaya's RidgeCV(cv=5), which has no intercept by default."""
    from himalaya.ridge import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    responses, ids, targets, order = work
    theirs = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS, cv=5))
    targets = targets - np.linspace(0, 5, TARGETS)
    theirs.fit(responses.data, targets[order])
    ours, _ = fit_ridge(responses, ids, targets, ALPHAS, 5, intercept=False, grouped=False)
    assert len(np.unique(ours.alpha_)) > 1
    assert np.allclose(ours.alpha_, theirs[-1].best_alphas_)
    fresh = rng.standard_normal((7, VOXELS)) * 3 + 2
    assert np.allclose(ours.predict(fresh), theirs.predict(fresh), atol=1e-6)


def test_without_an_intercept_the_mean_is_lost_and_kept_when_saved(work, tmp_path):
    responses, ids, targets, _ = work
    lost, _ = fit_ridge(responses, ids, targets, ALPHAS, 5, intercept=False)
    kept, _ = fit_ridge(responses, ids, targets, ALPHAS, 5)
    assert abs(lost.predict(responses.data).mean()) < 0.01
    assert abs(kept.predict(responses.data).mean() - 5) < 0.2
    save(lost, tmp_path / "z")
    assert np.array_equal(
        load(tmp_path / "z").predict(responses.data), lost.predict(responses.data)
    )
    rows = responses.data @ lost.coef_.T + lost.intercept_
    assert np.allclose(rows, lost.predict(responses.data), atol=1e-8)


def test_repeats_over_folds_choose_smaller_penalties(rng):
    """Targets that nothing predicts: folds that share stimuli let a large model look good."""
    n, voxels = 40, 200
    pattern = rng.standard_normal((n, voxels))
    order = rng.permutation(np.repeat(np.arange(n), 4))
    data = pattern[order] + 0.1 * rng.standard_normal((len(order), voxels))
    ids = tuple(f"s{i:02d}" for i in range(n))
    shown = tuple(ids[i] for i in order)
    responses = Responses(data, shown, "train", np.zeros(len(order), np.int64))
    targets = rng.standard_normal((n, 20))
    grid = np.logspace(-2, 6, 9)
    apart, told_apart = fit_ridge(responses, ids, targets, grid, 5)
    mixed, told_mixed = fit_ridge(responses, ids, targets, grid, 5, grouped=False)
    assert np.median(mixed.alpha_) < np.median(apart.alpha_) / 100
    assert told_mixed.mean_cv_r2 > 0.5 > told_apart.mean_cv_r2


def test_settings_survive_refitting():
    settings = LatentRegression("a", "b", ALPHAS, 4, intercept=False, grouped=False)
    again = clone(settings).get_params()
    np.testing.assert_array_equal(again.pop("alphas"), ALPHAS)
    assert again == {
        "roi_z": "a",
        "roi_c": "b",
        "n_folds": 4,
        "intercept": False,
        "grouped": False,
        "device": "cpu",
    }
