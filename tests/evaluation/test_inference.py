"""Tests hold their level, intervals cover, and single precision decides as double does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from calcarine.errors import CalcarineError
from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.metrics.identification import HardIdentification
from calcarine.evaluation.metrics.similarity import (
    correlation_matrix,
    paired_correlation,
    squared_distance_matrix,
)
from calcarine.evaluation.statistics.intervals import (
    bootstrap_interval,
    bootstrap_median,
    hierarchical_bootstrap,
)
from calcarine.evaluation.statistics.permutation import (
    matched_majority,
    permutation_test,
    permuted_statistic,
    share_of_orders,
    smallest_p,
)
from calcarine.evaluation.statistics.significance import holm, paired_difference, required_size


def null_features(seed: int, n: int = 12, width: int = 5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.normal(size=(n, width))


def spread(p: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Permutation p-values are multiples of 1 / (draws + 1); spread evenly they are uniform."""
    return p - np.random.default_rng(seed).random(len(p)) / (draws + 1)


def test_identification_p_is_uniform_for_a_generator_that_ignores_the_brain():
    p = []
    for seed in range(500):
        truth, recon = null_features(seed)
        matrix = matrices.identification_matrix(correlation_matrix(truth, recon))
        p.append(permutation_test(matrix, 99, seed).p)
    # Equal scores count against the method, which makes p a little too large and never too small.
    assert kstest(spread(np.array(p), 99, 0), "uniform", alternative="greater").pvalue > 0.01
    assert kstest(spread(np.array(p), 99, 0), "uniform").pvalue > 0.001


def test_likeness_p_is_exactly_uniform():
    p = [
        permutation_test(correlation_matrix(*null_features(seed)), 99, seed).p
        for seed in range(500)
    ]
    assert kstest(spread(np.array(p), 99, 1), "uniform").pvalue > 0.01


def test_hard_negatives_have_exact_chance_and_a_level_that_holds():
    metric = HardIdentification("h", "", "image", neighbours=3)
    scores, p = [], []
    for seed in range(500):
        truth, recon = null_features(seed)
        measured = np.stack([correlation_matrix(truth, recon), correlation_matrix(truth, truth)])
        found = metric.finish(measured)
        scores.append(found.mean())
        if seed < 150:
            p.append(metric.null(found, measured, 39, seed).p)
    error = np.std(scores) / np.sqrt(500)
    assert np.mean(scores) == pytest.approx(0.5, abs=4 * error)
    assert kstest(spread(np.array(p), 39, 2), "uniform", alternative="greater").pvalue > 0.01


def test_hard_negatives_are_their_slow_loop():
    truth, recon = null_features(3, n=9)
    recon += truth
    r = np.corrcoef(truth, recon)[:9, 9:]
    likeness = np.corrcoef(truth)
    expected = []
    for i in range(9):
        rivals = sorted((k for k in range(9) if k != i), key=lambda k: -likeness[i, k])[:4]
        expected.append(np.mean([r[i, i] > r[i, k] for k in rivals]))
    measured = np.stack([correlation_matrix(truth, recon), correlation_matrix(truth, truth)])
    found = HardIdentification("h", "", "image", neighbours=4).finish(measured)
    np.testing.assert_allclose(found, expected)


def test_sign_flips_are_uniform_for_methods_that_are_alike():
    p = []
    for seed in range(500):
        a, b = np.random.default_rng(seed).normal(size=(2, 20))
        p.append(paired_difference(a, b, 2, 99, seed=seed).p)
    assert kstest(spread(np.array(p), 99, 3), "uniform").pvalue > 0.01


def test_intervals_cover_at_about_their_rate():
    rng, covered = np.random.default_rng(0), np.zeros(3)
    for repeat in range(250):
        skewed = rng.exponential(size=60)
        low, high = bootstrap_interval(skewed, 200, seed=repeat)
        covered[0] += low <= 1 <= high
        low, high = bootstrap_median(skewed, 200, seed=repeat)
        covered[1] += low <= np.log(2) <= high
        people = rng.normal(0, 1, 8)
        images = [rng.normal(mean, 2, 30) for mean in people]
        result = hierarchical_bootstrap(images, 200, seed=repeat)
        covered[2] += result.ci_low <= 0 <= result.ci_high
    # Percentile intervals of small samples are a little narrow; eight people are few.
    assert (covered[:2] / 250 > 0.89).all() and (covered / 250 < 0.995).all()
    assert covered[2] / 250 > 0.85


