"""Arrays in MATLAB files of version 7.3, which are HDF5; `matlab_v5` reads older ones.

MATLAB counts the first axis as the one that runs fastest, and HDF5 the last: an array that MATLAB
wrote to HDF5 comes out with its axes in the opposite order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["hdf5_array", "hdf5_arrays", "is_hdf5", "plain_key", "wrote_hdf5"]

_DEPTH, _CELLS, _MOST = 4, 64, 4096
_HIDDEN = ("#refs#", "#subsystem#")


def is_hdf5(path: str | Path) -> bool:
    """Return whether a file is HDF5, possibly after a block of another format."""
    path = Path(path)
    import h5py

    return bool(h5py.is_hdf5(path))


def wrote_hdf5(file: Any, key: str) -> bool:
    """Return whether MATLAB wrote an array of an HDF5 file.

    Parameters
    ----------
    file
        The open file (h5py).
    key
        Name of the array.

    Returns
    -------
    bool
        True where the file begins with MATLAB's own block, or the array
        names its class in MATLAB.  MATLAB's ``h5write`` leaves neither.
    """
    if "MATLAB_class" in file[key].attrs:
        return True
    if not file.userblock_size:
        return False
    with open(file.filename, "rb") as raw:
        return raw.read(6) == b"MATLAB"


def plain_key(key: str) -> str:
    """Return one form for ``results/modelmd`` and ``results.modelmd``."""
    return key.strip("/").replace("/", ".")


def hdf5_arrays(file: Any) -> dict[str, Any]:
    """Return the numeric arrays of an HDF5 file, also those in groups (structs) and cells.

    Returns
    -------
    dict
        h5py data sets by name: ``results.modelmd``, ``results{4}.modelmd``.
    """
    return dict(islice(_in_group(file, "", _DEPTH), _MOST))


def hdf5_array(file: Any, key: str) -> Any:
    """Return the array of a name from `hdf5_arrays`; raise KeyError if there is none."""
    import h5py

    for name in (key, key.replace(".", "/")):
        inner = file.get(name)
        if isinstance(inner, h5py.Dataset) and _numeric(inner):
            return inner
    return hdf5_arrays(file)[key]


def _in_group(group: Any, before: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name in group:
        if name not in _HIDDEN:
            inner = group.get(name)
            if inner is not None:
                yield from _in_object(inner, f"{before}{name}", depth)


def _in_object(inner: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    import h5py

    if isinstance(inner, h5py.Group):
        if depth:
            yield from _in_group(inner, f"{name}.", depth - 1)
    elif isinstance(inner, h5py.Dataset):
        if h5py.check_ref_dtype(inner.dtype) is h5py.Reference:
            cells = np.ravel(inner[()])[:_CELLS] if depth else ()
            for number, cell in enumerate(cells, 1):
                if cell:
                    yield from _in_object(inner.file[cell], f"{name}{{{number}}}", depth - 1)
        elif _numeric(inner):
            yield name, inner


def _numeric(array: Any) -> bool:
    if array.dtype.kind not in "buif":
        return False
    kind = array.attrs.get("MATLAB_class", b"")
    text = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
    return text not in ("char", "cell", "function_handle") and not array.attrs.get("MATLAB_empty")
