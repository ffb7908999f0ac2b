"""Pictures of the small data sets: read from files, drawn, or simulated."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

__all__ = ["colour_fields", "draw_digit", "draw_figure", "upright"]


def upright(rows: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return pictures (n, side, side, 3) from rows of grey that MATLAB stored by columns."""
    pixels = rows.reshape(-1, side, side).transpose(0, 2, 1)
    return np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=3))


def draw_figure(name: str) -> NDArray[np.uint8]:
    """Draw a figure of Miyawaki et al. (2008), white on black, 10 x 10 pixels."""
    lit = np.zeros((10, 10), bool)
    if name in ("small-square", "small-frame"):
        lit[3:7, 3:7] = True
        lit[4:6, 4:6] = name == "small-square"
    elif name == "large-frame":
        lit[1:9, 1:9] = True
        lit[3:7, 3:7] = False
    elif name == "plus":
        lit[1:9, 4:6] = lit[4:6, 1:9] = True
    else:
        row, column = np.mgrid[1:9, 1:9]
        lit[1:9, 1:9] = (abs(row - column) <= 1) | (abs(row + column - 9) <= 1)
        # As shown: the two ends of each arm are two squares wide.
        lit[[1, 8]] = False
        lit[np.ix_([1, 8], [1, 2, 7, 8])] = True
    return np.repeat((lit * np.uint8(255))[..., None], 3, axis=2)


def colour_fields(names: list[str]) -> dict[str, NDArray[np.uint8]]:
    """Return a plain field of 16 x 16 pixels for each category, in a hue of its own."""
    fields = {}
    for row, name in enumerate(names):
        colour = np.array(colorsys.hsv_to_rgb(row / len(names), 0.5, 0.7)) * 255
        fields[name] = np.broadcast_to(np.round(colour).astype(np.uint8), (16, 16, 3)).copy()
    return fields


def draw_digit(rng: np.random.Generator, name: str) -> NDArray[np.uint8]:
    """Draw a ring with a stem above it (a six), or turned by half a turn (a nine), 28 x 28."""
    rows, columns = np.mgrid[:28, :28].astype(float)
    row, column, radius = rng.uniform(17, 19), rng.uniform(12, 16), rng.uniform(4, 6)
    ring = np.abs(np.hypot(rows - row, columns - column) - radius)
    stem = np.abs(columns - (column - radius + rng.uniform(0, 2)))
    stem = np.where((rows > 4) & (rows < row), stem, 99.0)
    ink = np.clip(2.2 - np.minimum(ring, stem), 0, 1)
    picture = np.round(255 * ink).astype(np.uint8)
    return np.asarray(picture if name == "six" else picture[::-1, ::-1])
