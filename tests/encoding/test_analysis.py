import dataclasses

import numpy as np
import pandas as pd
import pytest

from calcarine.brain import Split
from calcarine.encoding import AnalysisPlan, _split_models, analyse, permutation_p
from calcarine.errors import CalcarineError
from calcarine.simulation.voxels import simulate_voxels
from calcarine.stimuli import StimulusSet

DENOISING_STAGES = ("early", "middle", "late")
BLOCKS = ("down_blocks.0", "mid_block")


@pytest.fixture(scope="module")
def world():
    """z_c drifts from z to something of its own as the noise grows."""
    rng = np.random.default_rng(2)
    stimuli = StimulusSet.from_arrays(np.zeros((520, 4, 4, 3), np.uint8))
    z, own, c = rng.normal(size=(3, len(stimuli), 12)).astype(np.float32)
    features = {"z": z, "c": c}
    for strength in (0.2, 0.4, 0.6, 0.8):
        features[f"z_c@{strength}"] = np.sqrt(1 - strength**2) * z + strength * own
    for at, stage in enumerate(DENOISING_STAGES):
        share = (at + 1) / 3
        features[f"z_c@0.8:{stage}"] = (1 - share) * z + share * own
        for block in BLOCKS:
            features[f"unet:{block}@0.8:{stage}"] = rng.normal(size=(520, 2, 3, 3)).astype(
                np.float32
            )
    listeners = {
        "early": {"z": 1.0},
        "ventral": {"c": 1.0},
        "higher": {"z_c@0.8": 1.0},
        "deep": {"unet:mid_block@0.8:middle": 1.0},
        "other": {},
    }
    split = Split("all", stimuli.ids[:400], stimuli.ids[400:], "by number")
    brain = simulate_voxels(stimuli, split, features, listeners, n_voxels=25, n_components=18)
    return brain, features


def test_permutations_that_cannot_be_significant_are_refused(world):
    brain, features = world
    with pytest.raises(CalcarineError, match="0 or at least 19"):
        analyse(brain, brain.splits, features, AnalysisPlan(blocks=BLOCKS), n_permutations=18)


@pytest.fixture(scope="module")
def found(world):
    brain, features = world
    ceiling = np.where(brain.rois["other"], 0.0, 50.0)
    return analyse(
        brain,
        brain.splits,
        features,
        AnalysisPlan(blocks=BLOCKS),
        n_boot=200,
        ceiling=ceiling,
        n_permutations=100,
    )


def mean(table, column, **wanted):
    for key, value in wanted.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return float(table.iloc[0][column])


def test_z_wins_early_and_c_ventrally(found):
    for region, best in (("early", "z"), ("ventral", "c"), ("higher", "z_c@0.8")):
        scores = {
            space: mean(found.regions, "r", question="latents", region=region, space=space)
            for space in ("z", "c", "z_c@0.8")
        }
        assert max(scores, key=scores.get) == best
        assert scores[best] > 0.55


def test_the_crossover_over_noise_levels_is_where_it_was_put(found):
    """Voxels that listen to z_c of strength .8, which is .6 z and .8 something of its own."""
    unique = {
        strength: [
            mean(
                found.unique,
                "unique_r2",
                question="noise",
                region="higher",
                space=space,
                pair=f"z + z_c@{strength}",
            )
            for space in ("z", f"z_c@{strength}")
        ]
        for strength in ("0.2", "0.4", "0.6", "0.8")
    }
    gain = {strength: own - z for strength, (z, own) in unique.items()}
    # The signal is .6 z + .8 own.  At strength s, z_c alone leaves the part of it that is not
    # along sqrt(1 - s^2) z + s own, and z alone leaves .8 own: which is larger crosses nowhere
    # below the strength that was put there, and what z_c alone leaves is least at .8.
    for strength, (z, _) in unique.items():
        s = float(strength)
        left = 1 - (0.6 * np.sqrt(1 - s**2) + 0.8 * s) ** 2
        assert z == pytest.approx(0.5 * left, abs=0.06)
    assert max(gain, key=gain.get) == "0.8"
    for own in (pair[1] for pair in unique.values()):
        assert own == pytest.approx(0.5 * 0.64, abs=0.08)


def test_the_winning_block_is_recovered(found):
    table = found.winners[found.winners.question == "blocks, middle"]
    share = mean(table, "share", region="deep", space="unet:mid_block@0.8:middle")
    assert share > 0.95
    inside = found.voxels["winner:middle"]
    assert set(inside.unique()) <= {-1, 0, 1}


def test_voxels_without_signal_are_rarely_called(found):
    dark = slice(100, 125)
    for space in ("z", "c", "z_c@0.8"):
        assert found.voxels[f"significant:{space}"][dark].sum() <= 3
        assert found.voxels[f"normalised:{space}"][dark].isna().all()
    assert found.facts["significant"]["z"] >= 24


