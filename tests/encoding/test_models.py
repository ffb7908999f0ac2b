import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import make_responses
from calcarine.datasets import load_dataset
from calcarine.encoding import (
    EncodingScores,
    MeanResponses,
    correlation_p,
    discoveries,
    encode,
    normalised,
    region_table,
    unique_table,
    unique_variance,
    winners,
)
from calcarine.errors import CalcarineError
from calcarine.linear import _decompositions
from calcarine.simulation.voxels import simulate_voxels
from calcarine.stimuli import StimulusSet

N_TRAIN, N_TEST = 600, 150
BLOCKS = ("down", "mid", "up")


def stimuli():
    count = N_TRAIN + N_TEST
    return StimulusSet.from_arrays(np.zeros((count, 4, 4, 3), np.uint8))


def split_of(found):
    return Split("all", found.ids[:N_TRAIN], found.ids[N_TRAIN:], "by number")


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(3)
    seen = stimuli()
    spaces = {
        name: rng.normal(size=(len(seen), 4, 6)).astype(np.float32) for name in ("z", "c", *BLOCKS)
    }
    listeners = {
        "early": {"z": 1.0},
        "ventral": {"c": 1.0},
        "both": {"z": 0.5, "c": 0.5},
        **{name: {name: 1.0} for name in BLOCKS},
        "none": {},
    }
    brain = simulate_voxels(seen, split_of(seen), spaces, listeners, n_voxels=30)
    return brain, spaces, MeanResponses.from_dataset(brain)


def test_repeats_are_averaged(world):
    brain, _, responses = world
    single = brain.train()
    rows = [row for row, key in enumerate(single.stimulus_ids) if key == responses.train_ids[7]]
    np.testing.assert_allclose(responses.train[7], single.data[rows].mean(0), atol=1e-6)
    np.testing.assert_array_equal(responses.test, brain.test().data)


def test_each_region_is_predicted_by_what_it_listens_to(world):
    brain, spaces, responses = world
    scores = {name: encode(responses, spaces[name], brain.stimuli.ids) for name in spaces}
    # What noise leaves: the correlation of the noise-free signal with the measured means.
    for region, space in (("early", "z"), ("ventral", "c"), ("mid", "mid")):
        inside = brain.rois[region]
        assert scores[space].r[inside].mean() > 0.9 * np.sqrt(0.5)
        others = [scores[name].r[inside].mean() for name in spaces if name != space]
        assert np.abs(others).max() < 0.1
    best = winners({name: scores[name] for name in BLOCKS}, brain.rois["none"] ^ True)
    for at, name in enumerate(BLOCKS):
        assert (best[brain.rois[name]] == at).all()
    assert (best[brain.rois["none"]] == -1).all()


def test_scores_are_those_of_scikit_learn(world):
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    brain, spaces, responses = world
    found = encode(responses, spaces["z"], brain.stimuli.ids, alphas=np.array([30.0]))
    train, test = responses.rows(spaces["z"], brain.stimuli.ids)
    assert np.abs(train.mean(0)).max() < 1e-5 and (train**2).mean() == pytest.approx(1)
    guess = Ridge(alpha=30.0).fit(train, responses.train).predict(test)
    np.testing.assert_allclose(found.predicted, guess, atol=1e-4)
    np.testing.assert_allclose(
        found.r2, r2_score(responses.test, guess, multioutput="raw_values"), atol=1e-4
    )
    slow = [np.corrcoef(a, b)[0, 1] for a, b in zip(guess.T, responses.test.T, strict=True)]
    np.testing.assert_allclose(found.r, slow, atol=1e-4)


def test_axes_of_a_space_do_not_matter(world):
    """So that principal components stand for the features that they come from."""
    brain, spaces, responses = world
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(24, 24)))[0].astype(np.float32)
    flat = spaces["z"].reshape(len(spaces["z"]), -1) * np.logspace(0, -2, 24, dtype=np.float32)
    one = encode(responses, flat, brain.stimuli.ids)
    other = encode(responses, 7 * flat @ turned + 3, brain.stimuli.ids)
    np.testing.assert_allclose(one.r, other.r, atol=1e-3)


