import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calcarine.encoding.significance import correlation_p, discoveries, simulated_null
from calcarine.errors import CalcarineError


@given(st.integers(4, 60), st.integers(0, 2**31))
def test_exact_p_is_that_of_scipy(n, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n))
    found = stats.pearsonr(x, y, alternative="greater")
    assert correlation_p(found.statistic, n) == pytest.approx(found.pvalue, rel=1e-8, abs=1e-14)


def test_both_nulls_agree_and_are_uniform():
    null = simulated_null(40, 20_000, seed=5)
    exact = correlation_p(null, 40)
    assert stats.kstest(exact, "uniform").pvalue > 0.01
    simulated = correlation_p(null, 40, "simulated", 200_000, seed=1)
    np.testing.assert_allclose(simulated, exact, atol=0.005)


def test_the_paper_s_threshold_for_982_stimuli():
    """5 % one-sided: r of about .0525."""
    assert correlation_p(0.0525, 982) == pytest.approx(0.05, abs=0.0005)


def test_edges_of_r():
    p = correlation_p([1.0, -1.0, np.nan, 0.0], 20)
    np.testing.assert_allclose(p, [0.0, 1.0, 1.0, 0.5], atol=1e-12)
    low = correlation_p([1.0], 20, "simulated", 1000)
    assert low == pytest.approx(1 / 1001)


def slow_bh(p, rate):
    order = np.argsort(p)
    k = 0
    for rank, at in enumerate(order, 1):
        if p[at] <= rank * rate / len(p):
            k = rank
    found = np.zeros(len(p), bool)
    found[order[:k]] = True
    return found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.01, 0.5))
def test_discoveries_are_those_of_the_definition(p, rate):
    found, q = discoveries(p, rate)
    slow = slow_bh(np.array(p), rate)
    near = np.isclose(q, rate, rtol=1e-9)
    np.testing.assert_array_equal(found[~near], slow[~near])


def test_false_discoveries_stay_below_the_rate(rng):
    shares = []
    for _ in range(200):
        p = rng.random(400)
        p[:100] = stats.norm.sf(rng.normal(3, 1, 100))
        found, _ = discoveries(p, 0.1)
        shares.append(found[100:].sum() / max(found.sum(), 1))
    assert np.mean(shares) < 0.1


def test_mistakes_are_told():
    with pytest.raises(CalcarineError, match="three pairs of values, not 2"):
        correlation_p(0.1, 2)
    with pytest.raises(CalcarineError, match="outside -1 to 1"):
        correlation_p(1.2, 20)
    with pytest.raises(CalcarineError, match="rate is 2"):
        discoveries([0.1], 2)
