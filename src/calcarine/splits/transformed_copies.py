"""Finding rotated, mirrored, recoloured and cropped copies of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIDE", "PictureMatch", "PictureMatches", "same_pictures"]

Array = NDArray[Any]
Pictures = NDArray[np.uint8]
_Search = Callable[..., "list[PictureMatch]"]

SIDE = 64
"""Side in pixels of the copies that are compared."""

# Copies at which candidates are found, at which crops are, and at which candidates are verified.
_WHOLE, _PART, _FINE = 16, 8, 32
_CANDIDATES = 4
# Crops are looked at closely for so many pictures each: some, one in so many, and at most.
_CROPS = (6, 50, 32)
_BLOCK = 256
# Share of a side that a crop may keep, and where it may begin.
_KEPT = (1.0, 0.84, 0.68, 0.54)
# Begins of crops lie at most so many of their own sides apart.
_APART = 0.14
# How much more one side may be kept than the other.
_ASPECT = 1.25
_STEPS = (0.05, 0.025, 0.0125, 0.00625)
# A crop is looked at closely where its copy of 8 x 8 is at least so alike.
_NEAR = 0.75
# After each shift, those less alike at 16 x 16 are dropped.
_CLOSE = 0.85
# Least likeness and likeness of detail of the same picture, whole and cropped, measured on scenes,
# photographs, digits and the pictures of the self-test: copies with a gamma of .5 reach .975 and
# .93, crops .98 and .96; different digits reach .98 and .93, which `_USUAL` leaves out.
_SAME, _SAME_CROP = (0.93, 0.85), (0.96, 0.92)
# Training pictures compared with the others; the quantile of their detail; how much closer to 1
# that of a copy must be.
_DRAWN, _USUAL, _CLOSER = 100, 0.98, 0.5
# Training pictures of which so many are each other's copies, such as turned gratings, tell nothing.
_ALL_ALIKE = 0.98
_HOW = (
    "in other colours",
    "turned left",
    "turned around",
    "turned right",
    "mirrored",
    "mirrored and turned left",
    "upside down",
    "mirrored and turned right",
)
_LIGHT = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class PictureMatch:
    """A test picture and the training picture that is most likely the same.

    Attributes
    ----------
    row, column
        Of the test and of the training pictures.
    how
        What was done to it, such as ``"mirrored"`` or ``"cropped"``.
    alike
        Correlation of pictures of 32 x 32, after the best change of colours.
    detail
        The same of their fine detail.
    """

    row: int
    column: int
    how: str
    alike: float
    detail: float


@dataclass(frozen=True)
class PictureMatches:
    """The result of `same_pictures`.

    Attributes
    ----------
    pairs
        The most alike training picture of each test picture that has one.
    undecided
        Changes that cannot be told, because many training pictures are such copies of each other:
        any of ``"turned or in other colours"`` and ``"cropped"``.
    """

    pairs: list[PictureMatch]
    undecided: tuple[str, ...]


def same_pictures(
    test: Pictures,
    train: Pictures,
    allowed: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> PictureMatches:
    """Find training pictures that are rotated, mirrored, recoloured or cropped test pictures.

    Both must agree in their fine detail much more closely than training pictures agree with each
    other, so pictures of one kind, such as digits, are not taken for the same.

    Parameters
    ----------
    test, train : uint8 array of shape (n, 64, 64, 3)
    allowed : bool array of shape (n test, n train), optional
        Pairs that count; all by default.
    seed : int
        Of the training pictures that are compared with the others.

    Returns
    -------
    Matches
    """
    found: dict[int, PictureMatch] = {}
    undecided = []
    searches = (
        ("turned or in other colours", _whole, _SAME),
        ("cropped", _cropped, _SAME_CROP),
    )
    for what, search, (alike, detail) in searches:
        near = [
            each
            for each in search(test, train, allowed)
            if each.alike >= alike and each.detail >= detail
        ]
        # What is usual among training pictures costs as much again, so only where it matters.
        usual = _usual(search, train, seed) if near else 0.0
        if usual >= _ALL_ALIKE:
            undecided.append(what)
            continue
        for each in near:
            if each.detail >= 1 - _CLOSER * (1 - usual):
                found.setdefault(each.row, each)
    return PictureMatches([found[row] for row in sorted(found)], tuple(undecided))


def _usual(search: _Search, train: Pictures, seed: int) -> float:
    """Return the similarity of detail below which nearly every training picture stays."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(train))[:_DRAWN])
    others = np.ones((len(drawn), len(train)), bool)
    others[np.arange(len(drawn)), drawn] = False
    among = [each.detail for each in search(train[drawn], train, others)]
    # Those without any candidate are like none.
    among += [0.0] * (len(drawn) - len(among))
    return float(np.quantile(among, _USUAL)) if among else 0.0


def _best(matches: Iterator[PictureMatch]) -> list[PictureMatch]:
    """Return the match with the most similar detail for each row."""
    found: dict[int, PictureMatch] = {}
    for each in matches:
        if each.row not in found or each.detail > found[each.row].detail:
            found[each.row] = each
    return list(found.values())


def _whole(
    test: Pictures, train: Pictures, allowed: NDArray[np.bool_] | None
) -> list[PictureMatch]:
    def every() -> Iterator[PictureMatch]:
        own, base = _shrunk(test, _FINE), _shrunk(train, _FINE)
        for row, column, symmetry in whole_candidates(test, train, allowed):
            turned = _turned(own[row : row + 1], symmetry)[0]
            yield PictureMatch(row, column, _HOW[symmetry], *verify_whole(turned, base[column]))

    return _best(every())


