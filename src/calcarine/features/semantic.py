"""Semantic maps as pictures, so that an autoencoder can take them in."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0.61803398875
# Brightness and saturation; four of them, for hues eight numbers apart still differ enough.
_LEVELS = ((0.95, 0.85), (0.6, 1.0), (0.8, 0.45), (0.4, 0.7))


def palette() -> NDArray[np.uint8]:
    """Colour of each class, ``(256, 3)``: black for class 0, then hues far from their neighbours.

    It is the same always, so that a class has one colour in every data set and run.
    """
    colours = [(0.0, 0.0, 0.0)]
    for number in range(1, 256):
        value, saturation = _LEVELS[number % 4]
        colours.append(colorsys.hsv_to_rgb(number * _GOLDEN % 1.0, saturation, value))
    return np.round(np.array(colours) * 255).astype(np.uint8)


def coloured_maps(maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Semantic maps ``(n, height, width)`` as pictures ``(n, height, width, 3)``."""
    return palette()[maps]
