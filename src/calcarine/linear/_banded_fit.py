"""The fit of banded ridge: cross-validation of one gamma at a time, and the search for gammas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from calcarine.linear._banded_inputs import BandedFold, BandedSettings, CentredTargets, ScaledSpace
from calcarine.linear._cross_validation import best_penalty
from calcarine.linear._predictors import Rows
from calcarine.linear._validation import FloatArray

_FLOOR = {"float64": 1e-12, "float32": 1e-5}
"""Smallest penalty that is not lost in rounding, relative to the largest eigenvalue."""

_ROUNDING = 1e3
"""Predictions below this many rounding errors of the targets have correlation 0."""


@dataclass(frozen=True)
class _ScoreSums:
    """Sums over folds from which the scores of some targets are computed."""

    score: str
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, score: str, n_targets: int) -> _ScoreSums:
        """Return sums over zero folds."""
        return cls(score, np.zeros(n_targets), np.zeros(n_targets))

    def add(self, targets: FloatArray, residual: FloatArray) -> None:
        """Add a fold; both of shape (targets, held-out rows), centred for correlation."""
        if self.score == "r2":
            self.first[:] += _dots(residual, residual)
        else:
            predicted = targets - residual
            self.first[:] += _dots(predicted, targets)
            self.second[:] += _dots(predicted, predicted)

    def scores(
        self, targets: CentredTargets, rows: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.float64]:
        """Return the scores of the targets `rows`; 0 for constant targets."""
        total = targets.total[rows]
        if self.score == "r2":
            scores = 1.0 - self.first / total
        else:
            size = np.sqrt(self.second) * np.sqrt(total)
            # Predictions this small compared with the targets are rounding errors.
            lost = _ROUNDING * float(np.finfo(targets.values.dtype).eps) * total
            scores = np.divide(self.first, size, out=np.zeros_like(size), where=size > lost)
        scores[targets.constant[rows]] = 0.0
        return np.asarray(scores)


class BandedSolver(ABC):
    """Scores and solves the targets `rows` for one gamma at a time.

    Kernel weights refer to the balanced spaces, and penalties are in their units. `kept` holds the
    solution of each target, from which `coef` computes weights.
    """

    def __init__(self, targets: CentredTargets, settings: BandedSettings, size: int) -> None:
        self.targets, self.settings = targets, settings
        self.floor = 0.0
        self.rows: npt.NDArray[np.intp] = np.arange(0)
        self.kept: FloatArray = np.zeros((len(targets.values), size), settings.dtype)

    @abstractmethod
    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        """Decompose for these kernel weights (S,) and project the targets `rows`."""

    @abstractmethod
    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return held-out scores at one penalty, of the targets at `places` in `rows`."""

    @abstractmethod
    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        """Keep the solutions of the fit on all rows, at one penalty per target."""

    @abstractmethod
    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        """Return weights (p_s, t) on a balanced space, for kernel weights (t,) of the space."""

    def _centred(self, values: FloatArray, fold: slice | Rows) -> FloatArray:
        """Return targets or predictions (t, rows of the fold) about their mean over the fold."""
        if self.settings.root is None:
            return np.asarray(values - values.mean(axis=1, keepdims=True))
        ones = self.settings.root[fold].astype(values.dtype)
        return values - (values @ ones / (ones @ ones))[:, None] * ones

    def _decompose(self, matrix: FloatArray) -> tuple[npt.NDArray[np.float64], FloatArray]:
        eigen, vectors = _eigh(matrix)
        if len(eigen):
            lost = _FLOOR[self.settings.dtype.name] * max(1.0, np.sqrt(len(eigen) / 1000))
            self.floor = max(self.floor, lost * float(eigen[-1]))
        return eigen, vectors


