"""Intervals cover, p-values are uniform without an effect, and nothing depends on chance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcarine.errors import CalcarineError
from calcarine.evaluation.statistics.intervals import bootstrap_interval
from calcarine.evaluation.statistics.permutation import (
    permutation_test,
    share_of_orders,
    smallest_p,
)
from calcarine.evaluation.statistics.significance import paired_difference


def test_bootstrap_interval_covers_the_mean():
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(300):
        low, high = bootstrap_interval(rng.normal(3, 1, 40), n_boot=300, seed=repeat)
        covered += low <= 3 <= high
    assert 0.89 <= covered / 300 <= 0.98


def test_bootstrap_interval_is_near_the_normal_one_and_wider_for_higher_level():
    values = np.random.default_rng(1).normal(0, 1, 500)
    low, high = bootstrap_interval(values, 4000)
    half = 1.96 * values.std() / np.sqrt(500)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)
    wide = bootstrap_interval(values, 4000, level=0.99)
    assert wide[0] < low < high < wide[1]
    assert bootstrap_interval(values, 4000) == (low, high)


def test_permutation_p_is_uniform_without_effect():
    rng = np.random.default_rng(2)
    p = np.array([permutation_test(rng.normal(size=(9, 9)), 99, seed).p for seed in range(400)])
    assert p.mean() == pytest.approx(0.505, abs=0.05)
    for level in (0.05, 0.2, 0.5):
        # Four standard errors of a proportion over 400 tests.
        error = 4 * np.sqrt(level * (1 - level) / 400)
        assert (p <= level).mean() == pytest.approx(level, abs=error)


def test_permutation_null_matches_all_permutations():
    matrix = np.random.default_rng(3).random((5, 5)) + 0.2 * np.eye(5)
    null = np.array(
        [matrix[range(5), list(perm)].mean() for perm in itertools.permutations(range(5))]
    )
    result = permutation_test(matrix, 20_000)
    assert result.null_mean == pytest.approx(null.mean(), abs=0.003)
    assert result.null_sd == pytest.approx(null.std(), abs=0.003)
    assert result.p == pytest.approx((null >= np.trace(matrix) / 5).mean(), abs=0.01)
    assert (result.null_low, result.null_high) == pytest.approx(
        tuple(np.quantile(null, [0.025, 0.975])), abs=0.02
    )


def test_groups_are_shuffled_within_themselves():
    groups = np.array(["b", "a", "b", "a", "a", "b"])
    matrix = np.where(groups[:, None] == groups[None], 1.0, np.nan)
    matrix[np.eye(6, dtype=bool)] = 4
    result = permutation_test(matrix, 4000, groups=groups)
    # A random permutation leaves one member of each of the two groups of three in place.
    assert result.null_mean == pytest.approx((2 * 4 + 4 * 1) / 6, abs=0.05)
    with pytest.raises(CalcarineError, match="groups"):
        permutation_test(matrix, 10)


def test_perfect_scores_reach_the_least_p_and_equal_scores_the_greatest():
    assert permutation_test(np.eye(20), 500).p == pytest.approx(1 / 501)
    assert permutation_test(np.full((20, 20), 0.1), 500).p == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_permutation_p_is_a_probability_and_ignores_the_order_of_draws(n, seed, draws):
    matrix = np.random.default_rng(seed).normal(size=(n, n))
    result = permutation_test(matrix, draws, seed)
    assert 1 / (1 + draws) <= result.p <= 1
    assert result == permutation_test(matrix, draws, seed)
    assert result.null_low <= result.null_high


def test_chunks_do_not_change_the_shape_of_the_null(monkeypatch):
    matrix = np.random.default_rng(4).random((6, 6))
    whole = permutation_test(matrix, 3000)
    monkeypatch.setattr("calcarine.evaluation.statistics.intervals._CHUNK", 60)
    assert permutation_test(matrix, 3000) == whole
    assert bootstrap_interval(matrix[0], 501)[0] < matrix[0].mean()


def test_paired_difference_finds_a_shift_and_no_other():
    rng = np.random.default_rng(5)
    base = rng.normal(0, 3, 60)
    result = paired_difference(base + rng.normal(0.5, 0.5, 60), base)
    assert result.ci_low < result.difference < result.ci_high
    assert result.ci_low > 0.2 and result.p < 0.01 and result.n == 60
    swapped = paired_difference(base, base)
    assert (swapped.difference, swapped.ci_low, swapped.ci_high, swapped.p) == (0, 0, 0, 1)


def test_sign_flips_match_their_enumeration():
    gain = np.array([0.4, -0.1, 0.3, 0.5, 0.2, -0.3, 0.6])
    flips = np.array(list(itertools.product([-1, 1], repeat=7))) @ gain / 7
    expected = (np.abs(flips) >= gain.mean() - 1e-12).mean()
    result = paired_difference(gain, np.zeros(7), n_permutations=20_000)
    assert result.p == pytest.approx(expected, abs=0.015)


def test_bad_scores_are_refused():
    with pytest.raises(CalcarineError, match="finite"):
        bootstrap_interval([0.1, np.nan])
    with pytest.raises(CalcarineError, match="finite"):
        bootstrap_interval([])
    with pytest.raises(CalcarineError, match="level"):
        bootstrap_interval([1.0, 2.0], level=95)
    with pytest.raises(CalcarineError, match="same images"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(CalcarineError, match="square"):
        permutation_test(np.ones((2, 3)))
    with pytest.raises(CalcarineError, match="at least 1"):
        permutation_test(np.ones((2, 2)), 0)


@pytest.mark.parametrize("groups", [[0] * 4, [0] * 5, [0, 0, 1, 1, 1], [0, 1, 2]])
def test_the_smallest_p_is_what_perfect_pictures_get_on_average(groups):
    perfect = np.eye(len(groups))
    found = [permutation_test(perfect, 60, seed, groups) for seed in range(200)]
    p = np.array([result.p for result in found])
    assert found[0].p_min == smallest_p(60, share_of_orders(np.bincount(groups).tolist()))
    assert p.mean() == pytest.approx(found[0].p_min, abs=4 * p.std() / np.sqrt(200) + 1e-12)
