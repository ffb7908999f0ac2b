"""Single-trial betas of one session; only masked voxels are kept in memory.

Both formats hold a trial as one run of Z x Y x X values (NIfTI stores X, Y, Z
with X running fastest), so a voxel has the same place in a trial of either.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets.nsd.files import content_error, reading
from calcarine.datasets.nsd.layout import BETAS_PER_PERCENT
from calcarine.files.hdf5 import open_hdf5

__all__ = ["SessionShape", "read_session", "session_shape"]

_KEY = "betas"
_BLOCK = 32 * 2**20  # bytes that are read at a time from files in chunks
_GAP = 2**14  # values without a chosen voxel that are worth another call
_PERCENT = np.float32(BETAS_PER_PERCENT)


@dataclass(frozen=True)
class SessionShape:
    """Number of trials and voxels of a file of betas.

    Attributes
    ----------
    trials
        Number of trials.
    grid
        Voxels along Z, Y and X.
    """

    trials: int
    grid: tuple[int, int, int]


def session_shape(path: Path) -> SessionShape:
    """Read the shape only."""
    if path.suffix == ".hdf5":
        with reading(path), open_hdf5(path) as file:
            return _hdf5_shape(path, file[_KEY])
    with reading(path), gzip.open(path) as file:
        return _nifti_start(path, file)[0]


def read_session(path: Path, shape: SessionShape, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the betas of the chosen voxels in percent signal change.

    Parameters
    ----------
    path
        ``betas_sessionNN.hdf5`` or ``betas_sessionNN.nii.gz``.
    shape
        What `session_shape` gave, or what the file should hold.
    voxels
        Ascending places in the flattened grid (Z, Y, X).

    Returns
    -------
    float32 array of shape (trial, voxel)
        Stored values / 300.

    Raises
    ------
    CalcarineError
        If the file is damaged or of another shape.
    """
    out = np.empty((shape.trials, len(voxels)), dtype=np.float32)
    if path.suffix != ".hdf5":
        _read_nifti(path, shape, voxels, out)
        return out
    start = _read_chunks(path, shape, voxels, out)
    if start is not None:
        _read_contiguous(path, shape, voxels, out, *start)
    return out


def _hdf5_shape(path: Path, betas: Any) -> SessionShape:
    if len(betas.shape) != 4 or betas.dtype.kind != "i" or betas.dtype.itemsize != 2:
        raise content_error(
            path,
            f"has {_KEY} of {betas.dtype} and shape {betas.shape}; they should be int16 of shape "
            "(trials, Z, Y, X).",
        )
    trials, *grid = (int(size) for size in betas.shape)
    return SessionShape(trials, (grid[0], grid[1], grid[2]))


def _check_shape(path: Path, found: SessionShape, wanted: SessionShape) -> None:
    if found != wanted:
        raise content_error(
            path,
            f"holds {found.trials} trials of {found.grid} voxels (Z, Y, X) and should hold "
            f"{wanted.trials} of {wanted.grid}; it was changed or is of another subject.",
        )


def _read_chunks(
    path: Path, shape: SessionShape, voxels: NDArray[np.int64], out: NDArray[np.float32]
) -> tuple[int, np.dtype[Any]] | None:
    """Fill ``out`` through the HDF5 library, or return where a contiguous array starts."""
    with reading(path), open_hdf5(path) as file:
        betas = file[_KEY]
        _check_shape(path, _hdf5_shape(path, betas), shape)
        plain = betas.chunks is None and not betas.is_virtual
        offset = betas.id.get_offset() if plain and not file.userblock_size else None
        if offset is not None:
            return int(offset), betas.dtype
        _read_boxes(betas, shape, voxels, out)
    return None


def _read_contiguous(
    path: Path,
    shape: SessionShape,
    voxels: NDArray[np.int64],
    out: NDArray[np.float32],
    offset: int,
    dtype: np.dtype[Any],
) -> None:
    """Read the part of each trial that holds voxels into one small buffer.

    Takes less time than the library does for everything, and no page of the
    file stays in our memory.
    """
    size = int(np.prod(shape.grid))
    edges = np.flatnonzero(np.diff(voxels) > _GAP) + 1
    starts = voxels[np.concatenate([[0], edges])]
    lengths = voxels[np.concatenate([edges - 1, [-1]])] + 1 - starts
    ends = np.cumsum(lengths)
    buffer = np.empty(int(ends[-1]), dtype=dtype)
    stretches = list(zip(starts.tolist(), np.split(buffer, ends[:-1]), strict=True))
    owner = np.searchsorted(starts, voxels, side="right") - 1
    places = voxels - starts[owner] + (ends - lengths)[owner]
    picked = np.empty(len(voxels), dtype=dtype)
    with reading(path), open(path, "rb", buffering=0) as file:
        for trial in range(shape.trials):
            for start, part in stretches:
                file.seek(offset + (trial * size + start) * dtype.itemsize)
                _fill(file, part)
            _percent(buffer, places, picked, out[trial])


