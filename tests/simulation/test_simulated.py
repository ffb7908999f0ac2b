import numpy as np
import pytest

from calcarine.brain.scaling import zscore_sessions
from calcarine.errors import CalcarineError
from calcarine.quality.reliability import noise_ceiling
from calcarine.simulation import subject as simulated
from calcarine.simulation.tuning import early_features, gabor_energy, semantic_features
from calcarine.stimuli import scenes

SMALL = {"n_train": 30, "n_test": 6, "n_sessions": 3, "n_early": 20, "n_ventral": 20, "n_other": 9}


@pytest.fixture(scope="module")
def subject():
    return simulated.load(
        subject="subj01",
        n_train=300,
        n_test=40,
        n_early=200,
        n_ventral=200,
        n_other=60,
        n_sessions=5,
    )


@pytest.fixture(scope="module")
def small():
    return simulated.load(subject="subj01", **SMALL)


def test_metadata_says_simulated(small):
    assert small.simulated
    assert small.describe()["kind"] == "simulated"
    assert "simulated" in small.source
    assert small.judge == "scenes"
    assert set(small.ground_truth["tuning"][small.roi_mask("early")]) == {"visual"}
    assert set(small.ground_truth["tuning"][small.roi_mask("ventral")]) == {"semantic"}
    assert set(small.ground_truth["tuning"][small.roi_mask("other")]) == {"none"}


def test_subjects_share_test_stimuli_and_no_training_stimuli(small):
    others = [simulated.load(subject=name, **SMALL) for name in simulated.INFO.subjects[1:]]
    for number, one in enumerate([small, *others]):
        assert one.splits[0].test == small.splits[0].test
        for other in others[number:]:
            assert not set(one.splits[0].train) & set(other.splits[0].train)
            shared = one.splits[0].test
            np.testing.assert_array_equal(one.stimuli.images(shared), other.stimuli.images(shared))
            assert not np.array_equal(one.test().data, other.test().data)


def test_same_seed_same_data_other_seed_other_noise(small):
    assert simulated.load(subject="subj01", **SMALL).digest() == small.digest()
    other = simulated.load(subject="subj01", seed=1, **SMALL)
    assert other.digest() != small.digest()
    assert other.stimuli.digest() == small.stimuli.digest()


def test_first_subject_is_best_and_last_is_worst():
    region = np.repeat("early", 20000)
    medians = [
        np.median(simulated._draw_ceilings(region, name, np.random.default_rng(0)))
        for name in simulated.INFO.subjects
    ]
    assert medians == sorted(medians, reverse=True)
    assert medians[0] - medians[-1] > 8
    assert 30 < medians[2] < 40


def test_repeats_estimate_the_true_noise_ceiling(subject):
    found = noise_ceiling(subject.responses.values, subject.trial_stimuli)
    truth = subject.ground_truth["noise_ceiling"]
    for roi in ("early", "ventral"):
        mask = subject.roi_mask(roi)
        assert np.corrcoef(found[mask], truth[mask])[0, 1] > 0.8
        assert abs(np.mean(found[mask] - truth[mask])) < 3
    other = subject.roi_mask("other")
    assert (truth[other] == 0).all()
    assert found[other].mean() < 6


def ridge_scores(features, responses, train, alpha):
    """Correlation of prediction and response over test stimuli, per voxel."""
    mean, spread = features[train].mean(0), features[train].std(0) + 1e-6
    x = (features - mean) / spread
    y = responses[train] - responses[train].mean(0)
    weights = np.linalg.solve(x[train] @ x[train].T + alpha * np.eye(train.sum()), y)
    guess = x[~train] @ (x[train].T @ weights)
    a, b = guess - guess.mean(0), responses[~train] - responses[~train].mean(0)
    return (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0) + 1e-12)


def test_each_region_is_predicted_best_by_what_it_is_built_from(subject):
    stimuli = subject.stimuli
    rows = {key: row for row, key in enumerate(stimuli.ids)}
    owner = np.array([rows[key] for key in subject.trial_stimuli])
    means = np.zeros((len(stimuli), subject.n_voxels))
    np.add.at(means, owner, subject.responses.values / 3)
    train = np.arange(len(stimuli)) < 300
    drawn = [scenes.describe(int(k.split("-")[1]), int(k.split("-")[2])) for k in stimuli.ids]
    spaces = {
        "early": early_features(stimuli.images()),
        "ventral": semantic_features(stimuli.semantic_maps(), drawn)[0],
    }
    scores = {
        name: ridge_scores(space, means, train, 0.3 * space.shape[1])
        for name, space in spaces.items()
    }
    for own, foreign in (("early", "ventral"), ("ventral", "early")):
        mask = subject.roi_mask(own)
        assert scores[own][mask].mean() > scores[foreign][mask].mean() + 0.05
        assert scores[own][mask].mean() > 0.25
        assert abs(scores[own][subject.roi_mask("other")].mean()) < 0.08


