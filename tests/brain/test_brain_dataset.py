import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from calcarine.brain import responses
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.responses import Responses, make_responses
from calcarine.brain.scaling import zscore_sessions
from calcarine.brain.split import Split
from calcarine.errors import CalcarineError, LeakageError
from calcarine.quality.reliability import noise_ceiling
from calcarine.stimuli import StimulusSet

SHOWN = ["a", "c", "b", "a", "d", "c", "b", "d"]
SESSIONS = [0, 0, 0, 0, 1, 1, 1, 1]
DATA = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)


def stimuli(ids="abcd"):
    pictures = np.random.default_rng(1).integers(0, 256, (len(ids), 4, 4, 3), dtype=np.uint8)
    return StimulusSet.from_arrays(pictures, list(ids))


def dataset(**changes):
    early = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    parts = {
        "name": "toy",
        "subject": "S1",
        "responses": make_responses(DATA, SHOWN, SESSIONS),
        "voxels": pd.DataFrame(np.zeros((6, 3)), columns=["x", "y", "z"]),
        "rois": {"early": early, "late": ~early & (np.arange(6) < 5)},
        "stimuli": stimuli(),
        "splits": (Split("main", ("a", "b"), ("d", "c"), "by hand", None),),
        "simulated": False,
        "source": "nowhere",
        "licence": "none",
    }
    return BrainDataset(**{**parts, **changes})


def test_a_stimulus_on_both_sides_is_a_leak():
    with pytest.raises(LeakageError, match="stimulus b in training and in test"):
        Split("main", ("a", "b"), ("b", "c"), "by hand", None)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [((), ("a",), "no train"), (("a",), (), "no test"), (("a", "a"), ("b",), "lists a twice")],
)
def test_bad_splits_are_told(train, test, message):
    with pytest.raises(CalcarineError, match=message):
        Split("main", train, test, "by hand", None)


def test_split_survives_json():
    split = Split("main", ("a", "ü"), ("c",), "by hand", 3)
    assert Split.from_json(split.to_json()) == split
    assert Split.from_json(split.to_json()).digest() == split.digest()
    assert Split("main", ("ü", "a"), ("c",), "by hand", 3).digest() != split.digest()


def test_saved_split_that_leaks_or_is_malformed_is_refused():
    saved = json.loads(Split("main", ("a",), ("c",), "by hand", 3).to_json())
    with pytest.raises(LeakageError):
        Split.from_json(json.dumps({**saved, "test": ["a"]}))
    with pytest.raises(CalcarineError, match="lists of stimulus ids"):
        Split.from_json(json.dumps({**saved, "test": "abc"}))
    for text in ("{", "[]", "{}"):
        with pytest.raises(CalcarineError, match="not a saved split"):
            Split.from_json(text)


def test_training_responses_are_single_trials_in_order():
    found = dataset().train("main", "late")
    assert found.role == "train"
    assert found.stimulus_ids == ("a", "b", "a", "b")
    assert found.sessions.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(found.data, DATA[[0, 2, 3, 6]][:, 3:5])
    assert found.data.dtype == np.float32


def test_test_responses_are_means_in_the_order_of_the_split():
    found = dataset().test("main")
    assert found.role == "test"
    assert found.stimulus_ids == ("d", "c")
    expected = [(DATA[4] + DATA[7]) / 2, (DATA[1] + DATA[5]) / 2]
    np.testing.assert_allclose(found.data, expected, rtol=1e-6)
    assert found.sessions.tolist() == [1, -1]


def test_test_trials_reach_no_training_response():
    changed = DATA.copy()
    changed[[1, 4, 5, 7]] += 100
    other = dataset(responses=make_responses(changed, SHOWN, SESSIONS))
    np.testing.assert_array_equal(other.train().data, dataset().train().data)
    assert not np.allclose(other.test().data, dataset().test().data)


