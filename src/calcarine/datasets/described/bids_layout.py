"""Finding the runs of a subject in BIDS derivatives (with fMRIPrep's names)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from calcarine.datasets._data_files import natural_key
from calcarine.datasets._numpy_files import reason
from calcarine.datasets.described.description import BidsPart
from calcarine.datasets.described.description_arrays import check_content
from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError, SettingError
from calcarine.files import is_annexed, read_json

__all__ = ["Run", "find_runs", "subjects_in"]

_BOLD = "_desc-preproc_bold.nii.gz"
_OWN = ("space", "res", "den", "desc", "cohort")
"""Entities that a derivative adds to the name of the raw file."""


@dataclass(frozen=True)
class Run:
    """Files of one run.

    Attributes
    ----------
    label : str
        Session, task and run, as in the file names.
    session, number : str
        As in the file names; empty where there is none.
    bold, events : Path
        Time series and events.
    confounds, mask : Path, optional
        None where there is none.
    tr, start_time : float
        Seconds from volume to volume, and from a volume's beginning to the
        moment that it shows.
    """

    label: str
    session: str
    number: str
    bold: Path
    events: Path
    confounds: Path | None
    mask: Path | None
    tr: float
    start_time: float


def subjects_in(derivatives: Path) -> list[str]:
    """Return the labels of the folders ``sub-LABEL``."""
    names = (path.name.removeprefix("sub-") for path in derivatives.glob("sub-*") if path.is_dir())
    return sorted(names, key=natural_key)


def find_runs(
    derivatives: Path, raw: Path, subject: str, about: BidsPart
) -> tuple[list[Run], list[str]]:
    """Return the runs of a subject in order, and the labels of runs without BOLD.

    Parameters
    ----------
    derivatives, raw : Path
        Folder of the time series, and of the events.
    subject : str
        Label, without ``sub-``.
    about : BidsPart
        Task and space, and whether runs without a time series are left out.

    Raises
    ------
    CalcarineError
        If files are missing, or more than one would do.
    """
    subject = subject.removeprefix("sub-")
    folder = derivatives / f"sub-{subject}"
    if not folder.is_dir():
        known = subjects_in(derivatives)
        there = (
            f"it has {', '.join(known[:12])}" if known else "is it a folder of BIDS derivatives?"
        )
        raise MissingFileError(f"{derivatives} has no folder sub-{subject}; {there}")
    paths = [
        path for path in folder.glob(f"**/func/*{_BOLD}") if path.is_file() or is_annexed(path)
    ]
    if not paths:
        raise MissingFileError(
            f"{folder} has no func/*{_BOLD}; run fMRIPrep with an output space that is a volume."
        )
    paths = _of(paths, "task", about.task)
    paths = _of(paths, "space", about.space)
    for path in paths:
        check_content(path, "time series")
    runs = [_run(path, raw) for path in paths]
    lost = _without_bold(runs, [folder, raw / folder.name])
    if lost and about.runs_without_bold == "refuse":
        more = f", nor have {len(lost) - 1} more runs" if len(lost) > 1 else ""
        raise MissingFileError(
            f"The run of {lost[0]} has no preprocessed time series (*{_BOLD}) in {folder}{more}; "
            "preprocess it, or leave such runs out with runs_without_bold: drop."
        )
    runs.sort(key=lambda run: (natural_key(run.session), natural_key(run.number)))
    for one, two in pairwise(runs):
        if one.label == two.label:
            raise CalcarineError(
                f"{one.bold.name} and {two.bold.name} are the same run; keep one of them."
            )
    return runs, lost


def _without_bold(runs: Sequence[Run], folders: Sequence[Path]) -> list[str]:
    """Return the events files of the task that belong to none of the runs."""
    tasks = {entities(run.bold).get("task", "") for run in runs}
    used = {run.events.resolve() for run in runs}
    known = {_stem(run.bold.name.removesuffix(_BOLD)) for run in runs}
    lost = {}
    for folder in folders:
        for path in folder.glob("**/func/*_events.tsv"):
            stem = path.name.removesuffix("_events.tsv")
            own = entities(path).get("task", "") in tasks
            if own and path.resolve() not in used and stem not in known:
                lost[stem] = path
    return sorted((path.name for path in lost.values()), key=natural_key)


def _stem(name: str) -> str:
    """Return the name of a run without the entities that a derivative adds."""
    return "_".join(part for part in name.split("_") if part.split("-")[0] not in _OWN)


def entities(path: Path) -> dict[str, str]:
    """Return the ``key-value`` parts of a BIDS name."""
    return dict(re.findall(r"(?:^|_)([A-Za-z]+)-([A-Za-z0-9+]+)", path.name.split(".")[0]))


def _of(paths: Sequence[Path], key: str, wanted: str | None) -> list[Path]:
    """Return the paths of the chosen task or space; there must be one."""
    nameless = "native" if key == "space" else ""
    own = {path: entities(path).get(key, nameless) for path in paths}
    result = sorted(set(own.values()))
    if wanted is None and len(result) > 1:
        raise SettingError(f"There are several {key}s, {', '.join(result)}; say which with {key}.")
    chosen = result[0] if wanted is None else wanted.removeprefix(f"{key}-")
    kept = [path for path in paths if own[path] == chosen]
    if not kept:
        raise SettingError(f"There is no {key} {chosen}; there are {', '.join(result)}.")
    return kept


def _run(bold: Path, raw: Path) -> Run:
    parts = entities(bold)
    stem = _stem(bold.name.removesuffix(_BOLD))
    session, number = parts.get("ses", ""), parts.get("run", "")
    label = " ".join(part for part in stem.split("_") if not part.startswith("sub-"))
    tr, start_time = _sidecar(bold)
    return Run(
        label=label,
        session=session,
        number=number,
        bold=bold,
        events=_events(bold, raw, stem, parts),
        confounds=_first(
            bold.parent / f"{stem}_desc-confounds_{kind}.tsv"
            for kind in ("timeseries", "regressors")
        ),
        mask=_first([bold.with_name(bold.name.replace(_BOLD, "_desc-brain_mask.nii.gz"))]),
        tr=tr,
        start_time=start_time,
    )


def _events(bold: Path, raw: Path, stem: str, parts: dict[str, str]) -> Path:
    """Return the events of a run; by BIDS inheritance possibly those of its task."""
    folder = raw / f"sub-{parts.get('sub', '')}"
    folder = folder / f"ses-{parts['ses']}" if "ses" in parts else folder
    task = f"task-{parts.get('task', '')}_events.tsv"
    tried = [folder / "func" / f"{stem}_events.tsv", bold.parent / f"{stem}_events.tsv", raw / task]
    result = _first(tried)
    if result is None:
        raise MissingFileError(
            f"There are no events of {bold.name}: neither {tried[0]} nor {tried[1]}; say with raw "
            "where the raw data set is."
        )
    return result


def _first(paths: Any) -> Path | None:
    """Return the first existing file; raise if DataLad has not fetched its content."""
    for path in paths:
        check_content(path, "file")
        if path.is_file():
            return Path(path)
    return None


def _sidecar(bold: Path) -> tuple[float, float]:
    """Return TR and StartTime from the JSON sidecar; the TR from the image if there is none."""
    path = bold.with_name(bold.name.removesuffix(".nii.gz") + ".json")
    about: dict[str, Any] = {}
    try:
        if path.is_file():
            about = read_json(path)
        tr = float(about.get("RepetitionTime") or _image_tr(bold))
        start = float(about.get("StartTime") or 0.0)
        if not 0.05 < tr < 60 or not 0 <= start < 60:
            raise ValueError(f"the TR is {tr:g} s and StartTime {start:g} s")
    except Exception as error:  # JSON of another shape, damaged images
        raise DamagedFileError(
            f"The TR of {bold.name} is unknown ({reason(error)}); write RepetitionTime in "
            "seconds to the JSON file next to it."
        ) from error
    return tr, start


def _image_tr(bold: Path) -> float:
    import nibabel as nib

    image: Any = nib.load(bold)
    return float(image.header.get_zooms()[3])
