import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray.backends import BackendArray
from xarray.core import indexing

from calcarine import datasets
from calcarine.brain import Split
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.responses import make_responses, with_trials
from calcarine.errors import CalcarineError
from calcarine.quality.reliability import (
    ceiling_from_ncsnr,
    estimate_reliability,
    explainable_variance,
    ncsnr,
    noise_ceiling,
    split_half,
)
from calcarine.quality.repeats import Repeats, trial_blocks, trials_of
from calcarine.quality.signal_estimators import MEASURES
from calcarine.stimuli import StimulusSet

FUNCTIONS = {
    "noise-ceiling": noise_ceiling,
    "split-half": split_half,
    "explainable-variance": explainable_variance,
}


@pytest.fixture(scope="module")
def subject():
    return datasets.load_dataset("simulated", None, "subj02")


def trials(rng, times, voxels=7, signal=1.0):
    """Responses of a known single-trial reliability, signal / (signal + 1)."""
    evoked = np.sqrt(signal) * rng.normal(size=(len(times), voxels))
    ids = np.repeat(np.arange(len(times)), times)
    rng.shuffle(ids)
    return evoked[ids] + rng.normal(size=(len(ids), voxels)), [f"s{i:03d}" for i in ids]


def toy(data, ids, test, **changes):
    names = sorted(set(ids))
    pictures = np.zeros((len(names), 4, 4, 3), np.uint8)
    parts = {
        "name": "toy",
        "subject": "a",
        "responses": make_responses(data, ids),
        "voxels": pd.DataFrame(np.zeros((data.shape[1], 3)), columns=["x", "y", "z"]),
        "rois": {"left": np.arange(data.shape[1]) < 3},
        "stimuli": StimulusSet.from_arrays(pictures, names),
        "splits": (Split("main", tuple(n for n in names if n not in test), test, "by hand"),),
        "simulated": False,
        "source": "here",
        "licence": "none",
    }
    return BrainDataset(**{**parts, **changes})


@pytest.mark.parametrize("measure", MEASURES)
def test_the_truth_of_the_simulation_is_found(subject, measure):
    found = estimate_reliability(subject, measure=measure)
    truth = subject.ground_truth["noise_ceiling"]
    assert found.averaged == pytest.approx(3)
    assert found.repeats == {3: 600}
    assert np.corrcoef(found.values, truth)[0, 1] > 0.96
    for roi in ("early", "ventral"):
        mask = subject.rois[roi]
        median, low, high = found.median(mask, 0.99)
        # The noise of voxels moves the median of skewed values by about half a percent.
        assert low - 0.5 < np.median(truth[mask]) < high + 0.5
        assert low < median < high and high - low < 5
        assert abs((found.values - truth)[mask].mean()) < 1  # percent of variance
    assert found.median(subject.rois["other"])[2] < 2


def test_analysis_of_variance_as_a_loop(rng):
    data, ids = trials(rng, [1, 2, 3, 3, 2, 5, 1, 4])
    groups = [data[np.array(ids) == key] for key in sorted(set(ids)) if ids.count(key) > 1]
    total, grand = sum(map(len, groups)), np.concatenate(groups).mean(0)
    within = sum(((g - g.mean(0)) ** 2).sum(0) for g in groups) / (total - len(groups))
    between = sum(len(g) * (g.mean(0) - grand) ** 2 for g in groups) / (len(groups) - 1)
    size = (total - sum(len(g) ** 2 for g in groups) / total) / (len(groups) - 1)
    signal = np.maximum(between - within, 0) / size
    np.testing.assert_allclose(noise_ceiling(data, ids, 2), 100 * signal / (signal + within / 2))
    np.testing.assert_allclose(ncsnr(data, ids), np.sqrt(signal / within))
    a, b, c = 4, 1, 7
    share = (a / 1 + b / 2 + c / 3) / (a + b + c)
    expected = 100 * signal / (signal + share * within)
    np.testing.assert_allclose(noise_ceiling(data, ids, {1: a, 2: b, 3: c}), expected)
    snr = np.array([[np.nan, *ncsnr(data, ids)]])
    np.testing.assert_allclose(ceiling_from_ncsnr(snr, {1: a, 2: b, 3: c})[0, 1:], expected)
    assert np.isnan(ceiling_from_ncsnr(snr)[0, 0])


