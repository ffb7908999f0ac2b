"""Reading predictors and targets in pieces, and keeping weights in memory or on disk."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import mmap
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from calcarine.files import is_partial_file, read_json, write_bytes, write_text
from calcarine.files.zarr_files import StoredArray
from calcarine.linear._validation import (
    FloatArray,
    RidgeError,
    RidgeSettingError,
    RidgeShapeError,
    as_matrix,
    check_finite,
)

_PER_BLOCK = ("table", "r2", "mean", "chosen")


class OnDisk(Protocol):
    """Interface of zarr arrays and HDF5 data sets; a memory map is a numpy array."""

    shape: tuple[int, ...]
    dtype: Any

    def __getitem__(self, key: Any) -> npt.NDArray[Any]: ...


class ComputedMatrix:
    """A matrix that is computed a block of columns at a time, when a fit reads it.

    Targets that are derived from an array need no copy of the whole array then.

    Parameters
    ----------
    shape : tuple of two int
    dtype : dtype-like
    columns : callable
        Takes a slice of columns and returns them, shape (n, k).
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: npt.DTypeLike,
        columns: Callable[[slice], npt.NDArray[Any]],
    ) -> None:
        self.shape, self.dtype, self.columns = shape, np.dtype(dtype), columns

    def __getitem__(self, key: tuple[slice, slice]) -> npt.NDArray[Any]:
        rows, columns = key
        return self.columns(columns)[rows]


CHUNK_VALUES = 4_000_000
"""Number of values that are read or scaled at once."""

Matrix = npt.NDArray[Any] | OnDisk


def as_source(values: Any, name: str) -> Matrix:
    """Return a 2-D array in memory, or the array on disk as it is.

    Raises
    ------
    RidgeError
        When it is empty or not a matrix of real numbers.
    """
    if _on_disk(values):
        kind = np.dtype(values.dtype).kind
        if len(values.shape) != 2 or kind not in "biuf" or 0 in values.shape:
            raise RidgeShapeError(
                f"{name} on disk has shape {tuple(values.shape)} and type {values.dtype}; "
                "pass a 2-D array of numbers with one row per trial."
            )
        return values  # type: ignore[no-any-return]
    return as_matrix(values, name)


def _on_disk(values: Any) -> bool:
    package = type(values).__module__.split(".")[0]
    known = package in ("zarr", "h5py") and hasattr(values, "dtype")
    return known or isinstance(values, StoredArray | ComputedMatrix)


def read_columns(source: Matrix, columns: slice, name: str) -> npt.NDArray[np.float64]:
    """Return columns of a matrix as float64, shape (n, k).

    Raises
    ------
    RidgeError
        When a value on disk is not finite. Arrays in memory are checked before a fit begins.
    """
    block = np.asarray(source[:, columns])
    if not in_memory(source):
        check_finite(block, name, first_column=columns.start)
    values = block.astype(np.float64)
    release(source)
    return values


def release(source: Matrix) -> None:
    """Free the pages of a memory map, which count as memory of the process.

    Values that were written stay on disk. A private copy (mode "c") is left alone.
    """
    pages, modes = _mapped(source)
    if pages is not None and modes <= {"r", "r+", "w+"}:
        with suppress(AttributeError, OSError):  # not everywhere, and no page may be locked
            pages.madvise(mmap.MADV_DONTNEED)


def in_memory(source: Matrix) -> TypeGuard[npt.NDArray[Any]]:
    """Return whether all values are in memory."""
    return isinstance(source, np.ndarray) and _mapped(source)[0] is None


def _mapped(source: Matrix) -> tuple[mmap.mmap | None, set[str | None]]:
    """Return the pages of the memory map behind an array, and the modes it was opened with."""
    modes, pages = set[str | None](), cast(Any, source)
    while isinstance(pages, np.ndarray):
        if isinstance(pages, np.memmap):
            modes.add(pages.mode)
        pages = pages.base
    return (pages, modes) if isinstance(pages, mmap.mmap) and modes else (None, modes)


