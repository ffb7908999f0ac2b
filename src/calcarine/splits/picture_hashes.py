"""Hashes of pictures that change little with size, brightness and compression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["BITS", "hamming", "hash_pictures", "hash_stimuli", "nearest_hashes"]

BITS = 128
"""Bits of both hashes together."""

Hashes = NDArray[np.uint64]

_SIDE = 32
_LOW = 8
_PICTURES = 256
_BLOCK = 8192
_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def hash_pictures(images: NDArray[np.uint8]) -> Hashes:
    """Return two 64-bit hashes of each picture.

    The first has the signs of the 8 x 8 lowest coefficients of a discrete
    cosine transform of the grey picture of 32 x 32 against their median
    without the constant one (pHash); the second says in a grey picture of 9
    x 8 which pixels are darker than their right neighbours (dHash).

    Parameters
    ----------
    images
        uint8, shape (n, height, width, 3).

    Returns
    -------
    uint64 array of shape (n, 2)
    """
    grey = [Image.fromarray(np.ascontiguousarray(image)).convert("L") for image in images]
    large = _small(grey, _SIDE, _SIDE)
    cosines = _cosines()
    low = np.round(cosines @ large @ cosines.T, 6).reshape(len(large), -1)
    middle = np.median(low[:, 1:], axis=1, keepdims=True)
    wide = _small(grey, _LOW + 1, _LOW)
    rising = (wide[:, :, 1:] > wide[:, :, :-1]).reshape(len(wide), -1)
    return np.stack([_packed(low > middle), _packed(rising)], axis=1)


def hash_stimuli(stimuli: StimulusSet, ids: Sequence[str], flipped: bool = False) -> Hashes:
    """Return the hashes of some stimuli, read in batches.

    Parameters
    ----------
    stimuli, ids
        Which ones, in which order.
    flipped
        Of the mirror images.

    Returns
    -------
    uint64 array of shape (n, 2)
    """
    result = np.empty((len(ids), 2), dtype=np.uint64)
    for start in range(0, len(ids), _PICTURES):
        part = list(ids[start : start + _PICTURES])
        images = stimuli.images(part)
        result[start : start + len(part)] = hash_pictures(images[:, :, ::-1] if flipped else images)
    return result


def hamming(a: Hashes, b: Hashes) -> NDArray[np.int64]:
    """Return the number of bits in which hashes differ, both 64-bit hashes together.

    Parameters
    ----------
    a, b
        Shapes (..., 2) that broadcast.

    Returns
    -------
    int array of shape (...)
        0 to 128.
    """
    different = np.bitwise_xor(a, b)
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(different).sum(-1), dtype=np.int64)
    octets = np.ascontiguousarray(different)[..., None].view(np.uint8)
    return np.asarray(_ONES[octets].sum((-1, -2)), dtype=np.int64)


def nearest_hashes(
    queries: Hashes, base: Hashes, k: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the nearest hashes of a base for each query.

    Parameters
    ----------
    queries, base
        Shapes (q, 2) and (n, 2).
    k
        How many.

    Returns
    -------
    bits, rows
        int, shape (q, k), nearest first: differing bits, and row of the
        base; the earlier one where two are equally near.
    """
    k = min(k, len(base))
    best = np.full((len(queries), k), BITS + 1, dtype=np.int64)
    rows = np.full((len(queries), k), len(base), dtype=np.int64)
    step = max(1, _BLOCK * 256 // max(1, len(queries)))
    for start in range(0, len(base), step):
        part = base[start : start + step]
        bits = _pairs(queries[:, None, 0], part[None, :, 0])
        bits += _pairs(queries[:, None, 1], part[None, :, 1])
        # Bits and row in one number: the smallest are the nearest and, of these, the earliest.
        order = bits.astype(np.int64) * len(base) + np.arange(start, start + len(part))
        order = np.concatenate([best * len(base) + rows % len(base), order], axis=1)
        order = np.sort(np.partition(order, k - 1, axis=1)[:, :k], axis=1)
        best, rows = np.divmod(order, len(base))
    return best, rows


def _pairs(a: Hashes, b: Hashes) -> NDArray[np.uint8]:
    different = np.bitwise_xor(a, b)
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(different), dtype=np.uint8)
    return np.asarray(_ONES[different[..., None].view(np.uint8)].sum(-1), dtype=np.uint8)


def _small(grey: list[Image.Image], width: int, height: int) -> NDArray[np.float64]:
    method = Image.Resampling.BOX
    small = [np.asarray(each.resize((width, height), method), np.float64) for each in grey]
    return np.stack(small) if small else np.zeros((0, height, width))


def _cosines() -> NDArray[np.float64]:
    """Return the lowest rows of the orthogonal discrete cosine transform of type II."""
    place = np.arange(_SIDE) + 0.5
    waves = np.cos(np.pi * np.outer(np.arange(_LOW), place) / _SIDE) * np.sqrt(2.0 / _SIDE)
    waves[0] /= np.sqrt(2.0)
    return np.asarray(waves)


def _packed(bits: NDArray[np.bool_]) -> Hashes:
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]
