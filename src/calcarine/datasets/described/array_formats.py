"""File formats of numeric arrays: describing them, and reading a part."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._integer_labels import scaling_of
from calcarine.errors import DamagedFileError, SettingError
from calcarine.files.hdf5 import open_hdf5
from calcarine.files.matlab_v5 import read_v5
from calcarine.files.matlab_v73 import (
    hdf5_array,
    hdf5_arrays,
    is_hdf5,
    plain_key,
    wrote_hdf5,
)

__all__ = [
    "ENDINGS",
    "HDF5",
    "KEYED",
    "ArrayInfo",
    "Writer",
    "describe_file",
    "ending",
    "read_file",
]

Writer = Literal["numpy", "matlab", "unknown"]
"""Whose order the axes of an array are in: that of numpy, of MATLAB, or not known."""

HDF5 = (".h5", ".hdf5", ".hdf")
KEYED = (*HDF5, ".mat", ".npz")
_IMAGES = (".nii", ".nii.gz", ".img", ".mgz", ".mgh")
ENDINGS = (".npy", *KEYED, *_IMAGES, ".gii")
_KEPT = 2**26
"""Bytes of a packed file whose array is kept in memory between two readings."""
_GLMSINGLE = ("betasmd", "modelmd")
"""Arrays in which GLMsingle keeps its betas, in Python and in MATLAB."""


@dataclass(frozen=True, eq=False)
class ArrayInfo:
    """What is known of an array before its numbers are read.

    Attributes
    ----------
    key : str
        Name of the array in a file of several.
    shape, dtype
        Shape of the array, with the axes in the order of the file.
    affine : float64 array, optional
        Of a volume: voxel indices to millimetres.
    space : str
        Of a surface file or CIFTI: which vertices; empty where unknown.
    trial_axes : tuple of int
        Axes that may be the trials.
    trials_last : bool
        Whether trials usually come last in such an array.
    writer : Writer
        Program that wrote the axes.
    reverse : bool
        Whether the axes in the file are in the opposite order.
    at_once : bool
        Whether reading a part costs as much as reading all.
    scaling : (float, float), optional
        Slope and intercept of an image that is kept as integers.
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64] | None = None
    space: str = ""
    trial_axes: tuple[int, ...] = ()
    trials_last: bool = False
    writer: Writer = "numpy"
    reverse: bool = False
    at_once: bool = False
    scaling: tuple[float, float] | None = None


def ending(path: Path) -> str:
    """Return the ending that identifies the format of a file, in lower case."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def describe_file(path: Path, key: str, what: str) -> ArrayInfo:
    """Return what a file holds.

    Parameters
    ----------
    path, key
        The file, and the name of the array if it holds several.
    what : str
        Purpose of the file, for errors.

    Raises
    ------
    Exception
        Of many kinds where the file is damaged.
    CalcarineError
        If the file is of an unknown kind, or it is not clear which array is
        meant.
    """
    kind = ending(path)
    if kind == ".npy":
        array = _open_npy(path)
        return ArrayInfo("", tuple(array.shape), array.dtype, trial_axes=_ends(array.ndim))
    if kind == ".npz":
        return _about_npz(path, key, what)
    if kind == ".mat" and not is_hdf5(path):
        return _about_v5(path, key, what)
    if kind in (*HDF5, ".mat"):
        return _about_hdf5(path, key, what)
    if kind in _IMAGES:
        return _about_image(path)
    if kind == ".gii":
        return _about_gifti(path)
    raise SettingError(
        f"The {what} {path} ends in {kind or 'nothing'}; use one of {', '.join(ENDINGS)}."
    )


def read_file(path: Path, about: ArrayInfo, part: tuple[slice, ...]) -> NDArray[Any]:
    """Return a part of the array that `describe_file` described."""
    kind = ending(path)
    if kind == ".npy":
        return np.array(_open_npy(path)[part])
    if kind == ".npz" or (kind == ".mat" and not is_hdf5(path)):
        result = path.stat()
        read = _unpacked if result.st_size < _KEPT else _unpacked.__wrapped__
        return np.array(read(path, about.key, result.st_size, result.st_mtime_ns)[part])
    if kind in (*HDF5, ".mat"):
        with open_hdf5(path) as file:
            array = hdf5_array(file, about.key)
            return np.asarray(array[part[::-1]]).T if about.reverse else np.asarray(array[part])
    if kind == ".gii":
        return np.asarray(_gifti(path)[0][part])
    return np.asarray(_image(path).dataobj[part])


@lru_cache(maxsize=2)
def _unpacked(path: Path, key: str, *version: int) -> NDArray[Any]:
    """Return an array of a file that must be decompressed completely."""
    if ending(path) == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file[key])
    return read_v5(path)[0][key]


def _ends(ndim: int) -> tuple[int, ...]:
    return (0, ndim - 1) if ndim > 1 else (0,)


def _open_npy(path: Path) -> NDArray[Any]:
    try:
        result = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise DamagedFileError(
                f"{path} holds Python objects, which are not read because they could run any code; "
                "save betasmd alone with np.save, or have GLMsingle write the .hdf5 form."
            ) from error
        raise
    if not isinstance(result, np.ndarray):
        result.close()
        raise ValueError("it is an archive of several arrays; let its name end in .npz")
    return result


def _about_npz(path: Path, key: str, what: str) -> ArrayInfo:
    with np.load(path, allow_pickle=False) as file:
        if isinstance(file, np.ndarray):
            raise ValueError("it is one array; let its name end in .npy")
        names = {plain_key(name): name for name in file.files}
        chosen = _choose(names, path, key, what)
        with zipfile.ZipFile(path) as archive, archive.open(f"{names[chosen]}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError(f"{chosen} holds Python objects, which are not read")
    last = chosen in _GLMSINGLE
    return ArrayInfo(names[chosen], shape, dtype, None, "", _ends(len(shape)), last, at_once=True)


def _about_v5(path: Path, key: str, what: str) -> ArrayInfo:
    arrays, by_matlab = read_v5(path)
    chosen = _choose(arrays, path, key, what)
    array = arrays[chosen]
    last = chosen.rsplit(".", 1)[-1] in _GLMSINGLE
    writer: Writer = "matlab" if by_matlab else "numpy"
    return ArrayInfo(
        chosen, array.shape, array.dtype, None, "", _ends(array.ndim), last, writer, at_once=True
    )


def _about_hdf5(path: Path, key: str, what: str) -> ArrayInfo:
    with open_hdf5(path) as file:
        try:
            chosen, array = plain_key(key), hdf5_array(file, plain_key(key))
        except KeyError:  # none is named, or none is of this name
            arrays = hdf5_arrays(file)
            chosen = _choose(arrays, path, key, what)
            array = arrays[chosen]
        name = chosen.rsplit(".", 1)[-1]
        writer: Writer = "unknown"
        # Before version 7.3 was marked by all programs, GLMsingle's names identify its language.
        if wrote_hdf5(file, array.name) or (name == "modelmd" and ending(path) == ".mat"):
            writer = "matlab"
        elif name == "betasmd":
            writer = "numpy"
        reverse = writer == "matlab"
        shape = tuple(int(size) for size in array.shape)
        return ArrayInfo(
            chosen,
            shape[::-1] if reverse else shape,
            array.dtype,
            None,
            "",
            _ends(len(shape)),
            name in _GLMSINGLE,
            writer,
            reverse,
        )


def _choose(arrays: Mapping[str, Any], path: Path, key: str, what: str) -> str:
    """Return the named array, GLMsingle's betas, or the only array."""
    known = list(arrays)
    shown = ", ".join(known[:8]) or "no array of numbers"
    if key:
        chosen = next((name for name in (key, plain_key(key)) if name in arrays), None)
        if chosen is None:
            raise SettingError(f"The {what} {path} holds no {key}; it holds {shown}.")
        return chosen
    betas = [name for name in known if name.rsplit(".", 1)[-1] in _GLMSINGLE]
    for names in (betas, known):
        if len(names) == 1:
            return names[0]
    raise SettingError(
        f"The {what} {path} holds {shown}; say which array is meant, as {path.name}:KEY."
    )


