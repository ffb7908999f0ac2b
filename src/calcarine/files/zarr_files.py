"""Zarr arrays on disk whose damage is detected.

Each chunk ends in its CRC-32C (zarr's own codec ``crc32c``), which is compared when it is read.
A file ``checksums.json`` next to the arrays holds the digests of their ``zarr.json`` and the size
of each chunk, so that what is missing, cut short or changed there is seen without reading numbers:
zarr itself takes a missing chunk for zeros.  Arrays without that file were written by earlier
versions; they are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import DamagedFileError
from calcarine.files.local_files import read_json, write_text

__all__ = ["DamagedArrayError", "StoredArray", "create_array", "open_array", "problem", "seal"]

_SEAL, _META = "checksums.json", "zarr.json"
_CHECKSUM_BYTES = 4


class DamagedArrayError(DamagedFileError):
    """An array on disk was changed or is not whole."""


def create_array(
    place: Any,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: Any,
    *,
    name: str | None = None,
    compress: bool = False,
    attributes: dict[str, Any] | None = None,
) -> Any:
    """Create an array whose chunks carry checksums; call `seal` when all chunks are written.

    Parameters
    ----------
    place : object
        Folder, or a zarr group.
    shape, chunks, dtype
        Shape and type of the array.
    name : str, optional
        In the group.
    compress : bool
        Whether chunks are compressed (Zstandard).
    attributes : dict, optional
        Stored with the array.

    Returns
    -------
    zarr.Array
    """
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    codecs: list[Any] = [ZstdCodec(), Crc32cCodec()] if compress else [Crc32cCodec()]
    settings: dict[str, Any] = {
        "shape": tuple(shape),
        "chunks": tuple(chunks),
        "dtype": dtype,
        "compressors": codecs,
        "attributes": attributes,
        # Every chunk is a file, so that a missing one is a fault.
        "config": {"write_empty_chunks": True},
    }
    if name is not None:
        return place.create_array(name, **settings)
    return zarr.create_array(store=place, **settings)


def seal(folder: str | Path) -> None:
    """Record the files of a folder of arrays when it is complete."""
    folder = Path(folder)
    for left in folder.rglob("*.partial"):  # of a process that was killed while it wrote a chunk
        left.unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)
    about = {
        "metadata": {_relative(folder, p): _digest(p) for p in files if p.name == _META},
        "chunks": {_relative(folder, p): p.stat().st_size for p in files if p.name != _META},
    }
    write_text(folder / _SEAL, json.dumps(about))


def problem(folder: str | Path) -> str | None:
    """Return what is wrong with a folder of arrays, without reading their chunks.

    Returns
    -------
    str or None
        None where nothing is wrong.
    """
    folder = Path(folder)
    try:
        if not (folder / _SEAL).exists():
            return _problem_unsealed(folder)
        about = read_json(folder / _SEAL)
        if "damaged" in about:
            return str(about["damaged"])
        if not about["metadata"]:
            raise ValueError("it names no array")
        for name, digest in about["metadata"].items():
            if _digest(folder / name) != digest:
                return f"{name} was changed"
        for name, size in about["chunks"].items():
            if (folder / name).stat().st_size != size:
                return f"{name} is cut short or has grown"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except Exception as error:  # JSON of any shape, names that are no paths
        return f"{_SEAL} cannot be read: {_line(error)}"
    return None


def _problem_unsealed(folder: Path) -> str | None:
    """Return what is wrong with arrays of earlier versions: whether zarr opens them."""
    import zarr

    try:
        zarr.open(str(folder), mode="r")
    except Exception as error:  # zarr meets damage with errors of many kinds
        return _line(error)
    return None


def open_array(folder: str | Path, name: str, remedy: str) -> StoredArray:
    """Open an array that is read when it is used.

    Parameters
    ----------
    folder : str or Path
        Of one array, or of a group.
    name : str
        In the group; empty for the array itself.
    remedy : str
        Advice if it is damaged, for the error.

    Raises
    ------
    DamagedArrayError
        If it is not whole.
    """
    folder = Path(folder)
    import zarr

    wrong = problem(folder)
    if wrong is None:
        try:
            node: Any = zarr.open(str(folder), mode="r")
            return StoredArray(node[name] if name else node, folder, remedy)
        except Exception as error:  # as in problem
            wrong = _line(error)
    raise DamagedArrayError(f"{folder} is damaged ({wrong}); {remedy}.")


class StoredArray:
    """An array on disk that raises one clear sentence if it is damaged.

    Parameters
    ----------
    array : object
        A zarr array.
    folder, remedy
        See `open_array`.

    Attributes
    ----------
    shape, dtype, ndim, chunks
        Shape and type of the array.
    """

    def __init__(self, array: Any, folder: Path, remedy: str) -> None:
        self._array, self._folder, self._remedy = array, folder, remedy
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.chunks: tuple[int, ...] = tuple(array.chunks)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Read a part of the array.

        Raises
        ------
        DamagedArrayError
            If a chunk is missing or was changed; the array is then known as
            damaged, so that it is made again.
        """
        try:
            return self._array[key]
        except Exception as error:  # checksums, decompression, missing and cut files
            damage = self._damage()
            if damage is None:  # a key that is none
                raise
            raise DamagedArrayError(
                f"{self._folder} is damaged ({damage}); {self._remedy}."
            ) from error

    def digest(self) -> str | None:
        """Return a hash of the content that reads little of it: the checksum that ends each chunk.

        Returns
        -------
        str or None
            SHA-256; None for arrays of earlier versions, whose chunks have no checksums.
        """
        if not (self._folder / _SEAL).exists():
            return None
        total = hashlib.sha256()
        place = self._folder / self._array.path
        for file in sorted(path for path in place.rglob("*") if path.is_file()):
            if file.name == _SEAL:
                continue
            total.update(_relative(place, file).encode())
            with open(file, "rb") as stream:
                if file.name != _META:
                    stream.seek(-_CHECKSUM_BYTES, os.SEEK_END)
                total.update(stream.read())
        return total.hexdigest()

    def _damage(self) -> str | None:
        """Read all chunks and return what is wrong with them; record it if possible."""
        rows = self.chunks[0] if self.chunks else 1
        try:
            for start in range(0, self.shape[0] if self.shape else 0, rows):
                self._array[start : start + rows]
        except Exception as error:
            with suppress(OSError):
                write_text(self._folder / _SEAL, json.dumps({"damaged": _line(error)}))
            return _line(error)
        return None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def __repr__(self) -> str:
        return f"StoredArray(shape={self.shape}, dtype={self.dtype}, folder={str(self._folder)!r})"


def _relative(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