def test_blocks_of_voxels_change_nothing(world):
    brain, spaces, responses = world
    one = encode(responses, spaces["c"], brain.stimuli.ids)
    many = encode(responses, spaces["c"], brain.stimuli.ids, block_size=17)
    np.testing.assert_allclose(one.r, many.r, atol=1e-5)
    np.testing.assert_array_equal(one.alpha, many.alpha)


@pytest.mark.parametrize("train", ["means", "weighted"])
def test_features_are_decomposed_once_for_all_voxels(world, train, monkeypatch):
    brain, spaces, _ = world
    responses = MeanResponses.from_dataset(brain, train=train)
    decomposed = []
    original = _decompositions.factorize

    def counted(*arguments):
        decomposed.append(arguments[0].shape)
        return original(*arguments)

    monkeypatch.setattr(_decompositions, "factorize", counted)
    encode(responses, spaces["c"], brain.stimuli.ids, n_folds=4, block_size=17)
    assert len(decomposed) == 5  # four folds and all rows


def test_weighted_responses_are_read_block_by_block(world):
    brain, _, _ = world
    responses = MeanResponses.from_dataset(brain, train="weighted")
    targets, center = responses.all_targets()
    expected, part = responses.targets(slice(3, 9))
    np.testing.assert_array_equal(targets[:, 3:9], expected)
    np.testing.assert_array_equal(center[3:9], part)


def test_unique_variance_is_what_the_simulation_put_there(world):
    brain, spaces, responses = world
    found = unique_variance(
        responses, {name: spaces[name] for name in ("z", "c")}, brain.stimuli.ids
    )
    # Half of the variance of means over three repeats is signal.
    expected = {"early": (0.5, 0.0), "ventral": (0.0, 0.5), "both": (0.25, 0.25)}
    for region, (z, c) in expected.items():
        inside = brain.rois[region]
        assert found.unique["z"][inside].mean() == pytest.approx(z, abs=0.08)
        assert found.unique["c"][inside].mean() == pytest.approx(c, abs=0.08)
    assert found.r2[brain.rois["both"]].mean() == pytest.approx(0.5, abs=0.1)


def test_unique_variance_with_and_without_what_is_known(world):
    brain, spaces, responses = world
    two = {name: spaces[name] for name in ("z", "c")}
    alone = {name: encode(responses, spaces[name], brain.stimuli.ids) for name in two}
    one = unique_variance(responses, two, brain.stimuli.ids)
    other = unique_variance(responses, two, brain.stimuli.ids, alone=alone)
    for name in two:
        np.testing.assert_allclose(one.unique[name], other.unique[name], atol=1e-4)
    table = unique_table(responses, one, brain.rois, n_boot=200)
    row = table[(table.region == "both") & (table.space == "c")].iloc[0]
    assert row.unique_r2 == pytest.approx(one.unique["c"][brain.rois["both"]].mean())
    assert row.low < row.unique_r2 < row.high < 0.4
    none = table[table.region == "none"]
    assert ((none.low < 0.02) & (none.high > -0.2)).all()


def test_unique_variance_is_that_of_the_partition(world):
    """The other way to the same figures, through the functions of calcarine.linear."""
    from calcarine.linear import partition_variance

    brain, spaces, responses = world
    three = {name: spaces[name] for name in BLOCKS}
    found = unique_variance(responses, three, brain.stimuli.ids)
    rows = {name: responses.rows(spaces[name], brain.stimuli.ids) for name in BLOCKS}
    other = partition_variance(
        {n: r[0] for n, r in rows.items()},
        responses.train,
        {n: r[1] for n, r in rows.items()},
        responses.test,
        standardize=False,
    )
    np.testing.assert_allclose(found.r2, other.r2, atol=1e-3)
    for row, name in enumerate(other.names):
        np.testing.assert_allclose(found.unique[name], other.unique[row], atol=1e-3)


