"""Where a `StimulusSet` reads its pictures and descriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    ShapeError,
    one_line,
)
from calcarine.files import content_missing, is_annexed
from calcarine.files.hdf5 import open_hdf5
from calcarine.stimuli import scenes
from calcarine.stimuli.image_files import read_label_map, read_picture
from calcarine.stimuli.images import resize_images

__all__ = [
    "CACHE_BYTES",
    "ArraySource",
    "FolderSource",
    "Hdf5Source",
    "JoinedSource",
    "SceneSource",
    "Source",
    "inside_folder",
    "map_files",
]

CACHE_BYTES = 256 * 2**20
"""Drawn pictures kept in memory by one set of scenes."""


class Source(Protocol):
    """Reads the picture and the descriptions of one stimulus."""

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
    """Picture files, read each time they are used."""

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
        height, width = read_picture(next(iter(self._files.values()))).shape[:2]
        return height, width

    def image(self, key: str) -> NDArray[np.uint8]:
        return self._sized(read_picture(self._files[key]), self._files[key])

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        path = self._maps.get(key)
        if path is None:
            return None
        labels = self._sized(np.repeat(read_label_map(path)[..., None], 3, 2), path, nearest=True)
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
            raise ShapeError(
                f"{path} has {image.shape[0]} x {image.shape[1]} pixels (height x width) and "
                f"{next(iter(self._files.values()))} has {self.size[0]} x {self.size[1]}; give "
                "size= to bring all to one size (in a run: dataset.options.size)."
            )
        fitted: NDArray[np.uint8] = resize_images(
            _cropped(image, self.size)[None], self.size, nearest=nearest
        )[0]
        return fitted


class SceneSource:
    """Procedural scenes, drawn when they are first used."""

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


class Hdf5Source:
    """Rows of one array of pictures in an HDF5 file, read each time they are used.

    The file is open only while a picture is read, so threads and forked
    processes may share the source.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        rows: Mapping[str, int],
        captions: Callable[[str], Sequence[str]],
        categories: Callable[[str], Sequence[str]],
        size: tuple[int, int] | None,
        semantic_maps: Callable[[str], NDArray[np.uint8] | None] | None,
    ) -> None:
        self._path, self._key, self._rows = path, key, rows
        self._captions, self._categories, self._maps = captions, categories, semantic_maps
        shape, dtype = self._read(lambda pictures: (tuple(pictures.shape), pictures.dtype))
        if len(shape) != 4 or shape[3] != 3 or 0 in shape or dtype != np.uint8:
            raise ShapeError(
                f"{key} in {path} is {dtype} of shape {shape}; pictures must be uint8 of shape "
                "(n, height, width, 3)."
            )
        for name, row in rows.items():
            if not 0 <= row < shape[0]:
                raise DamagedFileError(
                    f"Stimulus {name} is row {row} of {key} in {path}, which has rows 0 to "
                    f"{shape[0] - 1}; the file does not belong to these stimuli."
                )
        self.size = size if size is not None else (int(shape[1]), int(shape[2]))

    def _read(self, what: Callable[[Any], Any]) -> Any:
        if not self._path.is_file():
            raise MissingFileError(f"The picture file {self._path} does not exist; check the path.")
        try:
            with open_hdf5(self._path) as file:
                return what(file[self._key])
        except CalcarineError:
            raise
        except Exception as error:  # damaged HDF5 files raise errors of many kinds
            reason = one_line(error)
            raise DamagedFileError(
                f"Pictures {self._key} in {self._path} cannot be read ({reason}); the file is "
                "damaged or another one, get it again."
            ) from error

    def image(self, key: str) -> NDArray[np.uint8]:
        row = self._rows[key]
        picture: NDArray[np.uint8] = self._read(lambda pictures: pictures[row])
        if picture.shape[:2] == self.size:
            return picture
        fitted: NDArray[np.uint8] = resize_images(_cropped(picture, self.size)[None], self.size)[0]
        return fitted

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        return None if self._maps is None else self._maps(key)

    def captions(self, key: str) -> tuple[str, ...]:
        return tuple(self._captions(key))

    def categories(self, key: str) -> tuple[str, ...]:
        return tuple(self._categories(key))


class JoinedSource:
    """Several sources as one."""

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


def map_files(root: Path, ids: tuple[str, ...], rows: list[dict[str, Any]]) -> dict[str, Path]:
    """Return the files of the semantic maps that the table names."""
    return {
        key: inside_folder(root, row["semantic_map"], key)
        for key, row in zip(ids, rows, strict=True)
        if isinstance(row.get("semantic_map"), str) and row["semantic_map"]
    }


def inside_folder(root: Path, name: object, key: str) -> Path:
    """Return the path of the file of a stimulus, which must exist and lie in the folder."""
    if not isinstance(name, str) or not name:
        raise CalcarineError(f"Stimulus {key} names no file; fill the column in its table.")
    path = root / name
    lost = content_missing(path)
    if lost is not None:
        raise MissingFileError(f"Stimulus {key}: {lost}.")
    # Links of DataLad lead into its data set, of which the folder may be a part.
    inside = path.resolve().is_relative_to(root.resolve()) or (
        is_annexed(path) and path.parent.resolve().is_relative_to(root.resolve())
    )
    if not inside:
        raise CalcarineError(f"Stimulus {key}: {name} lies outside the folder {root}; move it in.")
    if not path.is_file():
        raise MissingFileError(
            f"Stimulus {key}: the file {path} does not exist; add it or its row."
        )
    return path


def _cropped(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the central part with the proportions of `size`."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]
