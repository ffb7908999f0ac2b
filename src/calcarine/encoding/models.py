"""Voxel-wise encoding: feature spaces of stimuli to the responses of single voxels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import group_means
from calcarine.errors import CalcarineError
from calcarine.linear import ComputedMatrix, RidgeEdgeWarning, banded_ridge_cv, iter_ridge_cv

__all__ = [
    "EncodingScores",
    "MeanResponses",
    "UniqueVariance",
    "column_correlations",
    "column_r2",
    "encode",
    "unique_variance",
]

Features = NDArray[np.float32]
TrainOn = Literal["means", "weighted", "trials"]


@dataclass(frozen=True, eq=False)
class MeanResponses:
    """Responses averaged over the repeats of a stimulus, on both sides of a split.

    Attributes
    ----------
    train, test
        float32, shapes (training stimuli, or training trials, voxel) and (test stimuli, voxel).
    train_ids, test_ids
        Stimulus of each row; a training stimulus has several rows where single trials are fitted.
    weights
        Weight of each training row, shape (training stimuli,); None where all count alike.
    """

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    weights: NDArray[np.float64] | None = None

    @classmethod
    def from_dataset(
        cls,
        dataset: BrainDataset,
        split: str | Split | None = None,
        roi: str = "all",
        train: TrainOn = "means",
    ) -> MeanResponses:
        """Average a data set's trials.

        Parameters
        ----------
        dataset, split, roi
            See `BrainDataset`.
        train
            What the models are fitted on: "means" over the repeats of a stimulus, all alike;
            "weighted", the means by their numbers of repeats; "trials", single trials, as
            Takagi & Nishimoto (2023, section 3.1) fit. Test responses are always means.

        Notes
        -----
        The sum of squares over trials is that over means, weighted by their repeats, and a
        constant. So "trials" gives the weights of "weighted" at a penalty that is as many times
        larger as a stimulus has repeats on average.
        """
        single, test = dataset.train(split, roi), dataset.test(split, roi)
        if train == "trials":
            ids_of_trials = tuple(map(str, single.stimulus_ids))
            return cls(np.asarray(single.data), test.data, ids_of_trials, test.stimulus_ids)
        ids, owner = np.unique(np.asarray(single.stimulus_ids), return_inverse=True)
        means = group_means(single.data, owner, len(ids))
        weights = None
        if train == "weighted":
            repeats = np.bincount(owner, minlength=len(ids))
            weights = repeats / repeats.mean()
        return cls(means, test.data, tuple(map(str, ids)), test.stimulus_ids, weights)

    @property
    def center(self) -> NDArray[np.float64]:
        """Mean of the training responses, by their weights, shape (voxel,)."""
        if self.weights is None:
            return np.asarray(self.train.mean(0, dtype=np.float64))
        return np.asarray(self.weights @ self.train / self.weights.sum())

    def fit_options(self, n_folds: int) -> dict[str, Any]:
        """How a ridge treats the training rows: trials of a stimulus stay in one fold."""
        names, groups = np.unique(np.asarray(self.train_ids), return_inverse=True)
        options: dict[str, Any] = {"n_folds": min(n_folds, len(names)), "standardize": False}
        if len(names) < len(self.train_ids):
            options["groups"] = groups
        if self.weights is not None:  # rows were centred by their weights
            options["fit_intercept"] = False
        return options

    def targets(self, columns: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        """Training responses of some voxels as a ridge is given them, and what was taken off."""
        values = self.train[:, columns]
        if self.weights is None:
            return values, np.zeros(values.shape[1])
        center = self.center[columns]
        return np.sqrt(self.weights)[:, None] * (values - center), center

    def all_targets(self) -> tuple[NDArray[Any] | ComputedMatrix, NDArray[np.float64]]:
        """Return the training responses of all voxels, and the center subtracted from them.

        Weighted responses are computed when a fit reads them, without a copy of all voxels.
        """
        if self.weights is None:
            return self.train, np.zeros(self.train.shape[1])
        root, center = np.sqrt(self.weights)[:, None], self.center
        shape = (self.train.shape[0], self.train.shape[1])
        columns = partial(_weighted_columns, self.train, root, center)
        return ComputedMatrix(shape, np.float64, columns), center

    def rows(self, features: Features, ids: Sequence[str]) -> tuple[Features, Features]:
        """Features of the training and of the test stimuli, each flattened to a matrix.

        Both are centred on the training stimuli and divided by one number for
        the whole space, the root of its mean variance.  Columns are not
        scaled one by one: ridge then depends on the space and not on its
        axes, and principal components stand for the features they come from.

        Parameters
        ----------
        features
            Shape (n, ...), a row for each of ``ids``.
        ids
            Stimuli that the rows belong to.

        Raises
        ------
        CalcarineError
            If a stimulus has no features.
        """
        if len(features) != len(ids):
            raise CalcarineError(
                f"There are features of {len(features)} stimuli for {len(ids)} ids; give one row "
                "each."
            )
        place = {key: row for row, key in enumerate(ids)}
        missing = [key for key in (*self.train_ids, *self.test_ids) if key not in place]
        if missing:
            raise CalcarineError(
                f"Stimulus {missing[0]} has no features ({len(missing)} such); extract them for "
                "all stimuli of the split."
            )
        flat = np.asarray(features).reshape(len(features), -1)
        train = flat[[place[key] for key in self.train_ids]]
        test = flat[[place[key] for key in self.test_ids]]
        if self.weights is None:
            mean = train.mean(0, dtype=np.float64)
            scale = np.sqrt(np.mean((train - mean) ** 2)) or 1.0
            rows = (train - mean) / scale
        else:
            mean = np.average(train, axis=0, weights=self.weights)
            spread = ((train - mean) ** 2).mean(1)
            scale = np.sqrt(np.average(spread, weights=self.weights)) or 1.0
            rows = np.sqrt(self.weights)[:, None] * (train - mean) / scale
        return rows.astype(np.float32), ((test - mean) / scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class EncodingScores:
    """How one feature space predicts each voxel.

    Attributes
    ----------
    r
        Pearson correlation of predicted and measured test responses, shape
        (voxel,); NaN where one of the two is constant.
    r2
        Share of the test variance explained, about the test mean.
    cv_r2
        The same, held out inside the training stimuli.
    alpha
        Chosen penalties.
    predicted
        Predicted test responses, float32, shape (test stimuli, voxel).
    """

    r: NDArray[np.float64]
    r2: NDArray[np.float64]
    cv_r2: NDArray[np.float64]
    alpha: NDArray[np.float64]
    predicted: NDArray[np.float32]


def encode(
    responses: MeanResponses,
    features: Features,
    ids: Sequence[str],
    *,
    alphas: NDArray[np.float64] | None = None,
    n_folds: int = 5,
    block_size: int | None = None,
) -> EncodingScores:
    """Fit ridge from features to every voxel and predict the test stimuli.

    Parameters
    ----------
    responses
        Averaged over repeats.
    features, ids
        See `MeanResponses.rows`.
    alphas
        Penalties; those of `calcarine.linear.ridge_cv` if left out.
    n_folds
        Folds over training stimuli that choose each voxel's penalty.
    block_size
        Largest number of voxels that are solved at once; see `calcarine.linear.ridge_cv`.

    Returns
    -------
    EncodingScores

    Notes
    -----
    The features are decomposed once for all voxels. Weights are computed for one block of voxels
    at a time and are not kept.

    Source: Takagi & Nishimoto (2023), section 3.4: L2-regularised regression
    from features to each voxel, weights from the training data, tested on
    averaged responses.
    """
    x, x_test = responses.rows(features, ids)
    options: dict[str, Any] = {} if alphas is None else {"alphas": alphas}
    targets, center = responses.all_targets()
    fits = iter_ridge_cv(
        x, targets, block_size=block_size, **responses.fit_options(n_folds), **options
    )
    n_voxels = responses.train.shape[1]
    r, r2, cv_r2, alpha = (np.empty(n_voxels) for _ in range(4))
    predicted = np.empty((len(x_test), n_voxels), dtype=np.float32)
    for columns, fit in fits:
        predicted[:, columns] = fit.predict(x_test) + center[columns]
        measured = responses.test[:, columns]
        r[columns] = column_correlations(predicted[:, columns], measured)
        r2[columns] = column_r2(predicted[:, columns], measured)
        cv_r2[columns], alpha[columns] = fit.cv_scores, fit.alpha
    return EncodingScores(r, r2, cv_r2, alpha, predicted)


@dataclass(frozen=True, eq=False)
class UniqueVariance:
    """Test variance that only one of several feature spaces explains.

    Attributes
    ----------
    r2
        Of all spaces together, shape (voxel,).
    unique
        By name, the r2 that is lost without that space, shape (voxel,).
    predicted, predicted_without
        Test responses predicted by all spaces and, by name, by all but that
        one: float32, shape (test stimuli, voxel).
    """

    r2: NDArray[np.float64]
    unique: Mapping[str, NDArray[np.float64]]
    predicted: NDArray[np.float32]
    predicted_without: Mapping[str, NDArray[np.float32]]


def unique_variance(
    responses: MeanResponses,
    spaces: Mapping[str, Features],
    ids: Sequence[str],
    *,
    alone: Mapping[str, EncodingScores] | None = None,
    alphas: NDArray[np.float64] | None = None,
    n_folds: int = 5,
    n_candidates: int | None = None,
    block: int = 50_000,
) -> UniqueVariance:
    """Fit all spaces together, each with a penalty of its own, and without each.

    Parameters
    ----------
    responses
        Averaged over repeats.
    spaces, ids
        At least two spaces, features by name; see `MeanResponses.rows`.
    alone
        What `encode` gave for some of the spaces alone, where two are
        compared; saves fitting them again.
    alphas, n_folds
        As in `encode`.
    block
        Number of voxels that are fitted together.
    n_candidates
        Of `calcarine.linear.banded_ridge_cv`.

    Returns
    -------
    UniqueVariance

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.4 (ii) and (iii).
    """
    if len(spaces) < 2:
        raise CalcarineError("Unique variance compares two feature spaces or more; give them.")
    options: dict[str, Any] = {} if alphas is None else {"alphas": alphas}
    parts = {name: responses.rows(values, ids) for name, values in spaces.items()}

    def together(names: Sequence[str]) -> NDArray[np.float32]:
        guesses = []
        for columns in _blocks(responses.train.shape[1], block):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RidgeEdgeWarning)
                targets, center = responses.targets(columns)
                fit = banded_ridge_cv(
                    {name: parts[name][0] for name in names},
                    targets,
                    n_candidates=n_candidates,
                    **responses.fit_options(n_folds),
                    **options,
                )
            guesses.append(fit.predict({name: parts[name][1] for name in names}) + center)
        return np.concatenate(guesses, axis=1).astype(np.float32)

    without: dict[str, NDArray[np.float32]] = {}
    for name in spaces:
        rest = [other for other in spaces if other != name]
        if len(rest) > 1:
            without[name] = together(rest)
        elif alone is not None and rest[0] in alone:
            without[name] = alone[rest[0]].predicted
        else:
            found = encode(responses, spaces[rest[0]], ids, alphas=alphas, n_folds=n_folds)
            without[name] = found.predicted
    predicted = together(list(spaces))
    r2 = column_r2(predicted, responses.test)
    unique = {name: r2 - column_r2(guess, responses.test) for name, guess in without.items()}
    return UniqueVariance(r2, unique, predicted, without)


def column_correlations(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson correlation of each column of a with that of b; NaN where one is constant.

    Parameters
    ----------
    a, b
        Shape (n, v).
    """
    a = a - a.mean(0, dtype=np.float64)
    b = b - b.mean(0, dtype=np.float64)
    both = np.einsum("ij,ij->j", a, b)
    length = np.sqrt(np.einsum("ij,ij->j", a, a) * np.einsum("ij,ij->j", b, b))
    return np.asarray(np.divide(both, length, out=np.full_like(both, np.nan), where=length > 0))


def column_r2(guess: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Share of the variance of each column of truth that guess explains, about its mean."""
    total = ((truth - truth.mean(0, dtype=np.float64)) ** 2).sum(0)
    error = ((truth - guess.astype(np.float64)) ** 2).sum(0)
    return np.asarray(1.0 - np.divide(error, total, out=np.ones_like(error), where=total > 0))


def _weighted_columns(
    train: NDArray[np.float32],
    root: NDArray[np.float64],
    center: NDArray[np.float64],
    columns: slice,
) -> NDArray[np.float64]:
    """Return centred responses of some voxels, multiplied by the roots of their weights."""
    return np.asarray(root * (train[:, columns] - center[columns]))


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
