"""Order of the questions and sides of the candidates for each rater: random and counterbalanced.

Raters form pairs that share one random order. The second rater of a pair sees the questions in
reverse order and all candidates with exchanged sides. Over a pair of raters, each candidate of each
question is on the left once, and every question has the same mean position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CATCH", "MAIN", "PRACTICE", "PlannedTrial", "foils", "plan_trials"]

# Independent streams of random numbers.
_STREAM_FOILS = 1
_STREAM_RATERS = 2

PRACTICE, CATCH, MAIN = "practice", "catch", "main"


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of one rater.

    Attributes
    ----------
    part : {"practice", "catch", "main"}
    comparison : int
        Number of the comparison; 0 for practice and catch trials.
    item : int
        Number of the original, or of the practice or catch question.
    first_left : bool
        Whether the first candidate of the question is on the left.
    """

    part: str
    comparison: int
    item: int
    first_left: bool


def foils(n: int, seed: int, comparison: int) -> NDArray[np.int64]:
    """Draw the foil of each original: the other original with the competing reconstruction.

    Parameters
    ----------
    n : int
        Number of originals, at least 2.
    seed, comparison : int
        Seed of the study and number of the comparison.

    Returns
    -------
    array of shape (n,)
        A random cycle: no original is its own foil, and each is a foil exactly once.
    """
    cycle = np.random.default_rng([seed, _STREAM_FOILS, comparison]).permutation(n)
    foil = np.empty(n, np.int64)
    foil[cycle] = np.roll(cycle, -1)
    return foil


def plan_trials(
    n_comparisons: int, n_originals: int, n_catch: int, n_practice: int, seed: int, rater: int
) -> list[PlannedTrial]:
    """Plan all trials of one rater, in order.

    Parameters
    ----------
    n_comparisons, n_originals, n_catch, n_practice : int
        Every comparison is made on every original once.
    seed : int
        Seed of the study.
    rater : int
        Number of the rater, from 0.

    Returns
    -------
    list of PlannedTrial
        Practice trials, then rounds. A round has every original once and every comparison equally
        often (up to one); the same original is never shown twice in a row. Catch trials are
        distributed evenly, at random positions.
    """
    rng = np.random.default_rng([seed, _STREAM_RATERS, rater // 2])
    mirrored = bool(rater % 2)
    coin = int(rng.integers(2))
    sides = [_half(n_originals, (coin + k) % 2, rng) for k in range(n_comparisons)]
    catch_sides = _half(n_catch, coin, rng)
    practice_sides = _half(n_practice, 1 - coin, rng)
    main = [
        PlannedTrial(MAIN, comparison, original, bool(sides[comparison][original]))
        for comparison, original in _rounds(n_comparisons, n_originals, rng)
    ]
    catches = [
        PlannedTrial(CATCH, 0, int(item), bool(catch_sides[item]))
        for item in rng.permutation(n_catch)
    ]
    order = _spread(main, catches, rng)
    practice = [
        PlannedTrial(PRACTICE, 0, item, bool(practice_sides[item])) for item in range(n_practice)
    ]
    if mirrored:
        order = [_mirror(place) for place in reversed(order)]
        practice = [_mirror(place) for place in practice]
    return practice + order


def _mirror(place: PlannedTrial) -> PlannedTrial:
    return PlannedTrial(place.part, place.comparison, place.item, not place.first_left)


def _half(n: int, more: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw sides of n trials, half of them left; ``more`` is added if n is odd."""
    left = np.zeros(n, bool)
    left[: n // 2 + (more if n % 2 else 0)] = True
    return np.asarray(rng.permutation(left), bool)


def _rounds(
    n_comparisons: int, n_originals: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    comparisons = rng.permutation(n_comparisons)
    start = np.empty(n_originals, np.int64)
    start[rng.permutation(n_originals)] = np.arange(n_originals) % max(n_comparisons, 1)
    order: list[tuple[int, int]] = []
    for turn in range(n_comparisons):
        originals = rng.permutation(n_originals)
        if order and n_originals > 1 and originals[0] == order[-1][1]:
            other = int(rng.integers(1, n_originals))
            originals[[0, other]] = originals[[other, 0]]
        order += [
            (int(comparisons[(start[original] + turn) % n_comparisons]), int(original))
            for original in originals
        ]
    return order


def _spread(
    main: list[PlannedTrial], catches: list[PlannedTrial], rng: np.random.Generator
) -> list[PlannedTrial]:
    """Insert one catch trial at a random position of each of equal segments."""
    if not catches:
        return main
    bounds = np.linspace(0, len(main), len(catches) + 1)
    order: list[PlannedTrial] = []
    done = 0
    for catch, low, high in zip(catches, bounds[:-1], bounds[1:], strict=True):
        place = int(rng.integers(round(low), max(round(high), round(low) + 1)))
        place = max(done, min(place, len(main)))
        order += [*main[done:place], catch]
        done = place
    return order + main[done:]
