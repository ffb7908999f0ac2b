"""Floors and ceilings of scores: images without brain activity, retrieved or blurred images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from calcarine.errors import ShapeError

__all__ = ["blurred_truth", "nearest_training_image", "random_training_image", "training_mean"]

Images = NDArray[np.uint8]


def training_mean(train_images: Images, n: int = 1) -> Images:
    """Return the mean of the training images as reconstruction of every test image.

    Parameters
    ----------
    train_images : uint8 array of shape (n_train, height, width, 3)
    n : int
        Number of test images.

    Returns
    -------
    uint8 array of shape (n, 1, height, width, 3)
        Read-only; all entries are the same image.

    Raises
    ------
    CalcarineError
        If there are no training images.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import training_mean
    >>> train = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 100)])
    >>> floor = training_mean(train, n=5)
    >>> floor.shape, int(floor[0, 0, 0, 0, 0])
    ((5, 1, 8, 8, 3), 50)
    """
    _check(train_images)
    mean = np.rint(train_images.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return np.broadcast_to(mean, (n, 1, *mean.shape))


def random_training_image(
    train_images: Images, ids: Sequence[str], *, n_samples: int = 1, seed: int = 0
) -> Images:
    """Draw a random training image for each test image.

    The draw depends on the seed, the id of the stimulus and the sample, not on the order.

    Parameters
    ----------
    train_images : uint8 array of shape (n_train, height, width, 3)
    ids : sequence of str
        Ids of the n test stimuli.
    n_samples : int
        Number of draws for each stimulus.
    seed : int
        Seed of the draws.

    Returns
    -------
    uint8 array of shape (n, n_samples, height, width, 3)

    Raises
    ------
    CalcarineError
        If there are no training images.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import random_training_image
    >>> train = np.stack([np.full((8, 8, 3), level, np.uint8) for level in range(100)])
    >>> floor = random_training_image(train, ["img1", "img2"], n_samples=3)
    >>> floor.shape
    (2, 3, 8, 8, 3)
    """
    _check(train_images)
    rows = [
        [_draw(f"{seed}/{sample}/{stimulus}", len(train_images)) for sample in range(n_samples)]
        for stimulus in ids
    ]
    return train_images[np.asarray(rows, np.int64).reshape(len(ids), n_samples)]


def nearest_training_image(
    train_images: Images, train_features: NDArray[Any], decoded: NDArray[Any]
) -> Images:
    """Return the training image with the most similar features for each decoded feature vector.

    A generator without a higher score is not better than retrieval.

    Parameters
    ----------
    train_images : uint8 array of shape (n_train, height, width, 3)
    train_features : array of shape (n_train, ...)
        Features such as latents; they are correlated over all axes except the first.
    decoded : array of shape (n, ...)
        The same features, decoded from brain activity.

    Returns
    -------
    uint8 array of shape (n, 1, height, width, 3)

    Raises
    ------
    CalcarineError
        If there are no training images, or features do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import nearest_training_image
    >>> train = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 100, 200)])
    >>> features = np.eye(3)
    >>> decoded = [[0.1, 0.2, 0.9]]  # most like the third training image
    >>> int(nearest_training_image(train, features, np.array(decoded)).max())
    200
    """
    _check(train_images)
    if len(train_features) != len(train_images) or train_features.shape[1:] != decoded.shape[1:]:
        raise ShapeError(
            f"Decoded features of shape {decoded.shape} do not fit training features of shape "
            f"{train_features.shape} of {len(train_images)} images; give the same features."
        )
    # The scale of the decoded row does not change which image is nearest.
    known = _centred(train_features)
    known /= np.maximum(np.linalg.norm(known, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    best = np.argmax(_centred(decoded) @ known.T, axis=1)
    return np.asarray(train_images[best][:, None])


def blurred_truth(truth: Images, sigma: float) -> Images:
    """Blur the ground truths, to measure the score of low frequencies alone.

    Parameters
    ----------
    truth : uint8 array of shape (n, height, width, 3)
    sigma : float
        Standard deviation of the blur, in pixels.

    Returns
    -------
    uint8 array of shape (n, 1, height, width, 3)

    Raises
    ------
    CalcarineError
        If there are no images.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.evaluation import blurred_truth
    >>> truth = ca.StimulusSet.from_scenes(seed=0, indices=range(2)).images()
    >>> blurred = blurred_truth(truth, sigma=4)
    >>> blurred.shape
    (2, 1, 64, 64, 3)
    >>> bool(blurred.std() < truth.std())
    True
    """
    _check(truth)
    rounded: Images = np.empty_like(truth)
    for image, blurred in zip(truth, rounded, strict=True):
        soft = gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="nearest")
        blurred[...] = np.rint(soft)
    return rounded[:, None]


def _centred(features: NDArray[Any]) -> NDArray[np.float32]:
    rows = np.asarray(features, np.float32).reshape(len(features), -1)
    centred: NDArray[np.float32] = rows - rows.mean(axis=1, keepdims=True)
    return centred


def _draw(key: str, n: int) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % n


def _check(images: Images) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or not len(images) or images.dtype != np.uint8:
        raise ShapeError(
            f"A baseline needs uint8 images of shape (n, height, width, 3), not {images.dtype} of "
            f"shape {images.shape}; give at least one image of this type."
        )
