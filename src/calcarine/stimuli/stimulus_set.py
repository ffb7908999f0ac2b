"""`StimulusSet`: pictures with ids, captions, categories and semantic maps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.display import html_table, listed
from calcarine.errors import MissingFileError, SettingError, ShapeError, did_you_mean
from calcarine.stimuli._arguments import (
    Texts,
    check_ids,
    check_length,
    pictures_hint,
    text_lookup,
    texts_of,
)
from calcarine.stimuli._sources import (
    ArraySource,
    FolderSource,
    Hdf5Source,
    JoinedSource,
    SceneSource,
    Source,
    inside_folder,
    map_files,
)
from calcarine.stimuli._stimulus_table import cell_texts, read_table
from calcarine.stimuli.picture_folders import listing_digest, picture_files

__all__ = ["StimulusSet"]


class StimulusSet:
    """Pictures of one size with ids, captions and categories, read when they are used.

    Make one with `from_arrays`, `from_folder`, `from_pictures`, `from_hdf5`, `from_scenes` or
    `joined`.

    Parameters
    ----------
    ids : iterable of str
        Unique, non-empty names.
    source : Source
        Where pictures and texts are read from.
    size : (int, int)
        Height and width of the pictures in pixels.

    Raises
    ------
    SettingError
        If an id is empty or occurs twice.

    Examples
    --------
    >>> import calcarine as ca
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(3))
    >>> seen.ids
    ('scene-0-00000', 'scene-0-00001', 'scene-0-00002')
    >>> seen.images().shape
    (3, 64, 64, 3)
    >>> seen.captions()[0][0]
    'a green car and a black clock at sunset'
    """

    def __init__(self, ids: Iterable[str], source: Source, size: tuple[int, int]) -> None:
        self._ids = tuple(ids)
        self._source = source
        self._size = size
        self._rows = {key: row for row, key in enumerate(self._ids)}
        self._digest: str | None = None
        check_ids(self._ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the stimuli, in order."""
        return self._ids

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._size

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __repr__(self) -> str:
        return f"StimulusSet({len(self)} stimuli of {self._size[0]} x {self._size[1]} pixels)"

    def _repr_html_(self) -> str:
        rows = {
            "stimuli": f"{len(self):,}",
            "pictures": f"{self._size[0]} x {self._size[1]} pixels",
            "ids": listed(self._ids, 3),
        }
        return html_table("StimulusSet", rows)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of stimuli in an array with one row for each stimulus of this set.

        Raises
        ------
        SettingError
            If an id is unknown.
        """
        return np.asarray([self._rows[key] for key in self._chosen(ids)], np.int64)

    def image(self, id: str) -> NDArray[np.uint8]:
        """Return the picture of one stimulus: uint8, shape (height, width, 3)."""
        return self._source.image(self._chosen([id])[0])

    def images(self, ids: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """Return the pictures of some or all stimuli.

        Parameters
        ----------
        ids : sequence of str, optional
            Which stimuli, in which order; by default all.

        Returns
        -------
        uint8 array of shape (n, height, width, 3)
            A new array.

        Raises
        ------
        CalcarineError
            If an id is unknown or its picture cannot be read.
        """
        chosen = self._chosen(ids)
        pictures = np.empty((len(chosen), *self._size, 3), dtype=np.uint8)
        for row, key in enumerate(chosen):
            pictures[row] = self._source.image(key)
        return pictures

    def captions(self, ids: Sequence[str] | None = None) -> list[tuple[str, ...]]:
        """Return the captions of each stimulus; an empty tuple if there are none."""
        return [self._source.captions(key) for key in self._chosen(ids)]

    def categories(self, ids: Sequence[str] | None = None) -> list[tuple[str, ...]]:
        """Return the categories of each stimulus, the main one first."""
        return [self._source.categories(key) for key in self._chosen(ids)]

    def semantic_maps(self, ids: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """Return the class of each pixel: uint8, shape (n, height, width).

        Raises
        ------
        CalcarineError
            If a stimulus has no semantic map.
        """
        chosen = self._chosen(ids)
        maps = np.empty((len(chosen), *self._size), dtype=np.uint8)
        for row, key in enumerate(chosen):
            semantic_map = self._source.semantic_map(key)
            if semantic_map is None:
                raise SettingError(
                    f"Stimulus {key} has no semantic map; choose a data set that has them, "
                    "or add a column semantic_map to its table."
                )
            maps[row] = semantic_map
        return maps

    def subset(self, ids: Sequence[str]) -> StimulusSet:
        """Return a set of the named stimuli only, in the given order.

        Examples
        --------
        >>> import calcarine as ca
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(5))
        >>> seen.subset(seen.ids[3:]).ids
        ('scene-0-00003', 'scene-0-00004')
        """
        return StimulusSet(self._chosen(ids), self._source, self._size)

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of size, ids, pictures and captions, in order."""
        if self._digest is None:
            total = hashlib.sha256(json.dumps([list(self._size), len(self)]).encode())
            for key in self._ids:
                # Each part is as long as the set's size says or is delimited by JSON.
                total.update(json.dumps([key, list(self._source.captions(key))]).encode())
                total.update(np.ascontiguousarray(self._source.image(key)).tobytes())
            self._digest = total.hexdigest()
        return self._digest

    def _chosen(self, ids: Sequence[str] | None) -> tuple[str, ...]:
        if ids is None:
            return self._ids
        if isinstance(ids, str):
            raise SettingError(f"Give a list of stimulus ids, such as ['{ids}'], not one text.")
        for key in ids:
            if key not in self._rows:
                raise SettingError(
                    f"Stimulus {key} is not in this set of {len(self)} stimuli"
                    + (f", which begins with {self._ids[0]}." if self._ids else ".")
                    + did_you_mean(key, self._ids)
                )
        return tuple(ids)

    @classmethod
    def from_arrays(
        cls,
        images: NDArray[np.uint8],
        ids: Sequence[str] | None = None,
        captions: Texts | None = None,
        categories: Texts | None = None,
        semantic_maps: NDArray[np.uint8] | None = None,
    ) -> StimulusSet:
        """Make a set of pictures in memory.

        Parameters
        ----------
        images : uint8 array of shape (n, height, width, 3)
            One picture may have the shape (height, width, 3).
        ids : sequence of str, optional
            Names; by default ``stimulus-00000`` and so on.
        captions, categories : sequence of str or of sequences of str, optional
            A text or several for each picture.
        semantic_maps : uint8 array of shape (n, height, width), optional
            Class of each pixel.

        Returns
        -------
        StimulusSet

        Raises
        ------
        ShapeError
            If a shape, a type or a length is wrong.

        Examples
        --------
        >>> import numpy as np
        >>> from calcarine.stimuli import StimulusSet
        >>> StimulusSet.from_arrays(np.zeros((2, 16, 16, 3), np.uint8), ["a", "b"])
        StimulusSet(2 stimuli of 16 x 16 pixels)
        """
        pictures = np.asarray(images)
        if pictures.ndim == 3 and pictures.shape[-1] == 3:
            pictures = pictures[None]
            ids = [ids] if isinstance(ids, str) else ids
            captions = [captions] if isinstance(captions, str) else captions
            categories = [categories] if isinstance(categories, str) else categories
            if semantic_maps is not None and np.ndim(semantic_maps) == 2:
                semantic_maps = np.asarray(semantic_maps)[None]
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ShapeError(
                f"Stimulus images must be uint8 of shape (n, height, width, 3), "
                f"not {pictures.dtype} of shape {pictures.shape}{pictures_hint(pictures)}."
            )
        count, size = len(pictures), (int(pictures.shape[1]), int(pictures.shape[2]))
        names = tuple(f"stimulus-{i:05d}" for i in range(count)) if ids is None else tuple(ids)
        check_length("ids", len(names), count)
        maps = None if semantic_maps is None else np.asarray(semantic_maps)
        if maps is not None and (maps.dtype != np.uint8 or maps.shape != pictures.shape[:3]):
            raise ShapeError(
                f"Semantic maps must be uint8 of shape {pictures.shape[:3]}, "
                f"not {maps.dtype} of shape {maps.shape}."
            )
        source = ArraySource(
            names,
            pictures,
            texts_of("captions", captions, count),
            texts_of("categories", categories, count),
            maps,
        )
        return cls(names, source, size)

    @classmethod
    def from_folder(
        cls, folder: str | Path, table: str | Path, size: int | tuple[int, int] | None = None
    ) -> StimulusSet:
        """Make a set of the picture files in a folder.

        Parameters
        ----------
        folder : str or Path
            Folder of the pictures.
        table : str or Path
            CSV, TSV, JSON (a list of records) or parquet, as a path or as a name in the folder.
            Columns: ``id``, ``file`` (path in the folder), ``caption`` or ``captions`` (several
            are separated by ``|``, a list, or in columns ``caption_1`` and so on), ``category``
            likewise (the main one first), and optionally ``semantic_map`` (path in the folder).
        size : int or (int, int), optional
            Crop pictures centrally and resize them to this height and width. By default all must
            have the size of the first.

        Raises
        ------
        MissingFileError
            If the folder, the table or a picture does not exist.
        CalcarineError
            If the table is wrong, or a picture lies outside the folder.

        Examples
        --------
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import pandas as pd
        >>> from PIL import Image
        >>> import calcarine as ca
        >>> Path("pictures").mkdir()
        >>> Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save("pictures/dog1.png")
        >>> row = {"id": "dog1", "file": "dog1.png", "caption": "a dog|a puppy"}
        >>> pd.DataFrame([row]).to_csv("pictures/table.csv")
        >>> seen = ca.StimulusSet.from_folder("pictures", "table.csv", size=32)
        >>> seen.images().shape, seen.captions()
        ((1, 32, 32, 3), [('a dog', 'a puppy')])
        """
        root = Path(folder)
        if not root.is_dir():
            raise MissingFileError(f"The stimulus folder {root} does not exist; check the path.")
        path = Path(table)
        records = read_table(path if path.is_file() else root / path).to_dict("records")
        rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in records]
        ids = tuple(str(row["id"]) for row in rows)
        check_ids(ids)
        source = FolderSource(
            {
                key: inside_folder(root, row["file"], key)
                for key, row in zip(ids, rows, strict=True)
            },
            map_files(root, ids, rows),
            {k: cell_texts(row, "caption", "captions") for k, row in zip(ids, rows, strict=True)},
            {
                k: cell_texts(row, "category", "categories")
                for k, row in zip(ids, rows, strict=True)
            },
            (size, size) if isinstance(size, int) else size,
        )
        return cls(ids, source, source.size)

    @classmethod
    def from_pictures(cls, folder: str | Path, size: int | tuple[int, int]) -> StimulusSet:
        """Make a set of all pictures in a folder and the folders in it, without a table.

        Parameters
        ----------
        folder : str or Path
            Ids are the name of the folder and the path in it, such as ``photos/a/1.jpg``.
        size : int or (int, int)
            Crop pictures centrally and resize them to this height and width.

        Returns
        -------
        StimulusSet
            Pictures are read when they are used. Its digest is of names, sizes and times of the
            files, so that many pictures are not read to know whether they have changed.

        Raises
        ------
        MissingFileError
            If the folder does not exist, or holds no pictures.
        """
        files = picture_files(folder)
        sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        nothing = dict.fromkeys(files, ())
        made = cls(files, FolderSource(files, {}, nothing, nothing, sides), sides)
        made._digest = hashlib.sha256(
            json.dumps([list(sides), listing_digest(files)]).encode()
        ).hexdigest()
        return made

    @classmethod
    def from_hdf5(
        cls,
        path: str | Path,
        key: str,
        rows: Sequence[int],
        ids: Sequence[str],
        captions: Texts | Callable[[str], Sequence[str]] | None = None,
        categories: Texts | Callable[[str], Sequence[str]] | None = None,
        size: int | tuple[int, int] | None = None,
        semantic_maps: Callable[[str], NDArray[np.uint8] | None] | None = None,
    ) -> StimulusSet:
        """Make a set of rows of an array of pictures in an HDF5 file.

        Parameters
        ----------
        path : str or Path
            The file.
        key : str
            Its array of pictures: uint8, shape (n, height, width, 3).
        rows, ids : sequences
            Row of each stimulus, counted from 0, and its name.
        captions, categories : sequence or callable, optional
            For each stimulus a text or several, or a function of the id.
        size : int or (int, int), optional
            Crop pictures centrally and resize them to this height and width; by default as stored.
        semantic_maps : callable, optional
            Function of the id that returns a uint8 map of the size of the pictures, or None.

        Raises
        ------
        MissingFileError
            If the file does not exist.
        DamagedFileError
            If the array or a row is wrong.

        Examples
        --------
        >>> import h5py
        >>> import numpy as np
        >>> import calcarine as ca
        >>> with h5py.File("stimuli.hdf5", "w") as file:
        ...     file["imgBrick"] = np.zeros((10, 32, 32, 3), np.uint8)
        >>> ids = ["img3", "img7"]
        >>> seen = ca.StimulusSet.from_hdf5("stimuli.hdf5", "imgBrick", rows=[3, 7], ids=ids)
        >>> seen.image("img7").shape
        (32, 32, 3)
        """
        names = tuple(ids)
        check_length("rows", len(rows), len(names))
        check_ids(names)
        places = {name: int(row) for name, row in zip(names, rows, strict=True)}
        source = Hdf5Source(
            Path(path),
            key,
            places,
            text_lookup("captions", captions, names),
            text_lookup("categories", categories, names),
            (size, size) if isinstance(size, int) else size,
            semantic_maps,
        )
        return cls(names, source, source.size)

    @classmethod
    def from_scenes(cls, seed: int, indices: Iterable[int], size: int = 64) -> StimulusSet:
        """Make a set of procedural scenes.

        Parameters
        ----------
        seed : int
        indices : iterable of int
            Which scenes; see `calcarine.stimuli.scenes.render`.
        size : int
            Height and width in pixels.

        Returns
        -------
        StimulusSet
            Ids are ``scene-SEED-INDEX``; pictures are drawn when first used.

        Examples
        --------
        >>> import calcarine as ca
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=[0, 5], size=32)
        >>> seen.ids, seen.size
        (('scene-0-00000', 'scene-0-00005'), (32, 32))
        """
        places = [(seed, int(index)) for index in indices]
        if seed < 0 or size < 1 or any(index < 0 for _, index in places):
            raise SettingError("Scenes need a seed and indices of at least 0 and a size above 0.")
        ids = tuple(f"scene-{seed}-{index:05d}" for _, index in places)
        return cls(ids, SceneSource(dict(zip(ids, places, strict=True)), size), (size, size))

    @classmethod
    def joined(cls, sets: Sequence[StimulusSet]) -> StimulusSet:
        """Join several sets of one size, in order.

        Examples
        --------
        >>> import calcarine as ca
        >>> train = ca.StimulusSet.from_scenes(seed=0, indices=range(3))
        >>> test = ca.StimulusSet.from_scenes(seed=1, indices=range(2))
        >>> len(ca.StimulusSet.joined([train, test]).ids)
        5
        """
        sizes = {part.size for part in sets}
        if len(sizes) != 1:
            raise ShapeError(f"Only sets of one size can be joined, not {sorted(sizes)}.")
        ids = [key for part in sets for key in part.ids]
        check_ids(tuple(ids))
        sources = {key: part._source for part in sets for key in part.ids}
        return cls(ids, JoinedSource(sources), sets[0].size)
