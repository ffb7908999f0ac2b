"""Checking whether HCP's files are complete and correct."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from calcarine.datasets._check_results import collect_results, compare_text, count_constant
from calcarine.datasets.hcp._atlas import CORTEX, COUNTS, areas_of, find_atlas
from calcarine.datasets.hcp._cifti import CiftiRecording
from calcarine.datasets.hcp._files import ATLAS_FROM, ENDING, INFO, find_recordings, find_stored
from calcarine.datasets.hcp._prepare import read_stored
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult

__all__ = ["check"]

_FRAMES, _GRAYORDINATES, _TR = 1200, 91282, 0.72
_AGAIN = f"get it again from {INFO.source}"


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Compare the files in a folder with what is known of HCP.

    Parameters
    ----------
    data : str or Path
        The folder.
    subject : str, optional
        By default all subjects.

    Returns
    -------
    list of CheckResult

    Examples
    --------
    >>> from calcarine.datasets import hcp, write_fake_dataset
    >>> write_fake_dataset("hcp", "hcp-check", people=1, grayordinates=400, frames=40)
    >>> for row in hcp.check("hcp-check")[:3]:
    ...     print(row.what, row.status)
    mmp_1.0.npz ok
    100206 note
    subjects note
    """
    stored = find_stored(data)
    results: list[CheckResult] = []
    try:
        raw = find_recordings(data)
    except CalcarineError as error:
        results.append(
            CheckResult("endings of names", "note", str(error), ENDING, f"checked: {ENDING}")
        )
        raw = find_recordings(data, ending=ENDING)
    atlas: Path | None = None
    if raw:
        try:
            atlas = find_atlas(data, None)
            results.append(CheckResult(atlas.name, "ok"))
        except CalcarineError:
            results.append(CheckResult("mmp_1.0.npz", "missing", "", "Glasser map", ATLAS_FROM))
    for files, report in ((raw, _recording), (stored, _stored)):
        for who, path in files.items():
            if subject in (None, who):
                results += collect_results(report(path, who, atlas), path.name, _AGAIN)
    total = sum(1 for who in {*raw, *stored} if subject in (None, who))
    if total:
        text = f"{total} of 1096 that have this run"
        results.append(CheckResult("subjects", "note", text, "", "120 samples come of each"))
    else:
        what = f"files of subject {subject}" if subject else "files of subjects"
        results.append(CheckResult(what, "missing", "", "", INFO.access))
    return results


def _recording(path: Path, who: str, atlas: Path | None) -> Iterator[CheckResult]:
    recording = CiftiRecording.open(path)
    count = len(recording.brain)
    known = _described(_FRAMES, CORTEX if count == CORTEX else _GRAYORDINATES, _TR)
    result = _described(recording.frames, count, recording.tr)
    still = 0
    if atlas is not None:
        places = areas_of(atlas, recording.brain)
        sizes = {area: len(rows) for area, rows in places.items()}
        series = recording.read(np.unique(np.concatenate(list(places.values()))))
        still = count_constant(series)
        known, result = f"{known}; {_areas(COUNTS)}", f"{result}; {_areas(sizes)}"
    yield compare_text(who, result, known, "HCP's")
    if still:
        yield CheckResult(who, "note", f"{still} constant vertices", "none", "they become 0")


def _stored(path: Path, who: str, atlas: Path | None) -> Iterator[CheckResult]:
    series = read_stored(path)
    frames = len(series["V1"])
    result = f"{frames} frames; {_areas({a: v.shape[1] for a, v in series.items()})}"
    yield compare_text(f"{who}/{path.name}", result, f"{_FRAMES} frames; {_areas(COUNTS)}", "HCP's")
    worst = max(float(abs(values.mean(0)).max()) for values in series.values())
    if worst > 1e-3:
        yield CheckResult(
            f"{who}/{path.name}",
            "note",
            f"mean over time up to {worst:.2g}",
            "0",
            "it is not normalised over time: prepare it again to be sure",
        )


def _described(frames: int, grayordinates: int, tr: float) -> str:
    return f"{frames} frames of {tr:g} s, {grayordinates} grayordinates"


def _areas(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{area} {size}" for area, size in sizes.items())