def test_regions_combine_and_unknown_ones_are_told():
    found = dataset()
    assert found.roi_mask("all").all()
    assert found.roi_mask("early + late").tolist() == [True] * 5 + [False]
    with pytest.raises(
        CalcarineError,
        match=r"no region V7; it has all, early, late \(join several with \+, as early\+late\)",
    ):
        found.roi_mask("early+V7")
    with pytest.raises(CalcarineError, match="empty name"):
        found.roi_mask("")
    with pytest.raises(CalcarineError, match="no voxels"):
        dataset(rois={"none": np.zeros(6, bool)}).roi_mask("none")


def test_masks_given_out_do_not_change_the_dataset():
    found = dataset()
    found.roi_mask("early")[:] = False
    assert found.roi_mask("early").sum() == 3


def test_split_is_found_by_name():
    found = dataset()
    assert found.split() is found.split("main")
    own = Split("own", ("a",), ("b",), "by hand", None)
    assert found.train(own).stimulus_ids == ("a", "a")
    with pytest.raises(CalcarineError, match="no split other; it has main"):
        found.train("other")
    with pytest.raises(CalcarineError, match="z of split own was shown in no trial"):
        found.test(Split("own", ("a",), ("z",), "by hand", None))


def test_nan_voxels_are_named():
    holes = DATA.copy()
    holes[3, 1] = np.nan
    holes[0, 4] = np.inf
    with pytest.raises(CalcarineError, match=r"2 of 6 voxels hold NaN or infinity \(voxel 1, 4\)"):
        dataset(responses=make_responses(holes, SHOWN, SESSIONS))


def test_lazy_responses_are_read_and_checked_when_asked_for(tmp_path):
    holes = DATA.copy()
    holes[2, 4] = np.nan
    make_responses(holes, SHOWN, SESSIONS).to_dataset(name="betas").to_zarr(tmp_path / "betas.zarr")
    found = dataset(responses=xr.open_zarr(tmp_path / "betas.zarr", chunks=None)["betas"])
    np.testing.assert_array_equal(found.train("main", "early").data, DATA[[0, 2, 3, 6], :3])
    with pytest.raises(CalcarineError, match=r"1 of 2 voxels .*\(voxel 4\)"):
        found.train("main", "late")


def test_parts_that_disagree_are_told():
    with pytest.raises(CalcarineError, match="voxel table has 5 rows"):
        dataset(voxels=pd.DataFrame(np.zeros((5, 3)), columns=["x", "y", "z"]))
    with pytest.raises(CalcarineError, match="no column z"):
        dataset(voxels=pd.DataFrame(np.zeros((6, 2)), columns=["x", "y"]))
    with pytest.raises(CalcarineError, match="region early must be boolean"):
        dataset(rois={"early": np.zeros(5, bool)})
    with pytest.raises(CalcarineError, match="not among its 3 stimuli, the first d"):
        dataset(stimuli=stimuli("abc"))
    with pytest.raises(CalcarineError, match="no coordinate repeat"):
        dataset(responses=make_responses(DATA, SHOWN, SESSIONS).drop_vars("repeat"))
    with pytest.raises(CalcarineError, match=r"dimensions \(trial, voxel\)"):
        dataset(responses=make_responses(DATA, SHOWN, SESSIONS).T)
    with pytest.raises(CalcarineError, match="at least one"):
        dataset(splits=())
    with pytest.raises(CalcarineError, match="judge"):
        dataset(judge="faces")
    with pytest.raises(CalcarineError, match="do not fit 8 stimulus ids"):
        make_responses(DATA[:7], SHOWN, SESSIONS)


def test_repeats_must_be_unique():
    responses = make_responses(DATA, SHOWN, SESSIONS)
    responses = responses.assign_coords(repeat=("trial", np.zeros(8, int)))
    with pytest.raises(CalcarineError, match="repeat 0 of stimulus a occurs 2 times"):
        dataset(responses=responses)


def test_measured_data_has_no_truth():
    with pytest.raises(CalcarineError, match="measured"):
        dataset(ground_truth={"noise_ceiling": np.zeros(6)})


