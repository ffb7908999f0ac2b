"""Similarities of all pairs of ground truths and reconstructions, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError, ShapeError
from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.slices import blocks

__all__ = [
    "correlation_matrix",
    "cosine_matrix",
    "frechet_distance",
    "paired_correlation",
    "squared_distance_matrix",
]

FloatArray = NDArray[np.float64]

_BLOCK = 8192
# Block size that fits into the cache of a core.
_ROWS_BYTES = 2 * 2**20
# Largest mean, in standard deviations, for products of uncentred rows.
_LARGEST_OFFSET = 4.0
# Number of multiplications above which single precision saves time.
_LARGE = 2e10
_CLOSE_SHARE = 0.02


def correlation_matrix(
    truth: NDArray[Any], recon: NDArray[Any], single: bool | None = None
) -> FloatArray:
    """Compute the Pearson correlation of every ground truth with every reconstruction.

    Large problems are multiplied in single precision, in blocks of features. Entries that are too
    close to the diagonal entry of their row or column for that precision are computed again in
    double precision, so identification has the same result as in double precision.

    Parameters
    ----------
    truth, recon : array of shape (n, features)
        Arrays or memory maps.
    single : bool, optional
        Whether to multiply in single precision; by default this depends on the size.

    Returns
    -------
    float64 array of shape (n, n)
        Row: ground truth, column: reconstruction. A constant row has correlation 0.

    Raises
    ------
    CalcarineError
        If the shapes differ or a feature is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import correlation_matrix
    >>> truth = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    >>> recon = np.array([[2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])
    >>> correlation_matrix(truth, recon).round(2)
    array([[ 1. , -1. ],
           [-0.5,  0.5]])
    """
    if truth.ndim != 2 or truth.shape != recon.shape:
        raise ShapeError(
            f"The features have shapes {truth.shape} (ground truths) and {recon.shape} "
            "(reconstructions); give both as (n, features)."
        )
    n, width = truth.shape
    if single is None:
        single = float(n) * n * width > _LARGE
    scales = _scales(truth), _scales(recon)
    if not single:
        return _product(truth, recon, scales, np.float64)
    matrix = _product(truth, recon, scales, np.float32)
    return _refined(matrix, truth, recon, scales)


def paired_correlation(truth: NDArray[Any], recon: NDArray[Any]) -> FloatArray:
    """Compute the Pearson correlation of each ground truth with its own reconstruction."""
    scales = _scales(truth), _scales(recon)
    rows = np.arange(len(truth))
    return _exact(truth, recon, scales, rows, rows)


def squared_distance_matrix(truth: NDArray[Any], recon: NDArray[Any]) -> FloatArray:
    """Compute the squared Euclidean distances of all pairs, shape (n, n)."""
    n, width = truth.shape
    matrix = np.zeros((n, n))
    for block in blocks(width, _BLOCK):
        residual, right = truth[:, block].astype(np.float64), recon[:, block].astype(np.float64)
        squares = np.square(residual).sum(1)[:, None] + np.square(right).sum(1)[None]
        matrix += squares - 2 * (residual @ right.T)
    own = np.arange(n)
    matrix[own, own] = [
        np.square(truth[i].astype(np.float64) - recon[i].astype(np.float64)).sum() for i in own
    ]
    return np.maximum(matrix, 0.0)


def cosine_matrix(truth: NDArray[Any], recon: NDArray[Any]) -> FloatArray:
    """Compute the cosine similarity of every row of ``truth`` with every row of ``recon``."""
    residual, right = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (truth, recon))
    lengths = np.linalg.norm(residual, axis=1), np.linalg.norm(right, axis=1)
    if not (np.isfinite(lengths[0]).all() and np.isfinite(lengths[1]).all()):
        raise CalcarineError("The embeddings contain NaN or infinity; compute them again.")
    inverse = [1 / np.where(length == 0, 1, length) for length in lengths]
    matrix: FloatArray = (residual * inverse[0][:, None]) @ (right * inverse[1][:, None]).T
    return matrix


def frechet_distance(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Compute the Frechet distance of two sets of features (Heusel et al. 2017).

    ``|m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))`` with sample covariances (n - 1), as in
    torchmetrics. With S = A A', the last trace is the sum of the singular values of A_x' A_y, so no
    matrix is larger than the smaller of n and the width.

    Parameters
    ----------
    x, y : array of shape (n, width)

    Returns
    -------
    float

    Raises
    ------
    CalcarineError
        If a set has fewer than two images, or a feature is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import frechet_distance
    >>> x = np.random.default_rng(0).standard_normal((50, 4))
    >>> abs(round(frechet_distance(x, x), 6))
    0.0
    >>> round(frechet_distance(x, x + 3), 6)  # four features, each shifted by 3
    36.0
    """
    if len(x) < 2 or len(y) < 2:
        raise ShapeError(
            f"A Frechet distance needs at least two images per set, not {len(x)} and {len(y)}; add "
            "images."
        )
    residual, right = (np.asarray(z, np.float64) for z in (x, y))
    if not (np.isfinite(residual).all() and np.isfinite(right).all()):
        raise CalcarineError(matrices.NOT_FINITE)
    mean = residual.mean(0) - right.mean(0)
    roots = [(z - z.mean(0)).T / np.sqrt(len(z) - 1) for z in (residual, right)]
    spread = sum(float(np.square(root).sum()) for root in roots)
    # With more images than features, the triangular factor has the same covariance.
    small = [_triangle(r) if r.shape[1] > r.shape[0] else r for r in roots]
    shared = float(np.linalg.svd(small[0].T @ small[1], compute_uv=False).sum())
    return max(0.0, float(mean @ mean) + spread - 2 * shared)


def _triangle(root: FloatArray) -> FloatArray:
    triangle: FloatArray = np.asarray(np.linalg.qr(root.T, mode="r"))
    return triangle.T


_Scales = tuple[FloatArray, FloatArray]


def _scales(x: NDArray[Any]) -> _Scales:
    """Return the mean and inverse length of each centred row, in double precision."""
    mean, inverse = np.empty(len(x)), np.empty(len(x))

    def fill(rows: slice) -> None:
        mean[rows], inverse[rows] = matrices.centre(x[rows].astype(np.float64))

    _in_threads(fill, blocks(len(x), _ROWS_BYTES // (8 * x.shape[1])))
    return mean, inverse


def _in_threads(work: Callable[[slice], None], parts: Iterable[slice]) -> None:
    """Run parts on all cores; numpy releases Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, parts))


def _product(
    truth: NDArray[Any], recon: NDArray[Any], scales: tuple[_Scales, _Scales], dtype: Any
) -> FloatArray:
    matrix = np.zeros((len(truth), len(recon)))
    if dtype == np.float32 and _plain(truth, scales[0]) and _plain(recon, scales[1]):
        # Means and lengths are applied afterwards, so that no scaled copy of features is needed.
        for block in blocks(truth.shape[1], 4 * _BLOCK):
            matrix += truth[:, block] @ recon[:, block].T
        matrix -= truth.shape[1] * np.outer(scales[0][0], scales[1][0])
        matrix *= scales[0][1][:, None]
        matrix *= scales[1][1][None]
        return matrix
    for block in blocks(truth.shape[1], _BLOCK):
        residual = _standardised(truth[:, block], scales[0], dtype)
        right = _standardised(recon[:, block], scales[1], dtype)
        matrix += residual @ right.T
    return matrix


def _plain(x: NDArray[Any], scale: _Scales) -> bool:
    """Return whether means are small enough for single-precision products of uncentred rows."""
    offset = np.abs(scale[0]) * scale[1] * np.sqrt(x.shape[1])
    return x.dtype == np.float32 and float(offset.max()) < _LARGEST_OFFSET


def _standardised(x: NDArray[Any], scales: _Scales, dtype: Any) -> NDArray[Any]:
    result = x.astype(np.float64)
    result -= scales[0][:, None]
    result *= scales[1][:, None]
    return result.astype(dtype, copy=False)


def _refined(
    matrix: FloatArray, truth: NDArray[Any], recon: NDArray[Any], scales: tuple[_Scales, _Scales]
) -> FloatArray:
    own = np.arange(len(matrix))
    exact = _exact(truth, recon, scales, own, own)
    margin = 1e-9 + 20 * float(np.abs(exact - matrix[own, own]).max())
    matrix[own, own] = exact
    close = np.abs(matrix - exact[:, None]) < margin
    close |= np.abs(matrix - exact[None]) < margin
    close[own, own] = False
    rows, columns = np.nonzero(close)
    if len(rows) > _CLOSE_SHARE * close.size:
        return _product(truth, recon, scales, np.float64)
    matrix[rows, columns] = _exact(truth, recon, scales, rows, columns)
    return matrix


def _exact(
    truth: NDArray[Any],
    recon: NDArray[Any],
    scales: tuple[_Scales, _Scales],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> FloatArray:
    """Compute the correlations of chosen pairs in double precision."""
    result = np.empty(len(rows))

    def fill(part: slice) -> None:
        i, j = rows[part], columns[part]
        residual = _standardised(truth[i], (scales[0][0][i], scales[0][1][i]), np.float64)
        right = _standardised(recon[j], (scales[1][0][j], scales[1][1][j]), np.float64)
        result[part] = np.einsum("ij,ij->i", residual, right)

    _in_threads(fill, blocks(len(rows), _ROWS_BYTES // (8 * truth.shape[1])))
    return result
