"""Score matrices of all pairs of ground truths and reconstructions.

Each metric is a matrix ``M`` of shape ``(n, n)``: ``M[i, j]`` is the score of the reconstruction
of image ``j`` compared with the ground truth of image ``i``. The diagonal has the scores of the
images, and its mean is the value of the metric. Shuffled pairs ``M[i, permutation[i]]`` give the
scores of a shuffled brain. Several samples of one image are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom, rankdata

from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.evaluation.metrics.structural_similarity import WINDOW

__all__ = [
    "GRAY",
    "NOT_FINITE",
    "SSIM_WINDOW",
    "TIE_TOLERANCE",
    "centre",
    "identification_matrix",
    "label_matrix",
    "n_way_top_k_matrix",
    "n_way_top_k_sampled",
]

FloatArray = NDArray[np.float64]

SSIM_WINDOW = WINDOW
GRAY = np.array([0.2125, 0.7154, 0.0721])
# Scores that differ by less are ties; they differ only by rounding.
TIE_TOLERANCE = 1e-9
NOT_FINITE = "Image features contain NaN or infinity; check the images and the network weights."


def identification_matrix(
    correlations: FloatArray,
    direction: Literal["image", "reconstruction"] = "image",
    ties: Literal["half", "failure"] = "half",
    groups: ArrayLike | None = None,
) -> FloatArray:
    """Compute two-way identification: the share of competitors that each pair beats.

    Parameters
    ----------
    correlations : array of shape (n, n)
        Similarities, averaged over samples; row: ground truth, column: reconstruction.
    direction : {"image", "reconstruction"}
        "image" fixes the ground truth and compares with the other reconstructions
        (Takagi & Nishimoto 2023): share of k != j with R[i, j] > R[i, k].
        "reconstruction" fixes the reconstruction and compares with the other ground truths
        (Brain-Diffuser, MindEye): share of k != i with R[i, j] > R[k, j].
    ties : {"half", "failure"}
        What a tie (a difference below 1e-9) counts. Published code counts a failure.
    groups : array of shape (n,), optional
        If given, only members of the same group compete, for example images of the same digit.

    Returns
    -------
    float64 array of shape (n, n)
        In [0, 1]; chance is .5 with ``ties="half"``. Pairs across groups are NaN.

    Raises
    ------
    CalcarineError
        If the matrix is not square and finite, or a group has a single member.

    Examples
    --------
    >>> import numpy as np
    >>> r = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.1, 0.2, 0.8]])
    >>> np.diagonal(identification_matrix(r)).round(2).tolist()
    [1.0, 0.5, 1.0]
    """
    _choose("direction", direction, ("image", "reconstruction"))
    _choose("ties", ties, ("half", "failure"))
    scores = np.asarray(correlations, np.float64)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not np.isfinite(scores).all():
        raise ShapeError(
            "Identification needs a square matrix of finite similarities, not an array of shape "
            f"{scores.shape}; pass the result of correlation_matrix."
        )
    if direction == "reconstruction":
        return identification_matrix(scores.T, "image", ties, groups).T
    shares = np.full(scores.shape, np.nan)
    for members in _members(groups, len(scores)):
        block = np.ix_(members, members)
        shares[block] = _share_beaten(scores[block], 0.5 if ties == "half" else 0.0)
    return shares


def n_way_top_k_matrix(
    truth_probabilities: NDArray[Any], recon_probabilities: NDArray[Any], n_way: int, k: int
) -> FloatArray:
    """Compute the probability that the class of the ground truth is among the top k of n classes.

    The class that a classifier predicts for the ground truth competes with ``n_way - 1`` classes
    drawn without replacement (MinD-Vis, Vis-Dec). The expectation over all draws has a closed form:
    with m classes more probable than the true one, success means that fewer than k of these m
    classes are drawn, which is hypergeometric. Classes of equal probability are ordered at random.

    Parameters
    ----------
    truth_probabilities : array of shape (n, classes)
    recon_probabilities : array of shape (n, samples, classes)
    n_way : int
        Number of classes in a draw, including the true one.
    k : int
        Number of ranks that count as success.

    Returns
    -------
    float64 array of shape (n, n)
        Row: ground truth, column: reconstruction. Chance is ``k / n_way``.

    Raises
    ------
    CalcarineError
        If shapes do not fit or not ``1 <= k <= n_way <= classes``.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import n_way_top_k_matrix
    >>> truth = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    >>> recon = np.array([[[0.7, 0.2, 0.1]], [[0.5, 0.3, 0.2]]])  # one sample of each
    >>> np.diagonal(n_way_top_k_matrix(truth, recon, n_way=2, k=1))
    array([1. , 0.5])
    """
    true_class = _true_classes(truth_probabilities, recon_probabilities, n_way, k)
    classes = recon_probabilities.shape[2]
    success = hypergeom.cdf(k - 1, classes - 1, np.arange(classes), n_way - 1)
    total = np.concatenate([[0.0], np.cumsum(success)])
    above = classes - rankdata(recon_probabilities, "max", axis=2).astype(np.int64)
    below = rankdata(recon_probabilities, "min", axis=2).astype(np.int64) - 1
    last = classes - below
    by_class = ((total[last] - total[above]) / (last - above)).mean(axis=1)
    return np.ascontiguousarray(np.clip(by_class[:, true_class].T, 0.0, 1.0))


def n_way_top_k_sampled(
    truth_probabilities: NDArray[Any],
    recon_probabilities: NDArray[Any],
    n_way: int,
    k: int,
    n_draws: int = 1000,
    seed: int = 0,
) -> FloatArray:
    """Estimate `n_way_top_k_matrix` from random draws, as in the code of MinD-Vis; slow.

    Parameters
    ----------
    truth_probabilities, recon_probabilities, n_way, k
        As for `n_way_top_k_matrix`.
    n_draws : int
        Number of draws of ``n_way - 1`` competitors for each ground truth.
    seed : int
        Seed of the draws.

    Returns
    -------
    float64 array of shape (n, n)
        Row: ground truth, column: reconstruction. Ties count as success.

    Raises
    ------
    CalcarineError
        As for `n_way_top_k_matrix`.
    """
    true_class = _true_classes(truth_probabilities, recon_probabilities, n_way, k)
    rng = np.random.default_rng(seed)
    n, _, classes = recon_probabilities.shape
    matrix = np.zeros((n, n))
    for i, label in enumerate(true_class):
        others = np.delete(np.arange(classes), label)
        own = recon_probabilities[..., label, None]
        for _ in range(n_draws):
            drawn = rng.choice(others, n_way - 1, replace=False)
            better = (recon_probabilities[..., drawn] > own).sum(axis=2)
            matrix[i] += (better < k).mean(axis=1)
    return matrix / n_draws


def label_matrix(
    labels: ArrayLike, recon_probabilities: NDArray[Any], classes: ArrayLike | None = None
) -> FloatArray:
    """Compute whether the predicted class of a reconstruction is the label of its ground truth.

    Parameters
    ----------
    labels : int array of shape (n,)
        Class index of each ground truth.
    recon_probabilities : array of shape (n, samples, classes)
    classes : int array, optional
        Indices of the classes that can be predicted; all by default.

    Returns
    -------
    float64 array of shape (n, n)
        Share of the samples with the right class; row: ground truth, column: reconstruction.

    Raises
    ------
    CalcarineError
        If a label is not among the classes, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import label_matrix
    >>> probabilities = np.array([[[0.9, 0.1]], [[0.6, 0.4]]])  # one sample each, two classes
    >>> matrix = label_matrix([0, 1], probabilities)
    >>> np.diagonal(matrix)  # the second reconstruction shows the wrong class
    array([1., 0.])
    """
    required = np.asarray(labels, np.int64)
    _check_pairing(required, recon_probabilities, "probabilities", None)
    n_classes = recon_probabilities.shape[2]
    allowed = np.unique(np.arange(n_classes) if classes is None else np.asarray(classes, np.int64))
    if not set(allowed) <= set(range(n_classes)) or not np.isin(required, allowed).all():
        raise CalcarineError(
            f"A label or class index is not among the {n_classes} classes of the classifier; "
            "include every label that occurs."
        )
    read = allowed[recon_probabilities[..., allowed].argmax(axis=2)]
    hits: FloatArray = (required[:, None, None] == read[None]).mean(axis=2)
    return hits


def centre(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centre the last axis in place; return the mean and the inverse length of the centred rows.

    Parameters
    ----------
    x : float64 array of shape (..., features)

    Returns
    -------
    mean, inverse : float64 array of shape (...)
        The inverse length of a constant row is 0.

    Raises
    ------
    CalcarineError
        If a value is not finite.
    """
    largest = np.maximum(x.max(axis=-1), -x.min(axis=-1))
    if not np.isfinite(largest).all():
        raise CalcarineError(NOT_FINITE)
    mean = x.mean(axis=-1)
    x -= mean[..., None]
    length = np.sqrt(np.einsum("...d,...d->...", x, x))
    constant = length <= 1e-12 * largest * np.sqrt(x.shape[-1])
    return mean, np.where(constant, 0.0, 1 / np.where(constant, 1.0, length))


