"""Maps of class numbers from outlines and run lengths of COCO's objects.

A pixel belongs to an outline when its centre lies inside. Class numbers are
COCO's category numbers, listed in `CATEGORIES`; 0 is what no object covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CATEGORIES", "Crop", "Instance", "run_lengths", "semantic_map"]

_THINGS = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - "
    "stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe - "
    "backpack umbrella - - handbag tie suitcase frisbee skis snowboard sports_ball kite "
    "baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork "
    "knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair "
    "couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone "
    "microwave oven toaster sink refrigerator - book clock vase scissors teddy_bear hair_drier "
    "toothbrush"
)
CATEGORIES: dict[int, str] = {
    number: name.replace("_", " ") for number, name in enumerate(_THINGS.split(), 1) if name != "-"
}
"""COCO's 80 categories by the number that they have in a semantic map."""


@dataclass(frozen=True)
class Crop:
    """The part of a COCO picture that was shown.

    Attributes
    ----------
    height, width : int
        Size of the whole picture, in pixels.
    top, bottom, left, right : float
        Share of height or width that was cut off at each side.
    """

    height: int
    width: int
    top: float = 0.0
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0

    def centres(self, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return rows and columns of the centres of ``size`` pixels, in the whole picture."""
        rows = self.top + (np.arange(size[0]) + 0.5) / size[0] * (1 - self.top - self.bottom)
        columns = self.left + (np.arange(size[1]) + 0.5) / size[1] * (1 - self.left - self.right)
        return rows * self.height, columns * self.width


@dataclass(frozen=True, eq=False)
class Instance:
    """One object in a picture.

    Attributes
    ----------
    category : int
        COCO's number of its category.
    area : float
        In pixels of the whole picture.
    shape : tuple of float64 array or int array
        Outlines, each a float array of shape (point, 2) as x and y, or the
        run lengths of the picture's columns, the first of what is outside.
    """

    category: int
    area: float
    shape: tuple[NDArray[np.float64], ...] | NDArray[np.int64]


def run_lengths(counts: Any) -> NDArray[np.int64]:
    """Return run lengths from COCO's list or its compressed text.

    The text holds numbers in groups of five bits, low bits first, in
    characters from ``0`` on; a sixth bit says that more follows.  From the
    fourth on a number is the difference from the one two before.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if not isinstance(counts, str):
        lengths = np.asarray(counts, dtype=np.int64)
    else:
        values: list[int] = []
        value = shift = 0
        for letter in counts:
            bits = ord(letter) - 48
            if not 0 <= bits < 64 or shift > 50:
                raise ValueError("its run lengths hold an invalid letter")
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                if bits & 16:
                    value -= 1 << shift
                values.append(value + (values[-2] if len(values) > 2 else 0))
                value = shift = 0
        if shift:
            raise ValueError("its run lengths end too early")
        lengths = np.array(values, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any():
        raise ValueError("its run lengths are not a list of numbers of at least 0")
    return lengths


def semantic_map(
    instances: Iterable[Instance], crop: Crop, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the class of each pixel of the shown part, small objects over large ones.

    Parameters
    ----------
    instances : iterable of Instance
        Objects of the whole picture.
    crop : Crop
        The part that was shown.
    size : (int, int)
        Height and width of the map.

    Returns
    -------
    uint8 array of shape (height, width)
        Category of the smallest object there, 0 where there is none.
    """
    rows, columns = crop.centres(size)
    classes = np.zeros(size, dtype=np.uint8)
    for each in sorted(instances, key=lambda one: -one.area):
        if isinstance(each.shape, tuple):
            inside = _inside_outlines(each.shape, rows, columns)
        else:
            inside = _inside_runs(each.shape, crop, rows, columns)
        classes[inside] = each.category
    return classes


def _inside_outlines(
    outlines: Sequence[NDArray[np.float64]],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return which centres lie in any of the outlines."""
    inside = np.zeros((len(rows), len(columns)), dtype=np.bool_)
    for points in outlines:
        inside |= _inside_outline(points, rows, columns)
    return inside


def _inside_outline(
    points: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Even-odd rule: every crossing of a row flips all that is right of it."""
    flips = np.zeros((len(rows), len(columns) + 1), dtype=np.int64)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        first, last = np.searchsorted(rows, sorted((y0, y1)), side="left")
        crossed = np.arange(first, last)
        x = x0 + (rows[crossed] - y0) * (x1 - x0) / (y1 - y0)
        flips[crossed, np.searchsorted(columns, x, side="left")] += 1
    return np.asarray(np.cumsum(flips[:, :-1], axis=1) % 2 == 1)


def _inside_runs(
    lengths: NDArray[np.int64],
    crop: Crop,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return whether the pixel of each centre is in a run of the object."""
    ends = np.cumsum(lengths)
    row = np.minimum(rows.astype(np.int64), crop.height - 1)
    column = np.minimum(columns.astype(np.int64), crop.width - 1)
    pixel = column[None, :] * crop.height + row[:, None]
    return np.asarray(np.searchsorted(ends, pixel, side="right") % 2 == 1)