def test_explainable_variance_as_in_the_tutorials(rng):
    data, ids = trials(rng, [4] * 12, signal=2.0)
    keys = np.array(ids)
    cube = np.stack([data[keys == key] for key in sorted(set(ids))], axis=1)
    z = (cube - cube.mean(1, keepdims=True)) / cube.std(1, keepdims=True)
    ev = z.mean(0).var(0) / z.var(1).mean(0)
    ev = ev - (1 - ev) / (len(z) - 1)
    assert (ev > 0).all()
    np.testing.assert_allclose(explainable_variance(data, ids), 100 * ev)
    # In closed form it is the mean correlation of two repeats.
    pairs = [np.corrcoef(cube[i, :, 0], cube[j, :, 0])[0, 1] for i in range(4) for j in range(i)]
    assert ev[0] == pytest.approx(np.mean(pairs))


def test_split_half_of_two_repeats_is_their_correlation(rng):
    data, ids = trials(rng, [2] * 4000, voxels=1, signal=1.0)
    single = split_half(data, ids, 1)[0] / 100
    assert single == pytest.approx(0.5, abs=0.04)
    assert split_half(data, ids, 4)[0] / 100 == pytest.approx(4 * single / (1 + 3 * single))
    four, names = trials(rng, [4] * 4000, voxels=1, signal=1.0)
    assert split_half(four, names, 1)[0] == pytest.approx(50, abs=3)  # back from halves of two


@pytest.mark.parametrize("measure", MEASURES)
def test_unequal_repeats_are_used_without_bias(rng, measure):
    times = rng.choice([1, 2, 3, 6], size=1500)
    data, ids = trials(rng, times, voxels=60, signal=0.5)
    expected = 100 * 0.5 / (0.5 + 1 / 3)
    assert FUNCTIONS[measure](data, ids, 3).mean() == pytest.approx(expected, abs=1.0)


def test_taking_equally_many_keeps_most_trials():
    ids = ["a"] * 6 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3 + ["e"]
    repeats = Repeats.of(ids)
    assert repeats.table() == {3: 3, 6: 1}
    assert repeats.equal_size() == 3
    picked, keep = repeats.draw(3, np.random.default_rng(0))
    names = np.array(ids)[repeats.rows]
    assert keep.all() and [sorted(set(names[column])) for column in picked.T] == [
        ["a"],
        ["b"],
        ["c"],
        ["d"],
    ]
    assert all(len(set(column)) == 3 for column in picked.T.tolist())


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    measure=st.sampled_from(sorted(MEASURES)),
    scale=st.floats(0.01, 1e4),
    shift=st.floats(-1e3, 1e3),
)
def test_units_change_nothing_and_averaging_never_lowers(seed, measure, scale, shift):
    rng = np.random.default_rng(seed)
    data, ids = trials(rng, rng.integers(1, 5, size=12), voxels=3)
    if len(Repeats.of(ids)) < 3:
        return
    function = FUNCTIONS[measure]
    found = function(data, ids, 1)
    assert ((found >= 0) & (found <= 100)).all()
    np.testing.assert_allclose(function(scale * data + shift, ids, 1), found, atol=1e-4)
    assert (function(data, ids, 3) >= found - 1e-12).all()


def test_the_interval_of_a_median_covers_it(rng):
    hits = 0
    for _ in range(40):
        data, ids = trials(rng, [3] * 60, voxels=30, signal=1.0)
        own = toy(data, ids, ("s000",))
        _, low, high = estimate_reliability(own, n_average=1, n_boot=200).median()
        hits += low < 50 < high
    assert 33 <= hits <= 40


class _Disk(BackendArray):
    """An array that tells how much of it is read at a time."""

    def __init__(self, values):
        self.values, self.largest = values, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key):
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self.part)

    def part(self, key):
        places = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
        found = self.values[np.ix_(*places)]
        self.largest = max(self.largest, found.size)
        return found


