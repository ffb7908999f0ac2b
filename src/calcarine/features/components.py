"""Principal components of features that do not fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import ShapeError
from calcarine.features.store import FeatureStore

__all__ = ["principal_components", "stored_components"]

_BLOCK_VALUES = 32_000_000


def principal_components(
    features: Any, train: ArrayLike, n_components: int = 6400
) -> NDArray[np.float32]:
    """Project stimuli onto the first principal components of the training stimuli.

    Parameters
    ----------
    features : array of shape (n, ...)
        In memory or on disk (Zarr, HDF5); read once or twice, some columns at a time.
    train : bool array of shape (n,)
        Stimuli on which the mean and the components are fitted.
    n_components : int
        Number of components (6,400 in Takagi & Nishimoto 2023, section 3.4); fewer if there are
        fewer training stimuli or columns.

    Returns
    -------
    float32 array of shape (n, k)
        As in ``sklearn.decomposition.PCA``, apart from the sign: the training score with the
        largest absolute value is positive.

    Raises
    ------
    ShapeError
        If there are fewer than two training stimuli, or a value is not finite.

    Notes
    -----
    The components, which are as long as the features, are never computed. With fewer training
    stimuli than columns, the scores come from the inner products of stimuli, otherwise from those
    of columns.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.features import principal_components
    >>> features = np.random.default_rng(0).standard_normal((50, 8, 8))
    >>> train = np.arange(50) < 40  # the test stimuli do not decide the components
    >>> principal_components(features, train, n_components=10).shape
    (50, 10)
    """
    chosen = np.asarray(train)
    if chosen.dtype != np.bool_ or chosen.shape != (features.shape[0],):
        raise ShapeError(
            f"train must be boolean, one value for each of {features.shape[0]} stimuli."
        )
    rows = np.flatnonzero(chosen)
    width = int(np.prod(features.shape[1:], dtype=np.int64))
    k = min(n_components, len(rows) - 1, width)
    if len(rows) < 2 or k < 1:
        raise ShapeError(
            f"Principal components need two training stimuli and one component, not {len(rows)} "
            f"and {n_components}."
        )
    by_stimuli = len(rows) <= width
    scores = _by_stimuli(features, rows, k) if by_stimuli else _by_columns(features, rows, k)
    inside = scores[rows]
    signs = np.sign(inside[np.abs(inside).argmax(0), np.arange(scores.shape[1])])
    return (scores * np.where(signs == 0, 1.0, signs)).astype(np.float32)


def stored_components(
    store: FeatureStore,
    name: str,
    features: Any,
    digest: str,
    train: NDArray[np.bool_],
    n_components: int,
) -> NDArray[np.float32]:
    """Return the principal components of a feature space, computed only if they are not stored.

    Parameters
    ----------
    store : FeatureStore
    name : str
        Name of the feature space.
    features, train, n_components
        See `principal_components`.
    digest : str
        Hash of the features.

    Returns
    -------
    float32 array of shape (n, k)
    """
    made_of = {
        "features": digest,
        "train": hashlib.sha256(train.tobytes()).hexdigest(),
        "components": n_components,
    }

    @cache
    def made() -> NDArray[np.float32]:
        return principal_components(features, train, n_components)

    n = features.shape[0]
    return store.get(
        f"{name}, principal components",
        made_of,
        n,
        lambda: made().shape[1:],
        lambda rows: made()[rows],
        n,
    )


def _by_stimuli(features: Any, rows: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    products = np.zeros((features.shape[0], len(rows)))
    for block in _column_blocks(features):
        block -= block[rows].mean(0)
        products += block @ block[rows].T
    values, vectors = _leading(products[rows], k)
    return np.asarray(products @ (vectors / np.sqrt(values)))


def _by_columns(features: Any, rows: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    whole = np.concatenate(list(_column_blocks(features)), axis=1)
    whole -= whole[rows].mean(0)
    _, vectors = _leading(whole[rows].T @ whole[rows], k)
    return np.asarray(whole @ vectors)


def _leading(
    matrix: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues above rounding error, and their vectors."""
    from scipy.linalg import eigh

    n = len(matrix)
    values, vectors = eigh((matrix + matrix.T) / 2, subset_by_index=[n - k, n - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    real = values > values[0] * n * np.finfo(np.float64).eps
    if not real.any():
        raise ShapeError("All training stimuli have the same features, so there are no components.")
    return values[real], vectors[:, real]


def _column_blocks(features: Any) -> Iterator[NDArray[np.float64]]:
    """Iterate over blocks of columns of all stimuli, along the chunks, as float64."""
    n, shape = features.shape[0], features.shape[1:]
    stored = getattr(features, "chunks", None)
    step = list(stored[1:]) if stored else list(shape)
    # Whole trailing axes as far as they fit, then several chunks of the first.
    for axis in reversed(range(len(shape))):
        others = int(np.prod(step, dtype=np.int64)) // step[axis]
        fits = max(1, _BLOCK_VALUES // max(1, n * others * step[axis]))
        step[axis] = min(shape[axis], step[axis] * fits)
    starts = [range(0, size, part) for size, part in zip(shape, step, strict=True)]
    for corner in product(*starts):
        place = tuple(slice(at, at + part) for at, part in zip(corner, step, strict=True))
        block = np.asarray(features[(slice(None), *place)], dtype=np.float64).reshape(n, -1)
        if not np.isfinite(block).all():
            row = int(np.flatnonzero(~np.isfinite(block).all(1))[0])
            raise ShapeError(
                f"The features of stimulus number {row} hold NaN or infinity; extract them again."
            )
        yield block
