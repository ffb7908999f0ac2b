"""Features of small copies of pictures: pixels and coarse layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIDE", "SPACES", "layout", "pixels", "rows", "shrunk"]

FloatArray = NDArray[np.float64]
SIDE = 64
"""Side in pixels of the small copies."""


def shrunk(images: NDArray[np.uint8], size: int) -> FloatArray:
    """Return means over square blocks of the small copies, shape (n, size * size * 3), 0 to 255."""
    step = SIDE // size
    blocks = images.reshape(len(images), size, step, size, step, 3)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float64).reshape(len(images), -1))


def pixels(images: NDArray[np.uint8]) -> FloatArray:
    """Return the pictures at 32 x 32 pixels, flattened."""
    return shrunk(images, 32)


def layout(images: NDArray[np.uint8]) -> FloatArray:
    """Return the pictures at 8 x 8 pixels, flattened: the coarse layout of light and colour."""
    return shrunk(images, 8)


SPACES: dict[str, Callable[[NDArray[np.uint8]], FloatArray]] = {
    "pixels (32 x 32)": pixels,
    "layout (8 x 8)": layout,
}


def rows(values: FloatArray) -> FloatArray:
    """Return rows with mean 0 and length 1; a constant row becomes 0."""
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-9))
