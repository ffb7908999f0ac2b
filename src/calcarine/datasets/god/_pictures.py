"""Pictures of GOD: an array file, a folder of files, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._numpy_files import NpzFile
from calcarine.datasets.god._ids import category, class_names, parse_name
from calcarine.datasets.god._subject_files import ON_REQUEST, WHO, GodTrials
from calcarine.errors import DamagedFileError, MissingFileError
from calcarine.stimuli._sources import FolderSource
from calcarine.stimuli.image_files import PICTURE_SUFFIXES
from calcarine.stimuli.images import resize_images
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["AbsentSource", "find_pictures", "god_stimuli", "picture_files", "read_pictures"]

_SIDES = {"train": ("stimuli/training", "training"), "test": ("stimuli/test", "test")}
DEFAULT_SIZE = 256


class AbsentSource:
    """Stimuli without pictures; reading one raises with how to get it."""

    def __init__(self, categories: dict[str, tuple[str, ...]]) -> None:
        self._categories = categories

    def image(self, key: str) -> NDArray[np.uint8]:
        raise MissingFileError(f"{WHO}: the picture {key} is not in the folder. {ON_REQUEST}.")

    def semantic_map(self, key: str) -> NDArray[np.uint8] | None:
        return None

    def captions(self, key: str) -> tuple[str, ...]:
        return ()

    def categories(self, key: str) -> tuple[str, ...]:
        return self._categories[key]


def find_pictures(folders: list[Path], pictures: str | Path | None) -> Path | None:
    """Return the folder or the ``.npz`` that holds the pictures.

    Parameters
    ----------
    folders : list of Path
        Folder to search.
    pictures : str or Path, optional
        Its path where it is elsewhere; ``"none"`` to do without.
    """
    if pictures is not None:
        place = Path(pictures)
        if str(pictures) == "none":
            return None
        if not place.exists():
            raise MissingFileError(
                f"{WHO}: {place} does not exist; give pictures= a folder or .npz."
            )
        return place
    for folder in folders:
        if any((folder / name).is_dir() for name in ("stimuli/training", "stimuli/test")):
            return folder
    for folder in folders:
        # The largest first: images_256 before images_112.
        found = sorted(folder.glob("images_*.npz"), key=lambda p: (len(p.name), p.name))
        if found:
            return found[-1]
    return None


def picture_files(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the files of the training and of the test pictures, by name."""
    results: dict[str, dict[str, Path]] = {"train": {}, "test": {}}
    for side, names in _SIDES.items():
        for place in (folder / name for name in names):
            if not place.is_dir() or results[side]:
                continue
            for path in sorted(place.rglob("*")):
                name = parse_name(path.stem) if path.suffix.lower() in PICTURE_SUFFIXES else None
                if name:
                    results[side][name] = path
    return results


def read_pictures(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the training and test pictures of ``images_*.npz`` as uint8.

    Returns
    -------
    dict
        ``"train"`` and ``"test"``: uint8, shape (n, height, width, 3).

    Raises
    ------
    CalcarineError
        If the values are neither in 0..1 nor in 0..255.
    """
    file = NpzFile(path, WHO, "where the rearranged form is from")
    raw = {side: file.array(f"{side}_images", 4) for side in ("train", "test")}
    for side, values in raw.items():
        if values.shape[-1] != 3 or 0 in values.shape:
            raise DamagedFileError(
                f"{WHO}: {side}_images in {path} has shape {values.shape} and should be "
                "(pictures, height, width, 3)."
            )
    if raw["train"].shape[1:] != raw["test"].shape[1:]:
        raise DamagedFileError(
            f"{WHO}: training and test pictures in {path} have shapes {raw['train'].shape[1:]} and "
            f"{raw['test'].shape[1:]}; they should be of one size."
        )
    low = min(float(values.min()) for values in raw.values())
    high = max(float(values.max()) for values in raw.values())
    whole = all(values.dtype.kind in "ui" for values in raw.values())
    if not (low >= 0 and 0 < high <= 255) or (whole and high <= 1):
        raise DamagedFileError(
            f"{WHO}: the pictures in {path} have values from {low:g} to {high:g}; they should be "
            "in 0..1 or in 0..255, so get the file again."
        )
    return {side: _as_bytes(values, 1.0 if high > 1 else 255.0) for side, values in raw.items()}


def _as_bytes(values: NDArray[np.generic], factor: float) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8)
    result = np.empty(values.shape, dtype=np.uint8)
    for row, picture in enumerate(values):
        result[row] = np.clip(np.rint(np.asarray(picture, np.float64) * factor), 0, 255)
    return result


def god_stimuli(
    parts: GodTrials,
    folders: list[Path],
    place: Path | None,
    size: int | None,
    arrays: dict[str, NDArray[np.uint8]] | None,
) -> StimulusSet:
    """Return the pictures of a subject's trials.

    Parameters
    ----------
    parts : GodTrials
        Which pictures each subject saw.
    folders : list of Path
        Folders to search for names of categories.
    place : Path, optional
        From `find_pictures`.
    size : int, optional
        Side to bring them to; as they are if left out (256 for files).
    arrays : dict of str to uint8 array, optional
        From `read_pictures`, where they are in an array file.
    """
    words = class_names(folders)
    sides = {"train": _distinct(parts, False), "test": _distinct(parts, True)}
    ids = [*sides["train"], *(name for name in sides["test"] if name not in set(sides["train"]))]
    categories = {name: _categories(name, words) for name in ids}
    side_length = size or DEFAULT_SIZE
    square = (side_length, side_length)
    if place is None:
        return StimulusSet(ids, AbsentSource(categories), square)
    if arrays is None:
        files = picture_files(place)
        both = {**files["train"], **files["test"]}
        lost = [name for name in ids if name not in both]
        if lost:
            raise MissingFileError(
                f"{WHO}: {len(lost)} of {len(ids)} pictures are not in {place}, the first "
                f"{lost[0]}. {ON_REQUEST}."
            )
        captions: dict[str, tuple[str, ...]] = dict.fromkeys(ids, ())
        source = FolderSource({k: both[k] for k in ids}, {}, captions, categories, square)
        return StimulusSet(ids, source, square)
    images = [
        arrays[side][_row(parts, side, name, arrays[side], place)]
        for side, names in sides.items()
        for name in names
        if side == "train" or name not in set(sides["train"])
    ]
    stack = np.stack(images)
    if size is not None:
        stack = resize_images(stack, size)
    return StimulusSet.from_arrays(stack, ids, categories=[categories[name] for name in ids])


def _distinct(parts: GodTrials, test: bool) -> list[str]:
    pairs = zip(parts.names, parts.is_test.tolist(), strict=True)
    return sorted({name for name, own in pairs if own == test})


def _categories(name: str, words: dict[str, str]) -> tuple[str, ...]:
    synset = category(name)
    if not synset:
        return ()
    return (words.get(synset, synset),)


def _row(parts: GodTrials, side: str, name: str, images: NDArray[np.uint8], place: Path) -> int:
    rows = parts.rows.get(side)
    if rows is None:
        raise MissingFileError(
            f"{WHO}: nothing says in which order {place} holds the {side} pictures; put "
            "imagenet_training_label.csv and imagenet_testing_label.csv (or imageID_training.csv "
            "and imageID_test.csv) next to it."
        )
    if name not in rows or rows[name] >= len(images):
        raise DamagedFileError(
            f"{WHO}: the {side} picture {name} is not among the {len(images)} in {place}; take the "
            "pictures and lists that belong to these responses."
        )
    return rows[name]
