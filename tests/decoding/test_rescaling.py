"""Predictions brought back to scale, against slow loops and closed forms."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

import calcarine as ca
from calcarine.brain import BrainDataset, Split
from calcarine.decoding import EmbeddingRegression, rescaling, ridge_fits
from calcarine.errors import CalcarineError, DamagedFileError
from calcarine.linear import RidgeCV, grouped_folds
from calcarine.stimuli import StimulusSet

ALPHAS = np.geomspace(1, 1e4, 5)
N_TRAIN, N_TEST, REPEATS, VOXELS, WIDTH = 60, 30, 3, 40, 12
IDS = [f"stimulus {i}" for i in range(N_TRAIN + N_TEST)]


def subject(seed=0, noise=3.0, width=WIDTH, n_train=N_TRAIN, n_test=N_TEST):
    """Responses that are linear in targets of unequal variance, with noise."""
    rng = np.random.default_rng(seed)
    count = n_train + n_test
    ids = [f"stimulus {i}" for i in range(count)]
    targets = 5 + rng.normal(size=(count, width)) * np.geomspace(3, 0.3, width)
    targets = targets @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    shown = np.repeat(np.arange(count), REPEATS)
    signal = (targets - 5)[shown] @ rng.normal(size=(width, VOXELS))
    responses = signal + noise * rng.normal(size=signal.shape) * signal.std()
    split = Split("own", tuple(ids[:n_train]), tuple(ids[n_train:]), "fixed", 0)
    brain = BrainDataset.from_arrays(
        responses.astype(np.float32),
        [ids[i] for i in shown],
        StimulusSet.from_arrays(np.zeros((count, 4, 4, 3), np.uint8), ids),
        test=split,
    )
    return brain, targets.astype(np.float32)


@pytest.fixture(scope="module")
def made():
    brain, targets = subject()
    fits = {
        kind: EmbeddingRegression(alphas=ALPHAS, rescale=kind).fit(brain, None, {"e": targets})
        for kind in rescaling.RESCALINGS
    }
    return brain, targets, fits


def held_out(brain, targets, alpha, n_folds=5):
    """Predict each training stimulus from its mean response by a fit without it; a loop."""
    train = brain.train(None, "all")
    row_of = {key: row for row, key in enumerate(brain.stimuli.ids)}
    rows = np.array([row_of[key] for key in train.stimulus_ids])
    stimuli, of_trial = np.unique(rows, return_inverse=True)
    folds = grouped_folds(of_trial, n_folds)
    predicted = np.empty((len(stimuli), targets.shape[1]))
    for fold in range(n_folds):
        kept = folds != fold
        ridge = RidgeCV(alphas=alpha, cv="fixed").fit(train.data[kept], targets[rows[kept]])
        for row in np.unique(of_trial[~kept]):
            mean = train.data[of_trial == row].mean(0, dtype=np.float64)
            predicted[row] = ridge.predict(mean[None])[0]
    return predicted, targets[stimuli].astype(np.float64)


def test_factors_are_those_of_a_loop_over_held_out_stimuli(made):
    brain, targets, fits = made
    ridge = fits["none"].ridge_["e"]
    predicted, true = held_out(brain, targets, ridge.alpha_)
    about, mean = predicted - ridge.y_mean_, true.mean(0)
    plain = fits["none"].predict(brain)["e"].astype(np.float64) - ridge.y_mean_
    true = true - mean
    pca = PCA(WIDTH - 1).fit(true)  # the smallest component is what lies outside
    axes = pca.components_.T
    p, t = about @ axes, true @ axes
    own = plain @ axes
    rest_p, rest_t = about - p @ axes.T, true - t @ axes.T
    rest = plain - own @ axes.T
    expected = {
        "norm": plain * np.sqrt((true**2).sum() / (about**2).sum()),
        "variance": plain * true.std(0) / about.std(0),
        "components": own * t.std(0) / p.std(0) @ axes.T
        + rest * np.sqrt((rest_t**2).sum() / (rest_p**2).sum()),
        "posterior": own * np.maximum((p * t).sum(0) / (p**2).sum(0), 0) @ axes.T
        + rest * max((rest_p * rest_t).sum() / (rest_p**2).sum(), 0),
    }
    for kind, values in expected.items():
        decoder = fits[kind]
        if kind in ("components", "posterior"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rescaling, "_MOST_COMPONENTS", WIDTH - 1)
                decoder = EmbeddingRegression(alphas=ALPHAS, rescale=kind)
                decoder.fit(brain, None, {"e": targets})
            assert decoder.rescaling_["e"].components.shape == (WIDTH - 1, WIDTH)
        np.testing.assert_allclose(decoder.predict(brain)["e"], values + mean, atol=2e-3)


def test_rescaled_predictions_of_new_stimuli_have_the_scale_of_targets():
    brain, targets = subject(seed=1, n_train=300, n_test=300)
    test = targets[300:].astype(np.float64)
    center = targets[:300].mean(0)
    kinds = ("none", "norm", "variance", "components", "posterior")
    norms, errors = {}, {}
    for kind in kinds:
        decoder = EmbeddingRegression(alphas=ALPHAS, rescale=kind).fit(brain, None, {"e": targets})
        decoded = decoder.predict(brain)["e"]
        norms[kind] = np.sqrt(((decoded - center) ** 2).sum() / ((test - center) ** 2).sum())
        errors[kind] = ((decoded - test) ** 2).sum()
    assert norms["none"] < 0.8
    for kind in ("norm", "variance", "components"):
        assert 0.9 < norms[kind] < 1.12
    # The posterior mean stays shrunk, and errs least.
    assert errors["posterior"] <= min(errors[kind] for kind in kinds)
    # Scaling by predictions of the stimuli that were fitted on would leave them too small.
    seen = EmbeddingRegression(alphas=ALPHAS).fit(brain, None, {"e": targets})
    train = brain.train(None, "all").data
    inside = np.sqrt(((seen.predict_target("e", train) - center) ** 2).sum(1).mean())
    assert inside > 1.02 * np.sqrt(((seen.predict(brain)["e"] - center) ** 2).sum(1).mean())


def test_targets_of_a_region_share_one_pass_whatever_the_blocks(made, monkeypatch):
    brain, targets, fits = made
    passes = []
    whole = rescaling.iter_held_out

    def counted(*args, **options):
        passes.append(1)
        return whole(*args, **options, block_size=5)

    monkeypatch.setattr(rescaling, "iter_held_out", counted)
    monkeypatch.setattr(rescaling, "_BLOCK_VALUES", 2 * N_TRAIN)
    both = {"a": targets, "b": targets[:, :7].reshape(-1, 7, 1), "c": targets}
    kinds = {"a": "posterior", "b": "variance"}
    decoder = EmbeddingRegression(alphas=ALPHAS, rescale=kinds).fit(brain, None, both)
    assert len(passes) == 1 and set(decoder.rescaling_) == {"a", "b"}
    decoded = decoder.predict(brain)
    expected = fits["posterior"].predict(brain)["e"]
    np.testing.assert_allclose(decoded["a"], expected, atol=1e-3)
    alone = fits["variance"].predict(brain)["e"][:, :7]
    np.testing.assert_allclose(decoded["b"][..., 0], alone, atol=1e-3)
    np.testing.assert_allclose(decoded["c"], fits["none"].predict(brain)["e"], atol=1e-3)


def test_test_responses_do_not_reach_it(made):
    brain, targets, fits = made
    changed = targets.copy()
    changed[N_TRAIN:] = 1e3
    again = EmbeddingRegression(alphas=ALPHAS, rescale="components")
    again.fit(brain, None, {"e": changed})
    expected = fits["components"].predict(brain)["e"]
    np.testing.assert_array_equal(again.predict(brain)["e"], expected)
    # One response alone is what it is among others.
    responses = brain.test(None, "all").data
    np.testing.assert_array_equal(again.predict_target("e", responses[4]), expected[4])


def test_without_an_intercept_the_mean_is_restored(made):
    brain, targets, _ = made
    decoder = EmbeddingRegression(alphas=ALPHAS, intercept=False, grouped=False, rescale="norm")
    decoder.fit(brain, None, {"e": targets})
    np.testing.assert_allclose(decoder.rescaling_["e"].predicted_mean, 0, atol=1e-6)
    decoded = decoder.predict(brain)["e"]
    assert np.abs(decoded.mean(0) - targets.mean(0)).max() < 1.5


def test_a_target_that_is_never_predicted_is_left_alone():
    brain, targets = subject()
    targets = np.concatenate([targets, np.full((len(targets), 1), 4.0, np.float32)], axis=1)
    for kind in ("variance", "components", "posterior"):
        decoder = EmbeddingRegression(alphas=ALPHAS, rescale=kind).fit(brain, None, {"e": targets})
        decoded = decoder.predict(brain)["e"]
        assert np.isfinite(decoded).all()
        np.testing.assert_allclose(decoded[:, -1], 4.0, atol=1e-3)


def test_it_is_saved_and_loaded(made, tmp_path):
    brain, _, fits = made
    fits["components"].save(tmp_path)
    loaded = EmbeddingRegression.load(tmp_path)
    np.testing.assert_array_equal(
        loaded.predict(brain)["e"], fits["components"].predict(brain)["e"]
    )
    fits["none"].save(tmp_path / "plain")
    assert EmbeddingRegression.load(tmp_path / "plain").rescaling_ == {}
    narrow = EmbeddingRegression(alphas=ALPHAS, rescale="norm")
    narrow.fit(
        brain, None, {"e": np.zeros((len(IDS), 2), np.float32) + np.arange(len(IDS))[:, None]}
    )
    narrow.save(tmp_path / "narrow")
    file = tmp_path / "e.rescaling.safetensors"
    file.write_bytes((tmp_path / "narrow" / file.name).read_bytes())
    with pytest.raises(DamagedFileError, match="another width than e"):
        EmbeddingRegression.load(tmp_path)
    file.write_bytes(b"nothing")
    with pytest.raises(DamagedFileError, match="missing or damaged; fit the decoder again"):
        EmbeddingRegression.load(tmp_path)


def test_penalties_are_not_chosen_again(made, monkeypatch):
    brain, targets, fits = made
    chosen = []
    whole = ridge_fits.fit_ridge
    monkeypatch.setattr(ridge_fits, "fit_ridge", lambda *args: chosen.append(1) or whole(*args))
    decoder = EmbeddingRegression(alphas=ALPHAS, rescale="norm").fit(brain, None, {"e": targets})
    assert chosen == [1]
    np.testing.assert_array_equal(decoder.ridge_["e"].alpha_, fits["none"].ridge_["e"].alpha_)


@pytest.mark.parametrize(
    ("rescale", "message"),
    [
        ("varianc", "rescale of e is 'varianc'.*Did you mean variance"),
        ({"f": "norm"}, "rescale names 'f', which is no target; the targets are e"),
    ],
)
def test_mistakes_are_one_sentence(made, rescale, message):
    brain, targets, _ = made
    with pytest.raises(CalcarineError, match=message):
        EmbeddingRegression(alphas=ALPHAS, rescale=rescale).fit(brain, None, {"e": targets})


def test_latents_have_no_rescaling():
    brain = ca.load_dataset("simulated", n_train=20, n_test=4)
    z = np.random.default_rng(0).normal(size=(24, 1, 2, 2)).astype(np.float32)
    assert ca.LatentRegression("early", alphas=ALPHAS).fit(brain, None, z).rescaling_ == {}
