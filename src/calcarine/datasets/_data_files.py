"""Finding and reading the files of a data set."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.brain.info import DatasetInfo
from calcarine.errors import DamagedFileError, MissingFileError
from calcarine.files.matlab_v5 import read_v5
from calcarine.files.matlab_v73 import is_hdf5

__all__ = ["find_file", "is_simulated", "natural_key", "no_folder", "read_mat"]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``run2`` before ``run10``, regardless of case."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in re.findall(r"[0-9]{1,15}|[^0-9]+", text)
    ]


def is_simulated(folder: str | Path) -> bool:
    """Return whether files were written by ``fake``, which adds ``SIMULATED.txt``.

    Parameters
    ----------
    folder : str or Path
        The data root, or a file in it.
    """
    place = Path(folder)
    root = place if place.is_dir() else place.parent
    return (root / "SIMULATED.txt").is_file()


def no_folder(info: DatasetInfo, files: str) -> MissingFileError:
    """Return the error for a data set that was opened without its folder."""
    return MissingFileError(
        f"Data set {info.name} needs the folder of {files}; give it with --data (in Python: data=)."
        f" 'calcarine datasets info {info.name}' describes the files."
    )


def find_file(info: DatasetInfo, folder: str | Path | None, name: str) -> Path:
    """Find a file of a data set in a folder, or in its subfolder named after the data set."""
    if folder is None:
        raise no_folder(info, name)
    root = Path(folder)
    for path in (root / name, root / info.name / name):
        if path.is_file():
            return path
    raise MissingFileError(
        f"Data set {info.name}: there is no {name} in {root}; get it from {info.source}."
    )


def read_mat(
    info: DatasetInfo, path: Path, shapes: dict[str, tuple[int, int]]
) -> dict[str, NDArray[np.generic]]:
    """Read numeric arrays of known shapes from a MATLAB file (version 5 to 7.2)."""
    if is_hdf5(path):
        raise DamagedFileError(
            f"Data set {info.name}: {path} was saved again by MATLAB as version 7.3; save it with "
            f"-v7, or get it again from {info.source}."
        )
    try:
        result, _ = read_v5(path)
    except Exception as error:  # a damaged file makes numpy and zlib raise errors of many kinds
        raise DamagedFileError(
            f"Data set {info.name}: {path} is damaged or not a MATLAB file "
            f"({' '.join(str(error).split()) or type(error).__name__}); get it again from "
            f"{info.source}."
        ) from error
    arrays: dict[str, NDArray[np.generic]] = {}
    for key, shape in shapes.items():
        value = result.get(key)
        if value is None or value.shape != shape or value.dtype.kind not in "uif":
            was = "missing" if value is None else f"{value.dtype} of shape {value.shape}"
            raise DamagedFileError(
                f"Data set {info.name}: {key} in {path} is {was} and should be numbers of shape "
                f"{shape}; the right file is from {info.source}."
            )
        arrays[key] = value
    return arrays
