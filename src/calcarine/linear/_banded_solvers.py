"""Cross-validation of banded ridge for one weighting of the spaces at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from calcarine.linear._scaling import (
    ColumnScaler,
    RootWeights,
    constant_columns,
    fit_scaler,
    weighted,
)
from calcarine.linear._validation import FloatArray

_FLOOR = {"float64": 1e-12, "float32": 1e-5}
"""Smallest penalty, as a part of the largest eigenvalue, that survives rounding."""

_ROUNDING = 1e3
"""Predictions below this many roundings of the targets correlate with nothing."""


@dataclass(frozen=True)
class GroupPlan:
    """The checked settings of one call."""

    alphas: npt.NDArray[np.float64]
    gammas: npt.NDArray[np.float64] | None
    n_candidates: int
    fit_intercept: bool
    standardize: bool
    score: str
    dtype: np.dtype[Any]
    block_size: int
    seed: int | None
    root: RootWeights | None = None
    """Roots of the sample weights, trials sorted by fold."""

    def blocks(self, rows: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
        for start in range(0, len(rows), self.block_size):
            yield rows[start : start + self.block_size]


@dataclass(frozen=True)
class Space:
    """One space: scaled, rows sorted by fold and divided by the root of `size`.

    `size` is the mean squared row, so kernels of all spaces have the trace n. It is 0 for a space
    without any variance. `mark` sums the fourth powers of the lengths of the rows; it sorts the
    spaces for the search, whose course then does not depend on the order they were given in.
    Where there are sample weights, these sums are weighted, and rows are multiplied by the roots.
    """

    values: FloatArray
    scaler: ColumnScaler
    size: float
    mark: float

    @classmethod
    def scaled(
        cls,
        matrix: npt.NDArray[Any],
        order: npt.NDArray[np.intp],
        weights: npt.NDArray[np.float64] | None,
        plan: GroupPlan,
    ) -> Space:
        scaler = fit_scaler(
            matrix,
            fit_intercept=plan.fit_intercept,
            standardize=plan.standardize,
            sample_weight=weights,
        )
        values: FloatArray = scaler(matrix[order])
        squares = np.einsum("ij,ij->i", values, values)
        if weights is None:
            size = float(np.einsum("ij,ij->", values, values)) / len(values)
        else:
            size = float(weights[order] @ squares / weights.sum())
        if size > 0:
            values /= np.sqrt(size)
            squares /= size
        mark = float((squares**2).sum() if weights is None else weights[order] @ squares**2)
        values = weighted(values, plan.root)
        return cls(values.astype(plan.dtype, copy=False), scaler, size, mark)

    def unscaled(self, coef: FloatArray) -> FloatArray:
        """Turn weights (p, t) on `values` into weights on the columns as they were given."""
        root = np.sqrt(self.size) if self.size > 0 else 1.0
        unscaled = coef / (root * self.scaler.scale)[:, None]
        unscaled[self.scaler.constant] = 0.0
        return np.asarray(unscaled)


@dataclass(frozen=True)
class Targets:
    """Targets about their mean, shape (t, n): one row per target, trials sorted by fold.

    `total` divides the score: the sum of squares about the mean for r2, within folds for
    correlation. Where there are sample weights, means and sums are weighted, and the targets are
    multiplied by their roots.
    """

    values: FloatArray
    mean: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    constant: npt.NDArray[np.bool_]

    @classmethod
    def centred(
        cls,
        y: npt.NDArray[Any],
        order: npt.NDArray[np.intp],
        folds: list[slice],
        plan: GroupPlan,
    ) -> Targets:
        n_targets = y.shape[1]
        values = np.empty(y.shape[::-1], plan.dtype)
        mean, total = np.zeros(n_targets), np.zeros(n_targets)
        constant = np.zeros(n_targets, dtype=bool)
        counts = np.ones(len(y)) if plan.root is None else plan.root**2
        for rows in plan.blocks(np.arange(n_targets)):
            block = y[:, rows][order].astype(np.float64, copy=False)
            constant[rows] = constant_columns(block[counts > 0])
            if plan.score == "r2":
                total[rows] = _squares(block, counts)
            else:
                total[rows] = sum(_squares(block[f], counts[f]) for f in folds)
            if plan.fit_intercept:
                mean[rows] = counts @ block / counts.sum()
                block -= mean[rows]
                block[:, constant[rows]] = 0.0  # the rounding of the mean is no signal
            values[rows] = weighted(block, plan.root).T
        constant |= total == 0
        return cls(values, mean, np.where(constant, 1.0, total), constant)


def _squares(values: FloatArray, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weighted sum of squares about the weighted mean of each column."""
    return np.asarray(counts @ np.square(values - counts @ values / counts.sum()))


