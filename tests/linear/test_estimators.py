"""The scikit-learn estimator and its files."""

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError, SettingError
from calcarine.linear import RidgeCV, load, ridge_cv, save

pytestmark = pytest.mark.filterwarnings("ignore::calcarine.linear.RidgeEdgeWarning")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 12)) * rng.uniform(0.1, 10, 12) + 100
    Y = X @ rng.normal(size=(12, 4)) + rng.normal(size=(60, 4))
    return X, Y, np.repeat(np.arange(20), 3)


@parametrize_with_checks(
    [
        RidgeCV(),
        RidgeCV(alpha_per="all", scoring="correlation", n_folds=3),
        RidgeCV(cv="logo", solver="dual"),
        RidgeCV(cv="fixed", alphas=1.0),
        RidgeCV(cv=3, search="local"),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_fit_is_the_function(data):
    X, Y, groups = data
    model = RidgeCV(alphas=[1.0, 10.0, 100.0], n_folds=4).fit(X, Y, groups=groups)
    result = ridge_cv(X, Y, alphas=[1.0, 10.0, 100.0], n_folds=4, groups=groups)
    np.testing.assert_array_equal(model.coef_.T, result.coef)
    np.testing.assert_array_equal(model.intercept_, result.intercept)
    np.testing.assert_array_equal(model.alpha_, result.alpha)
    np.testing.assert_array_equal(model.best_score_, result.cv_scores)
    assert (model.solver_, model.n_features_in_) == ("primal", 12)


def test_vector_target_gives_vectors(data):
    X, Y, groups = data
    model = RidgeCV().fit(X, Y[:, 0], groups)
    assert model.coef_.shape == (12,)
    assert np.ndim(model.intercept_) == np.ndim(model.alpha_) == np.ndim(model.best_score_) == 0
    assert model.predict(X).shape == (60,)
    np.testing.assert_allclose(
        model.predict(X), RidgeCV().fit(X, Y[:, :1], groups).predict(X)[:, 0], rtol=1e-12
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("p", [12, 700])
def test_one_row_alone_is_the_row_within_a_thousand(p, dtype):
    """To 1e-12 of the size of the predictions, in either precision of the weights."""
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(40, p)) + 1000, rng.normal(size=(40, 37))
    model = RidgeCV(dtype=dtype).fit(X, Y)
    batch = rng.normal(size=(1000, p)) + 1000
    together = model.predict(batch)
    assert together.dtype == np.float64
    tolerance = 1e-12 * np.abs(together).max()
    for row in (0, 1, 63, 64, 500, 999):
        alone = model.predict(batch[row : row + 1])[0]
        np.testing.assert_allclose(alone, together[row], rtol=1e-12, atol=tolerance)
    pieces = np.concatenate([model.predict(part) for part in np.array_split(batch, 7)])
    np.testing.assert_allclose(pieces, together, rtol=1e-12, atol=tolerance)


def test_mistakes_are_told(data):
    X, Y, groups = data
    with pytest.raises(CalcarineError, match="not fitted") as caught:
        RidgeCV().predict(X)
    assert isinstance(caught.value, NotFittedError)
    model = RidgeCV().fit(X, Y, groups)
    with pytest.raises(CalcarineError, match="11 features"):
        model.predict(X[:, 1:])
    spoiled = X.copy()
    spoiled[7, 3] = np.nan
    with pytest.raises(CalcarineError, match="row 7 column 3"):
        model.predict(spoiled)
    with pytest.raises(CalcarineError, match="row 7 column 3"):
        RidgeCV().fit(spoiled, Y, groups)
    with pytest.raises(CalcarineError, match="target y is None"):
        RidgeCV().fit(X, None)


@pytest.mark.parametrize("target", [slice(None), 0])
def test_round_trip(data, tmp_path, target):
    X, Y, groups = data
    frame = pd.DataFrame(X, columns=[f"voxel{i}" for i in range(12)])
    model = RidgeCV(alphas=np.array([1.0, 10.0]), n_folds=np.int64(4)).fit(
        frame, Y[:, target], groups
    )
    files = save(model, tmp_path / "new" / "subj01.v1")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "subj01.v1.json",
        "subj01.v1.safetensors",
    ]
    for stem in (tmp_path / "new" / "subj01.v1", *files):
        loaded = load(stem)
        np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))
        assert set(vars(loaded)) == set(vars(model))
        for name in ("coef_", "intercept_", "alpha_", "best_score_", "cv_curve_"):
            assert np.shape(getattr(loaded, name)) == np.shape(getattr(model, name))
            np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    assert loaded.get_params() == {**model.get_params(), "alphas": [1.0, 10.0]}
    np.testing.assert_array_equal(
        loaded.fit(frame, Y[:, target], groups).predict(frame), model.predict(frame)
    )


