import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from calcarine.brain import Split
from calcarine.brain.scaling import zscore_sessions
from calcarine.datasets.prepare import engine
from calcarine.datasets.prepare.engine import Recording, prepare
from calcarine.datasets.prepare.store import PreparedSubject
from calcarine.errors import CalcarineError
from calcarine.stimuli.stimulus_set import StimulusSet

LENGTHS = {1: 7, 2: 5, 4: 9}
VOXELS = 13


@pytest.fixture
def raw(rng):
    return {s: rng.normal(s, 1 + s, (n, VOXELS)).astype(np.float32) for s, n in LENGTHS.items()}


def recording(raw, **changes):
    sessions = np.repeat(list(LENGTHS), list(LENGTHS.values()))
    stimuli = [f"s{i % 8}" for i in range(len(sessions))]
    split = Split("first", tuple(f"s{i}" for i in range(6)), ("s6", "s7"), "by number")
    parts = {
        "dataset": "toy",
        "subject": "a",
        "source": "here",
        "licence": "none",
        "trials": pd.DataFrame({"stimulus": stimuli, "session": sessions}),
        "voxels": pd.DataFrame(np.zeros((VOXELS, 3)), columns=["x", "y", "z"]),
        "rois": {"left": np.arange(VOXELS) < 4},
        "splits": (split,),
        "read": lambda session: raw[session].copy(),
        "provenance": {"mask": "m"},
    }
    return Recording(**{**parts, **changes})


def stimuli():
    ids = [f"s{i}" for i in range(8)]
    return StimulusSet.from_arrays(np.zeros((8, 4, 4, 3), np.uint8), ids)


def oracle(raw, train):
    whole = np.concatenate(list(raw.values()))
    sessions = np.repeat(list(LENGTHS), list(LENGTHS.values()))
    shown = [f"s{i % 8}" for i in range(len(whole))]
    return zscore_sessions(whole, sessions, np.array([key in train for key in shown])), shown


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_are_scaled_by_training_trials(raw, tmp_path, workers):
    store = prepare(recording(raw), tmp_path, workers)
    found = store.dataset(stimuli())
    wanted, _ = oracle(raw, {f"s{i}" for i in range(6)})
    np.testing.assert_allclose(found.responses.values, wanted, atol=1e-6)
    assert found.sessions.tolist() == [1] * 7 + [2] * 5 + [4] * 9


def test_responses_stay_on_disk_and_are_indexed_as_in_memory(raw, tmp_path):
    store = prepare(recording(raw), tmp_path)
    lazy = store.dataset(stimuli()).responses
    assert not isinstance(lazy.variable._data, np.ndarray)
    whole = lazy.values
    for rows, columns in [
        (np.array([20, 0, 7]), np.array([12, 3])),
        (slice(3, 15, 2), slice(None)),
        (np.array([], int), np.array([1])),
        (np.array([2]), np.array([], int)),
    ]:
        part = lazy[{"trial": rows, "voxel": columns}].values
        expected = whole[rows][:, columns]
        np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(lazy[{"trial": -1}].values, whole[-1])
    assert lazy[{"trial": 4, "voxel": 5}].values == whole[4, 5]


def test_another_split_is_scaled_by_its_own_training_trials(raw, tmp_path):
    """Else its test trials would have helped to scale."""
    found = prepare(recording(raw), tmp_path).dataset(stimuli())
    other = Split("other", tuple(f"s{i}" for i in range(2, 8)), ("s0", "s1"), "by number")
    wanted, shown = oracle(raw, set(other.train))
    rows = [row for row, key in enumerate(shown) if key in other.train]
    np.testing.assert_allclose(found.train(other).data, wanted[rows], atol=2e-5)
    zeros = [row for row, key in enumerate(shown) if key == "s0"]
    np.testing.assert_allclose(found.test(other).data[0], wanted[zeros].mean(0), atol=2e-5)


def test_an_interrupted_preparation_continues_and_reads_each_session_once(raw, tmp_path):
    read = []

    def stops(session):
        if session == 4:
            raise KeyboardInterrupt
        read.append(session)
        return raw[session].copy()

    with pytest.raises(KeyboardInterrupt):
        prepare(recording(raw, read=stops), tmp_path, workers=1)
    path = next(tmp_path.iterdir())
    with pytest.raises(CalcarineError, match="lacks 1 of 3 sessions, the first 4"):
        PreparedSubject.open(path).responses()

    def goes_on(session):
        read.append(session)
        return raw[session].copy()

    store = prepare(recording(raw, read=goes_on), tmp_path, workers=1)
    assert read == [1, 2, 4]
    wanted, _ = oracle(raw, {f"s{i}" for i in range(6)})
    np.testing.assert_allclose(store.responses().values, wanted, atol=1e-6)


