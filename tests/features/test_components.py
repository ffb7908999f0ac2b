import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from calcarine.errors import CalcarineError
from calcarine.features import components
from calcarine.features.components import principal_components


def oracle(features, train, k):
    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    pca = PCA(k, svd_solver="full").fit(flat[train])
    scores = pca.transform(flat)
    inside = scores[train]
    return scores * np.sign(inside[np.abs(inside).argmax(0), np.arange(k)])


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 40), st.integers(1, 4), st.integers(1, 20), st.integers(0, 2**31))
def test_scores_are_those_of_scikit_learn(n, a, b, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, a, b)).astype(np.float32)
    train = np.arange(n) < n - 2
    k = min(n - 3, a * b, 6)
    found = principal_components(features, train, k)
    np.testing.assert_allclose(found, oracle(features, train, k), atol=1e-4)


def test_on_disk_in_small_blocks_is_as_in_memory(tmp_path, rng, monkeypatch):
    """Strong and weak components alike."""
    values = rng.normal(size=(60, 30)) * np.logspace(0, -4, 30)
    features = (values @ rng.normal(size=(30, 6 * 8 * 8))).reshape(60, 6, 8, 8).astype(np.float32)
    array = zarr.create_array(
        store=tmp_path / "a.zarr", shape=features.shape, dtype="float32", chunks=(16, 2, 8, 8)
    )
    array[:] = features
    train = np.arange(60) % 4 > 0
    monkeypatch.setattr(components, "_BLOCK_VALUES", 60 * 200)
    found = principal_components(array, train, 25)
    want = oracle(features, train, 25)
    scale = want[train].std(0)
    np.testing.assert_allclose(found / scale, want / scale, atol=1e-3)
    np.testing.assert_allclose(found, want, atol=1e-4 * scale.max())


def test_test_stimuli_change_nothing(rng):
    features = rng.normal(size=(30, 50)).astype(np.float32)
    train = np.arange(30) < 20
    other = features.copy()
    other[25] *= 100
    one, two = (principal_components(part, train, 5) for part in (features, other))
    np.testing.assert_array_equal(one[:25], two[:25])


def test_components_of_rounding_are_left_out(rng):
    features = (rng.normal(size=(30, 3)) @ rng.normal(size=(3, 40))).astype(np.float64)
    assert principal_components(features, np.ones(30, bool), 20).shape == (30, 3)


def test_mistakes_are_told(rng):
    features = rng.normal(size=(5, 3))
    with pytest.raises(CalcarineError, match="boolean, one value for each of 5"):
        principal_components(features, np.ones(4, bool))
    with pytest.raises(CalcarineError, match="two training stimuli"):
        principal_components(features, np.arange(5) == 1)
    features[3, 1] = np.nan
    with pytest.raises(CalcarineError, match="stimulus number 3 hold NaN"):
        principal_components(features, np.ones(5, bool))
    with pytest.raises(CalcarineError, match="the same features"):
        principal_components(np.ones((5, 3)), np.ones(5, bool))
