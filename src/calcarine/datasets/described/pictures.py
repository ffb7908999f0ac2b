"""Pictures and captions of the stimuli of a description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._data_files import natural_key
from calcarine.datasets._numpy_files import reason
from calcarine.datasets.described.description_arrays import ArrayFile, check_content, find
from calcarine.datasets.described.picture_names import files_below
from calcarine.datasets.described.trials import texts_table
from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError, ShapeError
from calcarine.files import parse_json
from calcarine.stimuli._sources import FolderSource, _cropped
from calcarine.stimuli._stimulus_table import cell_texts
from calcarine.stimuli.image_files import PICTURE_SUFFIXES
from calcarine.stimuli.images import resize_images
from calcarine.stimuli.names import match_names
from calcarine.stimuli.stimulus_set import StimulusSet
from calcarine.stimuli.tables import read_text

__all__ = ["read_captions", "stimulus_set"]

_TEXT_COLUMNS = ("id", "caption", "captions", "category", "categories")
_TABLES = (".csv", ".tsv", ".json", ".parquet")

Texts = Mapping[str, tuple[str, ...]]


def stimulus_set(
    root: Path,
    images: str,
    captions: str | None,
    shown: Sequence[str],
    size: int | None,
    first_image: int = 0,
) -> StimulusSet:
    """Return the stimuli that were shown, with pictures and captions.

    Parameters
    ----------
    root, images, captions
        Folder of the description, and what it says.
    shown : sequence of str
        Ids, unique.
    size : int, optional
        Side of the pictures in pixels; as they are if None.
    first_image : int
        Number of the first picture of an array.

    Raises
    ------
    CalcarineError
        If a shown stimulus has no picture, or a file is wrong.
    """
    texts, categories = (
        read_captions(find(root, captions, "captions"), shown) if captions else ({}, {})
    )
    # A file array.h5:key is not there by that name.
    keyed = ":" in images and not (root / images).exists()
    place = None if keyed else find(root, images, "images")
    if place is not None and place.is_file() and place.suffix.lower() in _TABLES:
        whole = StimulusSet.from_folder(place.parent, place, size)
        _check_known(shown, whole.ids, place)
        chosen = whole.subset(shown)
        return _with_texts(chosen, texts, categories) if captions else chosen
    if place is not None and place.is_dir():
        result = _shown_files(place, shown)
        source = FolderSource(
            result,
            {},
            _filled(texts, shown),
            _filled(categories, shown),
            None if size is None else (size, size),
        )
        return StimulusSet(shown, source, source.size)
    (file,) = ArrayFile.open_all(root, images, "images")
    names = {str(first_image + row): row for row in range(file.shape[0])} if file.shape else {}
    _check_known(shown, tuple(names), file.path)
    array = PictureArray(file, {key: names[key] for key in shown}, texts, categories, size)
    return StimulusSet(shown, array, array.size)


class PictureArray:
    """Rows of an array file as pictures, read when they are used.

    Parameters
    ----------
    file : ArrayFile
        Shape (n, height, width) or (n, height, width, 1 or 3): 0 to 255, or
        fractions 0 to 1.
    rows : mapping of str to int
        Row of each stimulus.
    captions, categories : Texts
        By stimulus.
    size : int, optional
        Side in pixels, as they are if None.
    """

    def __init__(
        self,
        file: ArrayFile,
        rows: Mapping[str, int],
        captions: Texts,
        categories: Texts,
        size: int | None,
    ) -> None:
        shape = file.shape
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
            raise ShapeError(
                f"The images {file.path} have shape {shape}; they should be (picture, height, "
                "width) or (picture, height, width, 3)."
            )
        self._file, self._rows = file, rows
        self._captions, self._categories = captions, categories
        self._gain = self._range()
        self.size = (shape[1], shape[2]) if size is None else (size, size)

    def _range(self) -> float:
        """Return the factor that scales the pictures to 0 to 255, from some of them."""
        rows = sorted(self._rows.values())
        some = [self._raw(row) for row in rows[:: max(1, len(rows) // 32)][:32]]
        top = max(float(picture.max()) for picture in some)
        whole = all(picture.dtype.kind in "ui" for picture in some)
        if whole and top > 1:
            return 1.0
        if not whole and top <= 1:
            return 255.0
        if not whole and top > 2:
            return 1.0
        kind = "whole numbers" if whole else "fractions"
        raise DamagedFileError(
            f"The images {self._file.path} are {kind} up to {top:g}, so they may be meant as 0 to "
            "1 or as 0 to 255; store uint8 from 0 to 255."
        )

    def _raw(self, row: int) -> NDArray[Any]:
        result = self._file.read(
            (slice(row, row + 1),) + (slice(None),) * (len(self._file.shape) - 1)
        )
        picture = result[0]
        if not np.isfinite(picture).all() or picture.min() < 0 or picture.max() > 255:
            raise DamagedFileError(
                f"Picture {row} of {self._file.path} has values from {picture.min():g} to "
                f"{picture.max():g}; pictures are 0 to 255, or fractions 0 to 1."
            )
        return np.asarray(picture)

    def image(self, key: str) -> NDArray[np.uint8]:
        raw = self._raw(self._rows[key]).astype(np.float64) * self._gain
        if raw.max() > 255:
            raise DamagedFileError(
                f"Stimulus {key} of {self._file.path} is above 1 and others are fractions 0 to 1; "
                "store uint8 from 0 to 255."
            )
        grey = raw[..., None] if raw.ndim == 2 else raw
        picture = np.round(np.broadcast_to(grey, (*grey.shape[:2], 3))).astype(np.uint8)
        if picture.shape[:2] == self.size:
            return picture
        fitted: NDArray[np.uint8] = resize_images(_cropped(picture, self.size)[None], self.size)[0]
        return fitted

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        return None

    def captions(self, key: str) -> tuple[str, ...]:
        return self._captions.get(key, ())

    def categories(self, key: str) -> tuple[str, ...]:
        return self._categories.get(key, ())


class _Described:
    """Pictures of a set with other captions and, if there are any, other categories."""

    def __init__(self, whole: StimulusSet, captions: Texts, categories: Texts) -> None:
        self._whole, self._captions, self._categories = whole, captions, categories

    def image(self, key: str) -> NDArray[np.uint8]:
        return self._whole.image(key)

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        return self._whole._source.semantic_map(key)

    def captions(self, key: str) -> tuple[str, ...]:
        return self._captions.get(key, ())

    def categories(self, key: str) -> tuple[str, ...]:
        return self._categories.get(key) or self._whole.categories([key])[0]


def _with_texts(whole: StimulusSet, captions: Texts, categories: Texts) -> StimulusSet:
    return StimulusSet(whole.ids, _Described(whole, captions, categories), whole.size)


def read_captions(path: Path, shown: Sequence[str]) -> tuple[Texts, Texts]:
    """Return captions and categories of stimuli.

    Parameters
    ----------
    path : Path
        A CSV or TSV with ``id`` and ``caption`` columns (see
        `StimulusSet.from_folder`), or JSON: id to text or list of texts.
    shown : sequence of str
        Ids, at least one of which must be described.

    Raises
    ------
    CalcarineError
        If the file is of another kind or describes none of them.
    """
    if path.suffix.lower() == ".json":
        categories: dict[str, tuple[str, ...]] = {}
        captions = _json_captions(path)
    else:
        captions, categories = _table_captions(path)
    return _of_shown(captions, shown, path), _of_shown(categories, shown, None)


def _table_captions(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    table = texts_table(path, "captions", _TEXT_COLUMNS)
    if "id" not in table.columns or not any(name.startswith("caption") for name in table.columns):
        raise DamagedFileError(
            f"The captions {path} need the columns id and caption; there are "
            f"{', '.join(table.columns)}."
        )
    captions: dict[str, tuple[str, ...]] = {}
    categories: dict[str, tuple[str, ...]] = {}
    for row in table.to_dict("records"):
        cells = {str(name): value for name, value in row.items()}
        key = cells["id"]
        # COCO's form has a row for each caption, so a stimulus may come again.
        _add(captions, key, cell_texts(cells, "caption", "captions"))
        _add(categories, key, cell_texts(cells, "category", "categories"))
    return captions, categories


def _add(texts: dict[str, tuple[str, ...]], key: str, more: Sequence[str]) -> None:
    known = texts.get(key, ())
    texts[key] = known + tuple(text for text in dict.fromkeys(more) if text not in known)


def _of_shown(
    texts: dict[str, tuple[str, ...]], shown: Sequence[str], path: Path | None
) -> dict[str, tuple[str, ...]]:
    """Return texts by the ids of the trials; endings are ignored."""
    meant = match_names(texts, shown, loose=False)
    results = {meant[key]: value for key, value in texts.items() if key in meant}
    if path is not None and not results:
        raise DamagedFileError(
            f"The captions {path} describe none of the {len(shown)} stimuli shown; its ids are as "
            f"{next(iter(texts), 'nothing')}, those shown as {shown[0]}."
        )
    return {**{key: value for key, value in texts.items() if key not in meant}, **results}


def _json_captions(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        tree = parse_json(read_text(path, "captions"))
    except ValueError as error:
        raise DamagedFileError(f"The captions {path} cannot be read ({reason(error)}).") from error
    if isinstance(tree, list) or (isinstance(tree, dict) and "annotations" in tree):
        return _record_captions(tree, path)
    results = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise DamagedFileError(
                f"The captions {path}: {key[:40]} should be a text or a list of texts."
            )
        results[key] = tuple(text.strip() for text in listed if text.strip())
    if not results:
        raise DamagedFileError(f"The captions {path} should be a mapping of ids to texts.")
    return results


def _record_captions(tree: Any, path: Path) -> dict[str, tuple[str, ...]]:
    """Return captions of records with one caption each, or of COCO's files."""
    whole = isinstance(tree, dict)
    records = tree["annotations"] if whole else tree
    results: dict[str, tuple[str, ...]] = {}
    try:
        names = (
            {image["id"]: str(image["file_name"]) for image in tree.get("images", ())}
            if (whole)
            else {}
        )
        for record in records:
            number = record["image_id"] if "image_id" in record else record["id"]
            _add(results, names.get(number, str(number)), [str(record["caption"]).strip()])
    except (KeyError, TypeError, AttributeError):
        raise DamagedFileError(
            f"The captions {path} need an id (or image_id) and a caption in each record."
        ) from None
    if not results:
        raise DamagedFileError(f"The captions {path} hold no caption.")
    return results


