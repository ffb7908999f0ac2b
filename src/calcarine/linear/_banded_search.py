"""The search for gammas: which weightings of the spaces to try, and for which targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from calcarine.linear._banded_inputs import BandedSettings, CentredTargets, ScaledSpace
from calcarine.linear._banded_solvers import BandedSolver
from calcarine.linear._cross_validation import best_penalty

_EPS = float(np.finfo(np.float64).eps)
_COARSE = 3

# The search: the number of gammas to choose from, the number of targets that guide it, the length
# scales and nugget of the correlation, and the mean improvement below which it ends. A target tries
# a proposal only if its forecast plus _MAX_SDS standard deviations reaches its best score plus
# _MIN_GAIN. Forecasts of single targets are rough, hence the large _MAX_SDS.
_N_CANDIDATES = 400
_N_GUIDING_TARGETS = 500
_LENGTHS = np.logspace(-1, 0.7, 9)
_NUGGET = 1e-3
_STOP_BELOW = 1e-6
_MIN_GAIN = 1e-4
_MAX_SDS = 6.0


@dataclass(frozen=True)
class GammaCandidate:
    """A gamma that was tried.

    `weights` (S,) apply to the kernels of the balanced spaces, `gamma` (S,) to the kernels of the
    spaces as given. The reported penalty is alpha times `factor`.
    """

    weights: npt.NDArray[np.float64]
    gamma: npt.NDArray[np.float64]
    factor: float


@dataclass(frozen=True)
class SearchedGammas:
    """The gammas that were tried, and the best of them for each target.

    Attributes
    ----------
    tried : list of GammaCandidate
    best : ndarray of int, shape (t,)
        Index in `tried`.
    index : ndarray of int, shape (t,)
        Index of the best penalty.
    scores : ndarray, shape (t,)
    """

    tried: list[GammaCandidate]
    best: npt.NDArray[np.intp]
    index: npt.NDArray[np.intp]
    scores: npt.NDArray[np.float64]


def search_gammas(
    solver: BandedSolver,
    spaces: list[ScaledSpace],
    targets: CentredTargets,
    settings: BandedSettings,
) -> SearchedGammas:
    """Try gammas and penalties, and keep the solution of the best for each target."""
    sizes = np.array([space.size for space in spaces])
    unit = float(sizes[sizes > 0].mean()) if (sizes > 0).any() else 1.0
    ratio = np.where(sizes > 0, sizes / unit, 1.0)
    penalties = settings.alphas / unit
    n_targets = len(targets.values)
    best, index = np.zeros(n_targets, dtype=np.intp), np.zeros(n_targets, dtype=np.intp)
    scores = np.full(n_targets, -np.inf)
    every = settings.gammas is not None or len(spaces) == 1
    proposals: _GammaProposals | _GivenGammas
    if settings.gammas is not None:
        proposals = _GivenGammas(settings.gammas * ratio, n_targets)
    else:
        marks = [space.mark for space in spaces]
        proposals = _GammaProposals(_by_mark(sizes, marks), len(spaces), targets, settings)
    tried: list[GammaCandidate] = []
    for weights, rows in proposals:
        solver.open(weights, rows)
        start = None if every or not tried else index[rows]
        reached, where = _best_alphas(solver, penalties, settings, start, every=every)
        proposals.learn(reached)
        better = np.flatnonzero((reached > scores[rows]) | (not tried))
        for places in settings.blocks(better):
            solver.keep(penalties[where[places]], places)
        improved = rows[better]
        best[improved], index[improved] = len(tried), where[better]
        scores[improved] = reached[better]
        raw = weights / ratio
        factor = 1.0 if settings.gammas is not None else 1.0 / float(raw.sum())
        tried.append(GammaCandidate(weights, raw / raw.sum(), factor))
    return SearchedGammas(tried, best, index, scores)


def _best_alphas(
    solver: BandedSolver,
    penalties: npt.NDArray[np.float64],
    settings: BandedSettings,
    start: npt.NDArray[np.intp] | None,
    *,
    every: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return the best score and penalty of each target; of equal scores the larger penalty.

    Each target climbs until both neighbours of its best penalty are no better, from `start` or
    from a coarse grid. With `every`, all penalties are tried.
    """
    shape = (len(penalties), len(solver.rows))
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
            for places in settings.blocks(np.flatnonzero(wanted[step])):
                table[step, places] = solver.score(float(penalties[step]), places)
        known |= wanted
        where = best_penalty(table)
        wanted = (np.abs(steps - where) <= 1) & ~known
    return table[where, np.arange(shape[1])], where


