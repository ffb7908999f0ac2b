"""Reading the file formats of NSD; damage raises one clear sentence."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets._integer_labels import scaling_of, whole_numbers
from calcarine.errors import CalcarineError, DamagedFileError
from calcarine.files.matlab_v5 import read_v5
from calcarine.files.matlab_v73 import is_hdf5

__all__ = [
    "as_integers",
    "content_error",
    "integers",
    "message_without_name",
    "read_label_names",
    "read_labels",
    "read_matrices",
    "read_table",
    "read_volume",
    "reading",
]

_WHO = "Data set nsd: "
_LARGEST = 2**28  # bytes of one volume, unpacked; the official ones have a few million


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of a library for a damaged file into one sentence."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:  # damaged files raise errors of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedFileError(
            f"{_WHO}{path} cannot be read ({reason}); the file is damaged or another one, "
            "get it again."
        ) from error


def content_error(path: Path, what: str) -> CalcarineError:
    """Return the error for a readable file with unexpected content."""
    return DamagedFileError(f"{_WHO}{path} {what}")


def message_without_name(error: CalcarineError) -> str:
    """Return the message of an error without the name of the data set."""
    return str(error).removeprefix(_WHO)


def read_volume(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Read one volume of a NIfTI file.

    Returns
    -------
    values, affine
        Shape (X, Y, Z), and (4, 4): indices to millimetres.
    """
    values, affine, _ = _volume(path)
    return values, affine


def _volume(
    path: Path,
) -> tuple[NDArray[np.generic], NDArray[np.float64], tuple[float, float] | None]:
    """Return what `read_volume` returns, and the scaling of values stored as integers."""
    import nibabel as nib

    with reading(path):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            # Unpacked to the end, so that the checksum at the end is compared.
            with gzip.open(BytesIO(content)) as file:
                content = file.read(_LARGEST + 1)
                if len(content) > _LARGEST or file.read(1):
                    raise ValueError(f"it unpacks to more than {_LARGEST} bytes")
        image = nib.Nifti1Image.from_bytes(content)
        if len(image.shape) != 3 or np.prod(image.shape, dtype=np.int64) > _LARGEST:
            raise ValueError(f"its shape is {image.shape} and should be (X, Y, Z)")
        values = np.asarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
        if values.dtype.kind not in "iuf" or not np.isfinite(affine).all():
            raise ValueError("its values or its affine are not numbers")
    return values, affine, scaling_of(image)


def read_labels(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read one volume of integer labels: above 0, or -1 or 0 for none."""
    values, affine, scaling = _volume(path)
    if values.dtype.kind == "f":
        values = whole_numbers(values, path, "volume of labels", scaling)
    labels = as_integers(values)
    if labels is None:
        raise content_error(path, "holds values that are too large for labels.")
    return labels, affine


def as_integers(values: NDArray[np.generic]) -> NDArray[np.int64] | None:
    """Return values as integers; None if that would change one."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        return None
    whole = np.rint(values)
    if (whole != values).any() or (np.abs(whole) > 2**53).any():
        return None
    return np.asarray(whole.astype(np.int64))


def read_label_names(path: Path) -> dict[int, str]:
    """Return names of labels, from lines of a value and a name."""
    names: dict[int, str] = {}
    with reading(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) < 2 or not parts[0].lstrip("-").isdecimal() or len(parts[0]) > 9:
            raise content_error(
                path, f"has '{line[:60]}' in line {number} and should have a label and its name."
            )
        names[int(parts[0])] = parts[1]
    if not names:
        raise content_error(
            path, "names no labels; get it again or delete it to use the known names."
        )
    return {value: name for value, name in names.items() if value > 0}


def read_table(path: Path, separator: str, needed: Sequence[str]) -> pd.DataFrame:
    """Read a table with the needed columns."""
    with reading(path):
        table = pd.read_csv(path, sep=separator, low_memory=False)
    missing = [name for name in needed if name not in table.columns]
    if missing or table.empty:
        what = f"has no column {' and no column '.join(missing)}" if missing else "has no rows"
        raise content_error(path, f"{what}; it is damaged or another file, get it again.")
    return table


def integers(path: Path, table: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """Return a column of whole numbers."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values) | (np.rint(values) != values) | (abs(values) > 2**53))
    if len(bad):
        raise content_error(
            path,
            f"has {str(table[column].iloc[bad[0]])[:40]} as {column} in row {bad[0] + 1} and "
            "should have a whole number there.",
        )
    return values.astype(np.int64)


def read_matrices(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Read matrices of whole numbers from a MATLAB file (version 5 to 7.2)."""
    if is_hdf5(path):
        raise content_error(path, "was saved again by MATLAB as version 7.3; save it with -v7.")
    with reading(path):
        result, _ = read_v5(path)
    matrices: dict[str, NDArray[np.int64]] = {}
    for name in names:
        value = result.get(name)
        if value is None or value.ndim != 2 or not value.size:
            raise content_error(
                path, f"has no matrix {name}; it is damaged or another file, get it again."
            )
        whole = as_integers(value)
        if whole is None:
            raise content_error(
                path, f"has values in {name} that are not whole numbers; get it again."
            )
        matrices[name] = whole
    return matrices
