"""What the module of a data set offers, and helpers for finding and reading its files.

A data set is one module (or package) of ``calcarine.datasets`` with

``INFO``
    a `DatasetInfo`;
``load(data, subject, **options)``
    gives a `BrainDataset`;

and, if its files are measured,

``fake(folder, *, full_size, seed, **options)``
    writes files in the official layout with simulated content;
``check(data, subject)``
    gives a list of `Finding`;
``assets(subjects, **options)``
    gives the list of `Asset` that a download needs, empty where nothing can
    be downloaded (``INFO.access`` then says how one gets the files);
``recording(data, subject, **options)``
    only where responses are prepared on disk: gives a `Recording`;
``prepare(data, subject, folder, workers, progress, **options)``
    instead, where what is prepared are no responses to stimuli: gives an
    object with ``path`` and a ``summary`` in one line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._matlab import is_hdf5
from calcarine.datasets._matlab_v5 import read_v5
from calcarine.datasets.download.assets import Terms
from calcarine.errors import CalcarineError


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set before it is loaded.

    Attributes
    ----------
    name, title
        Short and long name.
    simulated
        Whether the responses were made by a program.
    subjects
        Their names; the first is the default.
    source, licence
        Where the data is from and what may be done with it.
    needs_folder
        Whether files must be given.
    files
        Names of these files in the folder; the first tells the data set, by
        any of its forms if there are several with ``|`` between.
    access
        How one gets what cannot be downloaded, in plain sentences.
    terms
        What a download asks the user to accept.
    options
        Names of options of ``load``, and what each does in a few words.
    """

    name: str
    title: str
    simulated: bool
    subjects: tuple[str, ...]
    source: str
    licence: str
    needs_folder: bool
    files: tuple[str, ...] = ()
    access: str = ""
    terms: Terms | None = None
    options: tuple[tuple[str, str], ...] = ()


def pick_subject(info: DatasetInfo, subject: str | None) -> str:
    """Return the named subject, or the first; any name where none are listed."""
    if not info.subjects:
        return subject or ""
    if subject is None:
        return info.subjects[0]
    if subject not in info.subjects:
        raise CalcarineError(
            f"Data set {info.name} has no subject {subject}; it has {', '.join(info.subjects)}."
        )
    return subject


def natural(text: str) -> list[tuple[int, int, str]]:
    """Key that sorts ``run2`` before ``run10``; capitals make no difference."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
        for part in re.findall(r"[0-9]{1,15}|[^0-9]+", text)
    ]


def is_simulated(folder: str | Path) -> bool:
    """Whether files were written by ``fake``, which says so in ``SIMULATED.txt``.

    Parameters
    ----------
    folder
        The data root, or a file in it.
    """
    place = Path(folder)
    root = place if place.is_dir() else place.parent
    return (root / "SIMULATED.txt").is_file()


def find_file(info: DatasetInfo, folder: str | Path | None, name: str) -> Path:
    """Find a data set's file in the folder or in its subfolder of the data set's name."""
    if folder is None:
        raise CalcarineError(
            f"Data set {info.name} needs the folder that holds {name}; it is from {info.source}."
        )
    root = Path(folder)
    for path in (root / name, root / info.name / name):
        if path.is_file():
            return path
    raise CalcarineError(
        f"Data set {info.name}: there is no {name} in {root}; get it from {info.source}."
    )


def read_mat(
    info: DatasetInfo, path: Path, shapes: dict[str, tuple[int, int]]
) -> dict[str, NDArray[np.generic]]:
    """Numeric arrays of a MATLAB file (version 5 to 7.2), checked for their shapes."""
    if is_hdf5(path):
        raise CalcarineError(
            f"Data set {info.name}: {path} was saved again by MATLAB as version 7.3; save it with "
            f"-v7, or get it again from {info.source}."
        )
    try:
        found, _ = read_v5(path)
    except Exception as error:  # a damaged file makes numpy and zlib raise errors of many kinds
        raise CalcarineError(
            f"Data set {info.name}: {path} is damaged or no MATLAB file "
            f"({' '.join(str(error).split()) or type(error).__name__}); get it again from "
            f"{info.source}."
        ) from error
    arrays: dict[str, NDArray[np.generic]] = {}
    for key, shape in shapes.items():
        value = found.get(key)
        if value is None or value.shape != shape or value.dtype.kind not in "uif":
            was = "missing" if value is None else f"{value.dtype} of shape {value.shape}"
            raise CalcarineError(
                f"Data set {info.name}: {key} in {path} is {was} and should be numbers of shape "
                f"{shape}; the right file is from {info.source}."
            )
        arrays[key] = value
    return arrays
