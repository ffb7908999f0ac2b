"""The picture of each trial, from three files that count from 1 or from 0.

``responses.tsv`` (73KID, 10KID, SESSION) and ``nsd_expdesign.mat`` (masterordering,
subjectim, sharedix) count from 1; rows of ``nsd_stim_info_merged.csv`` and of imgBrick
count from 0.  Stimulus ids here are the pictures' numbers from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.split import Split
from calcarine.datasets.nsd.files import content_error, integers, read_matrices, read_table
from calcarine.datasets.nsd.layout import N_IMAGES, TAKAGI_SESSIONS, NSDLayout
from calcarine.errors import CalcarineError, DamagedFileError, MissingFileError, SettingError

__all__ = ["choose_sessions", "make_splits", "read_stim_info", "read_trials", "stimulus_id"]

Numbers = NDArray[np.int64]


def stimulus_id(image: int) -> str:
    """Return the id of a picture from its number, counted from 0."""
    return f"nsd-{image:05d}"


@dataclass(frozen=True)
class Expdesign:
    """The part of the design for one subject; everything counts from 1.

    Attributes
    ----------
    order : Numbers
        Number of the trial's picture among the subject's pictures.
    images : Numbers
        The subject's pictures.
    shared : Numbers
        Pictures that all subjects see.
    """

    order: Numbers
    images: Numbers
    shared: Numbers


def read_expdesign(layout: NSDLayout) -> Expdesign:
    """Read ``nsd_expdesign.mat`` and check that it counts from 1."""
    path = layout.need(layout.expdesign)
    result = read_matrices(path, ("masterordering", "subjectim", "sharedix"))
    if len(result["subjectim"]) < layout.number:
        raise content_error(
            path,
            f"has {len(result['subjectim'])} subjects in subjectim and no {layout.subject}.",
        )
    for name, matrix in result.items():
        if matrix.min() < 1:
            raise content_error(
                path, f"has {matrix.min()} in {name}, which counts from 1; get the file again."
            )
    design = Expdesign(
        result["masterordering"].ravel(),
        result["subjectim"][layout.number - 1],
        result["sharedix"].ravel(),
    )
    if design.order.max() > len(design.images):
        raise content_error(
            path,
            f"has {design.order.max()} in masterordering and {len(design.images)} pictures a "
            "subject in subjectim; get the file again.",
        )
    return design


def read_stim_info(layout: NSDLayout) -> pd.DataFrame:
    """Read the table of pictures: one row per picture, numbered from 0."""
    path = layout.need(layout.stim_info)
    table = read_table(path, ",", ("nsdId",))
    first = str(table.columns[0])
    for column in dict.fromkeys((first, "nsdId")):
        numbers = integers(path, table, column)
        bad = np.flatnonzero(numbers != np.arange(len(table)))
        if len(bad):
            name = "its first column" if column.startswith("Unnamed") else column
            raise content_error(
                path,
                f"has {numbers[bad[0]]} as {name} in row {bad[0]}, which should be {bad[0]}: rows "
                "count from 0 and none is left out; get the file again.",
            )
    return table


def read_trials(layout: NSDLayout) -> pd.DataFrame:
    """Read every trial of a subject, and compare the files.

    Returns
    -------
    DataFrame
        One row a trial in order of presentation; columns ``stimulus``,
        ``session``, ``trial`` (from 1), ``image`` (from 0) and ``shared``.

    Raises
    ------
    CalcarineError
        If two files disagree, naming trial and both values.
    """
    path = layout.need(layout.responses)
    table = read_table(path, "\t", ("SESSION", "73KID"))
    sessions, ids = integers(path, table, "SESSION"), integers(path, table, "73KID")
    _check_sessions(layout, sessions)
    info = read_stim_info(layout) if layout.stim_info.is_file() else None
    limit = N_IMAGES if info is None else len(info)
    bad = np.flatnonzero((ids < 1) | (ids > limit))
    if len(bad):
        raise content_error(
            path,
            f"has 73KID {ids[bad[0]]} in trial {bad[0] + 1}, and ids there count from 1 to {limit}"
            f"{' (they seem to count from 0)' if ids.min() == 0 else ''}.",
        )
    design = read_expdesign(layout)
    shared = _compare_design(layout, table, ids, design)
    if info is not None:
        _compare_info(layout, ids - 1, info, design.shared - 1)
    return pd.DataFrame(
        {
            "stimulus": [stimulus_id(int(image)) for image in ids - 1],
            "session": sessions,
            "trial": np.arange(1, len(ids) + 1),
            "image": ids - 1,
            "shared": shared,
        }
    )


def _check_sessions(layout: NSDLayout, sessions: Numbers) -> None:
    steps = np.diff(np.concatenate([[0], sessions]))
    bad = np.flatnonzero((steps < 0) | (steps > 1))
    if len(bad) or sessions[0] != 1:
        row = int(bad[0]) if len(bad) else 0
        raise content_error(
            layout.responses,
            f"has SESSION {sessions[row]} in trial {row + 1} after "
            f"{sessions[row - 1] if row else 'none'}; sessions count from 1 and their trials stand "
            "in order of presentation.",
        )


def _compare_design(
    layout: NSDLayout, table: pd.DataFrame, ids: Numbers, design: Expdesign
) -> NDArray[np.bool_]:
    """Compare responses.tsv with the design; return which trials show shared pictures."""
    names = f"{layout.responses.name} of {layout.subject}"
    if len(ids) > len(design.order):
        raise content_error(
            layout.responses,
            f"has {len(ids)} trials and masterordering of {layout.expdesign.name} has "
            f"{len(design.order)}; one of them is of another experiment.",
        )
    order = design.order[: len(ids)]
    if "10KID" in table.columns:
        _compare(integers(layout.responses, table, "10KID"), order, "10KID", names, layout)
    _compare(ids, design.images[order - 1], "73KID", names, layout)
    shared = np.isin(ids, design.shared)
    # The first pictures of every subject are the shared ones: a second way to identify them.
    bad = np.flatnonzero(shared != (order <= len(design.shared)))
    if len(bad):
        row = int(bad[0])
        raise content_error(
            layout.expdesign,
            f"contradicts itself in trial {row + 1}: picture {ids[row]} (from 1) is "
            f"{'' if shared[row] else 'not '}in sharedix, and masterordering gives {order[row]} "
            f"where numbers up to {len(design.shared)} are shared; sharedix counts from 1.",
        )
    return shared


def _compare(found: Numbers, wanted: Numbers, what: str, names: str, layout: NSDLayout) -> None:
    bad = np.flatnonzero(found != wanted)
    if not len(bad):
        return
    steps = np.unique(found - wanted)
    hint = (
        "all differ by one, so one file counts from 0"
        if len(bad) == len(found) and len(steps) == 1 and abs(steps[0]) == 1
        else f"{len(bad)} of {len(found)} trials differ"
    )
    row = int(bad[0])
    raise DamagedFileError(
        f"Data set nsd: trial {row + 1} has {what} {found[row]} in {names} and {wanted[row]} in "
        f"{layout.expdesign.name} ({hint}); get both files again."
    )


def _compare_info(layout: NSDLayout, images: Numbers, info: pd.DataFrame, shared: Numbers) -> None:
    """Compare with the table of pictures, which numbers pictures from 0 and trials from 1."""
    path, rows = layout.stim_info, np.arange(len(info))
    if "shared1000" in info.columns:
        listed = info["shared1000"].astype(str).isin(("True", "1", "1.0")).to_numpy()
        bad = np.flatnonzero(listed != np.isin(rows, shared))
        if len(bad):
            raise content_error(
                path,
                f"says that picture {bad[0]} (from 0) is {'' if listed[bad[0]] else 'not '}shared, "
                f"and sharedix of {layout.expdesign.name} says the opposite; get both again.",
            )
    columns = [f"subject{layout.number}_rep{repeat}" for repeat in range(3)]
    if not set(columns) <= set(info.columns):
        return
    planned = np.stack([integers(path, info, column) for column in columns], axis=1)[images]
    trials = np.arange(1, len(images) + 1)
    bad = np.flatnonzero((planned != trials[:, None]).all(axis=1))
    if len(bad):
        row = int(bad[0])
        numbers = ", ".join(str(number) for number in planned[row])
        raise content_error(
            path,
            f"gives picture {images[row]} (from 0) the trials {numbers} of {layout.subject}, and "
            f"{layout.responses.name} shows it in trial {row + 1}; rows count from 0, trials from "
            "1, get both again.",
        )


def listed_sessions(sessions: int | Sequence[int]) -> tuple[int, ...]:
    """Return the first n sessions, or those of a list, ascending.

    Raises
    ------
    CalcarineError
        If it is neither.
    """
    if isinstance(sessions, int | np.integer):
        return tuple(range(1, int(sessions) + 1))
    listed = [] if isinstance(sessions, str) else list(sessions)
    if isinstance(sessions, str) or not all(isinstance(n, int | np.integer) for n in listed):
        raise SettingError(
            f"Data set nsd: sessions are a number, such as 37, or a list, such as [1, 2, 5], not "
            f"{sessions}."
        )
    return tuple(sorted({int(number) for number in listed}))


def choose_sessions(
    layout: NSDLayout, trials: pd.DataFrame, sessions: int | Sequence[int] | None
) -> tuple[int, ...]:
    """Return the sessions to use: those on disk, the first n, or a list.

    Raises
    ------
    CalcarineError
        If betas or trials of one are missing.
    """
    there = layout.sessions()
    chosen = there if sessions is None else listed_sessions(sessions)
    if not chosen:
        what = "has no betas" if sessions is None else f"has no sessions {sessions}"
        raise CalcarineError(
            f"Data set nsd, subject {layout.subject} {what}; {layout.betas} should hold "
            "betas_session01.hdf5 and so on."
        )
    missing = [number for number in chosen if number not in there]
    if missing:
        raise _missing_sessions(layout, missing, there, len(chosen))
    known = set(trials["session"].tolist())
    for number in chosen:
        if number not in known:
            raise content_error(
                layout.responses,
                f"has no trials of session {number}, of which {layout.session(number).name} has "
                "betas; get the table again.",
            )
    return chosen


def _missing_sessions(
    layout: NSDLayout, missing: Sequence[int], there: Sequence[int], n_chosen: int
) -> MissingFileError:
    path = layout.session(missing[0])
    first_n = list(there) == list(range(1, len(there) + 1))
    present = str(len(there) if first_n else list(there))
    others = f", or set dataset.options.sessions={present} to use those on disk" if there else ""
    return MissingFileError(
        f"Data set nsd: {len(missing)} of the {n_chosen} chosen sessions are missing, the first "
        f"is {path}; get it from {layout.origin(path)} (see 'calcarine datasets download nsd')"
        f"{others}."
    )


def make_splits(trials: pd.DataFrame, sessions: Sequence[int]) -> tuple[Split, ...]:
    """Return splits of the given trials, stimuli in order of first presentation.

    Parameters
    ----------
    trials : DataFrame
        Rows of `read_trials` in the chosen sessions.
    sessions : sequence of int
        The chosen sessions; with exactly the first 37 there is ``takagi2023``.

    Raises
    ------
    CalcarineError
        If one side would be empty.
    """
    first = trials.drop_duplicates("image")
    test = tuple(first["stimulus"][first["shared"]])
    train = tuple(first["stimulus"][~first["shared"]])
    if not test or not train:
        side = "training" if test else "shared"
        raise SettingError(
            f"Data set nsd: the {len(trials)} trials of these sessions show no {side} pictures, so "
            "they cannot be split; take more sessions."
        )
    rules = {"shared": "pictures that all subjects were to see are for the test"}
    if tuple(sessions) == tuple(range(1, TAKAGI_SESSIONS + 1)):
        rules["takagi2023"] = (
            "sessions 1 to 37, test: shared pictures seen in them, in order of first presentation "
            "(Takagi & Nishimoto 2023)"
        )
    return tuple(Split(name, train, test, rule) for name, rule in rules.items())
