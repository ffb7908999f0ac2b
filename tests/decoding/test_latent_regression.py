from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn.exceptions
from sklearn.base import clone

from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import make_responses
from calcarine.decoding import (
    LatentRegression,
    NotFittedError,
    PixelRegression,
    choose_by_brain,
    make_decoder,
    register_decoder,
    registry,
)
from calcarine.decoding.reconstruct import to_uint8
from calcarine.decoding.ridge_fits import fit_ridge
from calcarine.errors import CalcarineError, LeakageError, SettingError
from calcarine.linear import BandedRidgeCV, save
from calcarine.stimuli import StimulusSet, resize_images

N, REPEATS, VOXELS = 30, 2, 25


@pytest.fixture
def world(rng):
    """A linear brain: responses are a noisy linear map of z (first half) and c (second half)."""
    z = rng.standard_normal((N, 2, 3, 3)).astype(np.float32)
    c = rng.standard_normal((N, 2, 4)).astype(np.float32) + 3
    early = z.reshape(N, -1) @ rng.standard_normal((18, VOXELS))
    ventral = c.reshape(N, -1) @ rng.standard_normal((8, VOXELS))
    clean = np.repeat(np.hstack([early, ventral]), REPEATS, axis=0)
    data = (clean + 0.1 * rng.standard_normal(clean.shape)).astype(np.float32)
    ids = tuple(f"s{i:02d}" for i in range(N))
    stimuli = StimulusSet.from_arrays(rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8), ids)
    rois = {
        "early": np.arange(2 * VOXELS) < VOXELS,
        "ventral": np.arange(2 * VOXELS) >= VOXELS,
    }
    dataset = BrainDataset(
        name="linear",
        subject="s1",
        responses=make_responses(data, [i for i in ids for _ in range(REPEATS)]),
        voxels=pd.DataFrame({"x": np.nan, "y": np.nan, "z": np.nan}, index=range(2 * VOXELS)),
        rois=rois,
        stimuli=stimuli,
        splits=(Split("only", ids[:24], ids[24:], "by hand", None),),
        simulated=True,
        source="made in the test",
        licence="none",
        judge=None,
    )
    return dataset, z, c


def test_linear_latents_are_recovered_with_their_mean(world):
    dataset, z, c = world
    predicted = LatentRegression().fit(dataset, dataset.splits[0], z, c)
    predicted = predicted.predict(dataset, dataset.splits[0])
    assert predicted["z"].shape == (6, 2, 3, 3) and predicted["c"].shape == (6, 2, 4)
    for name, truth in (("z", z[24:]), ("c", c[24:])):
        assert np.corrcoef(predicted[name].ravel(), truth.ravel())[0, 1] > 0.95
    assert abs(predicted["c"].mean() - 3) < 0.5


def test_one_response_alone_equals_the_batch(world):
    dataset, z, c = world
    split = dataset.splits[0]
    fitted = LatentRegression().fit(dataset, split, z, c)
    data = dataset.test(split, "early").data
    together = fitted.predict_target("z", data)
    alone = np.concatenate([fitted.predict_target("z", row[None]) for row in data])
    assert np.abs(together - alone).max() < 1e-6


def test_test_responses_never_reach_the_fit(world):
    dataset, z, c = world
    split = dataset.splits[0]
    first = LatentRegression().fit(dataset, split, z, c)
    changed = z.copy()
    changed[24:] = 1e3
    second = LatentRegression().fit(dataset, split, changed, c)
    assert np.array_equal(first.ridge_["z"].coef_, second.ridge_["z"].coef_)
    with pytest.raises(LeakageError, match="test"):
        fit_ridge(dataset.test(split, "early"), dataset.stimuli.ids, z.reshape(30, -1), None, 3)


def test_save_and_load_predict_the_same(world, tmp_path):
    dataset, z, c = world
    split = dataset.splits[0]
    fitted = LatentRegression().fit(dataset, split, z, c)
    fitted.save(tmp_path)
    loaded = LatentRegression.load(tmp_path)
    for name, values in fitted.predict(dataset, split).items():
        assert np.array_equal(values, loaded.predict(dataset, split)[name])
    assert loaded.summary_ == fitted.summary_
    other = BandedRidgeCV(alphas=[1.0]).fit(np.eye(6), np.arange(6.0))
    save(other, tmp_path / "z")
    with pytest.raises(CalcarineError, match="holds a BandedRidgeCV"):
        LatentRegression.load(tmp_path)
    text = (tmp_path / "latents.json").read_text()
    (tmp_path / "latents.json").write_text(text.replace("      2,", "      1e999,", 1))
    assert "1e999" in (tmp_path / "latents.json").read_text()
    with pytest.raises(CalcarineError, match="no decoder"):
        LatentRegression.load(tmp_path)
    (tmp_path / "latents.json").unlink()
    with pytest.raises(CalcarineError, match="no decoder"):
        LatentRegression.load(tmp_path)


def test_features_of_another_stimulus_set_are_refused(world):
    dataset, z, c = world
    with pytest.raises(CalcarineError, match="29 rows for 30 stimuli"):
        LatentRegression().fit(dataset, dataset.splits[0], z[:-1], c)