def test_permutations_agree_with_the_exact_null(found):
    p, permuted = found.voxels["p:c"], found.voxels["p_permuted:c"]
    assert np.abs(p - permuted).max() < 0.2
    assert (found.voxels["p_family:c"] >= permuted - 1e-12).all()
    assert (found.voxels["p_family:c"][25:50] < 0.02).all()


def test_permutation_p_is_that_of_a_slow_loop(rng):
    a, b = rng.normal(size=(2, 15, 4))
    b[:, 0] += a[:, 0]
    p, family = permutation_p(a, b, 99, seed=3)
    draws = np.random.default_rng(3)
    orders = [draws.permutation(15) for _ in range(99)]
    null = np.array(
        [[np.corrcoef(a[:, v], b[order, v])[0, 1] for v in range(4)] for order in orders]
    )
    real = np.array([np.corrcoef(a[:, v], b[:, v])[0, 1] for v in range(4)])
    np.testing.assert_allclose(p, (1 + (null >= real).sum(0)) / 100)
    np.testing.assert_allclose(family, (1 + (null.max(1)[:, None] >= real).sum(0)) / 100)


def test_folds_are_put_together(world):
    brain, features = world
    ids = brain.stimuli.ids
    folds = [
        Split(
            f"f{k}",
            tuple(i for at, i in enumerate(ids) if at % 4 != k),
            tuple(i for at, i in enumerate(ids) if at % 4 == k),
            "by number",
        )
        for k in range(4)
    ]
    found = analyse(brain, folds, features, AnalysisPlan(analyses=("latents",)), n_boot=50)
    assert found.facts["test_stimuli"] == 520
    assert mean(found.regions, "r", region="early", space="z") > 0.6
    assert abs(mean(found.regions, "r", region="other", space="z")) < 0.05


def test_one_stimulus_left_out_at_a_time_has_no_bias(rng):
    """Without signal, predictions near the training mean must not anticorrelate with the truth."""
    stimuli = StimulusSet.from_arrays(np.zeros((24, 4, 4, 3), np.uint8))
    split = Split("a", stimuli.ids[:20], stimuli.ids[20:], "x")
    driver = {"z": rng.normal(size=(24, 2))}
    brain = simulate_voxels(stimuli, split, driver, {"none": {}}, n_voxels=400)
    folds = [
        Split(i, tuple(j for j in stimuli.ids if j != i), (i,), "one out") for i in stimuli.ids
    ]
    features = {
        "z": rng.normal(size=(24, 3)),
        "c": rng.normal(size=(24, 3)),
        "z_c@0.8": rng.normal(size=(24, 3)),
    }
    found = analyse(
        brain,
        folds,
        features,
        AnalysisPlan(analyses=("latents",)),
        n_boot=10,
        alphas=np.array([1.0, 1e3, 1e6]),
    )
    assert np.nanmean(found.voxels["r:z"]) == pytest.approx(0, abs=0.35)


def test_wide_features_are_reduced_by_training_stimuli(world):
    brain, features = world
    wide = {name: np.repeat(values, 10, axis=1) for name, values in features.items()}
    one = analyse(
        brain, brain.splits, wide, AnalysisPlan(analyses=("latents",), n_components=12), n_boot=10
    )
    assert mean(one.regions, "r", region="early", space="z") > 0.6


def test_test_stimuli_reach_no_principal_component(world):
    """Features of test stimuli that go elsewhere change nothing inside the training stimuli."""
    brain, features = world
    train = np.isin(brain.stimuli.ids, brain.splits[0].train)
    changed = {}
    for name in ("z", "c", "z_c@0.8"):
        changed[name] = features[name].copy()
        changed[name][~train] = changed[name][~train][:, ::-1] * 50
    questions = AnalysisPlan(analyses=("latents",), n_components=5)
    before, after = (
        analyse(brain, brain.splits, made, questions, n_boot=10) for made in (features, changed)
    )
    for name in changed:
        assert np.allclose(before.voxels[f"cv_r2:{name}"], after.voxels[f"cv_r2:{name}"], atol=1e-5)
        assert not np.allclose(before.voxels[f"r:{name}"], after.voxels[f"r:{name}"], atol=1e-2)


def test_mistakes_are_told(world):
    brain, features = world
    with pytest.raises(CalcarineError, match="no encoding analysis colours"):
        AnalysisPlan(analyses=("colours",))
    with pytest.raises(CalcarineError, match="needs names of blocks"):
        AnalysisPlan(analyses=("blocks",))
    with pytest.raises(CalcarineError, match=r"features of z_c@0\.8 are missing"):
        analyse(
            brain, brain.splits, {k: features[k] for k in ("z", "c")}, AnalysisPlan(("latents",))
        )
    with pytest.raises(CalcarineError, match="at least one split"):
        analyse(brain, [], features, AnalysisPlan(("latents",)))


