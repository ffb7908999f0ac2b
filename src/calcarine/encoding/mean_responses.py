"""Responses averaged over repeats, and features scaled for them: the data of an encoding fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.brain.responses import group_means
from calcarine.errors import ShapeError
from calcarine.linear import ComputedMatrix

__all__ = ["Features", "MeanResponses", "TrainOn"]

Features = NDArray[np.float32]
TrainOn = Literal["means", "weighted", "trials"]


@dataclass(frozen=True, eq=False)
class MeanResponses:
    """Responses of one split, averaged over the repeats of each stimulus.

    Attributes
    ----------
    train : float32 array of shape (n_train, n_voxels)
        One row per training stimulus, or per training trial if single trials are fitted.
    test : float32 array of shape (n_test, n_voxels)
        One row per test stimulus.
    train_ids, test_ids : tuple of str
        Stimulus of each row.
    weights : float array of shape (n_train,), optional
        Weight of each training row; None for equal weights.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import MeanResponses
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(20))
    >>> trials = np.random.default_rng(0).standard_normal((60, 5))  # three of each scene
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids * 3, seen, test=4)
    >>> responses = MeanResponses.from_dataset(brain)
    >>> responses.train.shape, responses.test.shape
    ((16, 5), (4, 5))
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
        """Average the trials of a data set.

        Parameters
        ----------
        dataset : BrainDataset
        split : str, Split or None
            A split of the data set, or its name; None takes the first.
        roi : str
            Region whose voxels are kept.
        train : {"means", "weighted", "trials"}
            Rows to fit on: means over the repeats of each stimulus; the same means, weighted by
            the number of repeats; or single trials, as in Takagi & Nishimoto (2023, section 3.1).
            Test responses are always means.

        Returns
        -------
        MeanResponses

        Notes
        -----
        The squared error over trials equals the error over means, weighted by the number of
        repeats, plus a constant. So "trials" gives the coefficients of "weighted" at a penalty
        that is larger by the mean number of repeats.

        Examples
        --------
        >>> import numpy as np
        >>> import calcarine as ca
        >>> from calcarine.encoding import MeanResponses
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(10))
        >>> trials = np.random.default_rng(0).standard_normal((30, 5))  # three of each scene
        >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids * 3, seen, test=2)
        >>> MeanResponses.from_dataset(brain, train="trials").train.shape
        (24, 5)
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
        """Weighted mean of the training responses, of shape (n_voxels,)."""
        if self.weights is None:
            return np.asarray(self.train.mean(0, dtype=np.float64))
        return np.asarray(self.weights @ self.train / self.weights.sum())

    def fit_options(self, n_folds: int) -> dict[str, Any]:
        """Return the options of a ridge fit: trials of one stimulus stay in one fold."""
        names, groups = np.unique(np.asarray(self.train_ids), return_inverse=True)
        options: dict[str, Any] = {"n_folds": min(n_folds, len(names)), "standardize": False}
        if len(names) < len(self.train_ids):
            options["groups"] = groups
        if self.weights is not None:  # rows were centred by their weights
            options["fit_intercept"] = False
        return options

    def targets(self, columns: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the training responses of some voxels for a ridge fit, and their offset."""
        values = self.train[:, columns]
        if self.weights is None:
            return values, np.zeros(values.shape[1])
        center = self.center[columns]
        return np.sqrt(self.weights)[:, None] * (values - center), center

    def all_targets(self) -> tuple[NDArray[Any] | ComputedMatrix, NDArray[np.float64]]:
        """Return the training responses of all voxels for a ridge fit, and their offsets.

        Weighted responses are computed when the fit reads them, without a copy of all voxels.
        """
        if self.weights is None:
            return self.train, np.zeros(self.train.shape[1])
        root, center = np.sqrt(self.weights)[:, None], self.center
        shape = (self.train.shape[0], self.train.shape[1])
        columns = partial(_weighted_columns, self.train, root, center)
        return ComputedMatrix(shape, np.float64, columns), center

    def rows(self, features: Features, ids: Sequence[str]) -> tuple[Features, Features]:
        """Return the features of training and test stimuli, flattened and scaled.

        Features are centred on the training stimuli and divided by one number for the whole
        space, the root of the mean variance. Columns are not scaled separately, so the fit does
        not depend on the axes of the space, and principal components are equivalent to the
        features.

        Parameters
        ----------
        features : array of shape (n, ...)
            One row for each of ``ids``.
        ids : sequence of n str
            Stimulus of each row.

        Returns
        -------
        train, test : float32 array of shape (n_train, n_features), (n_test, n_features)

        Raises
        ------
        ShapeError
            If rows and ids are not equally many, or a stimulus has no features.
        """
        if len(features) != len(ids):
            raise ShapeError(
                f"There are features of {len(features)} stimuli for {len(ids)} ids; give one row "
                "each."
            )
        place = {key: row for row, key in enumerate(ids)}
        missing = [key for key in (*self.train_ids, *self.test_ids) if key not in place]
        if missing:
            raise ShapeError(
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


def _weighted_columns(
    train: NDArray[np.float32],
    root: NDArray[np.float64],
    center: NDArray[np.float64],
    columns: slice,
) -> NDArray[np.float64]:
    """Return centred responses of some voxels, multiplied by the roots of their weights."""
    return np.asarray(root * (train[:, columns] - center[columns]))
