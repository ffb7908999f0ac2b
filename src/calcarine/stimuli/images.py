"""Resizing of pictures and conventions of their range."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Filter", "resize_images"]

Filter = Literal["bicubic", "lanczos"]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def resize_images(
    images: NDArray[np.uint8],
    size: int | tuple[int, int],
    *,
    nearest: bool = False,
    filter: Filter = "bicubic",
) -> NDArray[np.uint8]:
    """Resize pictures with one of Pillow's antialiased filters.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width, 3)
    size : int or (height, width)
        Size after resizing; an int gives squares.
    nearest : bool
        Copy pixels instead, for binary figures.
    filter : {"bicubic", "lanczos"}
        Lanczos is what Takagi & Nishimoto 2023 used.

    Returns
    -------
    uint8 array of shape (n, height, width, 3)

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.stimuli import resize_images
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(2)).images()
    >>> pictures.shape, resize_images(pictures, 32).shape
    ((2, 64, 64, 3), (2, 32, 32, 3))
    """
    height, width = (size, size) if isinstance(size, int) else size
    if images.shape[1:3] == (height, width):
        return np.asarray(images)
    method = Image.Resampling.NEAREST if nearest else _FILTERS[filter]
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method))
        for image in images
    ]
    return np.stack(resized) if resized else np.zeros((0, height, width, 3), np.uint8)