def test_a_half_written_session_is_not_taken_for_a_whole_one(raw, tmp_path, monkeypatch):
    def dies(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calcarine.datasets.prepare.store.os.replace", dies)
    with pytest.raises(OSError, match="No space left"):
        prepare(recording(raw), tmp_path, workers=1)
    monkeypatch.undo()
    store = prepare(recording(raw), tmp_path, workers=1)
    assert not store.missing()
    assert not list(store.path.rglob("*.part"))


def test_two_that_prepare_at_once_do_not_disturb_each_other(raw, tmp_path):
    read = []

    def slow(session):
        read.append(session)
        time.sleep(0.05)
        return raw[session].copy()

    def one(_):
        return prepare(recording(raw, read=slow), tmp_path, workers=1).responses().values

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    wanted, _ = oracle(raw, {f"s{i}" for i in range(6)})
    for values in found:
        np.testing.assert_allclose(values, wanted, atol=1e-6)
    assert sorted(read) == sorted(LENGTHS)  # one worked, the others waited


def test_what_is_whole_is_read_where_nothing_can_be_written(raw, tmp_path, monkeypatch):
    prepare(recording(raw), tmp_path)
    monkeypatch.setattr(engine, "folder_lock", None)
    assert not prepare(recording(raw), tmp_path).missing()


def test_other_settings_make_another_subject(raw, tmp_path):
    one = prepare(recording(raw), tmp_path)
    same = prepare(recording(raw), tmp_path)
    other = prepare(recording(raw, provenance={"mask": "n"}), tmp_path)
    assert one.path == same.path != other.path


def test_unscaled_responses_stay_as_they_are(raw, tmp_path):
    found = prepare(recording(raw, zscore="none"), tmp_path).dataset(stimuli())
    np.testing.assert_array_equal(found.responses.values, np.concatenate(list(raw.values())))
    assert found.scaling is None


@pytest.mark.parametrize("zscore", ["session", "training", "session-all"])
def test_sessions_stored_one_by_one_are_scaled_as_in_memory(raw, tmp_path, zscore):
    """Session 2 has one training trial, so all training trials scale it, and no test trial."""
    shown = [f"s{row % 6}" for row in range(7)] + ["s0", "s6", "s6", "s7", "s7"]
    shown += [f"s{row % 8}" for row in range(9)]
    trials = recording(raw).trials.assign(stimulus=shown)
    about = recording(raw, trials=trials, zscore=zscore)
    found = prepare(about, tmp_path).dataset(stimuli())
    sessions, train = trials["session"].to_numpy(), np.isin(shown, about.splits[0].train)
    whole = np.concatenate(list(raw.values()))
    wanted = zscore_sessions(whole, sessions, train, zscore)
    np.testing.assert_allclose(found.responses.values, wanted, atol=1e-5)
    if zscore != "session-all":
        exact = (whole - whole[train].mean(0)) / whole[train].std(0)
        second = sessions == 2
        np.testing.assert_allclose(found.responses.values[second], exact[second], atol=1e-4)
    assert found.scaling.method == zscore
    assert ("s7" in found.scaling.stimuli) == (zscore == "session-all")


def test_files_that_do_not_fit_the_trials_are_told(raw, tmp_path):
    with pytest.raises(CalcarineError, match="session 2 has 5 trials in its files and 7 in"):
        sessions = np.repeat([1, 2, 4], [7, 7, 7])
        trials = recording(raw).trials.assign(session=sessions)
        prepare(recording(raw, trials=trials), tmp_path, workers=1)
    mixed = recording(raw).trials.iloc[::-1].iloc[np.r_[0:3, 10:21, 3:10]]
    with pytest.raises(CalcarineError, match="are not consecutive"):
        prepare(recording(raw, trials=mixed), tmp_path)
    trials = recording(raw).trials.assign(stimulus=[f"t{row}" for row in range(21)])
    few = Split("few", ("t0",), ("t1",), "one trial in all")
    with pytest.raises(CalcarineError, match=r"subject a has 1 training trials; z-scoring needs"):
        prepare(recording(raw, trials=trials, splits=(few,)), tmp_path, workers=1)


def test_a_damaged_store_is_told(raw, tmp_path):
    store = prepare(recording(raw), tmp_path)
    (store.path / "voxels.parquet").write_bytes(b"no")
    with pytest.raises(CalcarineError, match="not a whole prepared subject"):
        prepare(recording(raw), tmp_path)


def test_a_constant_voxel_is_only_centred():
    values = np.full((6, 2), 3.0, np.float32)
    values[:, 1] = np.arange(6)
    betas = engine._scaled(values.copy(), *engine.mean_and_scale(engine.moments(values)))
    assert (betas[:, 0] == 0).all()
    assert betas[:, 1].std() == pytest.approx(1.0)
