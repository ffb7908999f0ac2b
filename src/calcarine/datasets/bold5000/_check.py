"""Checking whether a copy of BOLD5000 is complete and correct."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

from calcarine.brain.info import pick_subject
from calcarine.datasets._check_results import (
    check_finite_voxels,
    collect_results,
    compare_count,
    scaling_result,
)
from calcarine.datasets._numpy_files import open_npy
from calcarine.datasets.bold5000._layout import (
    HEMISPHERES,
    INFO,
    REGIONS,
    WHO,
    BOLD5000Layout,
    TrialList,
    beta_name,
    find_layout,
    read_trials,
    repeated_list,
)
from calcarine.datasets.bold5000._pictures import picture_index
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult

__all__ = ["check"]

_ZIP = f"BOLD5000_Stimuli.zip of {INFO.source}"
_BETAS = f"BOLD5000_GLMsingle_ROI_betas.zip of {INFO.source}"
_TRIALS = {"CSI1": 5254, "CSI2": 5254, "CSI3": 5254, "CSI4": 3108}
_SESSIONS = {"CSI1": 15, "CSI2": 15, "CSI3": 15, "CSI4": 9}


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Compare the files in a folder with what is known of BOLD5000.

    Parameters
    ----------
    data : str or Path
        The folder.
    subject : str, optional
        One of the four; by default all that have betas.

    Returns
    -------
    list of CheckResult

    Examples
    --------
    >>> from calcarine.datasets import bold5000, write_fake_dataset
    >>> write_fake_dataset("bold5000", "bold-check", people=["CSI1"], voxels=10, size=32)
    >>> for row in bold5000.check("bold-check")[:3]:
    ...     print(row.what, row.status)
    CSI1: trials in presentation lists note
    CSI1: sessions note
    CSI1: voxels note
    """
    chosen = pick_subject(INFO, subject) if subject else None
    results: list[CheckResult] = []
    try:
        layout = find_layout(data)
    except CalcarineError as error:
        return [CheckResult("BOLD5000 folders", "missing", str(error), "", INFO.access)]
    here = [who for who in INFO.subjects if any(layout.betas.glob(f"{who}_GLMbetas-*.npy"))]
    for who in [chosen] if chosen else here:
        results += collect_results(_subject(who, layout), who, f"get it again: {_ZIP}")
    try:
        results.append(
            compare_count("repeated_stimuli_113_list.txt", len(repeated_list(layout)), 113)
        )
    except CalcarineError as error:
        results.append(
            CheckResult("repeated_stimuli_113_list.txt", "missing", str(error), "", _ZIP)
        )
    if not (layout.stimuli / "Image_Labels" / "imagenet_final_labels.txt").is_file():
        results.append(
            CheckResult(
                "Image_Labels/imagenet_final_labels.txt",
                "note",
                "not there",
                "",
                f"names ImageNet's categories; in {_ZIP}",
            )
        )
    return results


def _subject(who: str, layout: BOLD5000Layout) -> Iterator[CheckResult]:
    trials = read_trials(layout, who)
    count, sessions = len(trials.stimuli), len(np.unique(trials.sessions))
    yield compare_count(f"{who}: trials in presentation lists", count, _TRIALS[who])
    yield compare_count(f"{who}: sessions", sessions, _SESSIONS[who])
    yield from _betas(who, layout, count)
    yield from _stimuli(who, layout, trials)


def _betas(who: str, layout: BOLD5000Layout, count: int) -> Iterator[CheckResult]:
    sizes: dict[str, int] = {}
    for region, side in product(REGIONS, HEMISPHERES):
        name = beta_name(who, side, region)
        path = layout.betas / name
        if not path.is_file():
            yield CheckResult(name, "missing", "", "", _BETAS)
            continue
        try:
            values = open_npy(path, WHO, INFO.source)
        except CalcarineError as error:
            yield CheckResult(name, "wrong", str(error), "", _BETAS)
            continue
        if values.ndim != 2 or len(values) != count:
            yield CheckResult(
                name,
                "wrong",
                f"shape {values.shape}",
                f"{count} trials",
                "betas and lists should be of one release and whole",
            )
            continue
        sizes[region] = sizes.get(region, 0) + values.shape[1]
        yield from check_finite_voxels(name, values, _BETAS)
    text = ", ".join(f"{region} {size}" for region, size in sizes.items())
    yield CheckResult(
        f"{who}: voxels",
        "note",
        f"{sum(sizes.values())} ({text})",
        "",
        "published counts are of release 1, so the files decide",
    )


def _stimuli(who: str, layout: BOLD5000Layout, trials: TrialList) -> Iterator[CheckResult]:
    shown = trials.stimuli
    distinct = set(shown)
    index = picture_index(layout)
    lost = sorted(name for name in distinct if name.lower() not in index)
    if lost:
        text = f"{len(lost)} of {len(distinct)}, as {lost[0]}"
        yield CheckResult(f"{who}: pictures", "missing", text, str(len(distinct)), _ZIP)
    else:
        yield CheckResult(f"{who}: pictures", "ok", str(len(distinct)))
    try:
        test = [name for name in repeated_list(layout) if name in distinct]
    except CalcarineError:
        return
    times = Counter(shown)
    spread_of = Counter(times[name] for name in test)
    spread = ", ".join(f"{number} shown {repeat} x" for repeat, number in sorted(spread_of.items()))
    yield CheckResult(
        f"{who}: test pictures",
        "ok" if test else "wrong",
        spread or "none",
        "",
        "" if test else "lists and pictures should be of one release",
    )
    train = ~np.isin(shown, test)
    yield scaling_result(f"{who}: z-scoring", trials.sessions, [train])
