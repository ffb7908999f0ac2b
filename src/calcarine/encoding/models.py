"""Voxel-wise encoding: feature spaces of stimuli to the responses of single voxels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets import BrainDataset, Split
from calcarine.errors import CalcarineError
from calcarine.linear import RidgeEdgeWarning, partition_variance, ridge_cv

__all__ = ["EncodingScores", "MeanResponses", "column_correlations", "encode", "unique_variance"]

Features = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MeanResponses:
    """Responses averaged over the repeats of a stimulus, on both sides of a split.

    Attributes
    ----------
    train, test
        float32, shapes (training stimuli, voxel) and (test stimuli, voxel).
    train_ids, test_ids
        Stimulus of each row.
    """

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]

    @classmethod
    def of(
        cls, dataset: BrainDataset, split: str | Split | None = None, roi: str = "all"
    ) -> MeanResponses:
        """Average a data set's trials.

        Parameters
        ----------
        dataset, split, roi
            See `BrainDataset`.
        """
        single, test = dataset.train(split, roi), dataset.test(split, roi)
        ids, owner, times = np.unique(
            np.asarray(single.stimulus_ids), return_inverse=True, return_counts=True
        )
        sums = np.zeros((len(ids), single.data.shape[1]), dtype=np.float32)
        np.add.at(sums, owner, single.data)
        sums /= times[:, None].astype(np.float32)
        return cls(sums, test.data, tuple(map(str, ids)), test.stimulus_ids)

    def rows(self, features: Features, ids: Sequence[str]) -> tuple[Features, Features]:
        """Features of the training and of the test stimuli, each flattened to a matrix.

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
        return train, flat[[place[key] for key in self.test_ids]]


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
    block: int = 50_000,
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
    block
        Voxels that are fitted at a time.

    Returns
    -------
    EncodingScores

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.4: L2-regularised regression
    from features to each voxel, weights from the training data, tested on
    averaged responses.
    """
    x, x_test = responses.rows(features, ids)
    options: dict[str, Any] = {} if alphas is None else {"alphas": alphas}
    parts: list[tuple[NDArray[Any], ...]] = []
    for columns in _blocks(responses.train.shape[1], block):
        with warnings.catch_warnings():
            # Voxels without signal want the largest penalty there is.
            warnings.simplefilter("ignore", RidgeEdgeWarning)
            fit = ridge_cv(x, responses.train[:, columns], n_folds=min(n_folds, len(x)), **options)
        guess = np.asarray(fit.predict(x_test), dtype=np.float32)
        truth = responses.test[:, columns]
        parts.append(
            (column_correlations(guess, truth), _r2(guess, truth), fit.cv_scores, fit.alpha, guess)
        )
    r, r2, cv, alpha, guesses = (
        np.concatenate(found, axis=-1) for found in zip(*parts, strict=True)
    )
    return EncodingScores(r, r2, cv, alpha, guesses)


def unique_variance(
    responses: MeanResponses,
    spaces: Mapping[str, Features],
    ids: Sequence[str],
    *,
    n_folds: int = 5,
    block: int = 50_000,
    **options: Any,
) -> dict[str, NDArray[np.float64]]:
    """Test variance that only one of several feature spaces explains.

    Parameters
    ----------
    responses
        Averaged over repeats.
    spaces, ids
        Features by name; see `MeanResponses.rows`.
    n_folds, block
        As in `encode`.
    options
        Of `calcarine.linear.partition_variance`.

    Returns
    -------
    dict
        ``"together"``: r2 of all spaces; and by name the r2 that is lost
        without that space, each of shape (voxel,).

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.4 (ii) and (iii); unique
    variance is the r2 of the joint model minus that of the model without the
    space, each space with a penalty of its own.
    """
    if "together" in spaces:
        raise CalcarineError("A feature space cannot be called together; rename it.")
    train, test = {}, {}
    for name, values in spaces.items():
        train[name], test[name] = responses.rows(values, ids)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("together", *spaces)}
    for columns in _blocks(responses.train.shape[1], block):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RidgeEdgeWarning)
            part = partition_variance(
                train, responses.train[:, columns], test, responses.test[:, columns],
                n_folds=min(n_folds, len(responses.train)), **options,
            )  # fmt: skip
        found["together"].append(part.r2)
        for row, name in enumerate(part.names):
            found[name].append(part.unique[row])
    return {name: np.concatenate(parts) for name, parts in found.items()}


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


def _r2(guess: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    total = ((truth - truth.mean(0, dtype=np.float64)) ** 2).sum(0)
    error = ((truth - guess.astype(np.float64)) ** 2).sum(0)
    return np.asarray(1.0 - np.divide(error, total, out=np.ones_like(error), where=total > 0))


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
