"""Finding the picture that a path in a table of events means."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from calcarine.datasets._data_files import natural_key
from calcarine.errors import CalcarineError
from calcarine.stimuli._stimulus_table import read_table
from calcarine.stimuli.image_files import PICTURE_SUFFIXES

__all__ = ["PictureNames", "files_below"]

_TABLES = (".csv", ".tsv", ".json", ".parquet")

Parts = tuple[str, ...]


def files_below(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Return the files below a folder in natural order, without hidden ones."""
    results = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        results += [
            Path(place, name)
            for name in names
            if name.lower().endswith(tuple(endings)) and not name.startswith(".")
        ]
    return sorted(results, key=lambda path: [natural_key(part) for part in path.parts])


class PictureNames:
    """Ids of pictures by the paths that lead to them.

    Parameters
    ----------
    paths : iterable of (str, str)
        Pairs of a path (of a picture, or an id that looks like one) and the
        picture's id.
    """

    def __init__(self, paths: Iterable[tuple[str, str]] = ()) -> None:
        self._by_last: dict[str, dict[tuple[Parts, str], str]] = {}
        for path, key in paths:
            parts, ending = _parts(path)
            self._by_last.setdefault(parts[-1], {})[parts, ending] = key

    @classmethod
    def of(cls, root: Path, images: str) -> PictureNames:
        """Return the names of a description's pictures; none if they are an array or missing.

        In a folder, the id of a picture is its name without ending where this
        is the name of no other picture in the folder, and else its path in
        the folder.
        """
        place = root / images
        try:
            if place.is_dir():
                return cls(_folder_ids(place))
            if place.is_file() and place.suffix.lower() in _TABLES:
                rows = read_table(place)
                return cls(
                    (str(path), str(key))
                    for key, file in zip(rows["id"], rows["file"], strict=True)
                    for path in (file, key)
                )
        except (OSError, ValueError, CalcarineError):
            return cls()  # the error is raised where the pictures themselves are read
        return cls()

    def __bool__(self) -> bool:
        return bool(self._by_last)

    def find(self, name: str) -> str | None:
        """Return the id of the picture that a path names.

        Parameters
        ----------
        name : str
            A path whose end is the path of a picture, or the other way round:
            ``stimuli/cat/01.png``, ``cat/01.png`` and ``01`` may all name
            ``cat/01.jpg``.

        Returns
        -------
        str or None
            None where no picture fits.

        Raises
        ------
        CalcarineError
            If several fit equally well.
        """
        parts, ending = _parts(name)
        near = [
            (len(own), kind == ending, key)
            for (own, kind), key in self._by_last.get(parts[-1], {}).items()
            if own == parts[-len(own) :] or parts == own[-len(parts) :]
        ]
        if not near:
            return None
        # Pictures whose whole path is the end of the name, the longest first.
        whole = [each for each in near if each[0] <= len(parts)]
        if whole:
            longest = max(size for size, _, _ in whole)
            near = [each for each in whole if each[0] == longest]
        near = [each for each in near if each[1]] or near
        keys = sorted({key for _, _, key in near})
        if len(keys) > 1:
            raise CalcarineError(
                f"The events name {name}, which may be the pictures {keys[0]} and {keys[1]}; give "
                "the path of the picture in the events."
            )
        return keys[0]


def _folder_ids(folder: Path) -> list[tuple[str, str]]:
    paths = [path.relative_to(folder) for path in files_below(folder, PICTURE_SUFFIXES)]
    stems: dict[str, int] = {}
    bare: dict[str, int] = {}
    for path in paths:
        stems[path.stem] = stems.get(path.stem, 0) + 1
        short = path.with_suffix("").as_posix()
        bare[short] = bare.get(short, 0) + 1
    results = []
    for path in paths:
        short = path.with_suffix("").as_posix()
        long = short if bare[short] == 1 else path.as_posix()
        results.append((path.as_posix(), path.stem if stems[path.stem] == 1 else long))
    return results


def _parts(name: str) -> tuple[Parts, str]:
    """Return folders and name of a picture without ending, and the ending in lower case."""
    path = PurePosixPath(str(name).replace("\\", "/"))
    parts = tuple(part for part in path.parts if part not in ("/", ".", ".."))
    if not parts:
        return (str(name),), ""
    ending = path.suffix.lower()
    if ending not in PICTURE_SUFFIXES:
        return parts, ""
    return (*parts[:-1], path.stem), ending