def test_gabor_energy_is_local_and_oriented():
    """Gabor energy is where the grating is, in its orientation, and nil in plain grey."""
    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    stripes = np.where(np.arange(8) % 4 < 2, 255, 0).astype(np.uint8)
    grey[0, 12:20, 2:10] = stripes[None, :, None]
    grey[1, 12:20, 22:30] = stripes[None, :, None]
    left, right = gabor_energy(grey)[:, -14 * 14 * 6 :].reshape(2, 14, 14, 6).sum((1, 3))
    assert left[:7].sum() > 20 * left[7:].sum()
    assert right[7:].sum() > 20 * right[:7].sum()
    # Vertical stripes are seen by the filter whose carrier runs across.
    by_orientation = gabor_energy(grey)[0, -14 * 14 * 6 :].reshape(-1, 6).sum(0)
    assert by_orientation.argmax() == 0
    np.testing.assert_allclose(gabor_energy(np.full((1, 32, 32, 3), 200, np.uint8)), 0, atol=1e-5)


def test_cortex_is_retinotopic(subject):
    table = subject.voxels
    early = table[subject.roi_mask("early")]
    left, right = early[early.hemisphere == "left"], early[early.hemisphere == "right"]
    assert left.x.mean() < 0 < right.x.mean()
    assert (left.rf_x > 0).mean() > 0.9
    assert (right.rf_x < 0).mean() > 0.9
    eccentricity = np.hypot(early.rf_x, early.rf_y)
    assert np.corrcoef(eccentricity, early.y)[0, 1] > 0.8
    for area, part in left[np.abs(left.rf_y) > 0.5].groupby("area"):
        assert np.corrcoef(part.rf_y, part.z)[0, 1] < -0.4, area
    assert np.corrcoef(eccentricity, early.rf_size)[0, 1] > 0.4
    ventral = table[subject.roi_mask("ventral")]
    assert ventral.z.max() < early.z.max()
    assert ventral.y.mean() > early.y.mean()
    assert not set(zip(early.hemisphere, early.vertex, strict=True)) & set(
        zip(ventral.hemisphere, ventral.vertex, strict=True)
    )


def test_voxels_lie_on_the_mesh(subject):
    from calcarine.simulation.cortex import _pial

    for hemisphere, part in subject.voxels.groupby("hemisphere"):
        np.testing.assert_array_equal(_pial(hemisphere)[part.vertex], part[["x", "y", "z"]])


def test_repeats_are_spread_over_sessions_and_order_is_random():
    shown, sessions = simulated.presentation(60, 12, 3, 6, np.random.default_rng(0))
    assert (np.bincount(shown) == 3).all()
    for stimulus in range(72):
        assert len(set(sessions[shown == stimulus])) == 3
    assert (np.diff(sessions) >= 0).all()
    per_session = [np.bincount(sessions[part], minlength=6) for part in (shown < 60, shown >= 60)]
    assert [counts.tolist() for counts in per_session] == [[30] * 6, [6] * 6]
    first = shown[sessions == 0]
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.5


def test_zscoring_removes_what_sessions_add():
    rng = np.random.default_rng(0)
    shown, sessions = simulated.presentation(200, 20, 3, 4, rng)
    signal = rng.normal(size=(220, 30)).astype(np.float32)
    raw = simulated._measure(signal[shown], sessions, np.full(30, 60.0), rng)
    scaled = zscore_sessions(raw, sessions, shown < 200)

    def between(data):
        means = np.array([data[sessions == session].mean(0) for session in range(4)])
        return means.var(0).mean() / data.var(0).mean()

    assert between(raw) > 0.1
    assert between(scaled) < 0.005
    worse = noise_ceiling(raw, shown.astype(str)).mean()
    better = noise_ceiling(scaled, shown.astype(str)).mean()
    assert better > worse + 2
    assert abs(better - 60) < 4


def test_zscoring_of_a_subject_is_by_its_training_trials(small):
    train = np.isin(small.trial_stimuli, small.splits[0].train)
    for session in np.unique(small.sessions):
        own = small.responses.values[train & (small.sessions == session)]
        np.testing.assert_allclose(own.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(own.std(0), 1, atol=1e-4)


def test_noise_level_inverts_the_ceiling():
    level = simulated.noise_levels(np.array([50.0, 75.0, 0.0]))
    np.testing.assert_allclose(100 / (1 + level[:2] ** 2 / 3), [50, 75])
    assert np.isinf(level[2])


def test_regions_may_be_empty_and_voxels_may_outnumber_vertices():
    only = simulated.load(**{**SMALL, "n_early": 1100, "n_ventral": 0, "n_other": 0})
    assert only.n_voxels == 1100
    assert only.voxels.duplicated(["hemisphere", "vertex"]).any()
    with pytest.raises(CalcarineError, match="region ventral has no voxels"):
        only.roi_mask("ventral")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("n_train", 1, "n_train of at least 2, not 1"),
        ("n_test", 0, "n_test of at least 1"),
        ("n_early", -1, "n_early of at least 0"),
        ("n_sessions", 80, "too few for 80 sessions"),
    ],
)
def test_impossible_designs_are_told(option, value, message):
    with pytest.raises(CalcarineError, match=message):
        simulated.load(**{**SMALL, option: value})