def test_at_most_five_percent_of_the_discoveries_are_false():
    """Over 50 simulated brains of which two thirds of the voxels have no signal."""
    rng = np.random.default_rng(8)
    seen = stimuli()
    split = split_of(seen)
    spaces = {"z": rng.normal(size=(len(seen), 12)).astype(np.float32)}
    shares, power = [], []
    for seed in range(50):
        brain = simulate_voxels(
            seen,
            split,
            spaces,
            {"on": {"z": 1.0}, "off": {}, "dark": {}},
            n_voxels=40,
            ceiling=25.0,
            seed=seed,
        )
        found = encode(
            MeanResponses.from_dataset(brain), spaces["z"], seen.ids, alphas=np.logspace(0, 4, 5)
        )
        called, _ = discoveries(correlation_p(found.r, N_TEST), 0.05)
        shares.append(called[~brain.rois["on"]].sum() / max(called.sum(), 1))
        power.append(called[brain.rois["on"]].mean())
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) <= 0.05 + 1.64 * error
    assert np.mean(power) > 0.8


def test_a_shuffled_brain_has_no_significant_region(world):
    brain, spaces, responses = world
    rng = np.random.default_rng(0)
    shuffled = MeanResponses(
        responses.train[rng.permutation(N_TRAIN)],
        responses.test[rng.permutation(N_TEST)],
        responses.train_ids,
        responses.test_ids,
    )
    for name in ("z", "c"):
        found = encode(shuffled, spaces[name], brain.stimuli.ids)
        called, _ = discoveries(correlation_p(found.r, N_TEST), 0.05)
        assert called.mean() < 0.02


