"""Cross-validation of banded ridge for one gamma (weighting of the spaces) at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from calcarine.linear._banded_inputs import BandedFold, BandedSettings, CentredTargets
from calcarine.linear._validation import FloatArray
from calcarine.linear.folds import Rows

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
            ones, held, targets = self.ones[fold.held], x[fold.held], y[:, fold.held]
            n_train = float(self.ones @ self.ones - ones @ ones)
            sums = n_train, x_sum - ones @ held, y_sum - targets @ ones
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
