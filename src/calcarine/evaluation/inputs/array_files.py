"""Read arrays from .npy, .npz and PyTorch's .pt files, without unpickling Python objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    SettingError,
    ShapeError,
    one_line,
)
from calcarine.stimuli.names import match_names

__all__ = ["ARRAY_SUFFIXES", "as_array", "read_arrays", "read_stack"]

_TORCH = (".pt", ".pth")
ARRAY_SUFFIXES = (".npy", ".npz", *_TORCH)
"""Endings of the files that `read_arrays` can read."""


def read_arrays(path: str | Path, name: str | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file by name.

    Parameters
    ----------
    path : str or Path
        .npz, .npy, or .pt with a tensor or a dictionary of tensors.
    name : str, optional
        Name of the array in a file that stores no names; by default such a file is an error.

    Returns
    -------
    dict of str to array
        For an .npy file a memory map.

    Raises
    ------
    CalcarineError
        If the file is missing or damaged, or has anything other than plain arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"There is no file {path}; check its name.")
    result = _torch(path) if path.suffix.lower() in _TORCH else _numpy(path)
    if isinstance(result, dict):
        return result
    if name is None:
        raise ShapeError(
            f"{path} has one array without a name, of shape {result.shape}; store it with "
            "a name, for example numpy.savez(FILE, image_embeddings=array)."
        )
    return {name: result}


def read_stack(path: str | Path, what: str = "pictures") -> NDArray[Any]:
    """Read the only array of a file, such as a stack of pictures.

    Parameters
    ----------
    path : str or Path
        .npy, .npz or .pt.
    what : str
        Description of the array for error messages.

    Returns
    -------
    array

    Raises
    ------
    CalcarineError
        As `read_arrays`, or if the file has several arrays.
    """
    arrays = read_arrays(path, what)
    if len(arrays) != 1:
        names = ", ".join(map(str, arrays)) or "none"
        raise CalcarineError(
            f"{path} must have one array of {what}, but has {len(arrays)} ({names}); save the "
            f"{what} in a separate file."
        )
    return next(iter(arrays.values()))


def as_array(values: Any, what: str) -> NDArray[Any]:
    """Convert arrays, tensors on any device, or lists of them to a numpy array."""
    if isinstance(values, np.ndarray):
        return values
    try:
        if hasattr(values, "detach"):
            return _of_tensor(values)
        if isinstance(values, list | tuple) and values and hasattr(values[0], "detach"):
            return np.stack([_of_tensor(value) for value in values])
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = one_line(error)[:200]
        raise ShapeError(
            f"The {what} are not an array of numbers ({reason}); give an array or a tensor."
        ) from None


def _of_tensor(tensor: Any) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16.
    wide = tensor.is_floating_point() and tensor.element_size() < 4
    return np.asarray((tensor.float() if wide else tensor).numpy())


def _numpy(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    try:
        try:
            result = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise _objects(path, "it", error) from None
        if isinstance(result, np.ndarray):
            return result
        with result:
            return {name: _member(path, result, name) for name in result.files}
    except CalcarineError:
        raise
    except Exception as error:  # damaged archives raise errors of many kinds
        raise _broken(path, error) from None


def _member(path: Path, result: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(result[name])
    except ValueError as error:
        raise _objects(path, f"the array {name!r}", error) from None


def _objects(path: Path, what: str, error: ValueError) -> CalcarineError:
    if "Object arrays" in str(error):
        return CalcarineError(
            f"{path}: {what} contains Python objects, which are not read; save it as numbers or "
            "text, for example array.astype(str)."
        )
    return _broken(path, error)


def _broken(path: Path, error: Exception) -> CalcarineError:
    reason = one_line(error)[:200]
    if "allow_pickle" in reason or "pickle" in reason.lower():
        reason = "it is another kind of file"
    return CalcarineError(
        f"{path} cannot be read as arrays ({reason}); write it with numpy.save, numpy.savez or "
        "torch.save."
    )


def _torch(path: Path) -> dict[str, NDArray[Any]] | NDArray[Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many kinds
        text = str(error)
        reason = (
            "it contains Python objects, which are not read"
            if "weights_only" in text or "Unsupported" in text
            else " ".join(text.split())[:200] or type(error).__name__
        )
        raise DamagedFileError(
            f"{path} cannot be read as tensors ({reason}); write it with torch.save(tensor, FILE)."
        ) from None
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if hasattr(value, "detach")}
        if tensors:
            return {name: as_array(value, f"values of {name}") for name, value in tensors.items()}
    elif hasattr(content, "detach") or isinstance(content, list | tuple):
        array = as_array(content, f"contents of {path}")
        if array.dtype.kind in "fiub":
            return array
    raise DamagedFileError(
        f"{path} contains {type(content).__name__} and no tensor; write it with "
        "torch.save(tensor, FILE)."
    )


def align_rows(
    arrays: Mapping[str, NDArray[Any]], ids: Sequence[str], skip: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Sort the rows of arrays into the order of the stimuli.

    Parameters
    ----------
    arrays : mapping of str to array
        One row for each stimulus, in the order of the array ``ids`` if it is given, else of the
        sorted names (or of the numbers, if the names are 0 to n - 1).
    ids : sequence of str
        Names of the stimuli.
    skip : sequence of str
        Arrays without rows of stimuli.

    Returns
    -------
    dict of str to array
        Without ``ids``.

    Raises
    ------
    CalcarineError
        If ``ids`` does not contain every stimulus once, or the order is ambiguous without it.
    """
    result = {name: array for name, array in arrays.items() if name != "ids"}
    own = {n for n, array in result.items() if array.ndim and len(array) == len(ids)} - set(skip)
    if not own:
        return result
    order = _named_rows(arrays["ids"], ids) if "ids" in arrays else _sorted_rows(ids)
    return {name: array[order] if name in own else array for name, array in result.items()}


def _named_rows(names: NDArray[Any], ids: Sequence[str]) -> list[int]:
    written = [str(name) for name in np.asarray(names).ravel().tolist()]
    meant = match_names(written, ids)
    place = {meant[name]: row for row, name in enumerate(written) if name in meant}
    missing = [key for key in ids if key not in place]
    if missing or len(written) != len(ids):
        raise CalcarineError(
            f"The array ids has {len(written)} names for {len(ids)} stimuli; list each stimulus "
            "once" + (f", also the missing {missing[0]!r}." if missing else ".")
        )
    return [place[key] for key in ids]


def _sorted_rows(ids: Sequence[str]) -> list[int]:
    numbers = [int(key) if key.isdecimal() else -1 for key in ids]
    if sorted(numbers) == list(range(len(ids))):
        return numbers
    by_text = sorted(range(len(ids)), key=lambda row: ids[row])
    by_number = sorted(
        range(len(ids)),
        key=lambda row: re.sub(r"\d+", lambda result: result[0].zfill(20), ids[row]),
    )
    if by_text != by_number:
        raise SettingError(
            f"The names of the stimuli, such as {ids[by_text[1]]!r} and {ids[by_number[1]]!r}, "
            "have different orders as text and as numbers; give the array ids with the name of "
            "each row."
        )
    rows = [0] * len(ids)
    for place, row in enumerate(by_text):
        rows[row] = place
    return rows
