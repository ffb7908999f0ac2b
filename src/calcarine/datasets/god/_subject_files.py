"""Finding the files of a subject of GOD, and what both forms are read into."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.assets import UsageTerms
from calcarine.brain.info import DatasetInfo
from calcarine.datasets._data_files import no_folder
from calcarine.errors import MissingFileError, SettingError

__all__ = [
    "INFO",
    "ON_REQUEST",
    "WHO",
    "GodTrials",
    "add_unions",
    "find_subject",
    "other_forms",
    "search_folders",
]

WHO = "Data set god"
ON_REQUEST = (
    "GOD's pictures are given on request only: fill in the form that is linked from "
    "github.com/KamitaniLab/GenericObjectDecoding (section on stimulus images) and put them into "
    "stimuli/training and stimuli/test, or put images_256.npz into the folder"
)

INFO = DatasetInfo(
    name="god",
    title="Generic Object Decoding (Horikawa & Kamitani 2017)",
    simulated=False,
    subjects=("S1", "S2", "S3", "S4", "S5"),
    source="figshare.com/articles/dataset/Generic_Object_Decoding/7387130",
    licence="as stated at figshare 7387130; the pictures are ImageNet's and under copyright",
    needs_folder=True,
    files=(
        "Subject[1-5].h5|sbj_[1-5].npz",
        "images_*.npz",
        "stimuli/training/*",
        "stimuli/test/*",
    ),
    access=ON_REQUEST + ".",
    terms=UsageTerms(
        title="Generic Object Decoding, preprocessed fMRI data",
        url="https://figshare.com/articles/dataset/Generic_Object_Decoding/7387130",
        summary="Follow the licence stated on the page and cite Horikawa & Kamitani 2017 "
        "(Nature Communications 8:15037).",
    ),
    options=(
        ("form", "h5, npz, or auto (default): the first that is there"),
        ("test", "perception (default) or imagery, under the test picture of its category"),
        ("pictures", "folder or .npz of the pictures, if they are elsewhere; none: without"),
        ("size", "side of the pictures in pixels; 256 by default for files"),
        ("scale", "none (default), training, session, session-all or training-scalar"),
        ("first_index", "0 or 1, if the files do not show where their indices begin"),
    ),
)


@dataclass(frozen=True, eq=False)
class GodTrials:
    """The trials of one subject, from either form.

    Attributes
    ----------
    responses : float32 array
        float32, shape (trial, voxel).
    names : list of str
        Picture of each trial.
    is_test : bool array
        bool, shape (trial,).
    sessions, runs
        int, shape (trial,); runs are None where the file has none.
    voxels, rois
        See `BrainDataset`.
    rows : dict of str to dict of str to int
        Row of each training and of each test picture in ``images_*.npz``,
        where that is known.
    """

    responses: NDArray[np.float32]
    names: list[str]
    is_test: NDArray[np.bool_]
    sessions: NDArray[np.int64]
    voxels: pd.DataFrame
    rois: dict[str, NDArray[np.bool_]]
    runs: NDArray[np.int64] | None = None
    rows: dict[str, dict[str, int]] = field(default_factory=dict)


def search_folders(data: str | Path) -> list[Path]:
    """Return the folders in which GOD's files are searched."""
    root = Path(data)
    inside = ("", "god", "npz", "Kamitani/npz", "data")
    return [root / name if name else root for name in inside if (root / name).is_dir()]


def find_subject(data: str | Path | None, subject: str, form: str) -> Path:
    """Return the file of a subject; BData is preferred to npz.

    Raises
    ------
    CalcarineError
        If there is none.
    """
    if form not in ("auto", "h5", "npz"):
        raise SettingError(f"{WHO}: form is auto, h5 or npz, not {form}.")
    number = subject[1:]
    names = {"h5": f"Subject{number}.h5", "npz": f"sbj_{number}.npz"}
    wanted = [names[key] for key in names if form in ("auto", key)]
    if data is None:
        raise no_folder(INFO, INFO.files[0].replace("|", " or "))
    for path in (place / name for name in wanted for place in search_folders(data)):
        if path.is_file():
            return path
    raise MissingFileError(
        f"{WHO}: there is no {' and no '.join(wanted)} in {Path(data)}{other_forms(data, number)}; "
        f"get it from {INFO.source}."
    )


def other_forms(data: str | Path, number: str = "[1-5]") -> str:
    """Return a hint if files of a subject exist in a form that is not read, else ""."""
    pattern = re.compile(rf"(subject|sbj)[-_ ]?0?{number}\b.*", re.IGNORECASE)
    there = sorted(
        path.name
        for place in search_folders(data)
        for path in place.iterdir()
        if path.is_file() and pattern.fullmatch(path.name)
    )
    if not there:
        return ""
    if all(name.lower().endswith(".mat") for name in there):
        return f" (there is {', '.join(there)}, MATLAB's form, which is not read)"
    return f" (there is {', '.join(there)}, which is not read)"


def add_unions(rois: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    """Add the regions ``early`` (V1, V2, V3) and ``ventral`` (higher visual cortex).

    ``ventral`` is HVC where the file marks it, else LOC, FFA and PPA; without
    V1 to V3 ``early`` is LVC.  Empty regions are left out.
    """
    results = {name: mask for name, mask in rois.items() if mask.any() and "+" not in name}
    plan = {
        "early": (("V1", "V2", "V3"), ("LVC",)),
        "ventral": (("HVC",), ("LOC", "FFA", "PPA")),
    }
    for name, choices in plan.items():
        for choice in choices:
            own = [results[part] for part in choice if part in results]
            if own and name not in results:
                results[name] = np.logical_or.reduce(own)
    return results
