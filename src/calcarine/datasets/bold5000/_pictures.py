"""Pictures of BOLD5000 and their categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calcarine.datasets.bold5000._layout import INFO, WHO, BOLD5000Layout, read_lines
from calcarine.errors import MissingFileError
from calcarine.stimuli._sources import FolderSource
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["bold5000_stimuli", "picture_index"]

_SETS = ("Scene", "COCO", "ImageNet")


def picture_index(layout: BOLD5000Layout) -> dict[str, tuple[str, Path]]:
    """Return set and file of each presented picture, by its file name in lower case."""
    root = layout.stimuli / "Scene_Stimuli" / "Presented_Stimuli"
    results: dict[str, tuple[str, Path]] = {}
    for name in _SETS:
        place = root / name
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.is_file():
                results.setdefault(path.name.lower(), (name, path))
    return results


def bold5000_stimuli(layout: BOLD5000Layout, names: Sequence[str], size: int) -> StimulusSet:
    """Return the pictures by file name, cropped centrally and resized to one size.

    Categories: for scenes the word in the file name; for ImageNet the words
    of ``Image_Labels/imagenet_final_labels.txt`` and the synset; none for
    COCO; its labels are a pickle, which is not read.
    """
    index = picture_index(layout)
    lost = [name for name in names if name.lower() not in index]
    if lost:
        place = layout.stimuli / "Scene_Stimuli" / "Presented_Stimuli"
        raise MissingFileError(
            f"{WHO}: {len(lost)} of {len(names)} pictures are not in {place}/Scene, COCO or "
            f"ImageNet, the first {lost[0]}; they are in BOLD5000_Stimuli.zip of {INFO.source}."
        )
    words = _imagenet_words(layout)
    own = {name: index[name.lower()] for name in names}
    captions: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    categories = {name: _categories(name, own[name][0], words) for name in names}
    files = {name: path for name, (_, path) in own.items()}
    source = FolderSource(files, {}, captions, categories, (size, size))
    return StimulusSet(names, source, (size, size))


def _categories(name: str, origin: str, words: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    stem = name.rsplit(".", 1)[0]
    if origin == "Scene":
        word = stem.rstrip("0123456789").rstrip("_")
        return (word,) if word else ()
    if origin == "ImageNet":
        synset = stem.split("_")[0]
        return words.get(synset) or (synset,)
    return ()


def _imagenet_words(layout: BOLD5000Layout) -> dict[str, tuple[str, ...]]:
    path = layout.stimuli / "Image_Labels" / "imagenet_final_labels.txt"
    if not path.is_file():
        return {}
    results = {}
    for line in read_lines(path):
        synset, _, text = line.partition(" ")
        results[synset] = tuple(word.strip() for word in text.split(",") if word.strip())
    return results
