"""Checking which files of the data set are in a folder, and whether they are correct."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.info import pick_subject
from calcarine.datasets._check_results import scaling_result
from calcarine.datasets.nsd._check_files import (
    check_betas,
    check_captions,
    check_masks,
    check_pictures,
)
from calcarine.datasets.nsd.design import make_splits, read_stim_info, read_trials
from calcarine.datasets.nsd.files import integers, message_without_name, read_matrices, read_table
from calcarine.datasets.nsd.layout import (
    INFO,
    N_IMAGES,
    N_PER_SUBJECT,
    N_SHARED,
    SESSIONS,
    SUBJECTS,
    TAKAGI_SESSIONS,
    TAKAGI_SUBJECTS,
    TAKAGI_TEST,
    TAKAGI_TRAIN,
    NSDLayout,
    find_layout,
)
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult

__all__ = ["check"]


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Check the files of one subject, or of every subject in the folder.

    Parameters
    ----------
    data : str or Path
        Folder that holds ``nsddata`` and ``nsddata_betas``, or the folder above.
    subject : str, optional
        By default all with files.

    Returns
    -------
    list of CheckResult
        Damaged files are results too, not errors.

    Raises
    ------
    CalcarineError
        If there is nothing of the data set in the folder, or the subject has
        no such name.

    Examples
    --------
    >>> from calcarine.datasets import nsd
    >>> nsd.fake("nsd-check", n_subjects=1, sessions=1)
    >>> for row in nsd.check("nsd-check")[:3]:
    ...     print(row.what, row.status)
    subj01 nsd_expdesign.mat ok
    subj01 nsd_stim_info_merged.csv ok
    subj01 responses.tsv ok
    """
    layout = find_layout(data, pick_subject(INFO, subject))
    names = [subject] if subject else _present(layout) or [SUBJECTS[0]]
    results: list[CheckResult] = []
    for name in names:
        own = NSDLayout(layout.root, name)
        trials = _guarded(own.responses.name, partial(check_design, own), results, name)
        _guarded("masks", partial(check_masks, own), results, name)
        _guarded("betas", partial(check_betas, own, trials), results, name)
    first = NSDLayout(layout.root, names[0])
    _guarded("pictures", partial(check_pictures, first), results)
    _guarded("captions", partial(check_captions, first), results)
    return results


def _present(layout: NSDLayout) -> list[str]:
    return [
        name
        for name in SUBJECTS
        for own in [NSDLayout(layout.root, name)]
        if own.betas.is_dir() or own.responses.is_file()
    ]


def _guarded(
    what: str,
    steps: Callable[[], Iterator[Any]],
    found: list[CheckResult],
    subject: str = "",
) -> pd.DataFrame | None:
    """Collect results; an error ends this part of the check and becomes a result."""
    table = None
    label = f"{subject} " if subject else ""
    try:
        for each in steps():
            if isinstance(each, pd.DataFrame):
                table = each
            else:
                found.append(
                    CheckResult(
                        label + each.what, each.status, each.found, each.expected, each.advice
                    )
                )
    except CalcarineError as error:
        found.append(
            CheckResult(
                label + what, "wrong", message_without_name(error), "", "get the file again"
            )
        )
    return table


def check_design(layout: NSDLayout) -> Iterator[CheckResult | pd.DataFrame]:
    """Check the tables of trials and pictures; return the trials if all agree."""
    complete = True
    for path in (layout.expdesign, layout.stim_info, layout.responses):
        if path.is_file():
            yield CheckResult(path.name, "ok", "is there")
        else:
            complete = complete and path == layout.stim_info
            yield CheckResult(path.name, "missing", advice=f"get {layout.origin(path)}")
    yield from _check_ranges(layout)
    if not complete:
        return
    trials = read_trials(layout)
    agree = "responses, expdesign" + (" and stim info" if layout.stim_info.is_file() else "")
    yield CheckResult(
        "trials", "ok", f"{len(trials)} trials: {agree} agree", "the same in every file"
    )
    yield from _check_counts(layout, trials)
    yield trials


def _check_ranges(layout: NSDLayout) -> Iterator[CheckResult]:
    """Check whether numbers count from where they should."""
    if layout.responses.is_file():
        path = layout.responses
        yield _counted("73KID", integers(path, read_table(path, "\t", ("73KID",)), "73KID"), 1)
    if layout.expdesign.is_file():
        names = ("masterordering", "subjectim", "sharedix")
        for name, matrix in read_matrices(layout.expdesign, names).items():
            last = N_PER_SUBJECT if name == "masterordering" else N_IMAGES
            yield _counted(name, matrix, 1, last)
    if layout.stim_info.is_file():
        path = layout.stim_info
        yield _counted("nsdId", integers(path, read_table(path, ",", ("nsdId",)), "nsdId"), 0)


def _counted(name: str, values: NDArray[np.int64], start: int, last: int = 0) -> CheckResult:
    low, high = int(values.min()), int(values.max())
    last = last or N_IMAGES - 1 + start
    good = start <= low and high <= last
    # From 1 on, only the smallest is informative: a 1 need not occur in a subject's own ids.
    good = good and (start == 1 or low == 0)
    advice = "" if good else f"{name} counts from {start}: get the file again"
    expected = f"{start} to {last}, counting from {start}"
    return CheckResult(
        f"{name} range", "ok" if good else "wrong", f"{low} to {high}", expected, advice
    )


def _check_counts(layout: NSDLayout, trials: pd.DataFrame) -> Iterator[CheckResult]:
    there = layout.sessions()
    if layout.stim_info.is_file():
        yield _compare_count("pictures in stim info", len(read_stim_info(layout)), N_IMAGES)
    own = trials[trials["session"].isin(there)]
    if own.empty:
        return
    times = own["image"].value_counts().value_counts().sort_index()
    shown = ", ".join(f"{count} shown {number} x" for number, count in times.items())
    yield CheckResult("pictures seen", "ok", f"{own['image'].nunique()}: {shown}", "3 x in all")
    split = make_splits(own, there)[0]
    train = own["stimulus"].isin(split.train).to_numpy()
    yield scaling_result("z-scoring", own["session"].to_numpy(), [train])
    whole = len(there) == 40
    if whole:
        yield _compare_count("test pictures (shared)", len(split.test), N_SHARED)
    else:
        yield CheckResult(
            "test pictures (shared)", "ok", str(len(split.test)), f"{N_SHARED} in 40 sessions"
        )
    if set(range(1, TAKAGI_SESSIONS + 1)) <= set(there) and layout.subject in TAKAGI_SUBJECTS:
        sessions = range(1, TAKAGI_SESSIONS + 1)
        takagi = make_splits(own[own["session"].isin(sessions)], sessions)[-1]
        counts = {
            "test": (len(takagi.test), TAKAGI_TEST),
            "training": (len(takagi.train), TAKAGI_TRAIN),
        }
        for side, (number, official) in counts.items():
            yield _compare_count(f"{side} pictures (takagi2023)", number, official)
    official = SESSIONS[layout.subject]
    trials_of = trials.groupby("session").size()
    yield CheckResult(
        "sessions in responses",
        "ok" if len(trials_of) == official else "note",
        f"{len(trials_of)} of {trials_of.min()} to {trials_of.max()} trials",
        f"{official} of 750 trials",
    )


def _compare_count(what: str, found: int, official: int) -> CheckResult:
    return CheckResult(
        what, "ok" if found == official else "note", str(found), f"officially {official}"
    )