class DualBandedSolver(BandedSolver):
    """Solves by kernels of all rows; held-out residuals follow from the smoother of all rows."""

    def __init__(
        self,
        spaces: list[FloatArray],
        targets: CentredTargets,
        folds: list[BandedFold],
        settings: BandedSettings,
    ) -> None:
        n = targets.values.shape[1]
        super().__init__(targets, settings, n)
        self.spaces, self.folds = spaces, folds
        self.kernels = [space @ space.T for space in spaces]
        self.kernel: FloatArray = np.empty((n, n), settings.dtype)
        self.product: FloatArray = np.empty((n, n), settings.dtype)
        self.shift = 0.0

    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        n = len(self.kernel)
        self.kernel[...] = 0.0
        for weight, kernel in zip(weights, self.kernels, strict=True):
            if weight > 0:
                self.kernel += np.multiply(kernel, kernel.dtype.type(weight), out=self.product)
        if self.settings.fit_intercept:
            # The constant vector is a null vector of the centred kernel. With an eigenvalue of
            # ordinary size it does not mix with other null vectors, and is easily removed again.
            self.shift = max(float(np.trace(self.kernel)) / n, float(np.finfo(np.float32).tiny))
            if self.settings.root is None:
                self.kernel += self.kernel.dtype.type(self.shift / n)
            else:
                ones = self.settings.root * np.sqrt(
                    self.shift / (self.settings.root @ self.settings.root)
                )
                self.kernel += np.outer(ones, ones).astype(self.kernel.dtype)
        self.floor = 0.0
        self.eigen, self.vectors = self._decompose(self.kernel)
        self.rows = rows
        self.projected = self.targets.values[rows] @ self.vectors
        self.factors: dict[float, list[FloatArray]] = {}

    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        alpha, rows = max(alpha, self.floor), self.rows[places]
        shrink = (1.0 / (1.0 + self.eigen / alpha)).astype(self.settings.dtype)
        if alpha not in self.factors:
            if self.folds[0].train is not None:  # there may be very many folds
                self.factors.clear()
            self.factors[alpha] = self._factors(alpha, shrink)
        residual = (self.projected[places] * shrink) @ self.vectors.T
        sums = _ScoreSums.empty(self.settings.score, len(rows))
        for fold, factor in zip(self.folds, self.factors[alpha], strict=True):
            own = residual[:, fold.left_out].T
            held = scipy.linalg.cho_solve((factor, True), own, check_finite=False).T
            fold_targets = held = fold.score_rows(held)
            if self.settings.score == "correlation":
                held = self._centred(held, fold.held)
                fold_targets = self._centred(self.targets.values[:, fold.held][rows], fold.held)
            sums.add(fold_targets, held)
        return sums.scores(self.targets, rows)

    def _factors(self, alpha: float, shrink: FloatArray) -> list[FloatArray]:
        """Return Cholesky factors of the diagonal blocks of I - H, one per fold."""
        ones = np.ones(len(self.vectors)) if self.settings.root is None else self.settings.root
        constant = 0.0
        if self.settings.fit_intercept:
            constant = 1.0 / (float(ones @ ones) * (1.0 + self.shift / alpha))
        root = np.sqrt(shrink)
        factors = []
        for fold in self.folds:
            rows = fold.left_out
            half = self.vectors[rows] * root
            block = half @ half.T
            if self.settings.root is None:
                block -= block.dtype.type(constant)
            else:
                block -= (constant * np.outer(ones[rows], ones[rows])).astype(block.dtype)
            factors.append(
                scipy.linalg.cholesky(block, lower=True, overwrite_a=True, check_finite=False)
            )
        return factors

    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        alpha = np.maximum(alpha, self.floor)
        inverse = (1.0 / (self.eigen + alpha[:, None])).astype(self.settings.dtype)
        self.kept[self.rows[places]] = (self.projected[places] * inverse) @ self.vectors.T

    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        return np.asarray(
            (self.spaces[space].T @ self.kept.T) * weights.astype(self.settings.dtype)
        )


@dataclass(frozen=True)
class _PrimalFold:
    """Training Gram matrix (p, p) and moments (t, p) of a fold, its held-out rows and targets.

    Where there are more held-out rows than columns, the triangle of their QR decomposition
    replaces them. `rest` is the squared length of the targets outside the span of the columns.
    """

    gram: FloatArray
    moment: FloatArray
    held: FloatArray
    held_targets: FloatArray
    rest: npt.NDArray[np.float64]


