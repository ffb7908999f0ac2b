"""Where a `StimulusSet` reads its pictures and descriptions from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calcarine.errors import CalcarineError
from calcarine.stimuli import scenes
from calcarine.stimuli.images import resize_images

CACHE_BYTES = 256 * 2**20
"""Drawn pictures kept in memory by one set of scenes."""


class Source(Protocol):
    """Reads what is known about one stimulus."""

    def image(self, key: str) -> NDArray[np.uint8]: ...

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None: ...

    def captions(self, key: str) -> tuple[str, ...]: ...

    def categories(self, key: str) -> tuple[str, ...]: ...


class ArraySource:
    """Pictures in memory."""

    def __init__(
        self,
        ids: tuple[str, ...],
        images: NDArray[np.uint8],
        captions: list[tuple[str, ...]],
        categories: list[tuple[str, ...]],
        semantic_maps: NDArray[np.uint8] | None,
    ) -> None:
        self._rows = {key: row for row, key in enumerate(ids)}
        self._images = images
        self._captions = captions
        self._categories = categories
        self._maps = semantic_maps

    def image(self, key: str) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._images[self._rows[key]]
        return picture

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        return None if self._maps is None else self._maps[self._rows[key]]

    def captions(self, key: str) -> tuple[str, ...]:
        return self._captions[self._rows[key]]

    def categories(self, key: str) -> tuple[str, ...]:
        return self._categories[self._rows[key]]


class FolderSource:
    """Picture files, read each time they are asked for."""

    def __init__(
        self,
        files: Mapping[str, Path],
        maps: Mapping[str, Path],
        captions: Mapping[str, tuple[str, ...]],
        categories: Mapping[str, tuple[str, ...]],
        size: tuple[int, int] | None,
    ) -> None:
        self._files = files
        self._maps = maps
        self._captions = captions
        self._categories = categories
        self.size = size if size is not None else self._first_size()
        self._fit = size is not None

    def _first_size(self) -> tuple[int, int]:
        height, width = _open(next(iter(self._files.values())), "RGB").shape[:2]
        return height, width

    def image(self, key: str) -> NDArray[np.uint8]:
        return self._sized(_open(self._files[key], "RGB"), self._files[key])

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        path = self._maps.get(key)
        if path is None:
            return None
        labels = self._sized(np.repeat(_open(path, "L")[..., None], 3, 2), path, nearest=True)
        return np.ascontiguousarray(labels[..., 0])

    def captions(self, key: str) -> tuple[str, ...]:
        return self._captions[key]

    def categories(self, key: str) -> tuple[str, ...]:
        return self._categories[key]

    def _sized(
        self, image: NDArray[np.uint8], path: Path, nearest: bool = False
    ) -> NDArray[np.uint8]:
        if image.shape[:2] == self.size:
            return image
        if not self._fit:
            raise CalcarineError(
                f"{path} has {image.shape[0]} x {image.shape[1]} pixels where the first picture "
                f"has {self.size[0]} x {self.size[1]}; give size= to bring all to one size."
            )
        fitted: NDArray[np.uint8] = resize_images(
            _cropped(image, self.size)[None], self.size, nearest=nearest
        )[0]
        return fitted


class SceneSource:
    """Procedural scenes, drawn when first asked for."""

    def __init__(self, places: Mapping[str, tuple[int, int]], size: int) -> None:
        self._places = places
        self._size = size
        self._drawn: dict[str, scenes.RenderedScene] = {}
        self._room = CACHE_BYTES // (size * size * 4)

    def _render(self, key: str) -> scenes.RenderedScene:
        known = self._drawn.get(key)
        if known is not None:
            return known
        drawn = scenes.render(*self._places[key], size=self._size)
        if len(self._drawn) < self._room:
            self._drawn[key] = drawn
        return drawn

    def image(self, key: str) -> NDArray[np.uint8]:
        return self._render(key).image

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        return self._render(key).semantic_map

    def captions(self, key: str) -> tuple[str, ...]:
        return self._render(key).captions

    def categories(self, key: str) -> tuple[str, ...]:
        return self._render(key).categories


class JoinedSource:
    """Several sources behind one another."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def image(self, key: str) -> NDArray[np.uint8]:
        return self._sources[key].image(key)

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        return self._sources[key].semantic_map(key)

    def captions(self, key: str) -> tuple[str, ...]:
        return self._sources[key].captions(key)

    def categories(self, key: str) -> tuple[str, ...]:
        return self._sources[key].categories(key)


def _open(path: Path, mode: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            # A palette image already holds class numbers; converting would turn them into greys.
            keep = mode == "L" and picture.mode == "P"
            return np.asarray(picture if keep else picture.convert(mode), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CalcarineError(
            f"{path} cannot be read as a picture ({error}); replace the file or drop its row."
        ) from error


def _cropped(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Central part with the proportions of `size`."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]
