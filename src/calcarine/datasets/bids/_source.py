"""From preprocessed runs and events to a description's responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.bids._confounds import read_confounds
from calcarine.datasets.bids._layout import Run, find_runs
from calcarine.datasets.own._description import BidsPart, Description
from calcarine.datasets.own._files import ArrayFile, find, stamp
from calcarine.datasets.own._regions import Grid, read_mask, same_space
from calcarine.datasets.own._source import TrialSource
from calcarine.datasets.own._trials import texts_table
from calcarine.datasets.prepare.events import trial_betas
from calcarine.datasets.provider import natural
from calcarine.errors import CalcarineError
from calcarine.stimuli.pictures import PICTURE_SUFFIXES

__all__ = ["bids_source"]

_NOTHING = ("", "n/a", "nan", "null")
_STIMULUS = ("stimulus", "stim_file", "stimulus_id", "stim_id", "image", "trial_type")


def bids_source(description: Description, root: Path) -> TrialSource:
    """Responses from preprocessed time series.

    Raises
    ------
    CalcarineError
        If files are missing or do not fit each other.
    """
    about = description.bids
    assert about is not None
    derivatives = find(root, about.derivatives, "derivatives folder")
    raw = find(root, about.raw, "raw folder") if about.raw else derivatives
    runs = find_runs(derivatives, raw, description.subject, about)
    events = [_events(run, about) for run in runs]
    files = [ArrayFile.open(run.bold, "", "time series") for run in runs]
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
    }
    return TrialSource(trials, grid, read, provenance)


def _events(run: Run, about: BidsPart) -> pd.DataFrame:
    """Events in order of onset, with ``stimulus`` and ``nuisance``."""
    table = texts_table(run.events, "events")
    for name in ("onset", "duration"):
        if name not in table.columns:
            raise CalcarineError(f"The events {run.events} have no column {name}.")
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
        bad = ~np.isfinite(table[name].to_numpy())
        if bad.any():
            row = int(np.argmax(bad))
            raise CalcarineError(f"{run.events}: row {row + 1} has no number as its {name}.")
    column = _stimulus_column(table, run, about)
    kinds = table["trial_type"] if "trial_type" in table.columns else pd.Series("", table.index)
    other = kinds.isin(about.nuisance)
    shown = ~table[column].str.lower().isin(_NOTHING) & ~kinds.isin(about.ignore) & ~other
    table["stimulus"] = _ids(table[column].where(shown, ""))
    table["nuisance"] = kinds.where(other, "")
    kept = table[shown | other].sort_values("onset", kind="stable", ignore_index=True)
    return kept.assign(run=run.label)[["onset", "duration", "run", "stimulus", "nuisance"]]


def _stimulus_column(table: pd.DataFrame, run: Run, about: BidsPart) -> str:
    if about.stimulus is not None:
        if about.stimulus not in table.columns:
            raise CalcarineError(
                f"The events {run.events} have no column {about.stimulus}; they have "
                f"{', '.join(table.columns)}."
            )
        return about.stimulus
    for name in _STIMULUS:
        if name in table.columns:
            return name
    raise CalcarineError(
        f"No column of the events {run.events} is known to name the picture; say which with "
        f"stimulus, among {', '.join(table.columns)}."
    )


def _ids(names: pd.Series) -> list[str]:
    """Names of pictures without folder and ending, as pictures are named in a folder."""
    found = []
    for name in names:
        path = PurePosixPath(str(name).replace("\\", "/"))
        found.append(path.stem if path.suffix.lower() in PICTURE_SUFFIXES else str(name))
    whole: dict[str, str] = {}
    for key, name in zip(found, names, strict=True):
        if whole.setdefault(key, str(name)) != str(name):
            raise CalcarineError(
                f"The events name two pictures {key}: {whole[key]} and {name}; give them names of "
                "their own."
            )
    return found


def _grid(
    description: Description, root: Path, runs: Sequence[Run], files: Sequence[ArrayFile]
) -> Grid:
    """The description's mask, or what lies in the brain in every run."""
    if description.mask:
        grid = read_mask(root, description.mask)
    else:
        lost = [run.label for run in runs if run.mask is None]
        if lost:
            raise CalcarineError(
                f"There is no brain mask of {lost[0]} beside its time series; give a mask."
            )
        masks = [read_mask(run.bold.parent, str(run.mask)) for run in runs]
        for one in masks[1:]:
            _same(one, masks[0])
        inside = np.logical_and.reduce([one.mask for one in masks])
        if not inside.any():
            raise CalcarineError("The brain masks of the runs share no voxel; give a mask.")
        grid = Grid(inside, masks[0].affine)
    for file in files:
        if len(file.shape) != 4 or file.shape[:3] != grid.mask.shape:
            raise CalcarineError(
                f"The time series {file.path.name} has shape {file.shape} and the mask "
                f"{grid.mask.shape}; bring both to one space."
            )
        if file.affine is not None and grid.affine is not None:
            same_space(file.path, file.affine, grid.path or runs[0].mask, grid.affine)
    return grid


def _same(one: Grid, other: Grid) -> None:
    if one.mask.shape != other.mask.shape:
        raise CalcarineError(
            f"The masks {one.path} and {other.path} have shapes {one.mask.shape} and "
            f"{other.mask.shape}; runs must be in one space."
        )
    if one.path and one.affine is not None and other.affine is not None:
        same_space(one.path, one.affine, other.path, other.affine)


def _sessions(runs: Sequence[Run], about: BidsPart) -> list[int]:
    """Number of the session of each run: its ``ses``, or the run itself where there is one."""
    labels = sorted({run.session for run in runs}, key=natural)
    by_run = about.session == "run" or (about.session is None and len(labels) == 1)
    if by_run:
        return list(range(1, len(runs) + 1))
    numbers = [int(label) if label.isdecimal() else -1 for label in labels]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(labels) + 1))
    place = dict(zip(labels, numbers, strict=True))
    return [place[run.session] for run in runs]


def _betas(
    run: Run, file: ArrayFile, events: pd.DataFrame, grid: Grid, about: BidsPart
) -> NDArray[np.float32]:
    """Responses to the trials of one run, in percent signal change."""
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
