"""The interval over seeds and images covers as it says, for few seeds too."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from calcarine.errors import CalcarineError
from calcarine.evaluation.statistics.intervals import crossed_interval

N_IMAGES, N_TRIALS = 30, 2000


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("rest", [0.3, 1.5])
def test_it_covers(n_seeds, ratio, rest):
    """Seeds shift all images by 0, 1 or 2 standard errors of the pictures."""
    rng = np.random.default_rng([n_seeds, int(ratio), int(10 * rest)])
    error = math.sqrt((1 + rest**2 / n_seeds) / N_IMAGES)
    inside = 0
    for _ in range(N_TRIALS):
        scores = 0.7 + ratio * error * rng.standard_normal((n_seeds, 1))
        scores = scores + rng.standard_normal((1, N_IMAGES))
        scores = scores + rest * rng.standard_normal((n_seeds, N_IMAGES))
        _, low, high = crossed_interval(scores)
        inside += low <= 0.7 <= high
    # Of a coverage of .93 fewer are found in one of 10,000 simulations.
    assert inside >= stats.binom.ppf(1e-4, N_TRIALS, 0.93)
    # Honest is not endless: with 10 seeds it is hardly wider than it must be.
    if n_seeds == 10:
        assert inside <= stats.binom.ppf(1 - 1e-4, N_TRIALS, 0.965)


def test_with_one_source_of_variance_it_is_the_t_interval(rng):
    def plain(values):
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        return values.mean(), values.mean() - half, values.mean() + half

    images, seeds = rng.standard_normal(20), rng.standard_normal(4)
    for scores in (images[None], np.tile(images, (4, 1))):
        np.testing.assert_allclose(crossed_interval(scores), plain(images), atol=1e-12)
    for scores in (seeds[:, None], np.tile(seeds[:, None], (1, 20))):
        np.testing.assert_allclose(crossed_interval(scores), plain(seeds), atol=1e-12)


def test_it_follows_the_formula(rng):
    # Seeds that differ by more than single scores do.
    scores = rng.standard_normal((3, 5)) + 5 * np.arange(3)[:, None]
    s, n = scores.shape
    mean = scores.mean()
    a = sum(n * (row.mean() - mean) ** 2 for row in scores) / (s - 1)
    b = sum(s * (column.mean() - mean) ** 2 for column in scores.T) / (n - 1)
    e = sum(
        (scores[i, j] - scores[i].mean() - scores[:, j].mean() + mean) ** 2
        for i in range(s)
        for j in range(n)
    ) / ((s - 1) * (n - 1))
    seeds, images = a / (s * n), max(0, b - e) / (s * n)
    t = stats.t.ppf(0.95, s - 1), stats.t.ppf(0.95, n - 1)
    half = (t[0] * seeds + t[1] * images) / (seeds + images) * math.sqrt(seeds + images)
    np.testing.assert_allclose(crossed_interval(scores, 0.9), (mean, mean - half, mean + half))


def test_edges():
    assert crossed_interval(np.zeros((3, 4))) == (0, 0, 0)
    mean, low, high = crossed_interval([[0.5]])
    assert mean == 0.5 and math.isnan(low) and math.isnan(high)
    for wrong in ([], [1.0, 2.0], [[1.0, math.nan]]):
        with pytest.raises(CalcarineError, match="finite scores"):
            crossed_interval(wrong)
    with pytest.raises(CalcarineError, match="level"):
        crossed_interval([[0.0, 1.0]], 1.0)


def test_seeds_that_agree_by_chance_leave_an_interval():
    """Four of 40 pictures are read with every seed, and never the same ones."""
    scores = np.zeros((3, 40))
    for seed in range(3):
        scores[seed, 4 * seed : 4 * seed + 4] = 1
    mean, low, high = crossed_interval(scores)
    assert mean == pytest.approx(0.1) and low < 0.06 and high > 0.14