def row_chunks(source: Matrix) -> list[slice]:
    """Return slices of rows of about `CHUNK_VALUES` values, aligned with stored chunks."""
    n_rows, n_columns = source.shape
    rows = max(1, CHUNK_VALUES // n_columns)
    chunks = getattr(source, "chunks", None)
    if chunks and chunks[0] < n_rows:
        rows = max(1, rows // chunks[0]) * chunks[0]
    return [slice(i, min(i + rows, n_rows)) for i in range(0, n_rows, rows)]


@dataclass
class BlockSolution:
    """Result for a block of t targets.

    Attributes
    ----------
    table, r2 : ndarray, shape (n_alphas, t)
        Held-out score and held-out r2 of every penalty; NaN where a penalty was not tried.
    mean : ndarray, shape (t,)
    chosen : ndarray of int, shape (t,)
        Index of the chosen penalty.
    coef : ndarray, shape (p, t), or None
        None where penalties are chosen over several blocks.
    """

    table: npt.NDArray[np.float64]
    r2: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    chosen: npt.NDArray[np.intp]
    coef: FloatArray | None


class WeightMemory:
    """Results of all blocks in memory; with `direct`, solvers write weights straight into it."""

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int, direct: bool = False
    ) -> None:
        self.coef: FloatArray = np.empty(shape, dtype)
        self.direct = direct
        n_targets = shape[1]
        self.solution = BlockSolution(
            np.empty((n_alphas, n_targets)),
            np.empty((n_alphas, n_targets)),
            np.empty(n_targets),
            np.empty(n_targets, np.intp),
            None,
        )

    def has(self, block: slice, y: npt.NDArray[Any]) -> bool:
        """Return whether a block was solved before, from the same targets."""
        return False

    def keep(self, block: slice, solved: BlockSolution) -> None:
        """Store the solution of one block."""
        self._store(block, solved.coef)
        for name in _PER_BLOCK:
            getattr(self.solution, name)[..., block] = getattr(solved, name)

    def buffer(self, block: slice) -> FloatArray | None:
        """Return the array that the weights of a block may be written to, or None."""
        return self.coef[:, block] if self.direct else None

    def has_weights(self, block: slice, chosen: npt.NDArray[np.intp]) -> bool:
        """Return whether the weights of a block were stored before, for the same penalties."""
        return False

    def keep_weights(self, block: slice, chosen: npt.NDArray[np.intp], coef: FloatArray) -> None:
        """Store the weights of one block, for penalties chosen over all blocks."""
        self._store(block, coef)

    def _store(self, block: slice, coef: FloatArray | None) -> None:
        if coef is not None and not np.may_share_memory(
            coef, self.coef
        ):  # else they are written already
            self.coef[:, block] = coef

    def solutions(self) -> BlockSolution:
        """Return scores, means and chosen penalties of all targets."""
        return self.solution

    def weights(self) -> FloatArray:
        """Return the weights of all targets, shape (p, t)."""
        return self.coef


class WeightFolder(WeightMemory):
    """Weights in ``coef.npy`` and, for each finished block, scores and penalties in a small file.

    A block is finished when its small file exists, because that file is written after the weights.
    Where targets share a penalty, weights are written in a second pass with small files of their
    own. A block of another size overwrites columns of earlier blocks, so their files are deleted
    first.
    """

    def __init__(
        self, folder: Path, key: str, shape: tuple[int, int], dtype: np.dtype[Any], n_alphas: int
    ) -> None:
        super().__init__((0, shape[1]), dtype, n_alphas)
        self.folder, self.digests = folder, dict[int, str]()
        try:
            _claim(folder, key)
            self.coef = self._open(folder / "coef.npy", shape, dtype)
        except (OSError, ValueError) as error:
            if isinstance(error, RidgeError):
                raise
            raise RidgeSettingError(
                f"The weights cannot be written to {folder} ({error}); choose a folder with "
                f"{shape[0] * shape[1] * dtype.itemsize / 1e9:.2f} GB of room, or delete it."
            ) from error

    def _open(self, file: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> FloatArray:
        try:
            # "r+" alone would lengthen a file that was cut off.
            whole = np.lib.format.open_memmap(file, "r")
            if whole.shape == shape and whole.dtype == dtype:
                return np.lib.format.open_memmap(file, "r+")
        except (FileNotFoundError, ValueError):
            pass
        # The weights are lost or cut off, so the small files are no longer true.
        for stale in self.folder.glob("*-[0-9]*.npz"):
            stale.unlink()
        coef = np.lib.format.open_memmap(file, "w+", dtype, shape)
        try:
            _reserve(file)
        except OSError:
            file.unlink()
            raise
        return coef

    def _read(self, kind: str, block: slice) -> dict[str, npt.NDArray[Any]] | None:
        """Return the small file of a block, or None if it is missing or incomplete."""
        try:
            with np.load(self._file(kind, block), allow_pickle=False) as stored:
                content = dict(stored)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if str(content.pop("digest", "")) != self.digests[block.start]:
            raise RidgeSettingError(
                f"Y differs from the Y of the fit in {self.folder} (columns {block.start} to "
                f"{block.stop - 1}); choose another out, or delete that folder."
            )
        return content

    def _write(self, kind: str, block: slice, **content: Any) -> None:
        self.coef.flush()  # type: ignore[attr-defined]
        release(self.coef)
        packed = io.BytesIO()
        np.savez(packed, digest=np.asarray(self.digests[block.start]), **content)
        write_bytes(self._file(kind, block), packed.getvalue())

    def _invalidate(self, kinds: Sequence[str], block: slice) -> None:
        """Delete small files of other blocks whose columns are about to be overwritten."""
        for kind in kinds:
            own = self._file(kind, block)
            for file in self.folder.glob(f"{kind}-*.npz"):
                _, start, stop = file.stem.split("-")
                if file != own and int(start) < block.stop and block.start < int(stop):
                    file.unlink()

    def _file(self, kind: str, block: slice) -> Path:
        return self.folder / f"{kind}-{block.start:08d}-{block.stop:08d}.npz"

    def has(self, block: slice, y: npt.NDArray[Any]) -> bool:
        self.digests[block.start] = digest_of(y)
        stored = self._read("block", block)
        if stored is None or set(stored) != set(_PER_BLOCK):
            return False
        for name in _PER_BLOCK:
            getattr(self.solution, name)[..., block] = stored[name]
        return True

    def keep(self, block: slice, solved: BlockSolution) -> None:
        self._invalidate(("block", "weights"), block)
        super().keep(block, solved)
        self._write("block", block, **{name: getattr(solved, name) for name in _PER_BLOCK})

    def has_weights(self, block: slice, chosen: npt.NDArray[np.intp]) -> bool:
        stored = self._read("weights", block)
        return stored is not None and np.array_equal(stored.get("chosen", []), chosen)

    def keep_weights(self, block: slice, chosen: npt.NDArray[np.intp], coef: FloatArray) -> None:
        self._invalidate(("weights",), block)
        super().keep_weights(block, chosen, coef)
        self._write("weights", block, chosen=chosen)

    def weights(self) -> FloatArray:
        """Return the weights of all targets as a read-only memory map, shape (p, t)."""
        self.coef.flush()  # type: ignore[attr-defined]
        return np.load(self.folder / "coef.npy", mmap_mode="r")  # type: ignore[no-any-return]


def _reserve(file: Path) -> None:
    """Allocate the file on disk; a full disk would otherwise kill the process at a later write."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(file, "r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def _claim(folder: Path, key: str) -> None:
    """Create the folder of a fit, or check that it holds the same fit; raise if not."""
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / "fit.json"
    if about.exists():
        try:
            same = read_json(about)["key"] == key
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise RidgeSettingError(
                f"{folder} holds a fit of other data or settings; choose another out, or "
                "delete that folder."
            )
    elif any(not is_partial_file(file) for file in folder.iterdir()):
        raise RidgeSettingError(f"{folder} is not empty and holds no fit; choose another out.")
    else:
        write_text(about, json.dumps({"key": key}))


def open_store(
    out: str | os.PathLike[str] | None,
    key: str | None,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    n_alphas: int,
    *,
    direct: bool,
) -> WeightMemory:
    """Return a store for weights in memory, or in the folder `out`.

    Raises
    ------
    RidgeError
        When the folder holds another fit or cannot be written.
    """
    if out is None or key is None:
        return WeightMemory(shape, dtype, n_alphas, direct)
    return WeightFolder(Path(out), key, shape, dtype, n_alphas)


class RunningDigest:
    """Digest of values that arrive in chunks."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, chunk: npt.NDArray[Any]) -> None:
        """Add the values of a chunk, in C order."""
        self._hash.update(np.ascontiguousarray(chunk).data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def fit_key(x: Matrix, x_digest: str, y: Matrix, *settings: Any) -> str:
    """Return a digest of everything that determines the weights, except the values of Y.

    Parameters
    ----------
    x, y : matrices
        Their shapes and types enter the digest.
    x_digest : str
        Digest of the values of X.
    settings : arrays, or objects with a complete repr
    """
    parts = [x_digest, repr((x.shape, str(x.dtype), y.shape, str(y.dtype)))]
    for setting in settings:
        is_array = isinstance(setting, np.ndarray)
        parts.append(digest_of(setting) if is_array else repr(setting))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_of(array: npt.NDArray[Any]) -> str:
    """Return a digest of the values of an array, in C order."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