def _cropped(
    test: Pictures, train: Pictures, allowed: NDArray[np.bool_] | None
) -> list[PictureMatch]:
    def every() -> Iterator[PictureMatch]:
        crops = list(crop_candidates(test, train, True, allowed))
        for row, column, alike, detail in refine(test, train, crops):
            yield PictureMatch(row, column, "as a larger picture", alike, detail)
        crops = list(crop_candidates(train, test, False, allowed))
        for column, row, alike, detail in refine(train, test, crops):
            yield PictureMatch(row, column, "cropped", alike, detail)

    return _best(every())


def whole_candidates(
    test: Pictures, train: Pictures, allowed: NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, int, int]]:
    """Return rows, columns and symmetries of the most similar small grey copies."""
    base = [_rows(each) for each in _greys(train, _WHOLE)]
    for start in range(0, len(test), _BLOCK):
        own = _greys(test[start : start + _BLOCK], _WHOLE)
        best = np.full((len(own[0]), len(train)), -1.0, np.float32)
        which = np.zeros(best.shape, np.uint8)
        for symmetry in range(8):
            for grey, other in zip(own, base, strict=True):
                # The sign is left out: a negative is the same picture too.
                found = np.abs(_rows(_turned(grey, symmetry)) @ other.T)
                np.copyto(which, symmetry, where=found > best)
                np.maximum(best, found, out=best)
        if allowed is not None:
            best[~allowed[start : start + _BLOCK]] = -1
        for row, columns in enumerate(_largest(best, _CANDIDATES)):
            for column in columns[best[row, columns] > 0]:
                yield start + row, int(column), int(which[row, column])


def _largest(values: Array, most: int) -> NDArray[np.int64]:
    count = min(most, values.shape[1])
    return np.argpartition(-values, count - 1, axis=1)[:, :count]


def _greys(images: Pictures, side: int) -> tuple[Array, Array]:
    """Return lightness, and the mean of the channels, which does not depend on their order."""
    small = _shrunk(images, side)
    return small @ _LIGHT, small.mean(axis=-1)


def _shrunk(images: Pictures, side: int) -> Array:
    step = images.shape[1] // side
    shape = (len(images), side, step, side, step, images.shape[-1])
    return np.asarray(images.reshape(shape).mean(axis=(2, 4), dtype=np.float32))


def _rows(values: Array) -> Array:
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # A picture of one tone is like none.
    return np.divide(
        flat, length, out=np.zeros_like(flat), where=length > 0.5 * flat.shape[1] ** 0.5
    )


def _turned(values: Array, symmetry: int) -> Array:
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
    shape = (1, _FINE, _FINE, 3)
    return _alike(made.reshape(shape), wanted.reshape(shape))


def _alike(made: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.ndimage import uniform_filter

    pairs = [(made, wanted)]
    pairs.append(tuple(each - uniform_filter(each, (0, 5, 5, 0)) for each in pairs[0]))  # type: ignore[arg-type]
    found = []
    for a, b in pairs:
        below = float(np.linalg.norm(a) * np.linalg.norm(b))
        found.append(float((a * b).sum()) / below if below > 0 else 0.0)
    return found[0], found[1]


def windows() -> NDArray[np.float64]:
    """Return the crops to try: top, bottom, left, right as shares of the side."""
    spans = []
    for kept in _KEPT:
        starts = np.linspace(0, 1 - kept, 1 + int(np.ceil((1 - kept) / (_APART * kept))))
        spans += [(start, start + kept) for start in starts]
    found = [
        (*a, *b)
        for a in spans
        for b in spans
        if 1 / _ASPECT <= (a[1] - a[0]) / (b[1] - b[0]) <= _ASPECT
    ]
    return np.asarray(found[1:])


def _sums(images: Pictures) -> Array:
    """Return sums of grey values above and left of each pixel corner, shape (n, 65, 65)."""
    grey = images.mean(axis=-1, dtype=np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    found = np.zeros((len(grey), SIDE + 1, SIDE + 1), np.float32)
    np.cumsum(np.cumsum(grey, axis=1), axis=2, out=found[:, 1:, 1:])
    return found


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
    thumbs = _shrunk(whole, _PART).mean(axis=-1)
    count = len(whole) if rows_are_whole else len(source)
    for start in range(0, count, _BLOCK):
        part = slice(start, start + _BLOCK)
        own = thumbs[part] if rows_are_whole else thumbs
        inside = sums if rows_are_whole else sums[part]
        targets = [_rows(_turned(own, symmetry)) for symmetry in (0, 4)]
        shape = (len(own), len(inside)) if rows_are_whole else (len(inside), len(own))
        best = np.full(shape, -1.0, np.float32)
        which = np.zeros(shape, np.int16)
        for place, window in enumerate(tried):
            cut = _rows(_cut(inside, window, _PART))
            for number, target in enumerate(targets):
                found = target @ cut.T if rows_are_whole else cut @ target.T
                np.copyto(which, 2 * place + number, where=found > best)
                np.maximum(best, found, out=best)
        if allowed is not None:
            best[~allowed[part]] = -1
        for row, columns in enumerate(_largest(best, count_of_crops)):
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
    for start in range(0, len(candidates), _BLOCK):
        part = np.asarray(candidates[start : start + _BLOCK])
        sums = _sums(source[part[:, 1]])
        grey = _shrunk(whole[part[:, 0]], _WHOLE).mean(axis=-1)
        mirrored = part[:, 2] == 4
        grey[mirrored] = grey[mirrored, :, ::-1]
        target = _rows(grey)
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
            cut = np.stack([_cut(_sums(each[None]), window, _FINE)[0] for each in channels], -1)
            made = _turned(_shrunk(whole[row : row + 1], _FINE), symmetry)[0]
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
    count, side = len(sums), _WHOLE
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
    return np.asarray((_rows(np.diff(np.diff(both, axis=1), axis=2)) * target).sum(axis=1))