def test_responses_check_themselves():
    with pytest.raises(CalcarineError, match="role"):
        Responses(DATA, tuple(SHOWN), "both", np.array(SESSIONS))
    with pytest.raises(CalcarineError, match="do not fit"):
        Responses(DATA, ("a",), "test", np.array(SESSIONS))


def test_description_counts():
    found = dataset().describe()
    assert found["kind"] == "measured"
    assert (found["trials"], found["stimuli"], found["sessions"]) == (8, 4, 2)
    assert found["voxels"] == {"all": 6, "early": 3, "late": 2}
    assert found["repeats"] == {"2": 4}
    assert found["splits"] == {"main": {"train": 2, "test": 2}}
    assert json.loads(json.dumps(found)) == found


def test_digest_sees_responses_regions_and_splits():
    changed = DATA.copy()
    changed[7, 5] += 1e-3
    digests = {
        dataset().digest(),
        dataset(responses=make_responses(changed, SHOWN, SESSIONS)).digest(),
        dataset(rois={}).digest(),
        dataset(subject="S2").digest(),
        dataset(splits=(Split("main", ("a", "b"), ("c", "d"), "by hand", None),)).digest(),
    }
    assert len(digests) == 5
    assert dataset().digest() in digests


def test_zscore_uses_training_trials_only():
    train = np.array([1, 0, 1, 1, 0, 0, 1, 1], dtype=bool)
    scaled = zscore_sessions(DATA, SESSIONS, train)
    for session in (0, 1):
        own = scaled[(np.array(SESSIONS) == session) & train]
        np.testing.assert_allclose(own.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(own.std(0), 1, atol=1e-5)
    changed = DATA.copy()
    changed[1] += 50
    again = zscore_sessions(changed, SESSIONS, train)
    others = np.arange(8) != 1
    np.testing.assert_array_equal(again[others], scaled[others])
    assert np.abs(again[1] - scaled[1]).min() > 1


def test_zscore_of_constant_voxels_is_zero_not_nan():
    flat = np.full((8, 1), 0.1, dtype=np.float32)
    np.testing.assert_array_equal(zscore_sessions(flat, SESSIONS, np.ones(8, bool)), 0)


def test_zscore_mistakes_are_told():
    with pytest.raises(CalcarineError, match="This subject has 1 training trials"):
        zscore_sessions(DATA, SESSIONS, np.arange(8) < 1)
    with pytest.raises(CalcarineError, match="boolean"):
        zscore_sessions(DATA, SESSIONS, np.ones(8))
    with pytest.raises(CalcarineError, match="session and a role"):
        zscore_sessions(DATA, SESSIONS[:4], np.ones(8, bool))


def test_noise_ceiling_of_known_signal_with_unequal_repeats():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(1500), rng.integers(1, 5, 1500))
    noise = np.array([0.5, 1.0, 3.0]).repeat(60)
    trials = rng.normal(size=(1500, 180))[ids] + noise * rng.normal(size=(len(ids), 180))
    found = noise_ceiling(trials, [str(key) for key in ids], n_average=3)
    means = found.reshape(3, 60).mean(1)
    np.testing.assert_allclose(means, 100 / (1 + noise[::60] ** 2 / 3), atol=1.5)


def test_noise_ceiling_needs_repeats():
    with pytest.raises(CalcarineError, match="two stimuli with repeats, not 0"):
        noise_ceiling(DATA[:3], ["a", "b", "c"])


@pytest.mark.parametrize("doubles", [1, 60, 10**6])
def test_means_of_repeats_are_those_of_a_loop(rng, monkeypatch, doubles):
    """To the last bit, however many voxels are averaged at once."""
    monkeypatch.setattr(responses, "_DOUBLES", doubles)
    owner = rng.permutation([0, 0, 0, 1, 2, 2, 2, 2, 3, 3])
    values = rng.normal(size=(10, 17)).astype(np.float32)
    expected = np.zeros((4, 17))
    for group, row in zip(owner, values, strict=True):
        expected[group] += row
    expected /= np.bincount(owner)[:, None]
    found = responses.group_means(values, owner, 4)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert found.dtype == np.float32
