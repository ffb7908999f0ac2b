"""Responses estimated from preprocessed runs and events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets._data_files import natural_key
from calcarine.datasets.described.bids_confounds import read_confounds
from calcarine.datasets.described.bids_layout import Run, find_runs
from calcarine.datasets.described.description import BidsPart, Description
from calcarine.datasets.described.description_arrays import ArrayFile, find, stamp
from calcarine.datasets.described.picture_names import PictureNames
from calcarine.datasets.described.regions import VoxelGrid, read_mask, same_space
from calcarine.datasets.described.subject_trials import SubjectTrials
from calcarine.datasets.described.trials import texts_table
from calcarine.datasets.prepare.events import trial_betas
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    SettingError,
    ShapeError,
)
from calcarine.stimuli.image_files import PICTURE_SUFFIXES

__all__ = ["bids_source"]

_NOTHING = ("", "n/a", "nan", "null")
_STIMULUS = ("stimulus", "stim_file", "stimulus_id", "stim_id", "image", "trial_type")


def bids_source(description: Description, root: Path) -> SubjectTrials:
    """Return the trials of preprocessed time series.

    Raises
    ------
    CalcarineError
        If files are missing or do not fit each other.
    """
    about = description.bids
    assert about is not None
    derivatives = find(root, about.derivatives, "derivatives folder")
    raw = find(root, about.raw, "raw folder") if about.raw else derivatives
    runs, lost = find_runs(derivatives, raw, description.subject, about)
    notes = [f"{name}: no preprocessed time series" for name in lost]
    files = [ArrayFile.open(run.bold, "", "time series") for run in runs]
    events = [
        _in_time(_events(run, about, notes), run, file, about, notes)
        for run, file in zip(runs, files, strict=True)
    ]
    events = _named(events, PictureNames.of(root, description.images))
    grid = _grid(description, root, runs, files)
    sessions = _sessions(runs, about)
    tables = [
        table.loc[table["nuisance"] == "", ["stimulus"]].assign(session=session)
        for table, session in zip(events, sessions, strict=True)
    ]
    trials = pd.concat(tables, ignore_index=True)
    if trials.empty:
        raise CalcarineError(f"The events of {runs[0].label} and the other runs hold no trials.")

    def read(session: int) -> NDArray[np.float32]:
        rows = [row for row, own in enumerate(sessions) if own == session and len(tables[row])]
        parts = [_betas(runs[row], files[row], events[row], grid, about) for row in rows]
        return np.concatenate(parts) * np.float32(description.scale)

    stamps = [
        [
            stamp(path)
            for path in (run.bold, run.events, run.confounds, run.mask)
            if path is not None
        ]
        for run in runs
    ]
    provenance = {
        "runs": stamps,
        "times": [[run.tr, run.start_time] for run in runs],
        "mask": stamp(grid.path) if grid.path else None,
        "model": about.model_dump(exclude={"derivatives", "raw"}),
        "scale": description.scale,
        "units": description.units,
        "left out": notes,
    }
    return SubjectTrials(trials, grid, read, provenance, tuple(notes))


def _events(run: Run, about: BidsPart, notes: list[str]) -> pd.DataFrame:
    """Return events in order of onset, with ``name`` (of the picture) and ``nuisance``.

    Nuisance rows that are left out are listed in ``notes``.
    """
    table = texts_table(run.events, "events")
    for name in ("onset", "duration"):
        if name not in table.columns:
            raise DamagedFileError(f"The events {run.events} have no column {name}.")
    column = _stimulus_column(table, run, about)
    kinds = table["trial_type"] if "trial_type" in table.columns else pd.Series("", table.index)
    other = kinds.isin(about.nuisance)
    shown = ~table[column].str.lower().isin(_NOTHING) & ~kinds.isin(about.ignore) & ~other
    table["name"] = table[column].where(shown, "")
    table["nuisance"] = kinds.where(other, "")
    kept = _timed(table[shown | other].copy(), run, about, notes)
    kept = kept.sort_values("onset", kind="stable", ignore_index=True)
    return kept.assign(run=run.label)[["onset", "duration", "run", "name", "nuisance"]]


def _timed(table: pd.DataFrame, run: Run, about: BidsPart, notes: list[str]) -> pd.DataFrame:
    """Return events with onset and duration in seconds; incomplete nuisance events are dropped."""
    unknown = table["duration"].str.lower().isin(_NOTHING)
    if about.duration is not None:
        table.loc[unknown, "duration"] = str(about.duration)
    trial = (table["nuisance"] == "").to_numpy()
    blank = np.zeros(len(table), dtype=bool)
    for name in ("onset", "duration"):
        empty = table[name].str.lower().isin(_NOTHING).to_numpy() & ~trial
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
        bad = ~np.isfinite(table[name].to_numpy()) & ~empty
        if bad.any():
            row = int(table.index[int(np.argmax(bad))])
            hint = ""
            if name == "duration" and bool(unknown.loc[row]):
                hint = "; say with duration how many seconds such trials last"
            raise DamagedFileError(
                f"{run.events}: row {row + 1} has no number as its {name}{hint}."
            )
        blank |= empty
    if blank.any():
        notes.append(f"{run.label}: {int(blank.sum())} nuisance events without onset or duration")
    return table[~blank]


def _in_time(
    events: pd.DataFrame, run: Run, file: ArrayFile, about: BidsPart, notes: list[str]
) -> pd.DataFrame:
    """Return events without those that begin after the end of the run."""
    if len(file.shape) != 4:
        return events
    trial = (events["nuisance"] == "").to_numpy()
    onset = events["onset"].to_numpy(dtype=float)
    end = file.shape[3] * run.tr + run.start_time
    late = onset >= end
    if about.late_trials == "drop":
        # What begins with the last volume or later leaves no trace in any.
        after = about.delay if about.method == "mean" else 0.0
        late |= onset >= end - run.tr - after
    elif (late & trial).any():
        first = onset[late & trial][0]
        raise CalcarineError(
            f"Run {run.label} ends after {end:g} s and has an event at {first:g} s, and "
            f"{int((late & trial).sum())} of its {int(trial.sum())} trials begin after its end: "
            "onsets are seconds from the first volume of their run, and the TR may be wrong; of a "
            "run that was stopped leave such trials out with late_trials: drop."
        )
    if (late & trial).any():
        notes.append(
            f"{run.label}: {int((late & trial).sum())} of {int(trial.sum())} trials that begin "
            f"after the end of the run, at {end:g} s"
        )
    return events[~late].reset_index(drop=True)


def _stimulus_column(table: pd.DataFrame, run: Run, about: BidsPart) -> str:
    if about.stimulus is not None:
        if about.stimulus not in table.columns:
            raise SettingError(
                f"The events {run.events} have no column {about.stimulus}; they have "
                f"{', '.join(table.columns)}."
            )
        return about.stimulus
    for name in _STIMULUS:
        if name in table.columns:
            return name
    raise SettingError(
        f"No column of the events {run.events} is known to name the picture; say which with "
        f"stimulus, among {', '.join(table.columns)}."
    )


def _named(events: Sequence[pd.DataFrame], pictures: PictureNames) -> list[pd.DataFrame]:
    """Return the events of all runs with a column ``stimulus``: the ids of the pictures."""
    trials = [table["nuisance"] == "" for table in events]
    names = sorted(
        {name for table, own in zip(events, trials, strict=True) for name in table.loc[own, "name"]}
    )
    ids = {name: pictures.find(name) for name in names}
    unknown = [name for name, key in ids.items() if key is None]
    # Pictures of an array have numbers; a name that none of the known pictures has stays whole.
    bare = Counter(_without_folders(name) for name in unknown)
    for name in unknown:
        short = _without_folders(name)
        ids[name] = short if bare[short] == 1 and not pictures else _bare(_path(name))
    meant: dict[str, str] = {}
    for name, key in ids.items():
        path = _path(name)
        if meant.setdefault(str(key), path) != path and not _same_end(meant[str(key)], path):
            raise CalcarineError(
                f"The events name two pictures {key}: {meant[str(key)]} and {path}; keep the "
                "folders of the events in the folder of pictures."
            )
    return [
        table.assign(stimulus=[str(ids[name]) if name in ids else "" for name in table["name"]])
        for table in events
    ]


def _path(name: str) -> str:
    return str(name).replace("\\", "/").removeprefix("./").lstrip("/")


def _same_end(one: str, other: str) -> bool:
    """Return whether one path is the end of another, ignoring endings of pictures."""
    first, second = (PurePosixPath(_bare(path)).parts for path in (one, other))
    count = min(len(first), len(second))
    return first[-count:] == second[-count:]


def _bare(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in PICTURE_SUFFIXES else name


def _without_folders(name: str) -> str:
    """Return the name of a picture without folder and ending."""
    path = PurePosixPath(_path(name))
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else str(name)


def _grid(
    description: Description, root: Path, runs: Sequence[Run], files: Sequence[ArrayFile]
) -> VoxelGrid:
    """Return the mask of the description, or the voxels in the brain in every run."""
    if description.mask:
        grid = read_mask(root, description.mask)
    else:
        lost = [run.label for run in runs if run.mask is None]
        if lost:
            raise MissingFileError(
                f"There is no brain mask of {lost[0]} next to its time series; give a mask."
            )
        masks = [read_mask(run.bold.parent, str(run.mask)) for run in runs]
        for one in masks[1:]:
            _same(one, masks[0])
        inside = np.logical_and.reduce([one.mask for one in masks])
        if not inside.any():
            raise CalcarineError("The brain masks of the runs share no voxel; give a mask.")
        grid = VoxelGrid(inside, masks[0].affine)
    for file in files:
        if len(file.shape) != 4 or file.shape[:3] != grid.mask.shape:
            raise ShapeError(
                f"The time series {file.path.name} has shape {file.shape} and the mask "
                f"{grid.mask.shape}; bring both to one space."
            )
        if file.affine is not None and grid.affine is not None:
            same_space(file.path, file.affine, grid.path or runs[0].mask, grid.affine)
    return grid


def _same(one: VoxelGrid, other: VoxelGrid) -> None:
    if one.mask.shape != other.mask.shape:
        raise ShapeError(
            f"The masks {one.path} and {other.path} have shapes {one.mask.shape} and "
            f"{other.mask.shape}; runs must be in one space."
        )
    if one.path and one.affine is not None and other.affine is not None:
        same_space(one.path, one.affine, other.path, other.affine)


def _sessions(runs: Sequence[Run], about: BidsPart) -> list[int]:
    """Return the session number of each run: its ``ses``, or the run itself if there is one."""
    labels = sorted({run.session for run in runs}, key=natural_key)
    by_run = about.session == "run" or (about.session is None and len(labels) == 1)
    if by_run:
        return list(range(1, len(runs) + 1))
    numbers = [int(label) if label.isdecimal() else -1 for label in labels]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(labels) + 1))
    place = dict(zip(labels, numbers, strict=True))
    return [place[run.session] for run in runs]


def _betas(
    run: Run, file: ArrayFile, events: pd.DataFrame, grid: VoxelGrid, about: BidsPart
) -> NDArray[np.float32]:
    """Return responses to the trials of one run, in percent signal change."""
    series = np.ascontiguousarray(file.read()[grid.mask].T, dtype=np.float32)
    bad = np.asarray(~np.isfinite(series).all(0))
    if bad.any():
        raise CalcarineError(
            f"{run.bold}: {int(bad.sum())} of {len(bad)} voxels hold NaN or infinity; give a mask "
            "without them."
        )
    confounds, drift = read_confounds(run.confounds, about.confounds, run.label, len(series))
    return trial_betas(
        series,
        events,
        run.tr,
        runs=np.full(len(series), run.label),
        method=about.method,
        hrf=about.hrf,
        drift=drift,
        high_pass=about.high_pass,
        confounds=confounds,
        start_time=run.start_time,
        delay=about.delay,
    )