def test_region_intervals_are_those_of_a_plain_bootstrap(world):
    brain, spaces, responses = world
    found = {"z": encode(responses, spaces["z"], brain.stimuli.ids)}
    table = region_table(responses, found, {"early": brain.rois["early"]}, n_boot=400, seed=1)
    rng = np.random.default_rng(5)
    drawn = []
    columns = np.flatnonzero(brain.rois["early"])
    for _ in range(300):
        rows = rng.integers(N_TEST, size=N_TEST)
        drawn.append(
            np.mean(
                [
                    np.corrcoef(found["z"].predicted[rows, v], responses.test[rows, v])[0, 1]
                    for v in columns
                ]
            )
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    row = table.iloc[0]
    assert row.r == pytest.approx(found["z"].r[columns].mean())
    assert (row.low, row.high) == pytest.approx((low, high), abs=0.01)
    assert row.low < row.r < row.high


def test_normalising_by_the_ceiling():
    out = normalised(np.array([0.5, 0.3, 0.1]), np.array([25.0, 0.0, 100.0]))
    np.testing.assert_allclose(out, [1.0, np.nan, 0.1])


def test_mistakes_are_told(world):
    brain, spaces, responses = world
    with pytest.raises(CalcarineError, match=r"Stimulus .* has no features"):
        encode(responses, spaces["z"][:10], brain.stimuli.ids[:10])
    with pytest.raises(CalcarineError, match="features of 10 stimuli for 750 ids"):
        encode(responses, spaces["z"][:10], brain.stimuli.ids)
    with pytest.raises(CalcarineError, match="no feature space y"):
        simulate_voxels(brain.stimuli, brain.splits[0], spaces, {"a": {"y": 1.0}})


def test_the_winner_is_chosen_inside_the_training_stimuli():
    """The space with the better test score loses where its held-out score is worse."""
    held_out = {"a": [0.3, 0.1, 0.2], "b": [0.2, 0.4, 0.1]}
    tested = {"a": [0.1, 0.9, 0.3], "b": [0.8, 0.2, 0.5]}
    nothing = np.zeros((1, 3), np.float32)
    scores = {
        name: EncodingScores(
            r=np.array(tested[name]),
            r2=np.array(tested[name]),
            cv_r2=np.array(held_out[name]),
            alpha=np.ones(3),
            predicted=nothing,
        )
        for name in held_out
    }
    assert winners(scores).tolist() == [0, 1, 0]
    assert winners(scores, np.array([True, False, True])).tolist() == [0, -1, 0]


def uneven():
    """A brain whose training stimuli have one, two or three repeats."""
    rng = np.random.default_rng(11)
    shown = np.repeat(np.arange(40), np.tile([1, 2, 3, 2], 10))
    features = rng.normal(size=(52, 6)).astype(np.float32)
    signal = features @ rng.normal(size=(6, 9))
    trials = np.concatenate([shown, np.repeat(np.arange(40, 52), 2)])
    seen = StimulusSet.from_arrays(np.zeros((52, 4, 4, 3), np.uint8))
    data = (signal[trials] + rng.normal(size=(len(trials), 9))).astype(np.float32)
    split = Split("all", seen.ids[:40], seen.ids[40:], "by number")
    brain = BrainDataset(
        name="uneven",
        subject="one",
        responses=make_responses(data, [seen.ids[t] for t in trials], np.ones(len(trials), int)),
        voxels=pd.DataFrame(np.full((9, 3), np.nan), columns=["x", "y", "z"]),
        rois={},
        stimuli=seen,
        splits=(split,),
        simulated=True,
        source="",
        licence="",
    )
    return brain, features, np.unique(shown, return_counts=True)[1]


def test_single_trials_are_means_weighted_by_repeats_up_to_the_scale_of_the_penalty():
    brain, features, repeats = uneven()
    ids = brain.stimuli.ids
    trials = MeanResponses.from_dataset(brain, train="trials")
    weighted = MeanResponses.from_dataset(brain, train="weighted")
    means = MeanResponses.from_dataset(brain)
    assert trials.train.shape == (repeats.sum(), 9) and weighted.train.shape == (40, 9)
    for alpha in (1.0, 30.0, 500.0):
        by_trials = encode(trials, features, ids, alphas=np.array([alpha]))
        by_means = encode(weighted, features, ids, alphas=np.array([alpha / repeats.mean()]))
        np.testing.assert_allclose(by_trials.predicted, by_means.predicted, atol=2e-5)
        plain = encode(means, features, ids, alphas=np.array([alpha / repeats.mean()]))
        assert np.abs(plain.predicted - by_means.predicted).max() > 1e-3
        pair = {"a": features[:, :3], "b": features[:, 3:]}
        one, two = (
            unique_variance(found, pair, ids, alphas=np.array([penalty]), n_candidates=1)
            for found, penalty in ((trials, alpha), (weighted, alpha / repeats.mean()))
        )
        np.testing.assert_allclose(one.predicted, two.predicted, atol=2e-4)


def test_single_trials_are_fitted_as_scikit_learn_fits_them():
    brain, features, _ = uneven()
    single = brain.train()
    rows = [list(brain.stimuli.ids).index(key) for key in single.stimulus_ids]
    x, x_test = features[rows], features[40:]
    scale = np.sqrt(((x - x.mean(0)) ** 2).mean())
    wanted = Ridge(alpha=7.0 * scale**2).fit(x, single.data).predict(x_test)
    found = encode(
        MeanResponses.from_dataset(brain, train="trials"),
        features,
        brain.stimuli.ids,
        alphas=np.array([7.0]),
    )
    np.testing.assert_allclose(found.predicted, wanted, atol=1e-4)


def test_trials_of_a_stimulus_stay_in_one_fold_and_count_as_one_stimulus():
    brain, _, _ = uneven()
    options = MeanResponses.from_dataset(brain, train="trials").fit_options(500)
    assert options["n_folds"] == 40 and len(set(options["groups"])) == 40
    assert "groups" not in MeanResponses.from_dataset(brain).fit_options(5)


def test_encodes_a_data_set_and_several_spaces_at_once():
    brain = load_dataset("simulated", n_train=30, n_test=6, n_early=8, n_ventral=4, n_other=0)
    pixels = brain.stimuli.images()[:, ::16, ::16].astype(np.float32)
    spaces = {"pixels": pixels, "colour": pixels.mean((1, 2))}
    alphas = np.logspace(0, 4, 5)
    both = encode(brain, spaces, roi="early", alphas=alphas)
    assert list(both) == ["pixels", "colour"]
    responses = MeanResponses.from_dataset(brain, None, "early")
    for name, values in spaces.items():
        alone = encode(responses, values, brain.stimuli.ids, alphas=alphas)
        np.testing.assert_array_equal(both[name].predicted, alone.predicted)
    assert repr(both["pixels"]).startswith("EncodingScores(8 voxels, 6 test stimuli, mean r ")
    assert "median r" in both["pixels"]._repr_html_()
    with pytest.raises(CalcarineError, match="ids with MeanResponses"):
        encode(responses, pixels)