def test_subjects_widen_the_interval_and_one_subject_does_not():
    rng = np.random.default_rng(1)
    images = [rng.normal(mean, 1, 200) for mean in (0, 1, 2, 3)]
    result = hierarchical_bootstrap(images, 2000)
    pooled = bootstrap_interval(np.concatenate(images))
    assert result.value == pytest.approx(1.5, abs=0.2) and result.subjects == 4
    assert result.ci_high - result.ci_low > 5 * (pooled[1] - pooled[0])
    alone, plain = hierarchical_bootstrap(images[:1], 4000), bootstrap_interval(images[0], 4000)
    assert (alone.ci_low, alone.ci_high) == pytest.approx(plain, abs=0.02)
    for bad in ([], [[]], [[np.nan]]):
        with pytest.raises(CalcarineError, match="finite scores"):
            hierarchical_bootstrap(bad)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_steps(p):
    adjusted = holm(p)
    order = sorted(range(len(p)), key=lambda i: p[i])
    for level in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        for step, i in enumerate(order):
            if p[i] * (len(p) - step) > level:
                break
            rejected.add(i)
        assert rejected == set(np.flatnonzero(adjusted <= level))
    with pytest.raises(CalcarineError, match="probabilities"):
        holm([0.2, 1.2])


def test_holm_keeps_the_chance_of_any_false_finding():
    rng = np.random.default_rng(0)
    shared = rng.random((2000, 1))
    alone = rng.random((2000, 6))
    families = np.where(rng.random((2000, 6)) < 0.5, shared, alone)
    wrong = np.mean([(holm(family) <= 0.05).any() for family in families])
    assert wrong <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_median_is_permuted_as_a_median():
    matrix = np.random.default_rng(2).random((7, 7)) + np.eye(7)
    result = permuted_statistic(matrix, np.median, 500)
    assert result.p == pytest.approx(1 / 501, abs=0.003)
    assert result.null_low <= result.null_mean <= result.null_high


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_single_precision_decides_every_contest_as_double(offset):
    rng = np.random.default_rng(4)
    truth = (rng.normal(size=(60, 9000)) + offset).astype(np.float32)
    recon = (rng.normal(size=(60, 9000)) + 0.015 * truth).astype(np.float32)
    truth[7], recon[9] = truth[3], recon[2]
    reference = np.corrcoef(truth.astype(float), recon.astype(float))[:60, 60:]
    single = correlation_matrix(truth, recon, single=True)
    np.testing.assert_allclose(correlation_matrix(truth, recon), reference, atol=1e-12)
    np.testing.assert_allclose(paired_correlation(truth, recon), np.diagonal(reference), atol=1e-12)
    for direction in ("image", "reconstruction"):
        ours, theirs = (
            np.diagonal(matrices.identification_matrix(m, direction, "failure"))
            for m in (single, reference)
        )
        np.testing.assert_array_equal(ours, theirs)


def test_constant_features_identify_nothing_and_broken_ones_are_told():
    truth, recon = null_features(0)
    assert (correlation_matrix(truth, np.ones_like(recon)) == 0).all()
    recon[2, 1] = np.nan
    with pytest.raises(CalcarineError, match="NaN"):
        correlation_matrix(truth, recon)
    with pytest.raises(CalcarineError, match="have shapes"):
        correlation_matrix(truth, truth[:, :2])


def test_squared_distances_are_those_of_a_loop():
    truth, recon = null_features(5, n=6, width=9)
    expected = [[np.square(a - b).sum() for b in recon] for a in truth]
    np.testing.assert_allclose(squared_distance_matrix(truth, recon), expected, atol=1e-10)
    assert (np.diagonal(squared_distance_matrix(truth, truth)) == 0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_orders_that_keep_most_images_in_place_are_counted(n):
    own = np.arange(n)
    medians = [np.median(np.equal(own, o)) for o in itertools.permutations(range(n))]
    assert matched_majority(n) == pytest.approx(np.mean(np.equal(medians, 1)))


def test_perfect_ranks_of_few_images_have_the_smallest_p_that_is_said():
    found = [
        permuted_statistic(np.eye(5), np.median, 99, seed, matched_majority(5))
        for seed in range(200)
    ]
    p = np.array([result.p for result in found])
    assert p.mean() == pytest.approx(found[0].p_min, abs=4 * p.std() / np.sqrt(200))


@given(st.integers(2, 40), st.integers(1, 5000), st.integers(1, 60))
def test_as_many_images_and_shuffles_as_are_asked_for_are_enough(n, shuffles, tests):
    def corrected(images, draws):
        return tests * smallest_p(draws, share_of_orders([images]))

    images, draws = required_size(n, shuffles, tests)
    assert images >= n and draws >= shuffles
    assert corrected(images, draws) <= 0.05 + 1e-9
    if images > n:
        assert corrected(images - 1, shuffles) > 0.05
    if draws > shuffles:
        assert corrected(images, draws - 2) > 0.05
