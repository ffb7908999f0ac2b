"""Opening HDF5 files from other people, without following links to other files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.errors import DamagedFileError

if TYPE_CHECKING:
    import h5py

__all__ = ["open_hdf5"]

_SEARCHED: dict[tuple[Any, ...], tuple[str, str] | None] = {}
"""What leads out of files that were opened before: pictures are read one at a time."""
_MOST = 256


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, and refuse one that leads to other files.

    An HDF5 file can take the content of an array from any other file that the
    user may read: by an external link, by external raw storage, or by a
    virtual array.  A file from outside must not decide which of the user's
    files are read.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    h5py.File
        Open for reading.

    Raises
    ------
    CalcarineError
        If any link or array of the file leads to another file.
    OSError
        If it is no HDF5 file.
    """
    import h5py

    with h5py.File(path, "r") as file:
        about = Path(path).stat()
        _check(file, str(path), about.st_ino, about.st_size, about.st_mtime_ns)
        yield file


def _check(file: h5py.File, path: str, *version: int) -> None:
    key = (path, *version)
    if key not in _SEARCHED:
        if len(_SEARCHED) >= _MOST:
            _SEARCHED.clear()
        _SEARCHED[key] = next(_outside(file), None)
    leads = _SEARCHED[key]
    if leads is not None:
        name, where = leads
        raise DamagedFileError(
            f"{path}: {name} is stored in another file, {where}, which is not followed because "
            "such a file could make any file of yours be read; copy the array into the file itself."
        )


def _outside(file: h5py.File) -> Iterator[tuple[str, str]]:
    """Yield the name and the other file of each object that is stored elsewhere."""
    import h5py

    waiting: list[Any] = [file]
    seen = {h5py.h5o.get_info(file.id).addr}
    while waiting:
        group = waiting.pop()
        for name in group:
            place = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield place, str(link.filename)
                continue
            if not isinstance(link, h5py.HardLink):
                continue  # a soft link leads to an object of this file, which is visited on its own
            inner = group[name]
            address = h5py.h5o.get_info(inner.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(inner, h5py.Group):
                waiting.append(inner)
            elif isinstance(inner, h5py.Dataset):
                yield from ((place, where) for where in _storage(inner))


def _storage(array: h5py.Dataset) -> Iterator[str]:
    """Yield the other files that hold the numbers of an array."""
    for where, *_ in array.external or ():
        yield str(where)
    if array.is_virtual:
        for source in array.virtual_sources():
            if source.file_name != ".":
                yield str(source.file_name)