@dataclass(frozen=True)
class _Tally:
    """Sums over folds from which the scores of some targets follow."""

    score: str
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, score: str, n_targets: int) -> _Tally:
        return cls(score, np.zeros(n_targets), np.zeros(n_targets))

    def add(self, truth: FloatArray, residual: FloatArray) -> None:
        """Add a fold; both of shape (targets, held-out rows), centred for correlation."""
        if self.score == "r2":
            self.first[:] += _dots(residual, residual)
        else:
            guess = truth - residual
            self.first[:] += _dots(guess, truth)
            self.second[:] += _dots(guess, guess)

    def scores(self, targets: Targets, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        total = targets.total[rows]
        if self.score == "r2":
            scores = 1.0 - self.first / total
        else:
            size = np.sqrt(self.second) * np.sqrt(total)
            # Predictions this small beside the targets are rounding, whatever they correlate with.
            lost = _ROUNDING * float(np.finfo(targets.values.dtype).eps) * total
            scores = np.divide(self.first, size, out=np.zeros_like(size), where=size > lost)
        scores[targets.constant[rows]] = 0.0
        return np.asarray(scores)


class Machine(ABC):
    """Scores and solves the targets `rows` with one weighting of the spaces at a time.

    Weights multiply the kernels of the balanced spaces; penalties are in their units. `kept`
    holds the solution of each target, in whatever basis `coef` takes it from.
    """

    def __init__(self, targets: Targets, plan: GroupPlan, size: int) -> None:
        self.targets, self.plan = targets, plan
        self.floor = 0.0
        self.rows: npt.NDArray[np.intp] = np.arange(0)
        self.kept: FloatArray = np.zeros((len(targets.values), size), plan.dtype)

    @abstractmethod
    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        """Decompose for these weights (S,) and take up the targets `rows`."""

    @abstractmethod
    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Held-out scores with one penalty of the targets at `places` in `rows`."""

    @abstractmethod
    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        """Keep the solutions on all rows of X, one penalty per target."""

    @abstractmethod
    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        """Weights (p_s, t) on a balanced space; `weights` (t,) are those kept."""

    def _centred(self, values: FloatArray, fold: slice) -> FloatArray:
        """Targets or predictions (t, rows of the fold) about their mean over the fold."""
        if self.plan.root is None:
            return values - values.mean(axis=1, keepdims=True)
        ones = self.plan.root[fold].astype(values.dtype)
        return values - (values @ ones / (ones @ ones))[:, None] * ones

    def _decompose(self, matrix: FloatArray) -> tuple[npt.NDArray[np.float64], FloatArray]:
        eigen, vectors = _eigh(matrix)
        if len(eigen):
            lost = _FLOOR[self.plan.dtype.name] * max(1.0, np.sqrt(len(eigen) / 1000))
            self.floor = max(self.floor, lost * float(eigen[-1]))
        return eigen, vectors


class Dual(Machine):
    """Kernels of all rows; held-out residuals through the smoother of all rows."""

    def __init__(
        self, spaces: list[FloatArray], targets: Targets, folds: list[slice], plan: GroupPlan
    ) -> None:
        n = targets.values.shape[1]
        super().__init__(targets, plan, n)
        self.spaces, self.folds = spaces, folds
        self.kernels = [space @ space.T for space in spaces]
        self.kernel: FloatArray = np.empty((n, n), plan.dtype)
        self.product: FloatArray = np.empty((n, n), plan.dtype)
        self.shift = 0.0

    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        n = len(self.kernel)
        self.kernel[...] = 0.0
        for weight, kernel in zip(weights, self.kernels, strict=True):
            if weight > 0:
                self.kernel += np.multiply(kernel, kernel.dtype.type(weight), out=self.product)
        if self.plan.fit_intercept:
            # The centred kernel takes the constant vector to 0. Raised to an eigenvalue of
            # ordinary size it mixes with no other null vector and is easily taken out again.
            self.shift = max(float(np.trace(self.kernel)) / n, float(np.finfo(np.float32).tiny))
            if self.plan.root is None:
                self.kernel += self.kernel.dtype.type(self.shift / n)
            else:
                ones = self.plan.root * np.sqrt(self.shift / (self.plan.root @ self.plan.root))
                self.kernel += np.outer(ones, ones).astype(self.kernel.dtype)
        self.floor = 0.0
        self.eigen, self.vectors = self._decompose(self.kernel)
        self.rows = rows
        self.projected = self.targets.values[rows] @ self.vectors
        self.factors: dict[float, list[FloatArray]] = {}

    def score(self, alpha: float, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        alpha, rows = max(alpha, self.floor), self.rows[places]
        shrink = (1.0 / (1.0 + self.eigen / alpha)).astype(self.plan.dtype)
        if alpha not in self.factors:
            self.factors[alpha] = self._factors(alpha, shrink)
        residual = (self.projected[places] * shrink) @ self.vectors.T
        tally = _Tally.empty(self.plan.score, len(rows))
        for fold, factor in zip(self.folds, self.factors[alpha], strict=True):
            held = scipy.linalg.cho_solve((factor, True), residual[:, fold].T, check_finite=False).T
            truth = held
            if self.plan.score == "correlation":
                held = self._centred(held, fold)
                truth = self._centred(self.targets.values[rows, fold], fold)
            tally.add(truth, held)
        return tally.scores(self.targets, rows)

    def _factors(self, alpha: float, shrink: FloatArray) -> list[FloatArray]:
        """Cholesky factors of the diagonal blocks of I - H, one per fold."""
        ones = np.ones(len(self.vectors)) if self.plan.root is None else self.plan.root
        constant = 0.0
        if self.plan.fit_intercept:
            constant = 1.0 / (float(ones @ ones) * (1.0 + self.shift / alpha))
        root = np.sqrt(shrink)
        factors = []
        for fold in self.folds:
            half = self.vectors[fold] * root
            block = half @ half.T
            if self.plan.root is None:
                block -= block.dtype.type(constant)
            else:
                block -= (constant * np.outer(ones[fold], ones[fold])).astype(block.dtype)
            factors.append(
                scipy.linalg.cholesky(block, lower=True, overwrite_a=True, check_finite=False)
            )
        return factors

    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        alpha = np.maximum(alpha, self.floor)
        inverse = (1.0 / (self.eigen + alpha[:, None])).astype(self.plan.dtype)
        self.kept[self.rows[places]] = (self.projected[places] * inverse) @ self.vectors.T

    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        return np.asarray((self.spaces[space].T @ self.kept.T) * weights.astype(self.plan.dtype))


@dataclass(frozen=True)
class _Fold:
    """Training Gram matrix (p, p) and moments (t, p) of a fold, and its held-out rows.

    More held-out rows than columns are replaced by the triangle of their QR decomposition: `rest`
    is the squared length of the targets outside of what any weights can reach.
    """

    gram: FloatArray
    moment: FloatArray
    held: FloatArray
    truth: FloatArray
    rest: npt.NDArray[np.float64]


class Primal(Machine):
    """Gram matrices of the training rows of each fold, scaled for each gamma."""

    def __init__(
        self, spaces: list[FloatArray], targets: Targets, folds: list[slice], plan: GroupPlan
    ) -> None:
        x, y = np.concatenate(spaces, axis=1), targets.values
        super().__init__(targets, plan, x.shape[1])
        self.space_of_column = np.repeat(np.arange(len(spaces)), [s.shape[1] for s in spaces])
        parts = [(x[fold].T @ x[fold], y[:, fold] @ x[fold]) for fold in folds]
        self.gram = np.sum([gram for gram, _ in parts], axis=0)
        self.moment = np.sum([moment for _, moment in parts], axis=0)
        ones = np.ones(len(x)) if plan.root is None else plan.root
        x_sum, y_sum = np.einsum("i,ij->j", ones, x), np.einsum("ij,j->i", y, ones)
        self.folds = [
            self._fold(x, fold, self.gram - gram, self.moment - moment, x_sum, y_sum)
            for fold, (gram, moment) in zip(folds, parts, strict=True)
        ]

    def _fold(
        self,
        x: FloatArray,
        fold: slice,
        gram: FloatArray,
        moment: FloatArray,
        x_sum: npt.NDArray[np.float64],
        y_sum: npt.NDArray[np.float64],
    ) -> _Fold:
        """Centre the training moments of a fold by its own training means."""
        held, truth = x[fold], self.targets.values[:, fold]
        if self.plan.fit_intercept:
            root = np.ones(len(x)) if self.plan.root is None else self.plan.root
            ones = root[fold]
            n_train = float(root @ root - ones @ ones)
            x_mean = (x_sum - ones @ held) / n_train
            y_mean = (y_sum - truth @ ones) / n_train
            gram -= (n_train * np.outer(x_mean, x_mean)).astype(x.dtype)
            moment -= (n_train * np.outer(y_mean, x_mean)).astype(x.dtype)
            held = held - np.outer(ones, x_mean).astype(x.dtype)
            truth = truth - np.outer(y_mean, ones).astype(x.dtype)
        if self.plan.score == "correlation":
            held = self._centred(held.T, fold).T
            truth = self._centred(truth, fold)
        rest = np.zeros(len(truth))
        if len(held) > held.shape[1]:
            q, held = np.linalg.qr(held)
            inside = truth @ q
            outside = truth - inside @ q.T
            rest, truth = _dots(outside, outside), inside
        return _Fold(gram, moment, held, truth, rest)

    def open(self, weights: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> None:
        root = np.sqrt(weights)[self.space_of_column].astype(self.plan.dtype)
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
        tally = _Tally.empty(self.plan.score, len(rows))
        for fold, (eigen, held, moment) in zip(self.folds, self.parts, strict=True):
            inverse = (1.0 / (eigen + alpha)).astype(self.plan.dtype)
            truth = fold.truth[rows]
            tally.add(truth, truth - (moment[places] * inverse) @ held.T)
            if self.plan.score == "r2":
                tally.first[:] += fold.rest[rows]
        return tally.scores(self.targets, rows)

    def keep(self, alpha: npt.NDArray[np.float64], places: npt.NDArray[np.intp]) -> None:
        alpha, rows = np.maximum(alpha, self.floor), self.rows[places]
        if self.full is None:
            eigen, vectors = _eigh(self._scaled(self.gram))
            self.full = eigen, self.root[:, None] * vectors
        eigen, scaled = self.full
        inverse = (1.0 / (eigen + alpha[:, None])).astype(self.plan.dtype)
        projected = self.moment[np.ix_(rows, self.live)] @ scaled
        self.kept[rows] = 0.0
        self.kept[np.ix_(rows, self.live)] = (projected * inverse) @ scaled.T

    def coef(self, space: int, weights: npt.NDArray[np.float64]) -> FloatArray:
        return self.kept[:, self.space_of_column == space].T


def _eigh(matrix: FloatArray) -> tuple[npt.NDArray[np.float64], FloatArray]:
    """Eigenvalues, not negative and in float64, and eigenvectors."""
    eigen, vectors = np.linalg.eigh(matrix)
    return np.maximum(eigen.astype(np.float64), 0.0), vectors


def _dots(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    """Row-wise dot products, summed in float64."""
    return np.asarray(np.einsum("ij,ij->i", a, b, dtype=np.float64))
