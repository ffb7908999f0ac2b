"""Paths of BOLD5000's files, and its presentation lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.brain.info import DatasetInfo
from calcarine.datasets._data_files import natural_key, no_folder
from calcarine.errors import DamagedFileError, MissingFileError

__all__ = [
    "HEMISPHERES",
    "INFO",
    "REGIONS",
    "WHO",
    "BOLD5000Layout",
    "TrialList",
    "beta_name",
    "find_layout",
    "natural_key",
    "read_lines",
    "read_trials",
    "repeated_list",
]

WHO = "Data set bold5000"
REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
HEMISPHERES = ("LH", "RH")
_BETAS = (
    "BOLD5000_GLMsingle_ROI_betas/py",
    "BOLD5000_GLMsingle_ROI_betas/BOLD5000_GLMsingle_ROI_betas/py",
    "BOLD5000_GLMsingle_ROI_betas",
    "py",
    "",
)
_STIMULI = ("BOLD5000_Stimuli", "BOLD5000_Stimuli/BOLD5000_Stimuli", "")
_LISTS = "Stimuli_Presentation_Lists"

INFO = DatasetInfo(
    name="bold5000",
    title="BOLD5000 release 2, GLMsingle betas in regions (Chang et al. 2019)",
    simulated=False,
    subjects=("CSI1", "CSI2", "CSI3", "CSI4"),
    source="bold5000.org (release 2 on KiltHub/figshare)",
    licence="CC0 for the data; the pictures are those of SUN, COCO and ImageNet",
    needs_folder=True,
    files=(
        "BOLD5000_GLMsingle_ROI_betas/py/CSI*_GLMbetas-*.npy",
        "BOLD5000_Stimuli/Stimuli_Presentation_Lists/CSI*/CSI*_sess*/*.txt",
        "BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt",
        "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli/*/*",
    ),
    access="From bold5000.org, section Download: BOLD5000_GLMsingle_ROI_betas.zip of release 2 "
    "and BOLD5000_Stimuli.zip of release 1; unpack both into one folder.",
    options=(
        ("size", "side in pixels to which pictures are cropped and resized; 256 by default"),
        ("zscore", "session (default), training, session-all or none"),
    ),
)


@dataclass(frozen=True)
class BOLD5000Layout:
    """Folders of a copy of the data set.

    Attributes
    ----------
    root, betas, stimuli : Path
        The data set, its ROI betas, and the folder with presentation lists
        and pictures.
    """

    root: Path
    betas: Path
    stimuli: Path


@dataclass(frozen=True, eq=False)
class TrialList:
    """What a subject saw, in order of presentation.

    Attributes
    ----------
    stimuli : list of str
        File name of each trial's picture, without ``rep_``.
    sessions, runs : int array
        int, shape (trial,).
    marked : bool array
        bool, shape (trial,): whether the list marks the trial as a repeat.
    """

    stimuli: list[str]
    sessions: NDArray[np.int64]
    runs: NDArray[np.int64]
    marked: NDArray[np.bool_]


def beta_name(subject: str, hemisphere: str, region: str) -> str:
    """Return the name of the file of one region's betas."""
    return f"{subject}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{hemisphere}{region}.npy"


def find_layout(data: str | Path | None) -> BOLD5000Layout:
    """Find the folders, also one level deeper or higher than in the release.

    Raises
    ------
    CalcarineError
        If one is missing.
    """
    if data is None:
        raise no_folder(INFO, INFO.files[0])
    roots = [Path(data) / name for name in ("", "bold5000", "BOLD5000")]
    betas = _first(roots, _BETAS, lambda p: any(p.glob("CSI*_GLMbetas-*.npy")))
    if betas is None:
        raise MissingFileError(
            f"{WHO}: there is no {INFO.files[0]} in {Path(data)}; get it from {INFO.source}."
        )
    stimuli = _first(roots, _STIMULI, lambda p: (p / _LISTS).is_dir())
    if stimuli is None:
        raise MissingFileError(
            f"{WHO}: there is no folder {_LISTS} in {Path(data)}; unpack BOLD5000_Stimuli.zip of "
            f"{INFO.source} there."
        )
    return BOLD5000Layout(*betas, stimuli[1])


def _first(
    roots: Sequence[Path], names: Sequence[str], holds: Callable[[Path], bool]
) -> tuple[Path, Path] | None:
    for root in roots:
        for name in names:
            place = root / name if name else root
            if place.is_dir() and holds(place):
                return root, place
    return None


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file, stripped."""
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(
            f"{WHO}: {path} cannot be read as text; get it again from {INFO.source}."
        ) from error


def read_trials(layout: BOLD5000Layout, subject: str) -> TrialList:
    """Join the presentation lists of a subject, ordered by session and run.

    Raises
    ------
    CalcarineError
        If there are none.
    """
    root = layout.stimuli / _LISTS / subject
    pattern = re.compile(r"sess_?(\d{1,4})$", re.IGNORECASE)
    numbered = [
        (int(result.group(1)), place)
        for place in (sorted(root.iterdir()) if root.is_dir() else ())
        if place.is_dir() and (result := pattern.search(place.name))
    ]
    numbered.sort(key=lambda pair: pair[0])
    names: list[str] = []
    sessions: list[int] = []
    runs: list[int] = []
    for session, place in numbered:
        for run, path in enumerate(_run_files(place), start=1):
            lines = read_lines(path)
            names += lines
            sessions += [session] * len(lines)
            runs += [run] * len(lines)
    if not names:
        raise MissingFileError(
            f"{WHO}: there are no presentation lists in {root}/{subject}_sess01 and so on; unpack "
            f"BOLD5000_Stimuli.zip of {INFO.source}."
        )
    return TrialList(
        stimuli=[name.removeprefix("rep_") for name in names],
        sessions=np.array(sessions, dtype=np.int64),
        runs=np.array(runs, dtype=np.int64),
        marked=np.array([name.startswith("rep_") for name in names]),
    )


def _run_files(place: Path) -> Sequence[Path]:
    files = sorted(place.glob("*.txt"), key=lambda path: natural_key(path.name))
    named = [path for path in files if "run" in path.name.lower()]
    return named or files


def repeated_list(layout: BOLD5000Layout) -> list[str]:
    """Return the file names of the repeated pictures, which are the test.

    Raises
    ------
    CalcarineError
        If the list is missing or empty.
    """
    path = layout.stimuli / "Scene_Stimuli" / "repeated_stimuli_113_list.txt"
    if not path.is_file():
        raise MissingFileError(
            f"{WHO}: {path} does not exist; it says which pictures are the test and is in "
            f"BOLD5000_Stimuli.zip of {INFO.source}."
        )
    names = [line.removeprefix("rep_") for line in read_lines(path)]
    if not names:
        raise DamagedFileError(f"{WHO}: {path} is empty; get it again from {INFO.source}.")
    return list(dict.fromkeys(names))
