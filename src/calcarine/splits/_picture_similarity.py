"""Small copies of pictures, and how similar two of them are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK",
    "FINE",
    "SIDE",
    "WHOLE",
    "Array",
    "Pictures",
    "largest",
    "shrink",
    "similarity",
    "transform",
    "unit_rows",
    "verify_whole",
]

Array = NDArray[Any]
Pictures = NDArray[np.uint8]

SIDE = 64
"""Height and width in pixels of the pictures that are compared."""

WHOLE = 16
"""Height and width of the copies with which candidates are found."""

FINE = 32
"""Height and width of the copies with which candidates are verified."""

BLOCK = 256
"""Pictures that are compared at a time."""


def largest(values: Array, most: int) -> NDArray[np.int64]:
    """Return the columns of the largest values of each row, shape (row, most)."""
    count = min(most, values.shape[1])
    return np.argpartition(-values, count - 1, axis=1)[:, :count]


def shrink(images: Pictures, side: int) -> Array:
    """Return means over blocks of pixels: pictures with sides of `side` pixels."""
    step = images.shape[1] // side
    shape = (len(images), side, step, side, step, images.shape[-1])
    return np.asarray(images.reshape(shape).mean(axis=(2, 4), dtype=np.float32))


def unit_rows(values: Array) -> Array:
    """Return each picture as a row of mean 0 and length 1; a picture of one tone becomes 0."""
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(
        np.divide(flat, length, out=np.zeros_like(flat), where=length > 0.5 * flat.shape[1] ** 0.5)
    )


def transform(values: Array, symmetry: int) -> Array:
    """Turn pictures by quarter turns (symmetry 0 to 3), mirrored as well (4 to 7)."""
    turned = np.rot90(values, symmetry % 4, axes=(1, 2))
    return turned[:, :, ::-1] if symmetry >= 4 else turned


def verify_whole(test: Array, train: Array) -> tuple[float, float]:
    """Return similarity and detail of two pictures of 32 x 32 x 3 after the best recolouring."""
    design = test.reshape(-1, 3).astype(np.float64)
    wanted = train.reshape(-1, 3).astype(np.float64)
    design, wanted = design - design.mean(0), wanted - wanted.mean(0)
    # A little of the identity: channels of a grey picture are one.
    gram = design.T @ design
    gram += (1e-3 * np.trace(gram) / 3 + 1e-9) * np.eye(3)
    made = design @ np.linalg.solve(gram, design.T @ wanted)
    shape = (1, FINE, FINE, 3)
    return similarity(made.reshape(shape), wanted.reshape(shape))


def similarity(made: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    """Return the correlation of two pictures, and that of their fine detail."""
    from scipy.ndimage import uniform_filter

    pairs = [(made, wanted)]
    pairs.append(tuple(each - uniform_filter(each, (0, 5, 5, 0)) for each in pairs[0]))
    results = []
    for a, b in pairs:
        below = float(np.linalg.norm(a) * np.linalg.norm(b))
        results.append(float((a * b).sum()) / below if below > 0 else 0.0)
    return results[0], results[1]
