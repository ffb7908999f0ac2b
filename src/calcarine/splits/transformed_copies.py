"""Finding rotated, mirrored, recoloured and cropped copies of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calcarine.splits._crops import crop_candidates, refine
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

__all__ = ["SIDE", "PictureMatch", "PictureMatches", "same_pictures"]

_Search = Callable[..., "list[PictureMatch]"]

_CANDIDATES = 4
# Least similarity, and least similarity of detail, of the same picture, whole and cropped, measured
# on scenes, photographs, digits and the pictures of the self-test: copies with a gamma of .5 reach
# .975 and .93, crops .98 and .96; different digits reach .98 and .93, which `_USUAL` excludes.
_SAME, _SAME_CROP = (0.93, 0.85), (0.96, 0.92)
# Number of training pictures compared with the others; the quantile of their similarity of detail;
# how much closer to 1 that of a copy must be.
_DRAWN, _USUAL, _CLOSER = 100, 0.98, 0.5
# Above this similarity of detail, training pictures are copies of each other (for example rotated
# gratings), and the search cannot decide.
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
    row, column : int
        Row of the test picture and of the training picture.
    how : str
        How the pictures differ, for example ``"mirrored"`` or ``"cropped"``.
    alike : float
        Correlation of the pictures at 32 x 32 pixels, after the best recolouring.
    detail : float
        Correlation of their fine detail.
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
    pairs : list of PictureMatch
        The most similar training picture of each test picture that has one.
    undecided : tuple of str
        Transformations that cannot be detected, because many training pictures are such copies of
        each other: any of ``"turned or in other colours"`` and ``"cropped"``.
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

    The fine detail of both must be much more similar than that of training pictures among each
    other, so different pictures of one kind, such as digits, are not reported.

    Parameters
    ----------
    test, train : uint8 array of shape (n, 64, 64, 3)
    allowed : bool array of shape (n test, n train), optional
        Pairs to compare; by default all.
    seed : int
        Seed of the training pictures that are compared with the others.

    Returns
    -------
    PictureMatches
    """
    results: dict[int, PictureMatch] = {}
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
        # Comparing training pictures doubles the cost, so it is done only if there are candidates.
        usual = _usual(search, train, seed) if near else 0.0
        if usual >= _ALL_ALIKE:
            undecided.append(what)
            continue
        for each in near:
            if each.detail >= 1 - _CLOSER * (1 - usual):
                results.setdefault(each.row, each)
    return PictureMatches([results[row] for row in sorted(results)], tuple(undecided))


def _usual(search: _Search, train: Pictures, seed: int) -> float:
    """Return the similarity of detail below which nearly every training picture stays."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(train))[:_DRAWN])
    others = np.ones((len(drawn), len(train)), bool)
    others[np.arange(len(drawn)), drawn] = False
    among = [each.detail for each in search(train[drawn], train, others)]
    # Pictures without a candidate are similar to none.
    among += [0.0] * (len(drawn) - len(among))
    return float(np.quantile(among, _USUAL)) if among else 0.0


def _best(matches: Iterator[PictureMatch]) -> list[PictureMatch]:
    """Return the match with the most similar detail for each row."""
    results: dict[int, PictureMatch] = {}
    for each in matches:
        if each.row not in results or each.detail > results[each.row].detail:
            results[each.row] = each
    return list(results.values())


def _whole(
    test: Pictures, train: Pictures, allowed: NDArray[np.bool_] | None
) -> list[PictureMatch]:
    def every() -> Iterator[PictureMatch]:
        own, base = shrink(test, FINE), shrink(train, FINE)
        for row, column, symmetry in whole_candidates(test, train, allowed):
            turned = transform(own[row : row + 1], symmetry)[0]
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
    base = [unit_rows(each) for each in _greys(train, WHOLE)]
    for start in range(0, len(test), BLOCK):
        own = _greys(test[start : start + BLOCK], WHOLE)
        best = np.full((len(own[0]), len(train)), -1.0, np.float32)
        which = np.zeros(best.shape, np.uint8)
        for symmetry in range(8):
            for grey, other in zip(own, base, strict=True):
                # The sign is left out: a negative is the same picture too.
                result = np.abs(unit_rows(transform(grey, symmetry)) @ other.T)
                np.copyto(which, symmetry, where=result > best)
                np.maximum(best, result, out=best)
        if allowed is not None:
            best[~allowed[start : start + BLOCK]] = -1
        for row, columns in enumerate(largest(best, _CANDIDATES)):
            for column in columns[best[row, columns] > 0]:
                yield start + row, int(column), int(which[row, column])


def _greys(images: Pictures, side: int) -> tuple[Array, Array]:
    """Return lightness, and the mean of the channels, which does not depend on their order."""
    small = shrink(images, side)
    return small @ _LIGHT, small.mean(axis=-1)
