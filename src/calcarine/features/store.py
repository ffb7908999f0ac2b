"""Feature arrays on disk, with keys that name everything their values depend on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.display import html_table, listed
from calcarine.files import read_json
from calcarine.files.work_queue import WorkQueue
from calcarine.files.zarr_files import DamagedArrayError, create_array, open_array, problem, seal

__all__ = ["FeatureSpace", "FeatureStore"]

Shape = tuple[int, ...] | Callable[[], tuple[int, ...]]
Extract = Callable[[slice], NDArray[np.float32]]
ExtractMany = Callable[[slice], Mapping[str, NDArray[np.float32]]]

_CHUNK_VALUES = 1_000_000
_REMOVED = re.compile(r"\.(part|zarr)\.\d+$")  # see _remove


@dataclass(frozen=True)
class FeatureSpace:
    """Description of one array of a store.

    Attributes
    ----------
    name : str
        Name of the feature space.
    provenance : mapping
        Everything that the values depend on; stored with the array.
    shape : tuple of int, or callable
        Shape of the features of one stimulus, or what returns it, called only if the array is
        extracted.
    """

    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape = ()

    def key(self) -> str:
        """Return the key of the array: its name and a hash of its provenance."""
        text = json.dumps(dict(self.provenance), sort_keys=True, default=str)
        plain = "".join(
            letter if letter.isalnum() or letter in ".-_" else "-" for letter in self.name
        )
        return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class FeatureStore:
    """Features of stimuli, stored as Zarr arrays in one folder.

    Several processes can extract the same arrays at the same time: each extracts other stimuli,
    and all wait until the arrays are complete.

    Parameters
    ----------
    folder : str or Path
        Created if it does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.features import FeatureStore
    >>> store = FeatureStore("features")
    >>> def extract(rows):  # called for rows that are not stored yet
    ...     return np.zeros((rows.stop - rows.start, 4), np.float32)
    >>> store.get("zeros", {"version": 1}, 10, (4,), extract).shape
    (10, 4)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        names = dict.fromkeys(key.rpartition("-")[0] for key in self._shapes())
        return f"FeatureStore({str(self.folder)!r}: {listed(names) or 'empty'})"

    def _repr_html_(self) -> str:
        return html_table(f"FeatureStore {self.folder}", self._shapes())

    def _shapes(self) -> dict[str, str]:
        """Return the shape of each whole array, by its key."""
        shapes = {}
        for path in sorted(self.folder.glob("*.zarr")):
            try:
                shape = read_json(path / "zarr.json")["shape"]
            except (OSError, ValueError, LookupError, TypeError):
                continue  # damaged, so it will be extracted again
            shapes[path.stem] = " x ".join(map(str, shape))
        return shapes

    def key(self, space: str, provenance: Mapping[str, Any]) -> str:
        """Return the key of the array of a feature space and provenance."""
        return FeatureSpace(space, provenance).key()

    def get(
        self,
        space: str,
        provenance: Mapping[str, Any],
        count: int,
        shape: Shape,
        extract: Extract,
        chunk: int = 64,
    ) -> NDArray[np.float32]:
        """Return an array; extract it first if it is not stored yet.

        Parameters
        ----------
        space : str
            Name of the feature space.
        provenance : mapping
            Everything that the values depend on; stored with the array.
        count : int
            Number of stimuli n.
        shape : tuple of int, or callable
            See `FeatureSpace`.
        extract : callable
            Receives a slice of stimuli and returns a float32 array ``(rows, *shape)``.
        chunk : int
            Number of stimuli that are extracted at a time.

        Returns
        -------
        float32 array of shape ``(n, *shape)``

        Notes
        -----
        An interrupted extraction resumes at the chunk where it stopped. The array gets its final
        name only when it is complete.
        """
        wanted = FeatureSpace(space, provenance, shape)
        for last in (False, True):
            stored = self.get_many([wanted], count, lambda rows: {space: extract(rows)}, chunk)
            try:
                return np.asarray(stored[space][:], np.float32)
            except DamagedArrayError:
                if last:
                    raise
                # The store now knows that it is damaged, and extracts it again.
        raise AssertionError

    def get_many(
        self, spaces: list[FeatureSpace], count: int, extract: ExtractMany, chunk: int = 64
    ) -> dict[str, Any]:
        """Return arrays that are extracted together, as stored arrays that are read on demand.

        Parameters
        ----------
        spaces : list of FeatureSpace
            Feature spaces with different names.
        count : int
            Number of stimuli n.
        extract : callable
            Receives a slice of stimuli and returns one array ``(rows, *shape)`` for each space
            that is missing.
        chunk : int
            Number of stimuli that are extracted at a time. An interrupted extraction resumes with
            its own number.

        Returns
        -------
        dict of str to StoredArray
            By name of the space, float32 of shape ``(n, *shape)``.

        Raises
        ------
        DamagedArrayError
            When you read a damaged chunk. The same call then extracts the array again.
        """
        missing = [space for space in spaces if not self.has(space)]
        if missing:
            self._extract(spaces, missing, count, extract, chunk)
        self._sweep(spaces)
        return {
            space.name: open_array(
                self._final(space), "", "run the same command again to extract these features"
            )
            for space in spaces
        }

    def has(self, space: FeatureSpace) -> bool:
        """Return whether an array is stored and complete; its chunks are not read."""
        final = self._final(space)
        return final.exists() and problem(final) is None

    def _final(self, space: FeatureSpace) -> Path:
        return self.folder / f"{space.key()}.zarr"

    def _part(self, spaces: list[FeatureSpace]) -> Path:
        """Return the folder that arrays share until all of them are complete.

        Its name depends on all of the arrays, so that a process that was killed after it had given
        some of them their final names resumes with the others.
        """
        together = hashlib.sha256(json.dumps([space.key() for space in spaces]).encode())
        return self.folder / f"{spaces[0].key()}-{together.hexdigest()[:8]}.part"

    def _sweep(self, spaces: list[FeatureSpace]) -> None:
        """Remove what killed processes left of arrays that are complete."""
        with suppress(OSError):  # a read-only disk
            _remove(self._part(spaces))
        for left in self.folder.iterdir():
            if _REMOVED.search(left.name):
                shutil.rmtree(left, ignore_errors=True)

    def _extract(
        self,
        wanted: list[FeatureSpace],
        spaces: list[FeatureSpace],
        count: int,
        extract: ExtractMany,
        chunk: int,
    ) -> None:
        part = self._part(wanted)
        part.mkdir(parents=True, exist_ok=True)
        queue = WorkQueue(part / "claims", "which extracts features of the same stimuli")
        with queue.one_at_a_time():
            if all(self.has(space) for space in spaces):
                _remove(part)
                return
            chunk = self._begun_with(part, chunk, queue)
            arrays = {space.name: self._open(part, space, count, chunk, queue) for space in spaces}
        pieces = [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]
        with closing(queue.work(len(pieces))) as numbers:
            for number in numbers:
                values = extract(pieces[number])
                for name, array in arrays.items():
                    array[pieces[number]] = values[name]
        with queue.one_at_a_time():
            for space in spaces:
                if not self.has(space):
                    made = part / f"{space.key()}.zarr"
                    seal(made)
                    _remove(self._final(space))  # a damaged one
                    made.rename(self._final(space))
        _remove(part)

    def _begun_with(self, part: Path, chunk: int, queue: WorkQueue) -> int:
        """Return the chunk size that an extraction started with, which numbers its pieces."""
        record = part / "chunk"
        try:
            return int(record.read_text())
        except (FileNotFoundError, ValueError):
            for place in part.glob("*.zarr"):
                shutil.rmtree(place)
            queue.forget()
            record.write_text(str(chunk))
            return chunk

    def _open(
        self, part: Path, space: FeatureSpace, count: int, chunk: int, queue: WorkQueue
    ) -> Any:
        """Return the array of one space; a damaged one starts again, without claims."""
        import zarr

        place = part / f"{space.key()}.zarr"
        shape = space.shape() if callable(space.shape) else space.shape
        if place.exists():
            try:
                begun = zarr.open_array(place, mode="r+")
                if begun.shape != (count, *shape):
                    raise ValueError(f"its shape is {begun.shape}")
                return begun
            except (MemoryError, PermissionError):
                raise  # no damage
            except Exception:  # zarr raises many kinds of errors for damaged files
                shutil.rmtree(place)
        # If an array of this part was moved already, claims record its pieces as done.
        queue.forget()
        rows = min(chunk, max(count, 1))
        return create_array(
            place,
            (count, *shape),
            (rows, *_chunks(shape, max(1, _CHUNK_VALUES // rows))),
            "float32",
            compress=True,
            attributes={"provenance": json.loads(json.dumps(dict(space.provenance), default=str))},
        )


def _remove(part: Path) -> None:
    """Remove a folder; it is renamed first, so that waiting processes find all of it or nothing."""
    removed = part.with_name(f"{part.name}.{os.getpid()}")
    try:
        part.rename(removed)
    except FileNotFoundError:
        return
    shutil.rmtree(removed, ignore_errors=True)


def _chunks(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Return chunks of one stimulus's features with at most about ``most`` values."""
    if not shape:
        return ()
    behind = int(np.prod(shape[1:], dtype=np.int64))
    first = max(1, min(shape[0], most // max(behind, 1)))
    return (first, *shape[1:])
