"""Small copies of pictures as rows of numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
SIDE = 64
"""Side in pixels of the copies that are compared with all others."""


def shrunk(images: NDArray[np.uint8], size: int) -> FloatArray:
    """Means over square blocks of the small copies, shape (n, size * size * 3), 0 to 255."""
    step = SIDE // size
    blocks = images.reshape(len(images), size, step, size, step, 3)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float64).reshape(len(images), -1))


def pixels(images: NDArray[np.uint8]) -> FloatArray:
    """Pictures of 32 x 32, flat."""
    return shrunk(images, 32)


def layout(images: NDArray[np.uint8]) -> FloatArray:
    """Pictures of 8 x 8, flat: where light and colour are."""
    return shrunk(images, 8)


SPACES: dict[str, Callable[[NDArray[np.uint8]], FloatArray]] = {
    "pixels of 32 x 32": pixels,
    "layout of 8 x 8": layout,
}


def rows(values: FloatArray) -> FloatArray:
    """Rows without their mean, of length 1; a constant row stays 0."""
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-9)
