"""Which weightings of the spaces banded ridge tries, and for which targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from calcarine.linear._banded_solvers import GroupPlan, Machine, Space, Targets
from calcarine.linear._cross_validation import best_penalty

_EPS = float(np.finfo(np.float64).eps)
_COARSE = 3

# The search: gammas to choose from, targets that guide it, lengths and nugget of the correlation,
# the mean improvement below which it ends, and which targets try a proposal: those whose forecast
# may exceed their best by _WORTH within _DOUBT standard deviations. The forecast of one target is
# rough, so that _DOUBT is large.
_POOL = 400
_GUIDES = 500
_LENGTHS = np.logspace(-1, 0.7, 9)
_NUGGET = 1e-3
_ENOUGH = 1e-6
_WORTH = 1e-4
_DOUBT = 6.0


@dataclass(frozen=True)
class Candidate:
    """A gamma to try: kernel weights of the balanced spaces, and as reported.

    A penalty of `alphas` is reported times `factor`.
    """

    weights: npt.NDArray[np.float64]
    gamma: npt.NDArray[np.float64]
    factor: float


def search(
    machine: Machine, spaces: list[Space], targets: Targets, plan: GroupPlan
) -> tuple[list[Candidate], npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Try gammas and penalties; returns those tried, and per target the best of them.

    Returns
    -------
    tried : list of Candidate
    best : ndarray, shape (t,)
        Which of `tried`.
    index : ndarray, shape (t,)
        Which of the alphas.
    scores : ndarray, shape (t,)
    """
    sizes = np.array([space.size for space in spaces])
    unit = float(sizes[sizes > 0].mean()) if (sizes > 0).any() else 1.0
    ratio = np.where(sizes > 0, sizes / unit, 1.0)
    penalties = plan.alphas / unit
    n_targets = len(targets.values)
    best, index = np.zeros(n_targets, dtype=np.intp), np.zeros(n_targets, dtype=np.intp)
    scores = np.full(n_targets, -np.inf)
    every = plan.gammas is not None or len(spaces) == 1
    proposals: _Proposals | _Given
    if plan.gammas is not None:
        proposals = _Given(plan.gammas * ratio, n_targets)
    else:
        live = sorted(np.flatnonzero(sizes > 0), key=lambda s: spaces[s].mark)
        proposals = _Proposals(np.array(live, dtype=np.intp), len(spaces), targets, plan)
    tried: list[Candidate] = []
    for weights, rows in proposals:
        machine.open(weights, rows)
        start = None if every or not tried else index[rows]
        found, where = _best_alphas(machine, penalties, plan, start, every=every)
        proposals.learn(found)
        better = np.flatnonzero((found > scores[rows]) | (not tried))
        for places in plan.blocks(better):
            machine.keep(penalties[where[places]], places)
        improved = rows[better]
        best[improved], index[improved] = len(tried), where[better]
        scores[improved] = found[better]
        raw = weights / ratio
        factor = 1.0 if plan.gammas is not None else 1.0 / float(raw.sum())
        tried.append(Candidate(weights, raw / raw.sum(), factor))
    return tried, best, index, scores


