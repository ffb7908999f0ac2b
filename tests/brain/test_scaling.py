import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcarine.brain.scaling import (
    describe_scaling,
    mean_and_scale,
    moments,
    pooled_moments,
    scale_sessions,
    scaling_plan,
)
from calcarine.errors import CalcarineError

designs = st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=2, max_size=30)


@given(designs, st.sampled_from(["session", "training", "session-all"]), st.integers(0, 9))
def test_scaling_is_numpys_on_the_rows_of_the_plan(design, method, seed):
    sessions, train = np.array([s for s, _ in design]), np.array([t for _, t in design])
    values = np.random.default_rng(seed).normal(sessions[:, None], 2, (len(sessions), 5))
    ids = [f"s{row}" for row in range(len(sessions))]
    try:
        scaled, scaling = scale_sessions(values, sessions, train, ids, method)
    except CalcarineError:
        smallest = min((sessions == s).sum() for s in sessions)
        assert (smallest if method == "session-all" else train.sum()) < 2
        return
    for session in np.unique(sessions):
        inside = sessions == session
        rows = inside & train if method == "session" else train
        rows = inside if method == "session-all" else rows
        rows = rows if rows.sum() >= 2 else train
        wanted = (values[inside] - values[rows].mean(0)) / values[rows].std(0)
        np.testing.assert_allclose(scaled[inside], wanted, atol=1e-4)
    assert scaling.stimuli == {
        k for k, t in zip(ids, train, strict=True) if t or method == "session-all"
    }
    if method != "session-all":
        values[~train] = 1e6
        again, other = scale_sessions(values, sessions, train, ids, method)
        np.testing.assert_array_equal(again[train], scaled[train])
        np.testing.assert_array_equal(other.mean, scaling.mean)
        np.testing.assert_array_equal(other.scale, scaling.scale)
    raw = scaling.undo(scaled[train], sessions[train], np.arange(5))
    np.testing.assert_allclose(raw, values[train], atol=1e-3)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any), st.integers(0, 9))
def test_moments_of_parts_are_those_of_the_whole(sizes, seed):
    values = np.random.default_rng(seed).normal(1e4, 1, (sum(sizes), 300)).astype(np.float32)
    values[:, 0] = 0.1
    parts = np.split(values, np.cumsum(sizes)[:-1])
    mean, scale = mean_and_scale(pooled_moments(map(moments, parts)))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-12)
    # A voxel without spread (one trial, or two that round to one float32) is left as it is.
    spread = exact.std(0)
    np.testing.assert_allclose(scale[1:], np.where(spread == 0, 1, spread)[1:], rtol=1e-9)
    assert scale[0] == 1


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(CalcarineError, match="S1 has a single trial in session 2"):
        scaling_plan([1, 1, 2], [True] * 3, "session-all", "S1")
    with pytest.raises(CalcarineError, match="S1 has 1 training trials; z-scoring needs two"):
        scaling_plan([1, 1, 2], [True, False, False], "session", "S1")
    assert scaling_plan([1, 2], [False, False], "none") == {}


def test_scaling_in_words():
    sessions, first = np.array([1, 1, 2, 2]), np.array([True, True, False, False])
    every = describe_scaling("session", sessions, [np.ones(4, bool)])
    assert every == "each session z-scored by its training trials"
    one = describe_scaling("session", sessions, [first])
    assert one.endswith("session 2 with fewer than two training trials by all training trials")
    folds = describe_scaling("session", sessions, [first, ~first])
    assert "where a split leaves fewer than two in a session (sessions 1, 2)" in folds
