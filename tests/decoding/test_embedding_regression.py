"""Decoders of any features, against decoders of one target and on measured data."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

import calcarine as ca
from calcarine.decoding import EmbeddingRegression, LatentRegression, NotFittedError, ridge_fits
from calcarine.errors import CalcarineError, DamagedFileError

ALPHAS = np.geomspace(1, 1e5, 6)


@pytest.fixture(scope="module")
def brain():
    return ca.load_dataset("simulated", n_train=60, n_test=10)


@pytest.fixture(scope="module")
def targets(brain):
    images = brain.stimuli.images().astype(np.float32) / 255
    return {
        "colour": images.mean((1, 2)),
        "layout": images.mean(3)[:, ::8, ::8],
        "tokens": images[:, ::16, ::16].reshape(len(images), 16, 3),
    }


ROIS = {"colour": "early", "layout": "ventral", "tokens": "early"}


@pytest.fixture(scope="module")
def fitted(brain, targets):
    return EmbeddingRegression(ROIS, ALPHAS).fit(brain, None, targets)


def test_each_target_is_decoded_as_if_it_were_alone(brain, targets, fitted):
    decoded = fitted.predict(brain)
    for name, values in targets.items():
        alone = EmbeddingRegression(ROIS[name], ALPHAS).fit(brain, None, {name: values})
        expected = alone.predict(brain)[name]
        assert decoded[name].shape == (10, *values.shape[1:]) and decoded[name].dtype == np.float32
        np.testing.assert_allclose(decoded[name], expected, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_array_equal(fitted.ridge_[name].alpha_, alone.ridge_[name].alpha_)
        np.testing.assert_allclose(fitted.reliability(name), alone.reliability(name), atol=1e-4)
        one, other = fitted.summary_[name], alone.summary_[name]
        assert one.warning == other.warning and one.positive == other.positive
        assert one.edge_high == pytest.approx(other.edge_high)
    assert fitted.rois_ == ROIS


def test_responses_of_a_region_are_decomposed_once(brain, targets, monkeypatch):
    fits = []
    whole = ridge_fits.fit_ridge

    def counted(responses, ids, values, *options):
        fits.append(values.shape[1])
        return whole(responses, ids, values, *options)

    monkeypatch.setattr(ridge_fits, "fit_ridge", counted)
    EmbeddingRegression(ROIS, ALPHAS).fit(brain, None, targets)
    assert sorted(fits) == [3 + 48, 64]


@pytest.mark.parametrize("rescale", ["none", "variance"])
def test_weights_and_predictions_on_disk_are_those_in_memory(brain, targets, tmp_path, rescale):
    options = {"rois": ROIS, "alphas": ALPHAS, "rescale": rescale}
    inside = EmbeddingRegression(**options).fit(brain, None, targets)
    stored = {}
    for name, values in targets.items():
        np.save(tmp_path / f"{name}.npy", values)
        stored[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    outside = EmbeddingRegression(**options).fit(brain, None, stored, out=tmp_path / "weights")
    assert (tmp_path / "weights" / "early").is_dir()
    expected = inside.predict(brain)
    decoded = outside.predict(brain, out=tmp_path / "decoded")
    for name, values in expected.items():
        coef = outside.ridge_[name].coef_
        while not isinstance(coef, np.memmap):  # views
            coef = coef.base
        assert isinstance(decoded[name], np.memmap) and not decoded[name].flags.writeable
        np.testing.assert_array_equal(np.load(tmp_path / "decoded" / f"{name}.npy"), decoded[name])
        np.testing.assert_allclose(decoded[name], values, rtol=1e-4, atol=1e-4)
    assert len(list((tmp_path / "decoded").iterdir())) == 3
    outside.save(tmp_path / "copy")
    again = EmbeddingRegression.load(tmp_path / "copy").predict(brain)["layout"]
    np.testing.assert_allclose(again, expected["layout"], rtol=1e-4, atol=1e-4)


def test_many_outputs_need_less_memory_than_their_weights(brain, tmp_path):
    tokens = np.lib.format.open_memmap(
        tmp_path / "tokens.npy", mode="w+", dtype=np.float32, shape=(70, 400, 100)
    )
    tokens[:] = np.random.default_rng(0).normal(size=tokens.shape)
    both = {"some": tokens, "rest": tokens[:, :200]}
    voxels = int(brain.roi_mask("early").sum())
    weights = 60_000 * voxels * 4
    tracemalloc.start()
    try:
        decoder = EmbeddingRegression("early", ALPHAS).fit(brain, None, both, out=tmp_path / "w")
        decoder.predict(brain, out=tmp_path / "decoded")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert weights > 100e6 and peak < 0.75 * weights
    alone = EmbeddingRegression("early", ALPHAS).fit(brain, None, {"some": tokens[:, 100:103]})
    expected = alone.predict(brain)["some"]
    found = np.load(tmp_path / "decoded" / "some.npy")[:, 100:103]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_latents_are_two_of_its_targets(brain):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(70, 4, 2, 2)).astype(np.float32)
    c = rng.normal(size=(70, 3, 5)).astype(np.float32)
    latents = LatentRegression("early", "early", ALPHAS).fit(brain, None, z, c).predict(brain)
    both = EmbeddingRegression("early", ALPHAS).fit(brain, None, {"z": z, "c": c}).predict(brain)
    for name in ("z", "c"):
        np.testing.assert_array_equal(latents[name], both[name])


def test_a_response_alone_is_decoded_as_among_others(brain, fitted):
    responses = brain.test(None, "early").data
    together = fitted.predict_target("tokens", responses)
    np.testing.assert_array_equal(fitted.predict_target("tokens", responses[3]), together[3])


def test_it_is_saved_and_loaded(brain, fitted, tmp_path):
    fitted.save(tmp_path / "decoder")
    loaded = EmbeddingRegression.load(tmp_path / "decoder")
    for name, values in fitted.predict(brain).items():
        np.testing.assert_array_equal(loaded.predict(brain)[name], values)
    assert loaded.rois_ == ROIS and loaded.summary_ == fitted.summary_
    text = (tmp_path / "decoder" / "targets.json").read_text()
    (tmp_path / "decoder" / "targets.json").write_text(text.replace('"colour"', '"../colour"'))
    with pytest.raises(DamagedFileError, match=r"targets\.json is missing or damaged"):
        EmbeddingRegression.load(tmp_path / "decoder")
    with pytest.raises(DamagedFileError, match=r"latents\.json"):
        LatentRegression.load(tmp_path / "decoder")


def test_it_follows_scikit_learn(fitted):
    copy = clone(fitted)
    assert copy.get_params()["rois"] == ROIS and not hasattr(copy, "ridge_")
    with pytest.raises(NotFittedError):
        copy.predict_target("colour", np.zeros(3))
    assert "EmbeddingRegression(" in repr(copy)


@pytest.mark.parametrize(
    ("rois", "targets", "message"),
    [
        ("early", {}, "no target"),
        ({"z": "early"}, {"w": np.zeros((70, 2))}, "'w' has no region"),
        ("early", {"a/b": np.zeros((70, 2))}, "'a/b' cannot name a target"),
        ("early", {"a.json": np.zeros((70, 2))}, "'a.json' cannot name a target"),
        ("early", {"a": np.zeros((70, 2)), "A": np.zeros((70, 2))}, "only by case"),
        ("early", {"w": np.zeros((69, 2))}, "w has 69 rows for 70 stimuli"),
        ("nowhere", {"w": np.zeros((70, 2))}, "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(brain, rois, targets, message):
    with pytest.raises(CalcarineError, match=message):
        EmbeddingRegression(rois, ALPHAS).fit(brain, None, targets)


def test_digits_are_retrieved_from_measured_responses():
    shared = os.environ.get("CALCARINE_SHARED")
    if not shared or not (Path(shared) / "data" / "digits69").is_dir():
        pytest.skip("no measured data: set CALCARINE_SHARED")
    brain = ca.load_dataset("digits69", Path(shared) / "data" / "digits69")
    images = brain.stimuli.images()[..., 0].astype(np.float32) / 255
    ranks = []
    for split in brain.splits:
        decoder = EmbeddingRegression("all").fit(brain, split, {"pixels": images})
        decoded = decoder.predict(brain, split)["pixels"]
        mean = images[brain.stimuli.rows(split.train)].mean(0)
        ranks += list(ca.retrieve(decoded, images, split.test, brain.stimuli.ids, mean=mean).rank)
    assert len(ranks) == 100
    # By chance 50.5; ten folds of 90 training digits.
    assert np.median(ranks) <= 6 and np.mean(np.array(ranks) <= 5) >= 0.5
