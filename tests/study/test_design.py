from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcarine.study.design import CATCH, MAIN, PRACTICE, foils, plan_trials

sizes = st.tuples(
    st.integers(1, 7), st.integers(2, 15), st.integers(0, 9), st.integers(0, 5), st.integers(0, 99)
)


@given(sizes, st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_two_raters_of_a_pair_balance_sides_and_order_exactly(sizes, pair):
    n_comparisons, n_originals, n_catch, n_practice, seed = sizes
    one = plan_trials(*sizes[:4], seed, 2 * pair)
    two = plan_trials(*sizes[:4], seed, 2 * pair + 1)
    for order in (one, two):
        asked = Counter((p.part, p.comparison, p.item) for p in order)
        wanted = {(MAIN, c, i) for c in range(n_comparisons) for i in range(n_originals)}
        wanted |= {(CATCH, 0, i) for i in range(n_catch)}
        wanted |= {(PRACTICE, 0, i) for i in range(n_practice)}
        assert set(asked) == wanted and set(asked.values()) == {1}
        assert all(p.part == PRACTICE for p in order[:n_practice])
        for comparison in range(n_comparisons):
            left = [p.first_left for p in order if p.part == MAIN and p.comparison == comparison]
            assert abs(2 * sum(left) - n_originals) == n_originals % 2
        assert abs(2 * sum(p.first_left for p in order if p.part == CATCH) - n_catch) <= 1
    sides = {(p.part, p.comparison, p.item): p.first_left for p in one}
    assert all(sides[p.part, p.comparison, p.item] != p.first_left for p in two)
    rest = [[(p.part, p.comparison, p.item) for p in order[n_practice:]] for order in (one, two)]
    assert rest[0] == rest[1][::-1]


@given(sizes)
@settings(max_examples=30, deadline=None)
def test_rounds_hold_each_original_once_and_never_repeat_it_at_once(sizes):
    n_comparisons, n_originals = sizes[:2]
    order = [p for p in plan_trials(*sizes, 0) if p.part == MAIN]
    for start in range(0, len(order), n_originals):
        turn = order[start : start + n_originals]
        assert sorted(p.item for p in turn) == list(range(n_originals))
        number = Counter(p.comparison for p in turn)
        spread = [number[c] for c in range(n_comparisons)]
        assert max(spread) - min(spread) <= 1
    assert all(a.item != b.item for a, b in pairwise(order))


def test_catch_trials_are_spread_over_the_whole_study():
    order = plan_trials(3, 20, 6, 0, 4, 0)
    at = [place for place, p in enumerate(order) if p.part == CATCH]
    assert all(11 * k <= place < 11 * (k + 1) for k, place in enumerate(at))


def test_raters_of_other_pairs_and_seeds_see_other_orders():
    orders = [tuple(plan_trials(3, 8, 2, 2, seed, rater)) for seed in (0, 1) for rater in (0, 2, 4)]
    assert len(set(orders)) == 6
    assert plan_trials(3, 8, 2, 2, 1, 4) == list(orders[-1])


@pytest.mark.parametrize("n", [2, 3, 10])
def test_foils_are_one_cycle(n):
    foil = foils(n, 5, 1)
    at, seen = 0, []
    for _ in range(n):
        seen.append(at)
        at = foil[at]
    assert at == 0 and sorted(seen) == list(range(n))


def test_sides_do_not_depend_on_position():
    # A rater who always presses left must not prefer anything, early or late.
    early = np.zeros(2)
    for pair in range(200):
        order = [p for p in plan_trials(2, 10, 0, 0, 3, 2 * pair) if p.part == MAIN]
        early += [sum(p.first_left for p in order[:10]), 10]
    share = early[0] / early[1]
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(early[1])
