"""Feature arrays on disk, keyed by what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.features._claims import Claims
from calcarine.files.zarr_files import DamagedArrayError, create_array, open_array, problem, seal

Extract = Callable[[slice], NDArray[np.float32]]
ExtractMany = Callable[[slice], Mapping[str, NDArray[np.float32]]]

_CHUNK_VALUES = 1_000_000
_REMOVED = re.compile(r"\.(part|zarr)\.\d+$")  # see _remove


@dataclass(frozen=True)
class FeatureSpace:
    """What one array of a store will hold.

    Attributes
    ----------
    name
        Of the feature space.
    provenance
        All that the values depend on; stored beside them.
    shape
        Shape of one stimulus's features.
    """

    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()

    def key(self) -> str:
        """Name of the array that the provenance leads to."""
        text = json.dumps(dict(self.provenance), sort_keys=True, default=str)
        plain = "".join(
            letter if letter.isalnum() or letter in ".-_" else "-" for letter in self.name
        )
        return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class FeatureStore:
    """Zarr arrays in one folder; a key names space, model, stimuli and settings.

    Several processes may ask one store for the same arrays at the same time:
    each extracts other stimuli, and all wait for the last.

    Parameters
    ----------
    folder : Path
        Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def key(self, space: str, provenance: Mapping[str, Any]) -> str:
        """Name of the array that ``provenance`` leads to."""
        return FeatureSpace(space, provenance).key()

    def get(
        self,
        space: str,
        provenance: Mapping[str, Any],
        count: int,
        shape: tuple[int, ...],
        extract: Extract,
        chunk: int = 64,
    ) -> NDArray[np.float32]:
        """The array, extracted chunk by chunk where it is not yet there.

        Parameters
        ----------
        space : str
            Name of the feature space.
        provenance : mapping
            All that the values depend on; stored beside them.
        count : int
            Number of stimuli n.
        shape : tuple of int
            Shape of one stimulus's features.
        extract : callable
            Slice of stimuli to float32 array ``(rows, *shape)``.

        Returns
        -------
        float32 array of shape (n, *shape)

        Notes
        -----
        An interrupted extraction continues at the chunk where it stopped; the array gets its
        final name only when it is whole.
        """
        wanted = FeatureSpace(space, provenance, shape)
        for last in (False, True):
            found = self.get_many([wanted], count, lambda rows: {space: extract(rows)}, chunk)
            try:
                return np.asarray(found[space][:], np.float32)
            except DamagedArrayError:
                if last:
                    raise
                # It is known as damaged now, so it is extracted again.
        raise AssertionError

    def get_many(
        self, spaces: list[FeatureSpace], count: int, extract: ExtractMany, chunk: int = 64
    ) -> dict[str, Any]:
        """Arrays that are extracted together, as zarr arrays that are read on demand.

        Parameters
        ----------
        spaces : list of FeatureSpace
            With different names.
        count : int
            Number of stimuli n.
        extract : callable
            Slice of stimuli to one array ``(rows, *shape)`` for each space, at least those that
            are missing.
        chunk : int
            Stimuli that are extracted at a time; what was begun goes on with its own number.

        Returns
        -------
        dict of StoredArray
            By name of the space, float32 of shape (n, *shape).

        Raises
        ------
        DamagedArrayError
            When a damaged chunk is read; the same call then extracts the array again.
        """
        missing = [space for space in spaces if not self.has(space)]
        if missing:
            self._extract(spaces, missing, count, extract, chunk)
        self._sweep(spaces)
        return {
            space.name: open_array(
                self._final(space), "", "the same command again extracts these features anew"
            )
            for space in spaces
        }

    def has(self, space: FeatureSpace) -> bool:
        """Whether an array is there, whole as far as can be seen without reading all of it."""
        final = self._final(space)
        return final.exists() and problem(final) is None

    def _final(self, space: FeatureSpace) -> Path:
        return self.folder / f"{space.key()}.zarr"

    def _part(self, spaces: list[FeatureSpace]) -> Path:
        """Folder that arrays which belong together share until they are whole together.

        It is named by all that were asked for, so that a process which was killed after it had
        given some of them their final names is continued with the others.
        """
        together = hashlib.sha256(json.dumps([space.key() for space in spaces]).encode())
        return self.folder / f"{spaces[0].key()}-{together.hexdigest()[:8]}.part"

    def _sweep(self, spaces: list[FeatureSpace]) -> None:
        """Remove what killed processes left of arrays that are whole."""
        with suppress(OSError):  # a disk that cannot be written to
            _remove(self._part(spaces))
        for left in self.folder.iterdir():
            if _REMOVED.search(left.name):
                shutil.rmtree(left, ignore_errors=True)

    def _extract(
        self,
        asked: list[FeatureSpace],
        spaces: list[FeatureSpace],
        count: int,
        extract: ExtractMany,
        chunk: int,
    ) -> None:
        part = self._part(asked)
        part.mkdir(parents=True, exist_ok=True)
        claims = Claims(part / "claims")
        with claims.one_at_a_time():
            if all(self.has(space) for space in spaces):
                _remove(part)
                return
            chunk = self._begun_with(part, chunk, claims)
            arrays = {space.name: self._open(part, space, count, chunk, claims) for space in spaces}
        pieces = [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]
        for number in claims.work(len(pieces)):
            values = extract(pieces[number])
            for name, array in arrays.items():
                array[pieces[number]] = values[name]
        with claims.one_at_a_time():
            for space in spaces:
                if not self.has(space):
                    made = part / f"{space.key()}.zarr"
                    seal(made)
                    _remove(self._final(space))  # a damaged one
                    made.rename(self._final(space))
        _remove(part)

    def _begun_with(self, part: Path, chunk: int, claims: Claims) -> int:
        """Stimuli at a time with which a part was begun: its pieces are numbered by that."""
        told = part / "chunk"
        try:
            return int(told.read_text())
        except (FileNotFoundError, ValueError):
            for place in part.glob("*.zarr"):
                shutil.rmtree(place)
            claims.forget()
            told.write_text(str(chunk))
            return chunk

    def _open(self, part: Path, space: FeatureSpace, count: int, chunk: int, claims: Claims) -> Any:
        """The array of one space, begun anew (with all claims on it) where it is damaged."""
        import zarr

        place = part / f"{space.key()}.zarr"
        if place.exists():
            try:
                begun = zarr.open_array(place, mode="r+")
                if begun.shape != (count, *space.shape):
                    raise ValueError(f"its shape is {begun.shape}")
                return begun
            except (MemoryError, PermissionError):
                raise  # no damage, and no reason to extract again
            except Exception:  # zarr meets damage with errors of many kinds
                shutil.rmtree(place)
        # A part from which an array was moved already has claims that say it is done.
        claims.forget()
        rows = min(chunk, max(count, 1))
        return create_array(
            place,
            (count, *space.shape),
            (rows, *_chunks(space.shape, max(1, _CHUNK_VALUES // rows))),
            "float32",
            compress=True,
            attributes={"provenance": json.loads(json.dumps(dict(space.provenance), default=str))},
        )


def _remove(part: Path) -> None:
    """Under another name first, so that who waits finds all of it or nothing."""
    aside = part.with_name(f"{part.name}.{os.getpid()}")
    try:
        part.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def _chunks(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Parts of one stimulus's features of at most about ``most`` values, split along the front."""
    if not shape:
        return ()
    behind = int(np.prod(shape[1:], dtype=np.int64))
    first = max(1, min(shape[0], most // max(behind, 1)))
    return (first, *shape[1:])
