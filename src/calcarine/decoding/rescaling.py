"""Predictions of ridge regression, which are shrunk, brought back to the scale of their targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from calcarine.brain import Responses
from calcarine.decoding.ridge_fits import side_by_side
from calcarine.devices import on_cpu_if_full
from calcarine.linear import RidgeCV, iter_held_out, predict_linear

__all__ = ["RESCALINGS", "Rescaling", "fit_rescalings"]

Array = NDArray[Any]

RESCALINGS = ("none", "norm", "variance", "components", "posterior")
"""How predictions can be brought back to scale; see `EmbeddingRegression`."""

_MOST_COMPONENTS = 512
_BLOCK_VALUES = 32_000_000
_SMALLEST = 1e-6  # singular values, relative to the largest, that are no rounding errors


@dataclass(frozen=True, eq=False)
class Rescaling:
    """An affine map from predictions to the scale of their targets, learned in training data.

    Attributes
    ----------
    predicted_mean, true_mean : float32 array of shape (d,)
        Prediction for the mean training response, and mean of the training targets.
    factor : float32 array of shape (1,) or (d,)
        Factor of deviations from the mean, of all values or of each; with components, of what
        lies outside them.
    components : float32 array of shape (k, d)
        Principal components of training targets; k is 0 without them.
    factors : float32 array of shape (k,)
        Factor of deviations along each component.
    """

    predicted_mean: NDArray[np.float32]
    true_mean: NDArray[np.float32]
    factor: NDArray[np.float32]
    components: NDArray[np.float32]
    factors: NDArray[np.float32]

    def __call__(self, predicted: Array) -> NDArray[np.float64]:
        """Return predictions of shape (n, d) on the scale of their targets.

        Each row is the same alone as among others.
        """
        about = np.asarray(predicted, np.float64) - self.predicted_mean
        scaled = about * self.factor + self.true_mean
        if len(self.components):
            k, d = self.components.shape
            along = predict_linear(about, self.components.T, np.zeros(d), np.zeros(k))
            along *= self.factors - self.factor
            scaled += predict_linear(along, self.components, np.zeros(k), np.zeros(d))
        return np.asarray(scaled)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return its arrays by name, for a file."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in self.__annotations__}


def fit_rescalings(
    responses: Responses,
    ids: Sequence[str],
    targets: Mapping[str, Array],
    ridges: Mapping[str, RidgeCV],
    kinds: Mapping[str, str],
    n_folds: int,
    intercept: bool = True,
    device: str = "cpu",
) -> dict[str, Rescaling]:
    """Learn how to rescale predictions from those of training stimuli that are held out.

    Predictions of stimuli that a regression was fitted on are larger than those of new stimuli.
    So every stimulus is predicted by a fit without it, from the mean of its responses, as test
    stimuli are. That costs one decomposition for each fold, for all targets together.

    Parameters
    ----------
    responses, ids, n_folds, intercept, device
        See `fit_ridge`. Folds are grouped by stimulus.
    targets : mapping of str to array of shape (n_stimuli, ...)
    ridges : mapping of str to RidgeCV
        Fitted regression of each target, whose penalties are used.
    kinds : mapping of str to {"norm", "variance", "components", "posterior"}
        How each target is rescaled.

    Returns
    -------
    dict of str to Rescaling
        By name of the target.
    """
    row_of = {stimulus: row for row, stimulus in enumerate(ids)}
    stimuli, of_trial = np.unique(
        [row_of[stimulus] for stimulus in responses.stimulus_ids], return_inverse=True
    )
    flat = {
        name: np.reshape(np.asarray(values[:]), (len(values), -1))[stimuli]
        for name, values in targets.items()
    }
    sides = np.cumsum([0, *(values.shape[1] for values in flat.values())])
    places = dict(zip(flat, map(slice, sides[:-1], sides[1:]), strict=True))
    data = responses.data
    if not intercept:
        data = data - data.mean(0, dtype=np.float64).astype(data.dtype)

    def learn(place: str) -> dict[str, Rescaling]:
        held_out = iter_held_out(
            data,
            side_by_side(flat),
            np.concatenate([ridges[name].alpha_ for name in flat]),
            n_folds=min(n_folds, len(stimuli)),
            fit_intercept=intercept,
            target_rows=of_trial,
            device=place,
        )
        sums = {name: _Sums(flat[name], ridges[name].y_mean_, kinds[name]) for name in flat}
        for rows, block, predicted in _by_stimulus(held_out, of_trial):
            for name, own in places.items():
                start, stop = max(block.start, own.start), min(block.stop, own.stop)
                if start < stop:
                    part = predicted[:, start - block.start : stop - block.start]
                    sums[name].add(rows, slice(start - own.start, stop - own.start), part)
        return {name: each.rescaling() for name, each in sums.items()}

    return on_cpu_if_full(learn, device)


def _by_stimulus(
    held_out: Iterator[tuple[NDArray[np.intp], slice, Array]],
    of_trial: NDArray[np.intp],
) -> Iterator[tuple[NDArray[np.intp], slice, NDArray[np.float64]]]:
    """Average predictions over the trials of each stimulus, which are in one fold."""
    for trials, columns, predicted in held_out:
        order = np.argsort(of_trial[trials], kind="stable")
        stimuli, starts, counts = np.unique(
            of_trial[trials][order], return_index=True, return_counts=True
        )
        yield stimuli, columns, np.add.reduceat(predicted[order], starts, axis=0) / counts[:, None]


class _Sums:
    """Sums over held-out stimuli that the rescaling of one target follows from.

    `targets` has the shape (n, d), `predicted_mean` (d,).
    """

    def __init__(self, targets: Array, predicted_mean: Array, kind: str) -> None:
        self.targets, self.kind = targets, kind
        self.predicted_mean = np.asarray(predicted_mean, np.float64)
        self.true_mean = targets.mean(0, dtype=np.float64)
        n, d = targets.shape
        self.sum, self.square, self.true_square, self.cross = np.zeros((4, d))
        self.components = np.zeros((0, d), np.float32)
        self.true_scores = np.zeros((n, 0))
        if kind in ("components", "posterior"):
            self.components, self.true_scores = _principal_components(targets, self.true_mean)
        self.scores = np.zeros_like(self.true_scores)

    def add(self, rows: NDArray[np.intp], columns: slice, predicted: NDArray[np.float64]) -> None:
        about = predicted - self.predicted_mean[columns]
        true = self.targets[rows, columns] - self.true_mean[columns]
        self.sum[columns] += about.sum(0)
        self.square[columns] += (about**2).sum(0)
        self.true_square[columns] += (true**2).sum(0)
        self.cross[columns] += (about * true).sum(0)
        self.scores[rows] += about @ self.components[:, columns].T

    def rescaling(self) -> Rescaling:
        n = len(self.targets)
        factors = np.zeros(0)
        if self.kind == "norm":
            factor = _root_ratio(self.true_square.sum(), self.square.sum())
        elif self.kind == "variance":
            factor = _root_ratio(self.true_square, self.square - self.sum**2 / n)
        else:
            true, own = (self.true_scores**2).sum(0), (self.scores**2).sum(0)
            cross = (self.true_scores * self.scores).sum(0)
            outside = [
                max(float(whole.sum() - part.sum()), 0.0)
                for whole, part in ((self.true_square, true), (self.square, own))
            ]
            if self.kind == "components":
                factors = _root_ratio(true, own - self.scores.sum(0) ** 2 / n)
                factor = _root_ratio(*map(np.asarray, outside))
            else:
                factors = _slope(cross, own)
                factor = _slope(self.cross.sum() - cross.sum(), np.asarray(outside[1]))
        arrays = (self.predicted_mean, self.true_mean, np.atleast_1d(factor), self.components)
        return Rescaling(*(np.asarray(each, np.float32) for each in (*arrays, factors)))


def _root_ratio(true: Array, predicted: Array) -> NDArray[np.float64]:
    """Return the ratio of two standard deviations; 1 where the prediction never varies."""
    ratio = np.ones(np.shape(true))
    np.divide(true, predicted, out=ratio, where=np.asarray(predicted) > 0)
    return np.sqrt(ratio)


def _slope(cross: Array, square: Array) -> NDArray[np.float64]:
    """Return the slope of the targets on the predictions; 0 where it would be negative."""
    slope = np.zeros(np.shape(cross))
    np.divide(cross, square, out=slope, where=np.asarray(square) > 0)
    return np.maximum(slope, 0.0)


def _principal_components(
    targets: Array, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the first principal components, (k, d), and the scores of all stimuli, (n, k).

    The products of stimuli are summed over blocks of columns, so that no copy of wide targets is
    made.
    """
    n, d = targets.shape
    step = max(1, _BLOCK_VALUES // n)
    blocks = [slice(start, min(start + step, d)) for start in range(0, d, step)]
    products = np.zeros((n, n))
    for columns in blocks:
        about = targets[:, columns] - mean[columns]
        products += about @ about.T
    k = min(_MOST_COMPONENTS, n - 1, d)
    values, vectors = eigh(products, subset_by_index=(n - k, n - 1))
    kept = values > _SMALLEST**2 * max(values[-1], np.finfo(np.float64).tiny)
    size, vectors = np.sqrt(values[kept][::-1]), vectors[:, kept][:, ::-1]
    components = np.empty((len(size), d), np.float32)
    for columns in blocks:
        components[:, columns] = (vectors / size).T @ (targets[:, columns] - mean[columns])
    return components, vectors * size