def test_the_direct_ridge_predicts_pixels_in_range(world):
    dataset, _, _ = world
    split = dataset.splits[0]
    pictures = PixelRegression("all").fit(dataset, split).predict(dataset, split)
    assert pictures.shape == (6, 8, 8, 3)
    assert pictures.min() >= 0 and pictures.max() <= 1


def test_the_direct_ridge_of_large_pictures_fits_small_ones(world):
    dataset, _, _ = world
    split = dataset.splits[0]
    found = PixelRegression("all", max_side=4).fit(dataset, split).predict(dataset, split)
    ids = dataset.stimuli.ids
    small = StimulusSet.from_arrays(resize_images(dataset.stimuli.images(ids), 4), ids)
    same = replace(dataset, stimuli=small)
    want = PixelRegression("all").fit(same, split).predict(same, split)
    assert want.shape == (6, 4, 4, 3) and found.shape == (6, 8, 8, 3)
    assert np.abs(found - resize_images(to_uint8(want), 8) / 255).max() < 1e-6


class _Identity:
    """An autoencoder whose latents are the red pixels."""

    downscale = 1

    def encode(self, images, batch_size=32):
        return images[..., 0][:, None].astype(np.float32)


def test_the_brain_chooses_the_sample_that_resembles_its_z(rng):
    samples = rng.integers(0, 256, (5, 4, 4, 4, 3), dtype=np.uint8)
    best = rng.integers(0, 4, 5)
    z = samples[np.arange(5), best, ..., 0][:, None].astype(np.float32)
    chosen = choose_by_brain(_Identity(), samples, z, np.ones((1, 4, 4)))
    assert np.array_equal(chosen, best)
    # Dimensions without cross-validated signal do not count.
    reliability = np.ones((1, 4, 4))
    reliability[:, :2] = -0.1
    z[:, :, :2] = rng.standard_normal((5, 1, 2, 4)) * 1e4
    assert np.array_equal(choose_by_brain(_Identity(), samples, z, reliability), best)


@pytest.mark.parametrize("estimator", [LatentRegression, PixelRegression])
def test_estimators_follow_scikit_learn(world, estimator):
    dataset, z, c = world
    decoder = estimator(n_folds=3)
    assert repr(decoder) == f"{estimator.__name__}(n_folds=3)"
    assert clone(decoder).get_params() == decoder.get_params()
    assert decoder.set_params(n_folds=4) is decoder and decoder.n_folds == 4
    with pytest.raises(NotFittedError, match="not fitted yet; call fit first"):
        decoder.predict(dataset)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        decoder.predict(dataset)
    given = (dataset, None, z, c) if estimator is LatentRegression else (dataset,)
    assert decoder.fit(*given) is decoder
    assert not hasattr(clone(decoder), "ridge_")


def test_z_can_be_decoded_alone(world, tmp_path):
    dataset, z, c = world
    both = LatentRegression().fit(dataset, "only", z, c).predict(dataset, "only")
    alone = LatentRegression().fit(dataset, "only", z)
    assert list(alone.predict(dataset)) == ["z"]
    assert np.array_equal(alone.predict(dataset)["z"], both["z"])
    alone.save(str(tmp_path / "decoder"))
    loaded = LatentRegression.load(str(tmp_path / "decoder"))
    assert np.array_equal(loaded.predict(dataset)["z"], both["z"])
    with pytest.raises(SettingError, match="predicts z, not c"):
        alone.predict_target("c", dataset.test(None, "ventral").data)


def test_regions_are_those_of_the_paper_where_there_are_any(world):
    dataset, z, c = world
    assert LatentRegression().fit(dataset, None, z, c).rois_ == {"z": "early", "c": "ventral"}
    bare = replace(dataset, rois={})
    assert LatentRegression().fit(bare, None, z, c).rois_ == {"z": "all", "c": "all"}
    other = replace(dataset, rois={"early": dataset.rois["early"]})
    assert LatentRegression().fit(other, None, z, c).rois_ == {"z": "early", "c": "early"}
    with pytest.raises(CalcarineError, match="ventral"):
        LatentRegression(roi_c="ventral").fit(bare, None, z, c)


def test_one_response_gives_one_latent(world):
    dataset, z, c = world
    fitted = LatentRegression().fit(dataset, None, z, c)
    data = dataset.test(None, "early").data
    one = fitted.predict_target("z", data[0])
    assert one.shape == z.shape[1:]
    assert np.abs(one - fitted.predict_target("z", data)[0]).max() < 1e-6


def test_decoders_are_made_by_name(world, monkeypatch):
    monkeypatch.setattr(registry, "DECODERS", dict(registry.DECODERS))

    @register_decoder("zeros")
    class Zeros(LatentRegression):
        def predict(self, dataset, split=None):
            return {name: 0 * values for name, values in super().predict(dataset, split).items()}

    dataset, z, c = world
    decoder = make_decoder("zeros", n_folds=3).fit(dataset, None, z, c)
    assert decoder.n_folds == 3 and not decoder.predict(dataset)["z"].any()
    assert type(make_decoder()) is LatentRegression
    with pytest.raises(SettingError, match=r"no decoder 'zero'.* Did you mean zeros\?"):
        make_decoder("zero")
    with pytest.raises(ValueError, match="two decoders with the name zeros"):
        register_decoder("zeros")(LatentRegression)
