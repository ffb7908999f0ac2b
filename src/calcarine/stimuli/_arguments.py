"""Checks of what a stimulus set is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError, ShapeError

__all__ = ["Texts", "check_ids", "check_length", "pictures_hint", "text_lookup", "texts_of"]

Texts = Sequence[str | Sequence[str]]
"""For each stimulus a text or several."""


def pictures_hint(pictures: NDArray[Any]) -> str:
    """Return how to convert pictures of a common other form."""
    if pictures.ndim == 4 and pictures.shape[1] == 3:
        return "; move the channels to the end with np.moveaxis(images, 1, -1)"
    if pictures.ndim == 3 and pictures.dtype == np.uint8:
        return "; repeat grey pictures with np.repeat(images[..., None], 3, axis=-1)"
    if pictures.dtype.kind == "f" and pictures.size and 0 <= pictures.min() <= pictures.max() <= 1:
        return "; convert fractions with np.round(255 * images).astype(np.uint8)"
    return ""


def check_ids(ids: tuple[str, ...]) -> None:
    """Raise if an id is empty or occurs twice."""
    for key, times in Counter(ids).items():
        if not key:
            raise SettingError("A stimulus has an empty id; name every stimulus.")
        if times > 1:
            raise SettingError(f"Stimulus id {key} occurs {times} times; ids must be unique.")


def check_length(what: str, found: int, wanted: int) -> None:
    """Raise unless there is one of something for each stimulus."""
    if found != wanted:
        raise ShapeError(f"There are {found} {what} for {wanted} stimuli; give one each.")


def texts_of(what: str, texts: Texts | None, count: int) -> list[tuple[str, ...]]:
    """Return a tuple of texts for each stimulus."""
    if texts is None:
        return [()] * count
    check_length(what, len(texts), count)
    return [(text,) if isinstance(text, str) else tuple(text) for text in texts]


def text_lookup(
    what: str, texts: Texts | Callable[[str], Sequence[str]] | None, names: tuple[str, ...]
) -> Callable[[str], Sequence[str]]:
    """Return a function from id to texts."""
    if callable(texts):
        return texts
    return dict(zip(names, texts_of(what, texts, len(names)), strict=True)).__getitem__
