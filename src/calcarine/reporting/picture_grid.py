"""Pictures side by side in a figure, for notebooks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.stimuli import StimulusSet

__all__ = ["PictureFigure", "show"]

_TITLE_INCHES = 0.25


class PictureFigure(Figure):
    """A matplotlib figure that a notebook shows when it is the last value of a cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        FigureCanvasAgg(self)
        self.savefig(buffer, format="png", dpi=100, facecolor="white")
        return buffer.getvalue()


def show(
    pictures: Any,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    side: float = 1.5,
) -> PictureFigure:
    """Show pictures side by side.

    Parameters
    ----------
    pictures : array, StimulusSet, sequence of these, or mapping of str to these
        One picture of shape (height, width, 3) or (height, width); several of shape
        (n, height, width, 3); or several rows: shape (rows, n, height, width, 3), a list of
        arrays, or a mapping from the label of each row to its pictures. uint8, or floats in
        [0, 1].
    titles : sequence of str, optional
        One for each picture of the first row; the ids of a StimulusSet by default.
    columns : int
        One long row is broken after this many pictures.
    side : float
        Height of a picture in inches.

    Returns
    -------
    PictureFigure
        A matplotlib figure. A notebook shows it when it is the last value of a cell; ``savefig``
        writes it to a file.

    Raises
    ------
    CalcarineError
        If an array has no shape of pictures, or titles are not as many as pictures.

    Examples
    --------
    >>> import calcarine as ca
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(4))
    >>> figure = ca.show({"seen": seen, "inverted": 255 - seen.images()})
    >>> figure.savefig("pictures.png")  # doctest: +SKIP
    """
    if titles is None and isinstance(pictures, StimulusSet):
        titles = pictures.ids
    labels, rows = _rows(pictures)
    names = [list(titles or [])] + [[] for _ in rows[1:]]
    if titles is not None and len(titles) != len(rows[0]):
        raise CalcarineError(f"show got {len(titles)} titles for {len(rows[0])} pictures.")
    if len(rows) == 1:
        cuts = range(0, max(len(rows[0]), 1), max(columns, 1))
        names = [names[0][start : start + columns] for start in cuts]
        rows = [rows[0][start : start + columns] for start in cuts]
        labels = labels + [""] * (len(rows) - 1)
    return _draw(rows, labels, names, side)


def _rows(pictures: Any) -> tuple[list[str], list[list[NDArray[Any]]]]:
    """Labels and pictures of each row."""
    if isinstance(pictures, Mapping):
        rows = [_row(values, str(name)) for name, values in pictures.items()]
        return [str(name) for name in pictures], rows or [[]]
    if isinstance(pictures, StimulusSet):
        return [""], [_row(pictures)]
    if isinstance(pictures, list | tuple):
        single = all(np.ndim(one) in (2, 3) for one in pictures if not isinstance(one, StimulusSet))
        if single and not any(isinstance(one, StimulusSet) for one in pictures):
            return [""], [[_picture(one) for one in pictures]]
        return [""] * len(pictures), [_row(one) for one in pictures]
    array = np.asarray(pictures)
    if array.ndim == 5:
        return [""] * len(array), [_row(one) for one in array]
    return [""], [_row(array)]


def _row(values: Any, what: str = "The pictures") -> list[NDArray[Any]]:
    if isinstance(values, StimulusSet):
        return list(values.images())
    if isinstance(values, list | tuple):
        return [_picture(one, what) for one in values]
    array = np.asarray(values)
    colour = array.ndim > 2 and array.shape[-1] in (1, 3)
    if (array.ndim == 4 and colour) or (array.ndim == 3 and not colour):
        return [_picture(one, what) for one in array]
    return [_picture(array, what)]


def _picture(values: Any, what: str = "The pictures") -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise CalcarineError(
            f"{what} have shape {array.shape}; give (height, width, 3), or (n, height, width, 3) "
            "for several."
        )
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    if array.dtype == np.uint8:
        return array
    array = array.astype(np.float32)
    if not np.isfinite(array).all() or array.min() < -1e-3 or array.max() > 1 + 1e-3:
        raise CalcarineError(f"{what} must be uint8, or floats in [0, 1].")
    return array.clip(0, 1)


def _draw(
    rows: list[list[NDArray[Any]]], labels: list[str], names: list[list[str]], side: float
) -> PictureFigure:
    most = max(1, max(len(row) for row in rows))
    titled = any(names)
    figure = PictureFigure(
        figsize=(side * most, len(rows) * (side + _TITLE_INCHES * titled)), layout="constrained"
    )
    axes = figure.subplots(len(rows), most, squeeze=False)
    for line, row, label, titles in zip(axes, rows, labels, names, strict=True):
        for place, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
            if place < len(row):
                axis.imshow(row[place], interpolation="nearest")
            if place < len(titles):
                axis.set_title(titles[place], fontsize=8)
        if label:
            line[0].set_ylabel(label, fontsize=9)
    return figure
