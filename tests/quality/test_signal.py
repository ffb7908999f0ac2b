import json

import numpy as np
import pandas as pd
import pytest

from calcarine import brain, datasets
from calcarine.brain import Split
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import scale_sessions
from calcarine.quality.identification import identify_repeats, two_way_accuracy
from calcarine.quality.signal import describe_signal
from calcarine.stimuli.stimulus_set import StimulusSet

SMALL = {"n_train": 80, "n_test": 8, "n_early": 90, "n_ventral": 40, "n_other": 60, "size": 32}


def load(**changes):
    return datasets.load_dataset(
        "simulated", None, "subj07", **{**SMALL, "n_sessions": 4, **changes}
    )


def test_two_way_accuracy_as_a_loop(rng):
    scores = np.round(rng.normal(size=(9, 9)), 1)  # with ties
    accuracy = two_way_accuracy(scores)
    assert accuracy.shape == (9,)
    for i, found in enumerate(accuracy):
        won = [
            (scores[i, i] > s) + 0.5 * (scores[i, i] == s)
            for j in range(9)
            if j != i
            for s in (scores[i, j], scores[j, i])
        ]
        assert found == pytest.approx(np.mean(won))


def test_patterns_of_two_repeats_are_correlated_over_voxels():
    own = load(n_repeats=2)
    train = own.train(None, "early")
    names = sorted(set(train.stimulus_ids))
    pair = [[row for row, key in enumerate(train.stimulus_ids) if key == n] for n in names]
    a, b = (train.data[[rows[side] for rows in pair]].astype(float) for side in (0, 1))
    found = identify_repeats(own, own.split(), "early", megabytes=1)
    r = np.corrcoef(a - a.mean(0), b - b.mean(0))[: len(a), len(a) :]
    # Which repeat comes first is drawn anew for every stimulus, which changes the centring.
    assert found.accuracy == pytest.approx(two_way_accuracy(r).mean(), abs=0.02)
    assert found.half == 1 and len(found.per_stimulus) == 80


def test_sessions_centred_on_few_trials_do_not_make_noise_look_like_signal():
    ids = [f"s{number}" for number in range(24)]
    split = Split("first", tuple(ids[4:]), tuple(ids[:4]), "by number")
    pictures = StimulusSet.from_arrays(np.zeros((24, 4, 4, 3), np.uint8), ids)
    nowhere = pd.DataFrame(np.zeros((1500, 3)), columns=["x", "y", "z"])
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shown = [ids[row] for _ in range(3) for row in rng.permutation(24)]
        sessions = np.repeat([1, 2, 3], 24)
        train = np.isin(shown, split.train)
        noise = rng.normal(size=(72, 1500))
        values, scaling = scale_sessions(noise, sessions, train, shown)
        made = BrainDataset(
            "toy",
            "a",
            make_responses(values, shown, sessions),
            nowhere,
            {},
            pictures,
            (split,),
            True,
            "here",
            "none",
            scaling=scaling,
        )
        found.append(identify_repeats(made, split).accuracy)
    # Uncorrected, the mean is .64.
    assert abs(np.mean(found) - 0.5) < 0.04


def test_noise_is_identified_at_chance_and_signal_above():
    own = load()
    noise = identify_repeats(own, own.split(), "other")
    low, high = noise.interval()
    assert low < 0.5 < high
    signal = identify_repeats(own, own.split(), "early")
    assert signal.interval()[0] > 0.6
    assert signal.with_repeats(1) == pytest.approx(signal.accuracy)
    assert signal.accuracy < signal.with_repeats(3) < signal.with_repeats(10) <= 1


@pytest.mark.parametrize("repeats", [3, 8])
def test_what_is_expected_of_more_repeats_comes_true(repeats):
    few, many = load(n_repeats=2), load(n_repeats=2 * repeats)
    for roi in ("early", "ventral"):
        told = identify_repeats(few, few.split(), roi)
        true = identify_repeats(many, many.split(), roi)
        assert true.half == repeats
        assert told.with_repeats(repeats) == pytest.approx(true.accuracy, abs=0.06)


def test_a_region_with_signal_and_one_without_are_told_apart():
    report = describe_signal(load(), n_boot=50)
    rows = {row.roi: row for row in report.rows}
    assert rows["early"].verdict in ("strong", "moderate")
    assert rows["other"].verdict == "none"
    assert rows["early"].ceiling_low < rows["early"].ceiling < rows["early"].ceiling_high
    assert rows["early"].best_r == pytest.approx(np.sqrt(rows["early"].ceiling / 100))
    assert rows["early"].share > 0.5 > rows["other"].share
    text = str(report)
    assert "simulated" in text and "means over 3 repeats" in text
    assert "No difference from noise was seen in other; leave it out" in text.replace(": ", "; ")
    assert json.loads(json.dumps(report.to_json()))["rows"][0]["roi"] == "early"


def test_test_responses_are_not_looked_at():
    own = load()
    before = str(describe_signal(own, n_boot=20))
    wanted = np.isin(own.trial_stimuli, own.split().test)
    own.responses.values[wanted] = 1000.0
    assert str(describe_signal(own, n_boot=20)) == before
    assert str(describe_signal(own, on="test", n_boot=20)) != before


def test_without_repeats_it_is_said_and_not_guessed():
    report = describe_signal(load(n_repeats=1))
    assert {row.verdict for row in report.rows} == {"unknown"}
    assert "no training stimulus was shown twice" in str(report)
    assert report.rows[0].ceiling is None and json.dumps(report.to_json())


def test_repeats_of_the_test_alone_are_offered_by_name():
    own = load(n_repeats=2)
    shown = np.array(own.trial_stimuli)
    once = own.responses.coords["repeat"].values == 0
    keep = np.flatnonzero(once | np.isin(shown, own.split().test))
    ids = own.split()
    fewer = brain.BrainDataset(
        name="toy",
        subject="a",
        responses=own.responses[{"trial": keep}],
        voxels=own.voxels,
        rois=own.rois,
        stimuli=own.stimuli,
        splits=(Split("main", ids.train, ids.test, "own"),),
        simulated=True,
        source="here",
        licence="none",
    )
    assert "8 test stimuli were repeated; use them (--on test)" in str(describe_signal(fewer))
    assert describe_signal(fewer, on="test", n_boot=20).rows[0].verdict != "unknown"


def test_a_region_too_small_for_patterns_still_has_its_ceiling():
    row = describe_signal(load(n_other=1), rois=["other"], n_boot=20).rows[0]
    assert row.accuracy is None and row.ceiling is not None
    assert "too few voxels to compare patterns" in row.sentence
