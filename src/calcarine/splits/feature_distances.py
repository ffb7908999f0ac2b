"""Distances between stimuli in a feature space, block by block."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.stimuli.images import resize_images
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = [
    "METRICS",
    "Metric",
    "clusters",
    "mahalanobis",
    "nearest",
    "pixel_features",
    "to_euclidean",
]

FloatArray = NDArray[np.float64]
Metric = Literal["correlation", "cosine", "euclidean"]
METRICS: tuple[str, ...] = get_args(Metric)

_BLOCK = 2048
_PICTURES = 256
# Lightness, red against green, yellow against blue: what the eye compares.
_OPPONENT = np.array([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])


def pixel_features(
    stimuli: StimulusSet, ids: tuple[str, ...] | None = None, size: int = 8
) -> NDArray[np.float32]:
    """Return small pictures in opponent colours: where light and colour are.

    Parameters
    ----------
    stimuli : StimulusSet
        Read some at a time.
    ids : tuple of str, optional
        Names and their order; by default all.
    size : int
        Side in pixels after averaging.

    Returns
    -------
    float32 array of shape (n, size * size * 3)
        Lightness and colour differences from -.5 to .5.
    """
    names = stimuli.ids if ids is None else tuple(ids)
    result = np.empty((len(names), size * size * 3), dtype=np.float32)
    for start in range(0, len(names), _PICTURES):
        part = names[start : start + _PICTURES]
        small = resize_images(stimuli.images(part), size).astype(np.float64) / 255.0 - 0.5
        result[start : start + len(part)] = (small @ _OPPONENT.T).reshape(len(part), -1)
    return result


def to_euclidean(features: ArrayLike, count: int, metric: str = "correlation") -> FloatArray:
    """Check features and transform them so that the metric becomes Euclidean.

    Parameters
    ----------
    features : array
        Shape (n, ...); what follows the first axis is flattened.
    count : int
        Number of stimuli that there must be.
    metric : str
        ``"correlation"`` and ``"cosine"`` give rows of length 1 (0 for a row
        without any variation), ``"euclidean"`` leaves them.

    Returns
    -------
    float64 array of shape (n, d)

    Raises
    ------
    CalcarineError
        If shape, values or metric are wrong.
    """
    values = np.asarray(features)
    if metric not in METRICS:
        raise SettingError(f"There is no distance {metric}; there are {', '.join(METRICS)}.")
    if values.ndim < 2 or len(values) != count or not values.size:
        raise ShapeError(
            f"Features need one row for each of {count} stimuli, not shape {values.shape}."
        )
    if values.dtype.kind not in "uif" or not np.isfinite(values).all():
        raise CalcarineError(
            "Features must be finite numbers; correct or remove the rows that are not."
        )
    rows = values.reshape(count, -1).astype(np.float64)
    if metric == "euclidean":
        return rows
    if metric == "correlation":
        rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12))


def nearest(
    queries: FloatArray,
    base: FloatArray,
    metric: str = "correlation",
    k: int = 1,
    own: NDArray[np.int64] | None = None,
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the k nearest rows of a base, nearest first.

    Parameters
    ----------
    queries, base : float array
        From `to_euclidean`, shapes (q, d) and (n, d).
    metric : str
        The split of the preparation.
    k : int
        How many.
    own : int array, optional
        For each query the row of the base that is the query itself and is
        not to be found, shape (q,).

    Returns
    -------
    distances, rows
        Shape (q, k), fewer than k if the base is smaller; for k = 1 the
        earlier row where two are equally near.
    """
    k = min(k, len(base) - (own is not None))
    best = np.full((len(queries), k), np.inf)
    rows = np.zeros((len(queries), k), dtype=np.int64)
    for first in range(0, len(queries), _BLOCK):
        part = slice(first, first + _BLOCK)
        for start in range(0, len(base), _BLOCK):
            found = squared(queries[part], base[start : start + _BLOCK])
            if own is not None:
                _hide(found, own[part] - start)
            places = np.broadcast_to(np.arange(start, start + found.shape[1]), found.shape)
            both = np.concatenate([best[part], found], axis=1)
            which = np.concatenate([rows[part], places], axis=1)
            order = _smallest(both, k)
            best[part] = np.take_along_axis(both, order, axis=1)
            rows[part] = np.take_along_axis(which, order, axis=1)
    # Differences lose no digits where products of long vectors do.
    for place in range(k):
        best[:, place] = _exact(queries, base, rows[:, place], metric)
    return best, rows


def clusters(values: FloatArray, count: int, method: str, seed: int) -> NDArray[np.int64]:
    """Return the cluster of each row, by ``"kmeans"`` or ``"agglomerative"`` (Ward)."""
    from sklearn.cluster import AgglomerativeClustering, KMeans

    if method == "kmeans":
        result = KMeans(count, n_init=10, random_state=seed).fit_predict(values)
    elif method == "agglomerative":
        result = AgglomerativeClustering(count).fit_predict(values)
    else:
        raise SettingError(f"Clusters are made by kmeans or agglomerative, not by {method}.")
    return np.asarray(result, dtype=np.int64)


def mahalanobis(values: FloatArray, n_components: int) -> tuple[FloatArray, int]:
    """Return the distance of each row from the mean in SDs of principal components."""
    centred = values - values.mean(0)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    used = min(n_components, int((spread > 1e-9 * max(spread[0], 1e-300)).sum()))
    return np.linalg.norm(left[:, :used], axis=1) * np.sqrt(len(values) - 1), used


def squared(queries: FloatArray, base: FloatArray) -> FloatArray:
    """Return squared Euclidean distances, shape (q, n)."""
    result = queries @ base.T
    result *= -2.0
    result += (queries**2).sum(1)[:, None]
    result += (base**2).sum(1)
    return np.maximum(result, 0.0, out=result)


def _smallest(values: FloatArray, k: int) -> NDArray[np.intp]:
    if k == 1:
        return np.asarray(values.argmin(1)[:, None])
    # A stable sort of few candidates keeps the earlier one where two are equal.
    chosen = np.sort(np.argpartition(values, min(k, values.shape[1]) - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(np.take_along_axis(values, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def _hide(found: FloatArray, own: NDArray[np.int64]) -> None:
    inside = np.flatnonzero((own >= 0) & (own < found.shape[1]))
    found[inside, own[inside]] = np.inf


def _exact(
    queries: FloatArray, base: FloatArray, rows: NDArray[np.int64], metric: str
) -> FloatArray:
    result = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        part = slice(start, start + _BLOCK)
        a, b = queries[part], base[rows[part]]
        square = ((a - b) ** 2).sum(1)
        if metric == "euclidean":
            result[part] = np.sqrt(square)
        else:
            # One less the product; the squared difference halved where both have length 1.
            flat = ~(a.any(1) & b.any(1))
            result[part] = np.where(flat, 1.0, square / 2.0)
    return result
