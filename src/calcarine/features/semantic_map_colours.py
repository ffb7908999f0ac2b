"""Semantic maps as pictures, which an autoencoder can encode."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

__all__ = ["coloured_maps", "palette"]

_GOLDEN = 0.61803398875
# Brightness and saturation. Hues repeat every eight classes, so four levels keep them distinct.
_LEVELS = ((0.95, 0.85), (0.6, 1.0), (0.8, 0.45), (0.4, 0.7))


def palette() -> NDArray[np.uint8]:
    """Return the colour of each class, shape (256, 3): black for class 0, then distinct hues.

    The palette is fixed, so a class has one colour in every data set and run.
    """
    colours = [(0.0, 0.0, 0.0)]
    for number in range(1, 256):
        value, saturation = _LEVELS[number % 4]
        colours.append(colorsys.hsv_to_rgb(number * _GOLDEN % 1.0, saturation, value))
    return np.round(np.array(colours) * 255).astype(np.uint8)


def coloured_maps(maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert semantic maps ``(n, height, width)`` to pictures ``(n, height, width, 3)``."""
    return palette()[maps]
