import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

from calcarine.datasets.prepare.events import trial_betas
from calcarine.datasets.small.blocks import label_blocks
from calcarine.errors import CalcarineError

TR, LENGTH = 1.6, 120


@pytest.fixture
def events(rng):
    onset = np.tile(np.arange(12) * 14.0 + 3.0, 2) + rng.uniform(0, 3, 24)
    return pd.DataFrame({"onset": onset, "duration": 3.0, "run": np.repeat(["a", "b"], 12)})


def design(own, drift="cosine", confounds=None):
    """One nilearn design a run, a column a trial, in order of the trials."""
    table = own[["onset", "duration"]].assign(trial_type=[f"t{row:03d}" for row in range(len(own))])
    matrix = make_first_level_design_matrix(
        np.arange(LENGTH) * TR,
        table,
        hrf_model="glover",
        drift_model=drift,
        high_pass=1 / 128,
        add_regs=confounds,
    )
    return matrix[[*table["trial_type"], *(c for c in matrix if c[0] != "t")]]


def planted(events, rng, voxels=7):
    """Noise-free volumes with drift, and the amplitudes in them."""
    truth = rng.normal(0, 1, (len(events), voxels))
    parts = []
    for _, own in events.groupby("run"):
        matrix = design(own).to_numpy()
        weights = rng.normal(0, 2, (matrix.shape[1], voxels))
        weights[: len(own)] = truth[own.index]
        weights[-1] = 100 + np.arange(voxels)
        parts.append(matrix @ weights)
    return np.concatenate(parts), np.repeat(["a", "b"], LENGTH), truth


@pytest.mark.parametrize("method", ["lsa", "lss"])
def test_amplitudes_without_noise_are_found(events, rng, method):
    if method == "lss":  # each beside the sum of the others, so those must be alike
        events = events.groupby("run").head(1).reset_index(drop=True)
    series, runs, truth = planted(events, rng)
    found = trial_betas(series, events, TR, runs=runs, method=method, units="raw")
    np.testing.assert_allclose(found, truth, atol=1e-4)


