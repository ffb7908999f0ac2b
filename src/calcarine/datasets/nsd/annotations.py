"""COCO's captions and objects of the pictures that a subject saw.

A file is read once, when something of it is first used, and element by
element: the largest has half a gigabyte, and most of it is of other pictures.
"""

from __future__ import annotations

import ast
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets.nsd.coco_maps import CATEGORIES, Crop, Instance, run_lengths, semantic_map
from calcarine.datasets.nsd.design import read_stim_info, stimulus_id
from calcarine.datasets.nsd.files import content_error, integers, reading
from calcarine.datasets.nsd.layout import COCO_SPLITS, NSDLayout

__all__ = ["Annotations", "elements", "missing_annotations"]

_BLOCK = 2**22
_LARGEST = 2**26  # letters of one element
_CATEGORY_GRID = (128, 128)
_SPACE = " \t\r\n"


class Annotations:
    """Captions, categories and semantic maps of chosen pictures.

    Parameters
    ----------
    layout
        Whose files.
    images
        Numbers of the pictures, from 0.
    size
        Height and width of semantic maps.
    """

    def __init__(self, layout: NSDLayout, images: Sequence[int], size: tuple[int, int]) -> None:
        self._layout, self._size = layout, size
        self._images = [int(image) for image in images]
        self._lock = threading.RLock()
        self._known: dict[str, Any] = {}

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._known:
                self._known[name] = make()
            return self._known[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def captions(self, key: str) -> tuple[str, ...]:
        """Return the captions of a stimulus in file order; none if the file is missing."""
        results: dict[str, list[str]] = self._once("captions", self._read_captions)
        return tuple(results.get(key, ()))

    def categories(self, key: str) -> tuple[str, ...]:
        """Return the categories of the visible objects, by area, largest first."""
        objects, crops, names = self._once("instances", self._read_instances)
        if key not in crops:
            return ()
        numbers = semantic_map(objects.get(key, ()), crops[key], _CATEGORY_GRID)
        shown = np.bincount(numbers.ravel(), minlength=256)
        shown[0] = 0
        order = np.argsort(-shown, kind="stable")[: int((shown > 0).sum())]
        return tuple(names.get(int(number), f"category {number}") for number in order)

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        """Return COCO's category of each pixel, 0 for none; None if the file is missing."""
        objects, crops, _ = self._once("instances", self._read_instances)
        if key not in crops:
            return None
        return semantic_map(objects.get(key, ()), crops[key], self._size)

    def _pictures(self) -> dict[tuple[str, int], tuple[str, tuple[float, ...]]]:
        """Return our id and the crop of each picture by COCO's split and number."""
        results: dict[tuple[str, int], tuple[str, tuple[float, ...]]] = self._once(
            "pictures", lambda: _read_pictures(self._layout, self._images)
        )
        return results

    def _read_captions(self) -> dict[str, list[str]]:
        results: dict[str, list[str]] = {}
        for split, path in _there(self._layout, "captions"):
            own = self._of_split(split)
            for name, value in elements(path, ("annotations",)):
                image, text = _field(path, value, "image_id", int), value.get("caption")
                if image not in own:
                    continue
                if not isinstance(text, str):
                    raise content_error(
                        path, f"has no text as caption of {name} for picture {image}."
                    )
                if text.strip():
                    results.setdefault(own[image][0], []).append(" ".join(text.split()))
        return results

    def _of_split(self, split: str) -> dict[int, tuple[str, tuple[float, ...]]]:
        return {number: what for (own, number), what in self._pictures().items() if own == split}

    def _read_instances(
        self,
    ) -> tuple[dict[str, list[Instance]], dict[str, Crop], dict[int, str]]:
        objects: dict[str, list[Instance]] = {}
        crops: dict[str, Crop] = {}
        names = dict(CATEGORIES)
        for split, path in _there(self._layout, "instances"):
            own = self._of_split(split)
            for name, value in elements(path, ("images", "annotations", "categories")):
                if name == "categories":
                    names[_field(path, value, "id", int)] = str(value.get("name"))
                    continue
                number = _field(path, value, "id" if name == "images" else "image_id", int)
                if number not in own:
                    continue
                key, cut = own[number]
                if name == "images":
                    crops[key] = _crop(path, value, cut)
                else:
                    objects.setdefault(key, []).append(_instance(path, value))
        return objects, crops, names


def missing_annotations(layout: NSDLayout, kind: str) -> list[Path]:
    """Return the missing files of ``captions`` or ``instances``."""
    paths = [layout.annotations(kind, split) for split in COCO_SPLITS]
    return [path for path in paths if not path.is_file()]


def _there(layout: NSDLayout, kind: str) -> Iterator[tuple[str, Path]]:
    for split in COCO_SPLITS:
        path = layout.annotations(kind, split)
        if path.is_file():
            yield split, path


def _read_pictures(
    layout: NSDLayout, images: Sequence[int]
) -> dict[tuple[str, int], tuple[str, tuple[float, ...]]]:
    path, info = layout.stim_info, read_stim_info(layout)
    for column in ("cocoId", "cocoSplit"):
        if column not in info.columns:
            raise content_error(path, f"has no column {column}; get it again.")
    numbers = integers(path, info, "cocoId")
    results: dict[tuple[str, int], tuple[str, tuple[float, ...]]] = {}
    for image in images:
        if image >= len(info):
            raise content_error(
                path, f"has {len(info)} pictures and none of number {image} (from 0)."
            )
        split = info["cocoSplit"].iloc[image]
        if split not in COCO_SPLITS:
            raise content_error(
                path,
                f"has cocoSplit {str(split)[:40]} for picture {image} (from 0) and should "
                f"have {' or '.join(COCO_SPLITS)}.",
            )
        box = info["cropBox"].iloc[image] if "cropBox" in info.columns else "(0, 0, 0, 0)"
        results[split, int(numbers[image])] = (stimulus_id(image), _parts(path, image, box))
    return results


def _parts(path: Path, image: int, text: Any) -> tuple[float, ...]:
    """Return top, bottom, left and right as fractions of the picture."""
    try:
        parts = tuple(float(part) for part in ast.literal_eval(str(text)))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        parts = ()
    fits = len(parts) == 4 and all(0 <= part < 1 for part in parts)
    if not fits or parts[0] + parts[1] >= 1 or parts[2] + parts[3] >= 1:
        raise content_error(
            path,
            f"has cropBox {str(text)[:60]} for picture {image} (from 0) and should have the parts "
            "(top, bottom, left, right) that were cut off.",
        )
    return parts


def _field(path: Path, value: Any, name: str, kind: type) -> Any:
    result = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(result, kind) or isinstance(result, bool):
        raise content_error(path, f"has an entry without {name}; it is damaged, get it again.")
    return result


def _crop(path: Path, value: Any, cut: tuple[float, ...]) -> Crop:
    height, width = (_field(path, value, name, int) for name in ("height", "width"))
    if not (0 < height < 2**16 and 0 < width < 2**16):
        raise content_error(path, f"has a picture of {height} x {width} pixels; it is damaged.")
    return Crop(height, width, *cut)


def _instance(path: Path, value: Any) -> Instance:
    category = _field(path, value, "category_id", int)
    if not 0 < category < 256:
        raise content_error(
            path, f"has category {category}, and COCO's are 1 to 90; it is damaged."
        )
    with reading(path):
        area, shape = float(value["area"]), value["segmentation"]
        if isinstance(shape, Mapping):
            return Instance(category, area, run_lengths(shape["counts"]))
        outlines = tuple(np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in shape)
        if not all(np.isfinite(points).all() for points in outlines):
            raise ValueError("an outline holds no numbers")
        return Instance(category, area, outlines)


def elements(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the elements of the named lists of a JSON object, one by one.

    Parameters
    ----------
    path
        File whose top level is an object.
    names
        Which of its lists; others are passed over.

    Yields
    ------
    name, element
    """
    with reading(path), open(path, encoding="utf-8") as file:
        yield from _Scanner(file).elements(frozenset(names))


class _Scanner:
    """A window that moves over a JSON text."""

    def __init__(self, file: Any) -> None:
        self._file, self._text, self._at = file, "", 0
        self._decode = json.JSONDecoder().raw_decode

    def elements(self, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
        self._take("{")
        while True:
            if self._next() == "}":
                return
            name = self._value()
            self._take(":")
            if self._next() == "[":
                for value in self._list():
                    if name in names:
                        yield name, value
            else:
                self._value()
            if self._next() == "}":
                return
            self._take(",")

    def _list(self) -> Iterator[Any]:
        self._take("[")
        if self._next() == "]":
            self._take("]")
            return
        while True:
            yield self._value()
            if self._next() == "]":
                self._take("]")
                return
            self._take(",")

    def _more(self) -> bool:
        block = self._file.read(_BLOCK)
        self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def _next(self) -> str:
        """Return the next letter that is not a space, without consuming it."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                raise ValueError("it ends too early")

    def _take(self, letter: str) -> None:
        result = self._next()
        if result != letter:
            raise ValueError(f"it has {result!r} where {letter!r} should be")
        self._at += 1

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > _LARGEST or not self._more():
                    raise
                continue
            # A number at the end of the window may go on behind it.
            if end == len(self._text) and self._more():
                continue
            self._at = end
            return value