def test_stimuli_that_two_splits_test_are_refused(world):
    brain, features = world
    again = Split("again", brain.splits[0].train, brain.splits[0].test, "the same once more")
    with pytest.raises(CalcarineError, match=r"test the same stimuli.*dataset\.split"):
        analyse(brain, [*brain.splits, again], features, AnalysisPlan(analyses=("latents",)))


@pytest.mark.parametrize(("grid", "ends"), [((-2, 8), False), ((-6, 0), True)])
def test_penalties_that_end_too_soon_are_told(world, grid, ends):
    brain, features = world
    alphas = np.logspace(*grid, 11)
    found = analyse(
        brain,
        brain.splits,
        features,
        AnalysisPlan(analyses=("latents",)),
        n_boot=100,
        alphas=alphas,
    )
    assert (found.facts["at_edge"]["z"] > 0.5) == ends
    assert set(np.round(np.log10(found.voxels["alpha:z"]), 3)) <= set(np.round(np.log10(alphas), 3))


def test_feature_arrays_of_your_own_are_analysed_by_their_names(world):
    brain, features = world
    own = {"mine": features["z"], "yours": features["c"].tolist()}
    found = analyse(brain, None, own, n_boot=20)
    named = analyse(
        brain,
        brain.splits[0] if len(brain.splits) == 1 else brain.splits,
        {"z": features["z"], "c": features["c"]},
        AnalysisPlan(analyses=(), extra_feature_spaces=("z", "c")),
        n_boot=20,
    )
    for mine, theirs in (("mine", "z"), ("yours", "c")):
        np.testing.assert_array_equal(found.voxels[f"r:{mine}"], named.voxels[f"r:{theirs}"])
    assert set(found.regions["space"]) == {"mine", "yours"}
    with pytest.raises(CalcarineError, match="nothing to analyse"):
        AnalysisPlan(analyses=())


def test_an_analysis_prints_itself_in_a_line(world):
    brain, features = world
    found = analyse(brain, None, {"mine": features["z"]}, n_boot=20)
    text = repr(found)
    assert "voxels" in text and "mine" in text and len(text.splitlines()) == 1
    assert "significant voxels, mine" in found._repr_html_()


@pytest.mark.parametrize("n_splits", [1, 2])
def test_an_interrupted_analysis_resumes_where_it_was(world, tmp_path, monkeypatch, n_splits):
    brain, features = world
    split = brain.splits[0]
    parts = [
        Split(f"part {i}", split.train, split.test[i::n_splits], "every other")
        for i in range(n_splits)
    ]
    features = {**features, "unet:mid_block@0.8:early": np.repeat(features["z"], 9, 1)}
    plan = AnalysisPlan(blocks=BLOCKS, n_components=20)
    options = {"n_boot": 50, "n_permutations": 20}
    whole = analyse(brain, parts, features, plan, **options)
    fits = count_fits(monkeypatch)

    def stop(_):
        if len(fits) >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyse(brain, parts, features, plan, folder=tmp_path, progress=stop, **options)
    again = analyse(brain, parts, features, plan, folder=tmp_path, **options)
    assert len(fits) == len(set(fits)) * n_splits > 9  # each once for each split
    for name in ("voxels", "regions", "unique", "winners"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(whole, name), check_exact=True)
    assert again.facts == whole.facts
    del fits[:]
    assert analyse(brain, parts, features, plan, folder=tmp_path, **options).facts == whole.facts
    assert not fits


@pytest.mark.parametrize("change", ["features", "responses", "penalties"])
def test_fits_of_something_else_are_not_taken(world, tmp_path, monkeypatch, change):
    brain, features = world
    plan = AnalysisPlan(analyses=("latents",))
    analyse(brain, None, features, plan, folder=tmp_path, n_boot=50)
    options = {}
    if change == "features":
        features = {**features, "c": features["c"] + 1}
    elif change == "responses":
        brain = dataclasses.replace(brain, responses=brain.responses * 2)
    else:
        options = {"alphas": np.array([1.0, 10.0])}
    fits = count_fits(monkeypatch)
    analyse(brain, None, features, plan, folder=tmp_path, n_boot=50, **options)
    assert len(fits) == (1 if change == "features" else 3)


def count_fits(monkeypatch):
    """List of what is fitted from now on."""
    fits = []
    models = _split_models.SplitModels
    fit, fit_pair = models._fit, models._fit_pair

    def counted(self, name):
        fits.append(name)
        return fit(self, name)

    def counted_pair(self, pair, alone):
        fits.append(pair)
        return fit_pair(self, pair, alone)

    monkeypatch.setattr(models, "_fit", counted)
    monkeypatch.setattr(models, "_fit_pair", counted_pair)
    return fits