@pytest.mark.parametrize("measure", MEASURES)
def test_blocks_of_voxels_change_nothing_and_bound_the_memory(rng, measure):
    data, ids = trials(rng, [3] * 300, voxels=200)
    whole = estimate_reliability(toy(data, ids, ("s000", "s001")), measure=measure, n_boot=5)
    disk = _Disk(data.astype(np.float32))
    lazy = with_trials(
        xr.Variable(("trial", "voxel"), indexing.LazilyIndexedArray(disk)),
        ids,
        np.zeros(len(ids), np.int64),
    )
    parts = toy(data, ids, ("s000", "s001"), responses=lazy)
    found = estimate_reliability(parts, measure=measure, n_boot=5, megabytes=1)
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-4)
    np.testing.assert_allclose(found.resamples, whole.resamples, rtol=1e-3, atol=1e-3)
    assert disk.largest * 8 < 2**20


def test_training_repeats_alone_are_used_unless_test_is_named(rng):
    data, ids = trials(rng, [3] * 20)
    test = tuple(f"s{i:03d}" for i in range(5))
    is_test = np.isin(ids, test)
    first = toy(data, ids, test)
    changed = np.where(is_test[:, None], 100 + rng.normal(size=data.shape), data)
    second = toy(changed, ids, test)
    values = estimate_reliability(first).values
    np.testing.assert_array_equal(estimate_reliability(second).values, values)
    on_test = estimate_reliability(first, on="test", n_average=2)
    kept = [key for key in ids if key in test]
    expected = noise_ceiling(data[is_test].astype(np.float32), kept, 2)
    np.testing.assert_allclose(on_test.values, expected, rtol=1e-5)
    with pytest.raises(CalcarineError, match="train or on test"):
        estimate_reliability(first, on="all")


def test_the_percent_is_about_means_as_the_test_has_them(rng):
    ids = ["a"] * 3 + ["b"] * 3 + ["c"] + ["d"] * 2
    data = rng.normal(size=(9, 4))
    own = toy(data, ids, ("c", "d"))
    assert 1 / estimate_reliability(own).averaged == pytest.approx((1 + 1 / 2) / 2)


def test_another_split_is_scaled_as_its_training_is(subject):
    """The copy of the rule for reading by blocks must not differ from the rule."""
    ids = subject.stimuli.ids
    other = Split("other", ids[60:], ids[:60], "test stimuli helped to scale")
    for split in (subject.split(), other):
        rows = trials_of(subject, split, "train")
        wanted = subject.train(split, "early").data
        columns = np.flatnonzero(subject.roi_mask("early"))
        found = np.concatenate(
            [block for _, block in trial_blocks(subject, split, rows, columns, 4)], axis=1
        )
        np.testing.assert_array_equal(found.astype(np.float32), wanted)


def test_what_has_no_repeats_or_nan_is_told(rng):
    data, ids = trials(rng, [1] * 6)
    with pytest.raises(CalcarineError, match=r"train stimuli of split main .* repeats"):
        estimate_reliability(toy(data, ids, ("s000",)))
    with pytest.raises(CalcarineError, match="two stimuli with repeats, not 1"):
        split_half(data, ["a", "a", "b", "c", "d", "e"])
    with pytest.raises(CalcarineError, match="no measure eta"):
        estimate_reliability(toy(data, ids, ("s000",)), measure="eta")
    with pytest.raises(CalcarineError, match="cannot be averaged"):
        noise_ceiling(data, ["a", "a", "b", "b", "c", "c"], 0)
    with pytest.raises(CalcarineError, match="at least 0, not -1"):
        ceiling_from_ncsnr([-1.0])
    with pytest.raises(CalcarineError, match="do not fit 2 stimulus ids"):
        noise_ceiling(data, ["a", "a"])


def test_a_constant_voxel_has_no_reliability(rng):
    data, ids = trials(rng, [3] * 10)
    data[:, 2] = 4.0
    for function in FUNCTIONS.values():
        assert function(data, ids)[2] == 0


def test_no_resamples_no_interval(subject):
    found = estimate_reliability(subject, roi="other", n_boot=0)
    assert np.isnan(found.median()[1:]).all()
    few = dataclasses.replace(found, columns=np.array([0]), values=np.array([1.0]))
    with pytest.raises(CalcarineError, match="no voxel of this region"):
        few.median(subject.rois["other"])
