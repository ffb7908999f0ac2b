"""Finding pictures that are crops of others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from calcarine.splits._picture_similarity import (
    BLOCK,
    FINE,
    SIDE,
    WHOLE,
    Array,
    Pictures,
    largest,
    shrink,
    transform,
    unit_rows,
    verify_whole,
)

__all__ = ["crop_candidates", "refine", "windows"]

# Height and width of the copies with which crops are found.
_PART = 8
# Number of candidates to refine for each picture: a base, one more per so many, and at most.
_CROPS = (6, 50, 32)
# Share of a side that a crop may keep.
_KEPT = (1.0, 0.84, 0.68, 0.54)
# Starts of crops are at most this share of their own side apart.
_APART = 0.14
# Largest ratio of the kept shares of the two sides.
_ASPECT = 1.25
_STEPS = (0.05, 0.025, 0.0125, 0.00625)
# Least similarity of the copies of 8 x 8 pixels for a crop to be refined.
_NEAR = 0.75
# After each shift, crops with a lower similarity at 16 x 16 pixels are dropped.
_CLOSE = 0.85


def windows() -> NDArray[np.float64]:
    """Return the crops to try: top, bottom, left, right as shares of the side."""
    spans = []
    for kept in _KEPT:
        starts = np.linspace(0, 1 - kept, 1 + int(np.ceil((1 - kept) / (_APART * kept))))
        spans += [(start, start + kept) for start in starts]
    results = [
        (*a, *b)
        for a in spans
        for b in spans
        if 1 / _ASPECT <= (a[1] - a[0]) / (b[1] - b[0]) <= _ASPECT
    ]
    return np.asarray(results[1:])


def _sums(images: Pictures) -> Array:
    """Return sums of grey values above and left of each pixel corner, shape (n, 65, 65)."""
    grey = images.mean(axis=-1, dtype=np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    result = np.zeros((len(grey), SIDE + 1, SIDE + 1), np.float32)
    np.cumsum(np.cumsum(grey, axis=1), axis=2, out=result[:, 1:, 1:])
    return result


def _cut(sums: Array, window: NDArray[np.float64], side: int) -> Array:
    """Return means over side x side blocks of one window of all pictures."""
    top, bottom, left, right = window
    down, across = (
        _positions(np.linspace(low, high, side + 1) * SIDE)
        for low, high in ((top, bottom), (left, right))
    )
    rows = sums[:, down[0]] * (1 - down[1])[:, None] + sums[:, down[0] + 1] * down[1][:, None]
    both = rows[:, :, across[0]] * (1 - across[1]) + rows[:, :, across[0] + 1] * across[1]
    return np.asarray(np.diff(np.diff(both, axis=1), axis=2))


def _positions(edges: NDArray[np.float64]) -> tuple[NDArray[np.int64], Array]:
    low = np.clip(np.floor(edges).astype(np.int64), 0, SIDE - 1)
    return low, (edges - low).astype(np.float32)


def crop_candidates(
    whole: Pictures,
    source: Pictures,
    rows_are_whole: bool,
    allowed: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[int, int, int, int]]:
    """Return pairs in which one picture may be a crop of the other.

    Parameters
    ----------
    whole
        Pictures that may be crops, shape (n, 64, 64, 3).
    source
        Pictures that they may be crops of.
    rows_are_whole
        Whether candidates are chosen for each of ``whole``, or for each of ``source``.
    allowed
        Pairs that count, with those for each of which candidates are chosen as rows.

    Yields
    ------
    whole, source, symmetry, window : int
        Symmetry 0, or 4 for mirrored.
    """
    tried = windows()
    some, one_in, most = _CROPS
    count_of_crops = min(most, some + (len(source) if rows_are_whole else len(whole)) // one_in)
    sums = _sums(source)
    thumbs = shrink(whole, _PART).mean(axis=-1)
    count = len(whole) if rows_are_whole else len(source)
    for start in range(0, count, BLOCK):
        part = slice(start, start + BLOCK)
        own = thumbs[part] if rows_are_whole else thumbs
        inside = sums if rows_are_whole else sums[part]
        targets = [unit_rows(transform(own, symmetry)) for symmetry in (0, 4)]
        shape = (len(own), len(inside)) if rows_are_whole else (len(inside), len(own))
        best = np.full(shape, -1.0, np.float32)
        which = np.zeros(shape, np.int16)
        for place, window in enumerate(tried):
            cut = unit_rows(_cut(inside, window, _PART))
            for number, target in enumerate(targets):
                result = target @ cut.T if rows_are_whole else cut @ target.T
                np.copyto(which, 2 * place + number, where=result > best)
                np.maximum(best, result, out=best)
        if allowed is not None:
            best[~allowed[part]] = -1
        for row, columns in enumerate(largest(best, count_of_crops)):
            for column in columns:
                if best[row, column] >= _NEAR:
                    place, number = divmod(int(which[row, column]), 2)
                    pair = (start + row, int(column))
                    yield (*(pair if rows_are_whole else pair[::-1]), 4 * number, place)


def refine(
    whole: Pictures, source: Pictures, candidates: list[tuple[int, int, int, int]]
) -> Iterator[tuple[int, int, float, float]]:
    """Return similarity and detail of crops after small shifts and stretches of their windows.

    Yields
    ------
    whole, source : int
    alike, detail : float
    """
    tried = windows()
    for start in range(0, len(candidates), BLOCK):
        part = np.asarray(candidates[start : start + BLOCK])
        sums = _sums(source[part[:, 1]])
        grey = shrink(whole[part[:, 0]], WHOLE).mean(axis=-1)
        mirrored = part[:, 2] == 4
        grey[mirrored] = grey[mirrored, :, ::-1]
        target = unit_rows(grey)
        at = tried[part[:, 3]]
        best = _scores(sums, at, target)
        for step in _STEPS:
            best = _shift(sums, at, target, best, step)
            kept = best >= _CLOSE
            part, sums, target = part[kept], sums[kept], target[kept]
            at, best = at[kept], best[kept]
            if not len(part):
                break
        for (row, column, symmetry, _), window in zip(part.tolist(), at, strict=True):
            channels = source[column].transpose(2, 0, 1)[..., None]
            cut = np.stack([_cut(_sums(each[None]), window, FINE)[0] for each in channels], -1)
            made = transform(shrink(whole[row : row + 1], FINE), symmetry)[0]
            yield row, column, *verify_whole(cut, made)


def _shift(sums: Array, at: NDArray[np.float64], target: Array, best: Array, step: float) -> Array:
    """Move the edges of the windows, in place, to increase the similarity."""
    moves = ((1, 1), (-1, -1), (1, -1), (-1, 1), (1, 0), (-1, 0), (0, 1), (0, -1))
    for _ in range(2):
        for axis in range(2):
            for low, high in moves:
                other = at.copy()
                other[:, 2 * axis] += low * step
                other[:, 2 * axis + 1] += high * step
                np.clip(other, 0, 1, out=other)
                score = _scores(sums, other, target)
                better = score > best
                at[better] = other[better]
                best = np.maximum(best, score)
    return best


def _scores(sums: Array, at: NDArray[np.float64], target: Array) -> Array:
    """Return the correlation of each picture's own window with its target."""
    count, side = len(sums), WHOLE
    share = np.linspace(0, 1, side + 1)
    ends = at * SIDE
    down = _positions(ends[:, :1] + (ends[:, 1:2] - ends[:, :1]) * share)
    across = _positions(ends[:, 2:3] + (ends[:, 3:] - ends[:, 2:3]) * share)
    place = np.arange(count)[:, None]
    rows = (
        sums[place, down[0]] * (1 - down[1])[:, :, None]
        + sums[place, down[0] + 1] * down[1][:, :, None]
    )
    place = place[:, :, None]
    line = np.arange(side + 1)[None, :, None]
    both = (
        rows[place, line, across[0][:, None]] * (1 - across[1])[:, None]
        + rows[place, line, across[0][:, None] + 1] * across[1][:, None]
    )
    return np.asarray((unit_rows(np.diff(np.diff(both, axis=1), axis=2)) * target).sum(axis=1))