def _best_alphas(
    machine: Machine,
    penalties: npt.NDArray[np.float64],
    plan: GroupPlan,
    start: npt.NDArray[np.intp] | None,
    *,
    every: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Best score and penalty of each target of the machine; of equal scores the larger wins.

    Each target climbs to where both neighbours of its best penalty are no better: from `start`,
    or from a coarse grid. `every` tries all.
    """
    shape = (len(penalties), len(machine.rows))
    steps = np.arange(len(penalties))[:, None]
    table = np.full(shape, -np.inf)
    known = np.zeros(shape, dtype=bool)
    if every:
        wanted = np.ones(shape, dtype=bool)
    elif start is None:
        wanted = np.broadcast_to((steps % _COARSE == 0) | (steps == len(penalties) - 1), shape)
    else:
        wanted = np.abs(steps - start) <= 1
    where = np.zeros(shape[1], dtype=np.intp)
    while wanted.any():
        for step in np.flatnonzero(wanted.any(axis=1)):
            for places in plan.blocks(np.flatnonzero(wanted[step])):
                table[step, places] = machine.score(float(penalties[step]), places)
        known |= wanted
        where = best_penalty(table)
        wanted = (np.abs(steps - where) <= 1) & ~known
    return table[where, np.arange(shape[1])], where


class _Given:
    """The weights to try are given; every target tries them all."""

    def __init__(self, weights: npt.NDArray[np.float64], n_targets: int) -> None:
        self.weights, self.n_targets = weights, n_targets

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]]:
        for weights in self.weights:
            yield weights, np.arange(self.n_targets)

    def learn(self, scores: npt.NDArray[np.float64]) -> None:
        """Nothing is to be learned."""


class _Proposals:
    """Iterates over weights (S,) to try and the targets that should; `learn` tells their scores.

    All spaces alike come first, then each alone, for all targets. Then a Gaussian process over
    the roots of the weights proposes those with the largest expected improvement, for the targets
    that may well improve with them.
    """

    def __init__(
        self, live: npt.NDArray[np.intp], n_spaces: int, targets: Targets, plan: GroupPlan
    ) -> None:
        self.n_spaces, self.n_targets = n_spaces, len(targets.values)
        self.live = live if len(live) else np.arange(n_spaces)
        rng = np.random.default_rng(plan.seed)
        self.guides = np.flatnonzero(~targets.constant)
        if len(self.guides) > _GUIDES:
            self.guides = np.sort(rng.choice(self.guides, _GUIDES, replace=False))
        count = len(self.live)
        self.first = 1 if count == 1 else count + 1
        starts = [np.full((1, count), 1 / count), np.eye(count)]
        self.pool = np.concatenate([*starts, _pool(count, rng)])
        self.limit = 1 if count == 1 else min(plan.n_candidates, len(self.pool))
        points = np.sqrt(self.pool)
        self.distance = cdist(points, points)
        self.tried: list[int] = []
        self.table = np.empty((self.limit, self.n_targets))
        self.rows = np.arange(self.n_targets)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]]:
        while (number := len(self.tried)) < self.limit:
            choice = number
            if number >= self.first:
                promising = self._most_promising()
                if promising is None:
                    return
                choice = promising
            self.tried.append(choice)
            weights = np.zeros(self.n_spaces)
            weights[self.live] = self.pool[choice]
            yield weights, self.rows

    def learn(self, scores: npt.NDArray[np.float64]) -> None:
        """Take the scores of the targets just proposed; the others keep their forecast."""
        self.table[len(self.tried) - 1, self.rows] = scores

    def _most_promising(self) -> int | None:
        """Choose from the pool, forecast its scores and set `rows`; None when nothing is left."""
        known = self.table[: len(self.tried)]
        if not len(self.guides):
            return None
        cross, within = self._correlations(known[:, self.guides])
        forecast, deviation = _krige(known[:, self.guides], cross, within)
        gain = forecast - known[:, self.guides].max(axis=0)
        z = gain / deviation
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        improvement = (gain * ndtr(z) + deviation * density).mean(axis=1)
        improvement[self.tried] = 0.0
        choice = int(np.argmax(improvement))
        if improvement[choice] < _ENOUGH:
            return None
        forecast, deviation = _krige(known, cross[choice : choice + 1], within)
        likely = forecast[0] + _DOUBT * deviation[0] > known.max(axis=0) + _WORTH
        self.rows = np.flatnonzero(likely)
        if not len(self.rows):
            return None
        self.table[len(self.tried)] = forecast[0]
        return choice

    def _correlations(
        self, known: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Correlations of the pool with those tried (k, m) and among them, at the likeliest length.

        The length is shared by all targets; each has its own variance.
        """
        centred = known - known.mean(axis=0)
        distance = self.distance[:, self.tried]
        likeliest = (-np.inf, distance, distance)
        for length in _LENGTHS:
            cross = _matern(distance / length)
            within = cross[self.tried] + _NUGGET * np.eye(len(self.tried))
            factor = np.linalg.cholesky(within)
            white = scipy.linalg.solve_triangular(factor, centred, lower=True, check_finite=False)
            spread = np.log((white**2).mean(axis=0) + np.finfo(np.float64).tiny)
            likelihood = -0.5 * len(centred) * spread.mean() - np.log(np.diag(factor)).sum()
            if likelihood > likeliest[0]:
                likeliest = (float(likelihood), cross, within)
        return likeliest[1:]


def _pool(count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Weights to choose from, shape (k, count), on faces of the simplex of every dimension.

    Their roots are spread evenly over the sphere.
    """
    weights = rng.normal(size=(_POOL, count)) ** 2
    n_kept = rng.integers(min(2, count), count + 1, size=_POOL)
    rank = np.argsort(np.argsort(rng.random((_POOL, count)), axis=1), axis=1)
    weights[rank >= n_kept[:, None]] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _krige(
    known: npt.NDArray[np.float64],
    cross: npt.NDArray[np.float64],
    within: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Forecast and its standard deviation (k, t) from scores (m, t) and their correlations."""
    mean = known.mean(axis=0)
    solved = np.linalg.solve(within, known - mean)
    amplitude = np.einsum("mt,mt->t", known - mean, solved) / len(known)
    left = 1.0 - np.einsum("km,mk->k", cross, np.linalg.solve(within, cross.T))
    variance = np.maximum(left, 0.0)[:, None] * np.maximum(amplitude, 0.0)
    return mean + cross @ solved, np.sqrt(variance) + _EPS


def _matern(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Matern correlation with smoothness 5/2 at distances in units of the length."""
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))
