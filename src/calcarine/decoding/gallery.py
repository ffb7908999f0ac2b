"""Galleries of pictures that are searched by their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import ShapeError

__all__ = ["Gallery"]


class Gallery:
    """Embeddings of pictures with their ids, in memory or on disk.

    Parameters
    ----------
    embeddings : array of shape (m, ...)
        Anything with a shape that can be sliced by rows: numpy, Zarr, HDF5, stored features.
    ids : sequence of m str
        Unique ids of the pictures.

    Raises
    ------
    ShapeError
        If the numbers of embeddings and ids differ, or an id occurs twice.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.decoding import Gallery
    >>> seen = Gallery(np.zeros((3, 8)), ["a", "b", "c"])
    >>> others = Gallery(np.ones((5, 8)), [f"other {i}" for i in range(5)])
    >>> Gallery.joined([others, seen])
    Gallery(8 pictures)
    """

    def __init__(self, embeddings: Any, ids: Sequence[str]) -> None:
        self._parts = [embeddings if hasattr(embeddings, "shape") else np.asarray(embeddings)]
        self.ids = tuple(ids)
        if len(self.ids) != self._parts[0].shape[0]:
            raise ShapeError(
                f"The gallery has {self._parts[0].shape[0]} embeddings and {len(self.ids)} ids; "
                "give one id for each."
            )
        self.place = _places(self.ids)

    @classmethod
    def joined(cls, galleries: Sequence[Gallery]) -> Gallery:
        """Return one gallery of several, without a copy of their embeddings.

        Parameters
        ----------
        galleries : sequence of Gallery
            With embeddings of one shape.

        Returns
        -------
        Gallery

        Raises
        ------
        ShapeError
            If shapes differ, an id occurs twice, or there is no gallery.
        """
        if not galleries:
            raise ShapeError("There is no gallery to join; give at least one.")
        shapes = {gallery.shape for gallery in galleries}
        if len(shapes) > 1:
            raise ShapeError(
                f"Galleries hold embeddings of the shapes {' and '.join(map(str, sorted(shapes)))};"
                " join those of one kind."
            )
        made = object.__new__(cls)
        made._parts = [part for gallery in galleries for part in gallery._parts]
        made.ids = tuple(key for gallery in galleries for key in gallery.ids)
        made.place = _places(made.ids)
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one embedding."""
        return tuple(self._parts[0].shape[1:])

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Gallery({len(self):,} pictures)"

    def rows(self, rows: slice) -> NDArray[Any]:
        """Read the embeddings of some pictures.

        Parameters
        ----------
        rows : slice
            With start and stop.

        Returns
        -------
        array of shape (rows.stop - rows.start, ...)
        """
        read, first = [], 0
        for part in self._parts:
            start, stop = max(rows.start - first, 0), min(rows.stop - first, part.shape[0])
            if start < stop:
                read.append(np.asarray(part[start:stop]))
            first += part.shape[0]
        return read[0] if len(read) == 1 else np.concatenate(read)


def _places(ids: tuple[str, ...]) -> dict[str, int]:
    place = {name: at for at, name in enumerate(ids)}
    if len(place) < len(ids):
        twice = next(name for at, name in enumerate(ids) if place[name] != at)
        raise ShapeError(f"The gallery holds '{twice}' twice; leave one of them out.")
    return place
