"""Arrays that may lie on disk: shape without reading, rows and columns read in pieces."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from calcarine.files.zarr_files import StoredArray
from calcarine.linear._checks import RidgeError, as_matrix, check_finite


class OnDisk(Protocol):
    """What zarr arrays and HDF5 data sets have in common; a memory map is a numpy array."""

    shape: tuple[int, ...]
    dtype: Any

    def __getitem__(self, key: Any) -> npt.NDArray[Any]: ...


CHUNK_VALUES = 4_000_000
"""How many values are read or scaled at once."""

Matrix = npt.NDArray[Any] | OnDisk


def as_source(values: Any, name: str) -> Matrix:
    """Return a 2-D array in memory, or the array on disk as it is.

    Raises
    ------
    RidgeError
        When it is not a matrix of real numbers, or empty.
    """
    if _on_disk(values):
        kind = np.dtype(values.dtype).kind
        if len(values.shape) != 2 or kind not in "biuf" or 0 in values.shape:
            raise RidgeError(
                f"{name} on disk has shape {tuple(values.shape)} and type {values.dtype}; "
                "pass a 2-D array of numbers with one row per trial."
            )
        return values  # type: ignore[no-any-return]
    return as_matrix(values, name)


def _on_disk(values: Any) -> bool:
    package = type(values).__module__.split(".")[0]
    known = package in ("zarr", "h5py") and hasattr(values, "dtype")
    return known or isinstance(values, StoredArray)


def read_columns(source: Matrix, columns: slice, name: str) -> npt.NDArray[np.float64]:
    """Columns of a source as float64, shape (n, k).

    Raises
    ------
    RidgeError
        When a value on disk is not finite; row and column are named. What is in memory was checked
        before.
    """
    block = np.asarray(source[:, columns])
    if not in_memory(source):
        check_finite(block, name, first_column=columns.start)
    values = block.astype(np.float64)
    release(source)
    return values


def release(source: Matrix) -> None:
    """Let go of the pages of a memory map: they would count as memory of the process.

    What was written to it stays, save in a private copy (mode "c"), which is left alone.
    """
    pages, modes = _mapped(source)
    if pages is not None and modes <= {"r", "r+", "w+"}:
        with suppress(AttributeError, OSError):  # not everywhere, and no page may be locked
            pages.madvise(mmap.MADV_DONTNEED)


def in_memory(source: Matrix) -> TypeGuard[npt.NDArray[Any]]:
    """Whether all values are in memory already."""
    return isinstance(source, np.ndarray) and _mapped(source)[0] is None


def _mapped(source: Matrix) -> tuple[mmap.mmap | None, set[str | None]]:
    """The pages of a memory map that an array is a view of, and the modes it is known by."""
    modes, pages = set[str | None](), cast(Any, source)
    while isinstance(pages, np.ndarray):
        if isinstance(pages, np.memmap):
            modes.add(pages.mode)
        pages = pages.base
    return (pages, modes) if isinstance(pages, mmap.mmap) and modes else (None, modes)


def row_chunks(source: Matrix) -> list[slice]:
    """Slices of rows of about `CHUNK_VALUES` values, on the borders of stored chunks."""
    n_rows, n_columns = source.shape
    rows = max(1, CHUNK_VALUES // n_columns)
    chunks = getattr(source, "chunks", None)
    if chunks and chunks[0] < n_rows:
        rows = max(1, rows // chunks[0]) * chunks[0]
    return [slice(i, min(i + rows, n_rows)) for i in range(0, n_rows, rows)]