def _by_mark(sizes: npt.NDArray[np.float64], marks: list[float]) -> npt.NDArray[np.intp]:
    """Return the spaces with variance, sorted by mark."""
    with_variance = np.flatnonzero(sizes > 0)
    order = np.argsort(np.array(marks)[with_variance], kind="stable")
    return np.asarray(with_variance[order], dtype=np.intp)


class _GivenGammas:
    """Iterates over given kernel weights; every target tries all of them."""

    def __init__(self, weights: npt.NDArray[np.float64], n_targets: int) -> None:
        self.weights, self.n_targets = weights, n_targets

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]]:
        for weights in self.weights:
            yield weights, np.arange(self.n_targets)

    def learn(self, scores: npt.NDArray[np.float64]) -> None:
        """Ignore the scores."""


class _GammaProposals:
    """Iterates over kernel weights (S,) to try, and the targets that should try them.

    Equal weights come first, then each space alone, for all targets. After that a Gaussian process
    over the square roots of the weights proposes those with the largest expected improvement, for
    the targets that may improve. Pass the scores of each proposal to `learn`.
    """

    def __init__(
        self,
        live: npt.NDArray[np.intp],
        n_spaces: int,
        targets: CentredTargets,
        settings: BandedSettings,
    ) -> None:
        self.n_spaces, self.n_targets = n_spaces, len(targets.values)
        self.live = live if len(live) else np.arange(n_spaces)
        rng = np.random.default_rng(settings.seed)
        self.guides = np.flatnonzero(~targets.constant)
        if len(self.guides) > _N_GUIDING_TARGETS:
            self.guides = np.sort(rng.choice(self.guides, _N_GUIDING_TARGETS, replace=False))
        count = len(self.live)
        self.first = 1 if count == 1 else count + 1
        starts = [np.full((1, count), 1 / count), np.eye(count)]
        self.pool = np.concatenate([*starts, _pool(count, rng)])
        self.limit = 1 if count == 1 else min(settings.n_candidates, len(self.pool))
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
        """Record the scores of the proposed targets; the others keep their forecast."""
        self.table[len(self.tried) - 1, self.rows] = scores

    def _most_promising(self) -> int | None:
        """Choose from the pool, forecast scores and set `rows`; None when nothing may improve."""
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
        if improvement[choice] < _STOP_BELOW:
            return None
        forecast, deviation = _krige(known, cross[choice : choice + 1], within)
        likely = forecast[0] + _MAX_SDS * deviation[0] > known.max(axis=0) + _MIN_GAIN
        self.rows = np.flatnonzero(likely)
        if not len(self.rows):
            return None
        self.table[len(self.tried)] = forecast[0]
        return choice

    def _correlations(
        self, known: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return correlations of the pool with what was tried (k, m), and among that (m, m).

        The most likely length scale is shared by all targets; each has its own variance.
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
    """Return weights to choose from, shape (k, count), on faces of the simplex of every dimension.

    Their square roots are spread evenly over the sphere.
    """
    weights = rng.normal(size=(_N_CANDIDATES, count)) ** 2
    n_kept = rng.integers(min(2, count), count + 1, size=_N_CANDIDATES)
    rank = np.argsort(np.argsort(rng.random((_N_CANDIDATES, count)), axis=1), axis=1)
    weights[rank >= n_kept[:, None]] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _krige(
    known: npt.NDArray[np.float64],
    cross: npt.NDArray[np.float64],
    within: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return forecasts and their standard deviations (k, t) from scores (m, t)."""
    mean = known.mean(axis=0)
    solved = np.linalg.solve(within, known - mean)
    amplitude = np.einsum("mt,mt->t", known - mean, solved) / len(known)
    left = 1.0 - np.einsum("km,mk->k", cross, np.linalg.solve(within, cross.T))
    variance = np.maximum(left, 0.0)[:, None] * np.maximum(amplitude, 0.0)
    return mean + cross @ solved, np.sqrt(variance) + _EPS


def _matern(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Matern 5/2 correlation at distances in units of the length scale."""
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))