@pytest.fixture
def saved(data, tmp_path):
    return save(RidgeCV().fit(*data), tmp_path / "model")


@pytest.mark.parametrize("part", ["safetensors", "json"])
def test_every_truncation_is_noticed(saved, part):
    path = saved[0] if part == "safetensors" else saved[1]
    content = path.read_bytes()
    for size in sorted({0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1}):
        path.write_bytes(content[:size])
        with pytest.raises(CalcarineError, match="truncated or corrupt") as caught:
            load(saved[0])
        assert "\n" not in str(caught.value)


def test_changed_weights_are_noticed(saved):
    content = bytearray(saved[0].read_bytes())
    content[-3] ^= 1
    saved[0].write_bytes(content)
    with pytest.raises(CalcarineError, match=r"not the file that model\.json describes"):
        load(saved[0])


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_refused_by_name(saved, part, protocol):
    saved[part].write_bytes(pickle.dumps(_Bomb(), protocol=protocol))
    with pytest.raises(CalcarineError, match=re.escape(f"{saved[part]} is a pickle")):
        load(saved[0])


@pytest.mark.parametrize("part", [0, 1])
def test_zip_archives_are_refused_by_name(saved, part):
    saved[part].write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CalcarineError, match="is a zip archive"):
        load(saved[0])


def test_header_that_begins_like_a_pickle_is_no_pickle(saved):
    """A header of 0x0480 bytes starts with the bytes of pickle protocol 4."""
    content = saved[0].read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size <= 0x480
    header = content[8 : 8 + size].ljust(0x480)
    saved[0].write_bytes((0x480).to_bytes(8, "little") + header + content[8 + size :])
    with pytest.raises(CalcarineError, match="not the file that"):
        load(saved[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"params": {"alphas": None}}, "params"),
        ({"solver": "os.system"}, "solver"),
        ({"edge_fractions": [1]}, "edge fractions"),
        ({"feature_names": ["a"]}, "feature names"),
        ({"vector_target": True}, "weights are for several targets"),
        ({"sha256": "0"}, "not the file"),
    ],
)
def test_edited_description_is_noticed(saved, change, message):
    about = json.loads(saved[1].read_text())
    saved[1].write_text(json.dumps({**about, **change}))
    with pytest.raises(CalcarineError, match=message):
        load(saved[0])


def test_what_cannot_be_saved_or_found_is_told(data, tmp_path):
    with pytest.raises(CalcarineError, match="not fitted"):
        save(RidgeCV(), tmp_path / "model")
    with pytest.raises(CalcarineError, match="not a dict"):
        save({}, tmp_path / "model")
    with pytest.raises(CalcarineError, match="Could not read"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CalcarineError, match="Could not write"):
        save(RidgeCV().fit(*data), tmp_path / "file" / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_failed_write_leaves_the_old_files(saved, data, monkeypatch):
    before = load(saved[0]).predict(data[0])

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calcarine.linear.storage.os.fsync", full_disk)
    with pytest.raises(CalcarineError, match="No space left"):
        save(RidgeCV(alphas=[1e6]).fit(*data), saved[0])
    np.testing.assert_array_equal(load(saved[0]).predict(data[0]), before)
    assert len(list(saved[0].parent.iterdir())) == 2


def test_errors_of_storage_are_of_the_kinds_of_the_package(saved, tmp_path):
    with pytest.raises(MissingFileError, match="Could not read"):
        load(tmp_path / "nothing")
    with pytest.raises(SettingError, match="Only a RidgeCV or a BandedRidgeCV"):
        save(object(), tmp_path / "x")
    saved[1].write_text("{")
    with pytest.raises(DamagedFileError, match="not JSON"):
        load(saved[1])