def _fill(file: Any, buffer: NDArray[Any]) -> None:
    view: Any = memoryview(buffer.view(np.uint8))  # type: ignore[arg-type]
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise ValueError("it ends too early")
        done += count


def _percent(
    trial: NDArray[Any],
    places: NDArray[np.int64],
    picked: NDArray[Any],
    out: NDArray[np.float32],
) -> None:
    # The places are known to lie inside; with mode="clip" numpy need not copy to be safe.
    np.take(trial, places, out=picked, mode="clip")
    np.divide(picked, _PERCENT, out=out)


def _read_boxes(
    betas: Any, shape: SessionShape, voxels: NDArray[np.int64], out: NDArray[np.float32]
) -> None:
    """Read the chunks that hold chosen voxels, each once."""
    depth, *cell = betas.chunks or (1, *shape.grid)
    z, y, x = np.unravel_index(voxels, shape.grid)
    owner = (z // cell[0]) * (shape.grid[1] // cell[1] + 1) + y // cell[1]
    order = np.argsort(owner, kind="stable")
    edges = np.flatnonzero(np.diff(owner[order])) + 1
    for columns in np.split(order, edges):
        # Along x from the first needed chunk to the last: small chunks in few calls.
        first = [int(axis[columns].min()) // c * c for axis, c in zip((z, y, x), cell, strict=True)]
        last = [
            min((int(axis[columns].max()) // c + 1) * c, n)
            for axis, c, n in zip((z, y, x), cell, shape.grid, strict=True)
        ]
        sizes = [b - a for a, b in zip(first, last, strict=True)]
        places = np.ravel_multi_index(
            tuple(axis[columns] - a for axis, a in zip((z, y, x), first, strict=True)), sizes
        )
        step = max(1, _BLOCK // (2 * int(np.prod(sizes)) * depth)) * depth
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        for start in range(0, shape.trials, step):
            block = betas[(slice(start, start + step), *box)]
            rows = block.reshape(len(block), -1)[:, places]
            out[start : start + len(block), columns] = rows / _PERCENT


def _nifti_start(path: Path, file: BinaryIO | gzip.GzipFile) -> tuple[SessionShape, Any]:
    """Return shape and header; the file is then positioned after the header."""
    import nibabel as nib

    header = nib.Nifti1Header(file.read(348))
    shape = tuple(int(size) for size in header.get_data_shape())
    dtype = header.get_data_dtype()
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    scaled = slope not in (0.0, 1.0) and not np.isnan(slope)
    if len(shape) != 4 or dtype.kind != "i" or dtype.itemsize != 2 or min(shape) < 1:
        raise content_error(
            path,
            f"holds {dtype} of shape {shape}; betas should be int16 of shape (X, Y, Z, trials).",
        )
    if scaled or (slope == 1.0 and inter != 0.0):
        raise content_error(
            path,
            f"has a scaling of its own (slope {slope:g}, intercept {inter:g}); the official betas "
            "have none, get the file again.",
        )
    x, y, z, trials = shape
    return SessionShape(trials, (z, y, x)), header


def _read_nifti(
    path: Path, shape: SessionShape, voxels: NDArray[np.int64], out: NDArray[np.float32]
) -> None:
    with reading(path), gzip.open(path) as file:
        result, header = _nifti_start(path, file)
        _check_shape(path, result, shape)
        skip = int(header.get_data_offset()) - 348
        if not 0 <= skip <= 2**20:
            raise ValueError(f"its data start at byte {skip + 348}")
        file.read(skip)
        buffer = np.empty(int(np.prod(shape.grid)), dtype=header.get_data_dtype())
        picked = np.empty(len(voxels), dtype=buffer.dtype)
        for trial in range(shape.trials):
            _fill(file, buffer)
            _percent(buffer, voxels, picked, out[trial])
        # To the end, so that the checksum there is compared.
        while file.read(2**20):
            pass