def test_all_trials_together_are_nilearns_least_squares(events, rng):
    own = events[events["run"] == "a"].reset_index(drop=True)
    series, confounds = rng.normal(50, 3, (LENGTH, 9)), rng.normal(size=(LENGTH, 2))
    labels, results = run_glm(series, design(own, confounds=confounds).to_numpy(), "ols")
    wanted = results[labels[0]].theta[: len(own)]
    found = trial_betas(
        series, own, TR, confounds=confounds, units="raw", runs=np.repeat("a", LENGTH)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_separate_fits_are_their_definition_as_a_loop(events, rng):
    series, runs = rng.normal(50, 3, (2 * LENGTH, 9)), np.repeat(["a", "b"], LENGTH)
    found = trial_betas(series, events, TR, runs=runs, method="lss", units="raw")
    for run in ("a", "b"):
        own = events[events["run"] == run]
        matrix = design(own).to_numpy()
        trials, rest = matrix[:, : len(own)], matrix[:, len(own) :]
        for row, index in enumerate(own.index):
            others = np.delete(trials, row, 1).sum(1)
            model = np.column_stack([trials[:, row], others, rest])
            wanted = np.linalg.lstsq(model, series[runs == run], rcond=None)[0][0]
            np.testing.assert_allclose(found[index], wanted, atol=1e-4)


def test_percent_is_of_each_voxels_mean_in_its_run(events, rng):
    series, runs, _ = planted(events, rng)
    raw = trial_betas(series, events, TR, runs=runs, units="raw")
    percent = trial_betas(series, events, TR, runs=runs)
    for run in ("a", "b"):
        mean = series[runs == run].mean(0)
        rows = (events["run"] == run).to_numpy()
        np.testing.assert_allclose(percent[rows], 100 * raw[rows] / mean, rtol=1e-5)
    # A scanner's gain then says nothing.
    np.testing.assert_allclose(
        trial_betas(series * 7, events, TR, runs=runs), percent, rtol=1e-3, atol=1e-5
    )


def test_runs_do_not_touch_each_other(events, rng):
    series, runs, _ = planted(events, rng)
    other = series.copy()
    other[runs == "b"] = rng.normal(500, 90, other[runs == "b"].shape)
    one = trial_betas(series, events, TR, runs=runs)
    two = trial_betas(other, events, TR, runs=runs)
    np.testing.assert_array_equal(one[:12], two[:12])
    assert not np.allclose(one[12:], two[12:])


def test_nuisance_events_give_no_row_and_take_their_part(events, rng):
    own = events[events["run"] == "a"].reset_index(drop=True)
    button = pd.DataFrame(
        {"onset": [10.0, 61.0, 99.0], "duration": 0.0, "run": "a", "nuisance": "button"}
    )
    series, _, truth = planted(own, rng)
    presses = button[["onset"]].assign(trial_type="b", duration=0.0)
    with pytest.warns(UserWarning, match="null duration"):
        press = make_first_level_design_matrix(np.arange(LENGTH) * TR, presses)["b"]
    disturbed = series[:LENGTH] + 50 * press.to_numpy()[:, None]
    both = pd.concat([button, own.assign(nuisance="")]).sort_values("onset", ignore_index=True)
    found = trial_betas(disturbed, both, TR, runs=np.repeat("a", LENGTH), units="raw")
    np.testing.assert_allclose(found, truth, atol=1e-3)


def test_block_means_are_percent_above_rest_without_drift():
    """A box of 3 percent, 4 s late, on a line that rises by 10 percent."""
    labels = (["rest"] * 6 + ["face"] * 6) * 5 + ["rest"] * 6
    blocks = label_blocks(labels, np.zeros(66, int), 2.0, ["rest"])
    assert blocks["onset"].tolist() == [12.0, 36.0, 60.0, 84.0, 108.0]
    assert set(blocks["duration"]) == {12.0}
    late = np.roll(np.array(labels) == "face", 2)
    series = (1000 * (1 + 0.03 * late))[:, None] + np.linspace(-50, 50, 66)[:, None]
    found = trial_betas(series, blocks, 2.0, method="mean", delay=4.0, drift="polynomial")
    np.testing.assert_allclose(found, 3.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"onset": 400.0}, "Run a ends after 192 s and has an event at 400 s; onsets are seconds"),
        ({"onset": np.nan}, "Event 3 has no number as its onset"),
        ({"duration": -1.0}, "negative duration"),
        ({"run": "c"}, "Run c of the events has no volumes"),
        ({"onset": 190.0, "duration": 0.1}, "trial 4 of 12 leaves no trace"),
    ],
)
def test_events_that_do_not_fit_are_told(events, rng, change, message):
    series, runs, _ = planted(events, rng)
    for name, value in change.items():
        events[name] = events[name].astype(object)
        events.loc[3, name] = value
    with pytest.raises(CalcarineError, match=message):
        trial_betas(series, events, TR, runs=runs)


def test_what_cannot_be_estimated_is_told(events, rng):
    series, runs, _ = planted(events, rng)
    twice = events.copy()
    twice.loc[4, "onset"] = twice.loc[3, "onset"]
    with pytest.raises(CalcarineError, match="Run a: its 12 trials are collinear in 120"):
        trial_betas(series, twice, TR, runs=runs)
    with pytest.raises(CalcarineError, match="mean of voxel 0 is 0, and percent signal change"):
        trial_betas(np.zeros_like(series), events, TR, runs=runs)
    with pytest.raises(CalcarineError, match="no volume falls in the window"):
        trial_betas(series, events.assign(duration=0.1), TR, runs=runs, method="mean")
    with pytest.raises(CalcarineError, match="method of trial responses is lsa, lss, mean"):
        trial_betas(series, events, TR, runs=runs, method="glm")
