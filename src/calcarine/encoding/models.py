"""Voxel-wise encoding models: from feature spaces of stimuli to the responses of voxels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from calcarine.brain import BrainDataset, Split
from calcarine.devices import on_cpu_if_full
from calcarine.display import html_table
from calcarine.encoding.mean_responses import Features, MeanResponses
from calcarine.errors import SettingError
from calcarine.linear import RidgeEdgeWarning, banded_ridge_cv, iter_ridge_cv

__all__ = [
    "TOGETHER",
    "EncodingScores",
    "UniqueVariance",
    "column_correlations",
    "column_r2",
    "encode",
    "unique_variance",
]

TOGETHER = 50_000
"""Number of voxels that `unique_variance` fits together by default."""


@dataclass(frozen=True, eq=False, repr=False)
class EncodingScores:
    """Scores of one feature space for each voxel.

    Attributes
    ----------
    r : float array of shape (n_voxels,)
        Pearson correlation of predicted and measured test responses; NaN if one is constant.
    r2 : float array of shape (n_voxels,)
        Coefficient of determination of the test responses.
    cv_r2 : float array of shape (n_voxels,)
        The same, cross-validated inside the training stimuli.
    alpha : float array of shape (n_voxels,)
        Chosen penalty of each voxel.
    predicted : float32 array of shape (n_test, n_voxels)
        Predicted test responses.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(50))
    >>> rng = np.random.default_rng(0)
    >>> features = rng.standard_normal((50, 5))
    >>> trials = features @ rng.standard_normal((5, 8)) + rng.standard_normal((50, 8))
    >>> brain = ca.BrainDataset.from_arrays(trials, seen.ids, seen, test=10)
    >>> scores = ca.encode(brain, features)
    >>> scores.r.shape, scores.predicted.shape
    ((8,), (10, 8))
    >>> bool(scores.r.mean() > 0.5)
    True
    """

    r: NDArray[np.float64]
    r2: NDArray[np.float64]
    cv_r2: NDArray[np.float64]
    alpha: NDArray[np.float64]
    predicted: NDArray[np.float32]

    def __repr__(self) -> str:
        mean = float(np.nanmean(self.r)) if np.isfinite(self.r).any() else float("nan")
        return (
            f"EncodingScores({len(self.r)} voxels, {len(self.predicted)} test stimuli, "
            f"mean r {mean:.3f})"
        )

    def _repr_html_(self) -> str:
        low, middle, high = np.nanquantile(self.r, [0.05, 0.5, 0.95])
        return html_table(
            "EncodingScores",
            {
                "voxels": len(self.r),
                "test stimuli": len(self.predicted),
                "median r": f"{middle:.3f}",
                "r, 5 % to 95 % of the voxels": f"{low:.3f} to {high:.3f}",
                "median cross-validated r2": f"{np.median(self.cv_r2):.3f}",
            },
        )


@overload
def encode(
    responses: MeanResponses | BrainDataset,
    features: Mapping[str, Features],
    ids: Sequence[str] | None = ...,
    *,
    split: str | Split | None = ...,
    roi: str = ...,
    alphas: NDArray[np.float64] | None = ...,
    n_folds: int = ...,
    block_size: int | None = ...,
    device: str = ...,
) -> dict[str, EncodingScores]: ...
@overload
def encode(
    responses: MeanResponses | BrainDataset,
    features: Features,
    ids: Sequence[str] | None = ...,
    *,
    split: str | Split | None = ...,
    roi: str = ...,
    alphas: NDArray[np.float64] | None = ...,
    n_folds: int = ...,
    block_size: int | None = ...,
    device: str = ...,
) -> EncodingScores: ...
def encode(
    responses: MeanResponses | BrainDataset,
    features: Features | Mapping[str, Features],
    ids: Sequence[str] | None = None,
    *,
    split: str | Split | None = None,
    roi: str = "all",
    alphas: NDArray[np.float64] | None = None,
    n_folds: int = 5,
    block_size: int | None = None,
    device: str = "cpu",
) -> EncodingScores | dict[str, EncodingScores]:
    """Fit ridge regressions from features to every voxel, and predict the test stimuli.

    Parameters
    ----------
    responses : BrainDataset or MeanResponses
        A data set, or its averaged responses.
    features : array of shape (n, ...), or mapping of str to such arrays
        One feature space, or several by name, each fitted alone. One row for each of ``ids``.
    ids : sequence of n str, optional
        Stimulus of each row; by default all stimuli of the data set, in order.
    split : str, Split or None
        Of a data set: a split, or its name; None takes the first.
    roi : str
        Of a data set: the region to predict.
    alphas : array, optional
        Penalties; the default of :func:`calcarine.linear.ridge_cv` otherwise.
    n_folds : int
        Number of folds over training stimuli that choose the penalty of each voxel.
    block_size : int, optional
        Largest number of voxels that are solved at once; see `calcarine.linear.ridge_cv`. It
        changes speed and memory only.
    device : str
        Where regressions are fitted; see `calcarine.linear.ridge_cv`.

    Returns
    -------
    EncodingScores, or dict of str to EncodingScores
        By name if ``features`` is a mapping.

    Raises
    ------
    ShapeError
        If features and ids are not equally many, or a stimulus of the split has no features.

    See Also
    --------
    calcarine.encoding.analyse : Tests, regions and comparisons of several spaces.

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.4: ridge regression from features to each voxel,
    fitted on the training data and tested on averaged responses.

    The features are decomposed once for all voxels. Weights are computed for one block of voxels
    at a time and are not kept.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> brain = ca.load_dataset("simulated", n_train=60, n_test=10)
    >>> small = brain.stimuli.images()[:, ::8, ::8].astype(np.float32)
    >>> scores = ca.encode(brain, {"pixels": small, "colour": small.mean((1, 2))}, roi="early")
    >>> list(scores)
    ['pixels', 'colour']
    """
    if isinstance(responses, BrainDataset):
        ids = responses.stimuli.ids if ids is None else ids
        responses = MeanResponses.from_dataset(responses, split, roi)
    elif ids is None:
        raise SettingError("encode needs ids with MeanResponses: the stimulus of each row.")
    options: dict[str, Any] = {
        "alphas": alphas,
        "n_folds": n_folds,
        "block_size": block_size,
        "device": device,
    }
    if isinstance(features, Mapping):
        return {
            name: _encode_space(responses, np.asarray(values[:]), ids, **options)
            for name, values in features.items()
        }
    return _encode_space(responses, features, ids, **options)


def _encode_space(
    responses: MeanResponses,
    features: Features,
    ids: Sequence[str],
    *,
    alphas: NDArray[np.float64] | None,
    n_folds: int,
    block_size: int | None,
    device: str,
) -> EncodingScores:
    x, x_test = responses.rows(features, ids)
    options = responses.fit_options(n_folds) | ({} if alphas is None else {"alphas": alphas})
    targets, center = responses.all_targets()
    n_voxels = responses.train.shape[1]

    def scored(place: str) -> EncodingScores:
        r, r2, cv_r2, alpha = (np.empty(n_voxels) for _ in range(4))
        predicted = np.empty((len(x_test), n_voxels), dtype=np.float32)
        for columns, fit in iter_ridge_cv(
            x, targets, block_size=block_size, device=place, **options
        ):
            predicted[:, columns] = fit.predict(x_test) + center[columns]
            target = responses.test[:, columns]
            r[columns] = column_correlations(predicted[:, columns], target)
            r2[columns] = column_r2(predicted[:, columns], target)
            cv_r2[columns], alpha[columns] = fit.cv_scores, fit.alpha
        return EncodingScores(r, r2, cv_r2, alpha, predicted)

    return on_cpu_if_full(scored, device)


@dataclass(frozen=True, eq=False)
class UniqueVariance:
    """Variance of the test responses that only one of several feature spaces predicts.

    Attributes
    ----------
    r2 : float array of shape (n_voxels,)
        r2 of all spaces together.
    unique : mapping of str to float array of shape (n_voxels,)
        By space, the r2 that is lost without it.
    predicted : float32 array of shape (n_test, n_voxels)
        Test responses predicted by all spaces.
    predicted_without : mapping of str to float32 array of shape (n_test, n_voxels)
        By space, test responses predicted by the other spaces.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import MeanResponses, unique_variance
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(50))
    >>> rng = np.random.default_rng(0)
    >>> spaces = {"z": rng.standard_normal((50, 4)), "c": rng.standard_normal((50, 4))}
    >>> brain = ca.BrainDataset.from_arrays(spaces["z"], seen.ids, seen, test=10)
    >>> variance = unique_variance(MeanResponses.from_dataset(brain), spaces, seen.ids)
    >>> variance.r2.shape, variance.predicted_without["z"].shape
    ((4,), (10, 4))
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
    block: int = TOGETHER,
) -> UniqueVariance:
    """Compute the unique variance of each of several feature spaces.

    All spaces are fitted together, each with its own penalty, and again without each of them.

    Parameters
    ----------
    responses : MeanResponses
        Responses of one split.
    spaces : mapping of str to array
        Features of at least two spaces by name; see `MeanResponses.rows`.
    ids : sequence of str
        Stimulus of each row.
    alone : mapping of str to EncodingScores, optional
        Results of `encode` for single spaces, which are then not fitted again when two spaces are
        compared.
    alphas, n_folds
        See `encode`.
    n_candidates : int, optional
        See `calcarine.linear.banded_ridge_cv`.
    block : int
        Number of voxels that are fitted together.

    Returns
    -------
    UniqueVariance

    Notes
    -----
    Source: Takagi & Nishimoto (2023), section 3.4 (ii) and (iii).

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.encoding import MeanResponses, unique_variance
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(50))
    >>> rng = np.random.default_rng(0)
    >>> spaces = {"z": rng.standard_normal((50, 4)), "c": rng.standard_normal((50, 4))}
    >>> brain = ca.BrainDataset.from_arrays(spaces["z"], seen.ids, seen, test=10)
    >>> variance = unique_variance(MeanResponses.from_dataset(brain), spaces, seen.ids)
    >>> {name: bool((unique > 0.5).all()) for name, unique in variance.unique.items()}
    {'z': True, 'c': False}
    """
    if len(spaces) < 2:
        raise SettingError("Unique variance compares feature spaces; give at least two.")
    options: dict[str, Any] = {} if alphas is None else {"alphas": alphas}
    parts = {name: responses.rows(values, ids) for name, values in spaces.items()}

    def together(names: Sequence[str]) -> NDArray[np.float32]:
        predictions = []
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
            predictions.append(fit.predict({name: parts[name][1] for name in names}) + center)
        return np.concatenate(predictions, axis=1).astype(np.float32)

    without: dict[str, NDArray[np.float32]] = {}
    for name in spaces:
        rest = [other for other in spaces if other != name]
        if len(rest) > 1:
            without[name] = together(rest)
        elif alone is not None and rest[0] in alone:
            without[name] = alone[rest[0]].predicted
        else:
            scores = encode(responses, spaces[rest[0]], ids, alphas=alphas, n_folds=n_folds)
            without[name] = scores.predicted
    predicted = together(list(spaces))
    r2 = column_r2(predicted, responses.test)
    unique = {
        name: r2 - column_r2(rest_only, responses.test) for name, rest_only in without.items()
    }
    return UniqueVariance(r2, unique, predicted, without)


def column_correlations(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the Pearson correlation of each column of a with the same column of b.

    Parameters
    ----------
    a, b : array of shape (n, n_voxels)

    Returns
    -------
    float array of shape (n_voxels,)
        NaN if one of the two columns is constant.
    """
    a = a - a.mean(0, dtype=np.float64)
    b = b - b.mean(0, dtype=np.float64)
    both = np.einsum("ij,ij->j", a, b)
    length = np.sqrt(np.einsum("ij,ij->j", a, a) * np.einsum("ij,ij->j", b, b))
    return np.asarray(np.divide(both, length, out=np.full_like(both, np.nan), where=length > 0))


def column_r2(predicted: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Return the r2 of each column of a prediction, shape (n_voxels,)."""
    total = ((target - target.mean(0, dtype=np.float64)) ** 2).sum(0)
    error = ((target - predicted.astype(np.float64)) ** 2).sum(0)
    return np.asarray(1.0 - np.divide(error, total, out=np.ones_like(error), where=total > 0))


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