def _share_beaten(scores: FloatArray, tie_worth: float) -> FloatArray:
    """Return the share of the other columns that each entry beats within its row."""
    shares = np.empty_like(scores)
    for row, ordered, share in zip(scores, np.sort(scores, axis=1), shares, strict=True):
        beaten = np.searchsorted(ordered, row - TIE_TOLERANCE, "left")
        not_better = np.searchsorted(ordered, row + TIE_TOLERANCE, "right")
        share[:] = beaten + tie_worth * (not_better - beaten - 1)
    return shares / (len(scores) - 1)


def _members(groups: ArrayLike | None, n: int) -> Iterator[NDArray[np.int64]]:
    labels = np.zeros(n, np.int64) if groups is None else np.asarray(groups)
    if labels.shape != (n,):
        raise ShapeError(
            f"The groups have shape {labels.shape}; give one label for each of {n} images."
        )
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            where = "the test set" if groups is None else f"group {label!s}"
            raise ShapeError(
                f"Identification needs at least two images, but {where} has one; add images or "
                "leave it out."
            )
        yield members


def _true_classes(
    truth: NDArray[Any], recon: NDArray[Any], n_way: int, k: int
) -> NDArray[np.int64]:
    _check_pairing(truth, recon, "probabilities", 2)
    classes = truth.shape[1]
    if not 1 <= k <= n_way <= classes:
        raise SettingError(
            f"{n_way}-way top-{k} is not defined for {classes} classes; choose "
            "1 <= k <= n_way <= classes."
        )
    return np.asarray(truth.argmax(axis=1), np.int64)


def _choose(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise SettingError(f"{name} is {value!r}; choose one of {', '.join(options)}.")


def _check_pairing(
    truth: NDArray[Any], recon: NDArray[Any], what: str, truth_ndim: int | None
) -> None:
    fits = recon.ndim == 3 and len(truth) == len(recon) and recon.shape[1] > 0
    if truth_ndim is not None:
        fits = fits and truth.ndim == truth_ndim and truth.shape[1:] == recon.shape[2:]
    if not fits or not len(truth):
        raise ShapeError(
            f"The {what} have shapes {truth.shape} (ground truths) and {recon.shape} "
            "(reconstructions); give (n, d) and (n, samples, d)."
        )