class PrimalBandedSolver(BandedSolver):
    """Solves by Gram matrices of the training rows of each fold, scaled for each gamma."""

    def __init__(
        self,
        spaces: list[FloatArray],
        targets: CentredTargets,
        folds: list[BandedFold],
        settings: BandedSettings,
    ) -> None:
        x, y = np.concatenate(spaces, axis=1), targets.values
        super().__init__(targets, settings, x.shape[1])
        self.space_of_column = np.repeat(np.arange(len(spaces)), [s.shape[1] for s in spaces])
        self.ones = np.ones(len(x)) if settings.root is None else settings.root
        if folds[0].train is not None:
            self.gram, self.moment = x.T @ x, y @ x
            self.folds = [self._overlapping_fold(x, fold) for fold in folds]
            return
        parts = [(x[f.held].T @ x[f.held], y[:, f.held] @ x[f.held]) for f in folds]
        self.gram = np.sum([gram for gram, _ in parts], axis=0)
        self.moment = np.sum([moment for _, moment in parts], axis=0)
        x_sum, y_sum = np.einsum("i,ij->j", self.ones, x), np.einsum("ij,j->i", y, self.ones)
        self.folds = []
        for fold, (gram, moment) in zip(folds, parts, strict=True):
            ones, held, own = self.ones[fold.held], x[fold.held], y[:, fold.held]
            n_train = float(self.ones @ self.ones - ones @ ones)
            sums = n_train, x_sum - ones @ held, y_sum - own @ ones
            self.folds.append(
                self._fold(x, fold.held, self.gram - gram, self.moment - moment, sums)
            )

    def _overlapping_fold(self, x: FloatArray, fold: BandedFold) -> _PrimalFold:
        """Return a fold from the moments of its own training rows."""
        ones, own = self.ones[fold.train], x[fold.train]
        targets = self.targets.values[:, fold.train]
        sums = float(ones @ ones), ones @ own, targets @ ones
        return self._fold(x, fold.held, own.T @ own, targets @ own, sums)

    def _fold(
        self,
        x: FloatArray,
        fold: slice | Rows,
        gram: FloatArray,
        moment: FloatArray,
        sums: tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]],
    ) -> _PrimalFold:
        """Return a fold whose training moments are centred by its training means.

        `sums` are the weight of the training rows, and their weighted sums and those of targets.
        """
        held, targets = x[fold], self.targets.values[:, fold]
        if self.settings.fit_intercept:
            ones, n_train = self.ones[fold], sums[0]
            x_mean, y_mean = sums[1] / n_train, sums[2] / n_train
            gram -= (n_train * np.outer(x_mean, x_mean)).astype(x.dtype)
            moment -= (n_train * np.outer(y_mean, x_mean)).astype(x.dtype)
            held = held - np.outer(ones, x_mean).astype(x.dtype)
            targets = targets - np.outer(y_mean, ones).astype(x.dtype)
        if self.settings.score == "correlation":
            held = self._centred(held.T, fold).T
            targets = self._centred(targets, fold)
        rest = np.zeros(len(targets))
        if len(held) > held.shape[1]:
            q, held = np.linalg.qr(held)
            inside = targets @ q
            outside = targets - inside @ q.T
            rest, targets = _dots(outside, outside), inside
        return _PrimalFold(gram, moment, held, targets, rest)

    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        root = np.sqrt(weights)[self.space_of_column].astype(self.settings.dtype)
        self.live = np.flatnonzero(root > 0)
        self.root = root[self.live]
        self.floor = 0.0
        self.rows = rows
        self.parts = []
        for fold in self.folds:
            eigen, vectors = self._decompose(self._scaled(fold.gram))
            scaled = self.root[:, None] * vectors
            moment = fold.moment[np.ix_(rows, self.live)] @ scaled
            self.parts.append((eigen, fold.held[:, self.live] @ scaled, moment))
        self.full: tuple[npt.NDArray[np.float64], FloatArray] | None = None

    def _scaled(self, gram: FloatArray) -> FloatArray:
        part = gram if len(self.live) == len(gram) else gram[np.ix_(self.live, self.live)]
        return np.asarray(part * self.root * self.root[:, None])

    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        alpha, rows = max(alpha, self.floor), self.rows[places]
        sums = _ScoreSums.empty(self.settings.score, len(rows))
        for fold, (eigen, held, moment) in zip(self.folds, self.parts, strict=True):
            inverse = (1.0 / (eigen + alpha)).astype(self.settings.dtype)
            targets = fold.held_targets[rows]
            sums.add(targets, targets - (moment[places] * inverse) @ held.T)
            if self.settings.score == "r2":
                sums.first[:] += fold.rest[rows]
        return sums.scores(self.targets, rows)

    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        alpha, rows = np.maximum(alpha, self.floor), self.rows[places]
        if self.full is None:
            eigen, vectors = _eigh(self._scaled(self.gram))
            self.full = eigen, self.root[:, None] * vectors
        eigen, scaled = self.full
        inverse = (1.0 / (eigen + alpha[:, None])).astype(self.settings.dtype)
        projected = self.moment[np.ix_(rows, self.live)] @ scaled
        self.kept[rows] = 0.0
        self.kept[np.ix_(rows, self.live)] = (projected * inverse) @ scaled.T

    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        return self.kept[:, self.space_of_column == space].T


def _eigh(matrix: FloatArray) -> tuple[npt.NDArray[np.float64], FloatArray]:
    """Return eigenvalues, clipped at 0 and in float64, and eigenvectors."""
    eigen, vectors = np.linalg.eigh(matrix)
    return np.maximum(eigen.astype(np.float64), 0.0), vectors


def _dots(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    """Return row-wise dot products, summed in float64."""
    return np.asarray(np.einsum("ij,ij->i", a, b, dtype=np.float64))


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
