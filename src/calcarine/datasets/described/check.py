"""Checking the files of a description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calcarine.brain.info import DatasetInfo
from calcarine.datasets._check_results import scaling_result, simulated_result
from calcarine.datasets.described.described_subject import DescribedSubject, open_subject
from calcarine.datasets.described.description import Description
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult, Status

__all__ = ["check_subject"]

_FEW_VOXELS, _FEW_TEST, _WIDE = 50, 20, 50.0
_LEAST = 2
"""Fewest stimuli that a run decodes from, and that it scores."""


def check_subject(info: DatasetInfo, description: Description, root: Path) -> list[CheckResult]:
    """Return results about a described subject; reads betas and pictures.

    Parameters
    ----------
    info, description, root
        See `open_subject`.
    """
    results = [
        CheckResult("description", "ok", f"{description.name}, subject {description.subject}")
    ]
    results += simulated_result(root)
    try:
        subject = open_subject(info, description, root)
    except CalcarineError as error:
        advice = "Correct the file or the description."
        lost = "does not exist" in str(error)
        return [
            *results,
            CheckResult("files", "missing" if lost else "wrong", str(error), "", advice),
        ]
    for part in (_trials, _voxels, _split, _scaling, _responses, _pictures):
        results += _checked(part, subject)
    return results


def _checked(
    part: Callable[[DescribedSubject], list[CheckResult]], subject: DescribedSubject
) -> list[CheckResult]:
    try:
        return part(subject)
    except CalcarineError as error:
        what = part.__name__.removeprefix("_")
        return [CheckResult(what, "wrong", str(error), "", "Correct the file or the description.")]


def _trials(subject: DescribedSubject) -> list[CheckResult]:
    trials = subject.recording.trials
    times = Counter(Counter(trials["stimulus"]).values())
    shown = ", ".join(f"{times[n]} shown {n} x" for n in sorted(times))
    result = f"{len(trials)} trials in {trials['session'].nunique()} sessions"
    rows = [CheckResult("trials", "ok", result), CheckResult("stimuli", "ok", shown)]
    return rows + [CheckResult("left out", "note", note) for note in subject.notes]


def _voxels(subject: DescribedSubject) -> list[CheckResult]:
    rows = [CheckResult("voxels", "ok", str(len(subject.recording.voxels)))]
    if np.isnan(subject.recording.voxels.to_numpy()).any():
        rows.append(
            CheckResult("positions of voxels", "note", "unknown", "", "A NIfTI mask has them.")
        )
    for name, mask in subject.recording.rois.items():
        count = int(mask.sum())
        few = count < _FEW_VOXELS
        advice = "So few voxels predict little." if few else ""
        status: Status = "note" if few else "ok"
        rows.append(CheckResult(f"region {name}", status, f"{count} voxels", "", advice))
    return rows


def _split(subject: DescribedSubject) -> list[CheckResult]:
    splits = subject.without_responses().splits
    train = min(len(split.train) for split in splits)
    test = sum(len(split.test) for split in splits)
    result = f"{train} training and {test} test stimuli ({splits[0].rule})"
    if len(splits) > 1:
        sizes = sorted({len(split.test) for split in splits})
        test_sizes = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        result = (
            f"{len(splits)} folds with {test_sizes} of {test} stimuli in test "
            f"({splits[0].rule}, ...)"
        )
    if train < _LEAST or test < _LEAST:
        advice = f"A run needs {_LEAST} stimuli for training and {_LEAST} to score; change test."
        return [CheckResult("split", "wrong", result, "", advice)]
    if test < _FEW_TEST:
        return [
            CheckResult(
                "split", "note", result, "", "Scores of so few stimuli have wide intervals."
            )
        ]
    return [CheckResult("split", "ok", result)]


def _scaling(subject: DescribedSubject) -> list[CheckResult]:
    """Return which trials scale the sessions of each split."""
    about = subject.recording
    about.check()
    trains = [about.train_trials(split) for split in about.splits]
    sessions = about.trials["session"].to_numpy()
    return [scaling_result("z-scoring", sessions, trains, about.zscore)]


def _responses(subject: DescribedSubject) -> list[CheckResult]:
    """Read the responses of every session, to find what loading would refuse."""
    sessions = [int(number) for number in subject.recording.trials["session"].unique()]
    return [row for session in sessions for row in _session(subject, session)]


def _session(subject: DescribedSubject, session: int) -> list[CheckResult]:
    about = subject.recording
    values = about.read(session)
    spread = values.std(0, dtype=np.float64)
    what, result = f"session {session}", f"{values.min():.3g} to {values.max():.3g}"
    flat, median = int((spread == 0).sum()), float(np.median(spread))
    if flat:
        advice = "They carry nothing; leave them out of the mask."
        return [CheckResult(what, "note", f"{result}, {flat} constant voxels", "", advice)]
    if median > _WIDE and about.zscore == "none":
        advice = "Percent signal change is a few units; set scale, or zscore: session."
        return [CheckResult(what, "note", f"{result}, median SD {median:.3g}", "", advice)]
    return [CheckResult(what, "ok", result)]


def _pictures(subject: DescribedSubject) -> list[CheckResult]:
    stimuli = subject.stimuli()
    for key in stimuli.ids:
        stimuli.image(key)
    rows = [
        CheckResult("pictures", "ok", f"{len(stimuli)} of {stimuli.size[0]} x {stimuli.size[1]}")
    ]
    without = sum(not texts for texts in stimuli.captions())
    if without:
        result = f"{without} stimuli have none"
        nameless = sum(not names for names in stimuli.categories())
        advice = (
            "A run makes c of captions; with features.text=categories it makes c of categories."
        )
        if nameless:
            result += f", and {nameless} have no category"
            advice += " Those without get the empty text."
        rows.append(CheckResult("captions", "note", result, "", advice))
    else:
        rows.append(CheckResult("captions", "ok", "every stimulus has some"))
    return rows
