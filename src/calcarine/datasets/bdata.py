"""BData files (``.h5``) of the Kamitani laboratory: a matrix and labels of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from calcarine.datasets._numpy_files import reason
from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError
from calcarine.files.hdf5 import open_hdf5

__all__ = ["BData", "write_bdata"]

_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class BData:
    """A BData file: metadata in memory, the matrix read when it is used.

    Attributes
    ----------
    path : Path
        The file.
    keys, descriptions : tuple of str
        Names of the metadata and what they mean.
    values : float64 array
        float64, shape (key, column), NaN where a key says nothing of a column.
    shape : (int, int)
        Samples and columns of the matrix.
    dtype
        How the matrix is stored.
    vmap : mapping of str to mapping of float to str
        For some keys: text of each number that stands in the matrix.
    header : mapping of str to str
        What else the file says of itself.
    """

    path: Path
    keys: tuple[str, ...]
    descriptions: tuple[str, ...]
    values: NDArray[np.float64]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    vmap: Mapping[str, Mapping[float, str]] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> BData:
        """Read everything but the matrix.

        Raises
        ------
        CalcarineError
            If the file is damaged, no BData file, or its parts do not agree.
        """
        place = Path(path)
        with _opened(place) as file:
            matrix, meta = file["dataset"], file["metadata"]
            if matrix.ndim != 2 or matrix.dtype.kind not in "uif":
                raise ValueError(f"its dataset is {matrix.dtype} of shape {matrix.shape}")
            size = int(np.prod(matrix.shape)) * matrix.dtype.itemsize
            if matrix.chunks is None and matrix.id.get_storage_size() != size:
                raise ValueError(f"its dataset should have {size} bytes and has fewer")
            keys = tuple(_text(key) for key in np.ravel(meta["key"][()]))
            notes = np.ravel(meta["description"][()]) if "description" in meta else ()
            values = np.asarray(meta["value"][()], dtype=np.float64)
            vmap = {str(key): _numbered(file["vmap"][key]) for key in file.get("vmap", ())}
            header = {
                str(key): _plain(file["header"][key][()])
                for key in file.get("header", ())
                if hasattr(file["header"][key], "dtype")
            }
            shape = (int(matrix.shape[0]), int(matrix.shape[1]))
            dtype = matrix.dtype
        if values.shape != (len(keys), shape[1]):
            raise DamagedFileError(
                f"{place}: metadata for {len(keys)} keys and {shape[1]} columns should have shape "
                f"{(len(keys), shape[1])} and has {values.shape}; get the file again."
            )
        texts = tuple(_text(note) for note in notes)
        texts += ("",) * (len(keys) - len(texts))
        return cls(place, keys, texts[: len(keys)], values, shape, dtype, vmap, header)

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def row(self, key: str) -> NDArray[np.float64]:
        """Return the value of a key for each column, shape (column,).

        Raises
        ------
        CalcarineError
            If there is no such key, listing those there are.
        """
        if key not in self.keys:
            raise DamagedFileError(
                f"{self.path} has no columns {key}; it has {', '.join(self.keys) or 'none'}."
            )
        return np.asarray(self.values[self.keys.index(key)])

    def mask(self, key: str) -> NDArray[np.bool_]:
        """Return the columns where a key is 1, shape (column,).

        Raises
        ------
        CalcarineError
            If there is no such key, or it marks columns by other numbers
            than 1 and 0.
        """
        if not self._marks(key):
            raise DamagedFileError(
                f"{self.path}: {key} should mark columns by 1 and holds other numbers; it is no "
                "selection of columns, or the file is damaged."
            )
        return np.asarray(self.row(key) == 1)

    def _marks(self, key: str) -> bool:
        value = self.row(key)
        return bool((np.isnan(value) | (value == 0) | (value == 1)).all())

    def select(
        self, chosen: str | NDArray[np.bool_], dtype: DTypeLike = np.float64
    ) -> NDArray[Any]:
        """Read some columns of the matrix, in blocks of samples.

        Parameters
        ----------
        chosen : str or bool array
            A key, or a mask of shape (column,).
        dtype : DTypeLike
            dtype of the result; labels need float64.

        Returns
        -------
        array of shape (sample, chosen column)
            Columns in the order of the file.
        """
        mask = self.mask(chosen) if isinstance(chosen, str) else chosen
        columns = np.flatnonzero(mask)
        result = np.empty((self.shape[0], len(columns)), dtype=dtype)
        if not len(columns):
            return result
        low, high = int(columns[0]), int(columns[-1]) + 1
        rows = max(1, _BLOCK_BYTES // max(1, (high - low) * self.dtype.itemsize))
        # A damaged number may not fit the narrower type; it is found when responses are checked.
        with _opened(self.path) as file, np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, self.shape[0], rows):
                part = file["dataset"][start : start + rows, low:high]
                result[start : start + rows] = part[:, columns - low]
        return result

    def label(self, key: str) -> NDArray[np.float64]:
        """Return the one column of a key, shape (sample,).

        Raises
        ------
        CalcarineError
            If the key has no column or several.
        """
        count = int(self.mask(key).sum())
        if count != 1:
            raise DamagedFileError(f"{self.path}: {key} should be one column and is {count}.")
        result: NDArray[np.float64] = self.select(key)[:, 0]
        return result

    def columns(self) -> pd.DataFrame:
        """Return the numbers of columns by key, for people.

        Returns
        -------
        DataFrame
            A row a key: ``key``, ``description``; ``columns``, how many it
            selects (value 1); ``values``, of how many columns it says
            anything; ``low`` and ``high``: range of the matrix where it
            selects one column, else range of the values themselves.
        """
        rows = []
        for key, note in zip(self.keys, self.descriptions, strict=True):
            value = self.row(key)
            known = value[np.isfinite(value)]
            chosen = int((value == 1).sum()) if self._marks(key) else 0
            numbers = self.label(key) if chosen == 1 else known
            numbers = numbers[np.isfinite(numbers)]
            low, high = (numbers.min(), numbers.max()) if len(numbers) else (np.nan, np.nan)
            rows.append((key, note, chosen, len(known), low, high))
        names = ["key", "description", "columns", "values", "low", "high"]
        return pd.DataFrame(rows, columns=names)


def write_bdata(
    path: str | Path,
    parts: Mapping[str, NDArray[np.floating]],
    marks: Mapping[str, NDArray[np.float64]],
    descriptions: Mapping[str, str],
) -> None:
    """Write a BData file.

    Parameters
    ----------
    path : str or Path
        The file.
    parts : mapping of str to float array
        Columns by key, each of shape (sample, n) or (sample,), in this order.
    marks : mapping of str to float64 array
        Further keys over all columns, such as regions and coordinates, each
        of shape (column,).
    descriptions : mapping of str to str
        dtype of the keys.
    """
    path = Path(path)
    import h5py

    blocks = {key: np.atleast_2d(part.T).T for key, part in parts.items()}
    edges = np.cumsum([0, *(block.shape[1] for block in blocks.values())])
    values = np.full((len(blocks) + len(marks), edges[-1]), np.nan)
    for row in range(len(blocks)):
        values[row, edges[row] : edges[row + 1]] = 1
    for row, mark in enumerate(marks.values(), start=len(blocks)):
        values[row] = mark
    keys = [*blocks, *marks]
    with h5py.File(path, "w") as file:
        file["dataset"] = np.concatenate([b.astype(np.float64) for b in blocks.values()], axis=1)
        file["metadata/key"] = np.array(keys, dtype="S")
        file["metadata/description"] = np.array([descriptions.get(k, "") for k in keys], dtype="S")
        file["metadata/value"] = values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the HDF5 file; turn any error of h5py into one sentence."""
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; give the path of a BData file (.h5).")
    try:
        with open_hdf5(path) as file:
            yield file
    except CalcarineError:
        raise
    except Exception as error:  # h5py meets damage with errors of many kinds
        raise DamagedFileError(
            f"{path} is damaged or not a BData file ({reason(error)}); get it again from where it "
            "is published."
        ) from error


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> str:
    return ", ".join(_text(item) for item in np.ravel(value)[:20])


def _numbered(group: Any) -> dict[float, str]:
    """Return the texts of a vmap group, whose members are named by numbers."""
    results = {}
    for name in group:
        try:
            number = float(name)
        except ValueError:
            continue
        results[number] = _plain(group[name][()])
    return results
