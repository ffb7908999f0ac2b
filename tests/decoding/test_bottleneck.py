"""A bottleneck lets through so many numbers, the best ones, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from calcarine import datasets
from calcarine.decoding import LatentRegression
from calcarine.decoding.bottleneck import Bottleneck
from calcarine.errors import CalcarineError


@pytest.fixture(scope="module")
def world():
    dataset = datasets.load_dataset(
        "simulated", n_train=40, n_test=9, n_early=50, n_ventral=50, n_other=5, n_sessions=3
    )
    rng = np.random.default_rng(0)
    n = len(dataset.stimuli)
    z = rng.normal(size=(n, 2, 3, 3)).astype(np.float32)
    c = rng.normal(size=(n, 4, 5)).astype(np.float32)
    split = dataset.splits[0]
    regression = LatentRegression(alphas=np.array([1.0, 100.0])).fit(dataset, split, z, c)
    return dataset, split, regression, regression.predict(dataset, split)


@pytest.mark.parametrize("name", ["z", "c"])
def test_rank_0_knows_nothing_and_the_full_rank_changes_nothing(world, name):
    dataset, split, regression, predicted = world
    found = Bottleneck(regression, dataset, split, name)
    nothing = found.predict(predicted[name], 0)
    assert nothing.shape == predicted[name].shape
    np.testing.assert_array_equal(nothing, np.broadcast_to(nothing[:1], nothing.shape))
    # Test responses may lead where training ones did not, so the full rank is asked of training.
    rows = dataset.train(split, regression.rois_[name])
    train, shown = regression.predict_target(name, rows.data), np.array(rows.stimulus_ids)
    means = np.stack([train[shown == i].mean(0) for i in np.unique(shown)])
    np.testing.assert_allclose(found.predict(means, 10**6), means, atol=1e-4)
    assert found.shares_.sum() == pytest.approx(1) and (np.diff(found.shares_) <= 1e-12).all()


@pytest.mark.parametrize("rank", [1, 3])
def test_no_reduction_of_the_same_rank_predicts_more_of_training(world, rank):
    dataset, split, regression, _ = world
    found = Bottleneck(regression, dataset, split, "z")
    responses = dataset.train(split, regression.rois_["z"])
    shown = np.array(responses.stimulus_ids)
    data = np.stack([responses.data[shown == i].mean(0) for i in np.unique(shown)])
    whole = regression.predict_target("z", data).reshape(len(data), -1).astype(float)
    reduced = found.predict(whole, rank).astype(float)
    centred = whole - whole.mean(0)
    assert np.linalg.matrix_rank(reduced - reduced.mean(0), tol=1e-3) == rank
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank] + whole.mean(0)
    np.testing.assert_allclose(reduced, best, atol=1e-4)
    rng = np.random.default_rng(1)
    for _ in range(20):
        other = np.linalg.qr(rng.normal(size=(whole.shape[1], rank)))[0]
        lost = np.square(centred - centred @ other @ other.T).sum()
        assert np.square(whole - reduced).sum() <= lost + 1e-6


def test_each_stimulus_passes_alone(world):
    dataset, split, regression, predicted = world
    found = Bottleneck(regression, dataset, split, "c")
    together = found.predict(predicted["c"], 2)
    for row in range(3):
        alone = found.predict(predicted["c"][row : row + 1], 2)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_a_negative_rank_is_refused(world):
    dataset, split, regression, predicted = world
    with pytest.raises(CalcarineError, match="0 or more"):
        Bottleneck(regression, dataset, split, "z").predict(predicted["z"], -1)
