"""Reading numpy files from other people, without unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError, DamagedFileError

__all__ = ["NpzFile", "open_npy", "reason"]


def reason(error: BaseException) -> str:
    """Return the message of a library's error in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def open_npy(path: Path, who: str, source: str) -> NDArray[Any]:
    """Map a numeric ``.npy`` file into memory, read-only.

    Raises
    ------
    CalcarineError
        If it is damaged or holds objects.
    """
    try:
        result = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(result, np.ndarray) or result.dtype.kind not in "uif":
            raise ValueError(f"it holds {getattr(result, 'dtype', 'no numbers')}")
        if isinstance(result, np.memmap) and result.offset + result.nbytes != path.stat().st_size:
            raise ValueError(
                f"its header says {result.shape} of {result.dtype}, which its size does not fit"
            )
    except Exception as error:  # numpy meets a damaged header with errors of many kinds
        raise DamagedFileError(
            f"{who}: {path} cannot be read as an array of numbers ({reason(error)}); get it again "
            f"from {source}."
        ) from error
    return result


class NpzFile:
    """An ``.npz`` file of numeric arrays, each read when it is used.

    Parameters
    ----------
    path, who, source
        The file; the data set and where it is from, for errors.
    """

    def __init__(self, path: Path, who: str, source: str) -> None:
        self.path, self._who, self._source = path, who, source
        try:
            with np.load(path, allow_pickle=False) as file:
                self.names = tuple(str(name) for name in file.files)
        except Exception as error:  # as in open_npy; zip adds its own
            raise self._damaged("", error) from error

    def _damaged(self, name: str, error: BaseException) -> CalcarineError:
        what = f"{name} in {self.path}" if name else f"{self.path}"
        return DamagedFileError(
            f"{self._who}: {what} cannot be read ({reason(error)}); get it again from "
            f"{self._source}."
        )

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def array(self, name: str, ndim: int, kinds: str = "uif") -> NDArray[Any]:
        """Return one array.

        Parameters
        ----------
        name
            Its name.
        ndim
            How many dimensions it must have.
        kinds
            Which kinds of numbers it may hold.

        Raises
        ------
        CalcarineError
            If it is missing, damaged or of another kind.
        """
        if name not in self.names:
            raise DamagedFileError(
                f"{self._who}: {self.path} has no {name}; it has "
                f"{', '.join(self.names[:12]) or 'nothing'}, and the right file is from "
                f"{self._source}."
            )
        try:
            with np.load(self.path, allow_pickle=False) as file:
                result = np.asarray(file[name])
        except Exception as error:
            raise self._damaged(name, error) from error
        if result.ndim != ndim or result.dtype.kind not in kinds:
            raise DamagedFileError(
                f"{self._who}: {name} in {self.path} is {result.dtype} of shape {result.shape} and "
                f"should have {ndim} dimensions of numbers; the right file is from {self._source}."
            )
        return result