def _image(path: Path) -> Any:
    import nibabel as nib

    return nib.load(path)


def _about_image(path: Path) -> ArrayInfo:
    import nibabel as nib

    image = _image(path)
    shape = tuple(int(size) for size in image.shape)
    dtype = np.dtype(image.get_data_dtype())
    if isinstance(image, nib.Cifti2Image):
        space = _grayordinates(image)
        return ArrayInfo("", shape, dtype, space=space, trial_axes=(0,), scaling=scaling_of(image))
    if not isinstance(image, nib.Nifti1Pair | nib.freesurfer.mghformat.MGHImage):
        raise ValueError(f"it is {type(image).__name__}; save it as NIfTI")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or min(shape, default=0) < 1:
        raise ValueError(f"its affine or its shape {shape} is invalid")
    surface = ending(path) in (".mgz", ".mgh") and shape[1:3] == (1, 1)
    return ArrayInfo(
        "",
        shape,
        dtype,
        None if surface else affine,
        "",
        (len(shape) - 1,),
        True,
        at_once=ending(path) in (".nii.gz", ".mgz"),
        scaling=scaling_of(image),
    )


def _grayordinates(image: Any) -> str:
    """Return a short text that identifies the columns of a CIFTI file."""
    rows, columns = (image.header.get_axis(axis) for axis in (0, 1))
    if len(image.shape) != 2 or hasattr(rows, "vertex") or hasattr(rows, "vertices"):
        raise ValueError("its rows are neither maps nor frames")
    digest = hashlib.sha256()
    if hasattr(columns, "vertex"):
        digest.update("\n".join(str(name) for name in columns.name).encode())
        digest.update(np.ascontiguousarray(columns.vertex, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(columns.voxel, dtype="<i8").tobytes())
    elif hasattr(columns, "vertices"):
        digest.update("\n".join(str(name) for name in columns.name).encode())
    else:
        raise ValueError("its columns are neither grayordinates nor parcels")
    return f"CIFTI {digest.hexdigest()[:16]}"


def _about_gifti(path: Path) -> ArrayInfo:
    values, hemisphere = _gifti(path)
    return ArrayInfo(
        "", values.shape, values.dtype, space=hemisphere, trial_axes=(0,), at_once=True
    )


def _gifti(path: Path) -> tuple[NDArray[Any], str]:
    """Return arrays of a GIFTI file, one per trial, shape (trial, vertex), and the hemisphere."""
    image = _image(path)
    arrays = [np.asarray(each.data) for each in image.darrays]
    if len(arrays) == 1 and arrays[0].ndim == 2 and arrays[0].shape[1] != 3:
        arrays = list(arrays[0].T)
    if not arrays or any(each.ndim != 1 or each.shape != arrays[0].shape for each in arrays):
        shapes = ", ".join(str(each.shape) for each in arrays[:4])
        raise ValueError(f"its arrays have shapes {shapes}; they should be one number a vertex")
    hemisphere = str(dict(image.meta).get("AnatomicalStructurePrimary", ""))
    return np.stack(arrays), hemisphere and f"GIFTI {hemisphere}"