def _filled(texts: Texts, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {key: texts.get(key, ()) for key in ids}


def _shown_files(folder: Path, shown: Sequence[str]) -> dict[str, Path]:
    """Return the files of the stimuli: by name, or by path below the folder."""
    paths = files_below(folder, PICTURE_SUFFIXES)
    if not paths:
        raise MissingFileError(
            f"The folder {folder} holds no pictures ({', '.join(PICTURE_SUFFIXES[:4])} ...)."
        )
    by_name: dict[str, list[Path]] = {}
    for path in paths:
        whole = path.relative_to(folder)
        names = (whole.as_posix(), whole.with_suffix("").as_posix(), whole.name, whole.stem)
        for name in dict.fromkeys(names):
            by_name.setdefault(name, []).append(path)
    meant: dict[str, str] = {}
    if all(path.parent == folder for path in paths):
        # Trials may name a picture with a folder that is not here, as stimulus programs log it.
        # Where there are folders here, they must agree.
        stems = [name for name, places in by_name.items() if name == places[0].stem]
        meant = match_names([key for key in shown if key not in by_name], stems, loose=False)
    results: dict[str, Path] = {}
    for key in shown:
        places = by_name.get(meant.get(key, key), [])
        # A path that is named whole comes before equal names in folders below.
        exact = [
            path
            for path in places
            if path.relative_to(folder).with_suffix("").as_posix() == key
            or path.relative_to(folder).as_posix() == key
        ]
        places = exact or places
        if len(places) > 1:
            first, second = (path.relative_to(folder).as_posix() for path in places[:2])
            raise CalcarineError(
                f"{first} and {second} in {folder} are both stimulus {key}; keep one, or name "
                "stimuli by their path in this folder."
            )
        if places:
            results[key] = places[0]
    _check_known(shown, (*by_name, *meant), folder)
    used: dict[Path, str] = {}
    for key, path in results.items():
        if used.setdefault(path, key) != key:
            raise CalcarineError(
                f"Stimuli {used[path]} and {key} are one picture, {path}; name it in one way, so "
                "that its trials stay on one side of the split."
            )
        check_content(path, "picture")
    return results


def _check_known(shown: Sequence[str], known: Sequence[str], place: Path) -> None:
    """Raise unless every shown id is exactly the name of a picture."""
    names = set(known)
    lost = [key for key in shown if key not in names]
    if not lost:
        return
    first = f"{len(lost)} of {len(shown)} stimuli have no picture in {place}, the first {lost[0]}"
    raise CalcarineError(f"{first}; {_hint(shown, lost, names)}.")


def _hint(shown: Sequence[str], lost: Sequence[str], names: set[str]) -> str:
    numbers = [key for key in shown if key.isdecimal() and len(key) < 12]
    if len(numbers) == len(shown):
        for step, word in (
            (-1, "from 1 and the pictures from 0"),
            (1, "from 0 and the pictures from 1"),
        ):
            if all(key in names for key in _stepped(numbers, step)):
                return (
                    f"the trials seem to count {word}: change the column stimulus by {step:+d}, or "
                    "for an array set first_image"
                )
        plain = {key.lstrip("0") or "0": key for key in names}
        like = plain.get(lost[0].lstrip("0") or "0")
        if like is not None:
            return f"there is a picture {like}: ids are compared as text, so write its zeros too"
    lower = {key.lower(): key for key in names}
    if lost[0].lower() in lower:
        return f"there is a picture {lower[lost[0].lower()]}: capitals matter"
    stems = [key for key in names if not key.lower().endswith(PICTURE_SUFFIXES)]
    some = ", ".join(sorted(stems, key=natural_key)[:3])
    return f"pictures are named as {some}, and ids must be just so"


def _stepped(numbers: Sequence[str], step: int) -> list[str]:
    return [str(int(key) + step).zfill(len(key) if key.startswith("0") else 1) for key in numbers]
