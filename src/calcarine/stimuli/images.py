"""Resizing and range conventions of pictures, in one place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_images(
    images: NDArray[np.uint8], size: int | tuple[int, int], *, nearest: bool = False
) -> NDArray[np.uint8]:
    """Resize pictures with Pillow's antialiased bicubic filter.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
    size : int or (height, width)
        Size after resizing; an int gives squares.
    nearest : bool
        Copy pixels instead, for binary figures.

    Returns
    -------
    uint8 array of shape (n, height, width, 3)
    """
    height, width = (size, size) if isinstance(size, int) else size
    if images.shape[1:3] == (height, width):
        return np.asarray(images)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method))
        for image in images
    ]
    return np.stack(resized) if resized else np.zeros((0, height, width, 3), np.uint8)
