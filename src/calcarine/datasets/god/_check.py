"""Checking whether a copy of GOD is complete and correct."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.brain.info import pick_subject
from calcarine.datasets._check_results import (
    check_finite_voxels,
    collect_results,
    compare_count,
    count_constant,
)
from calcarine.datasets._numpy_files import NpzFile
from calcarine.datasets.bdata import BData
from calcarine.datasets.god._ids import category, first_index, picture_list
from calcarine.datasets.god._official import picture_names, regions_of, trial_types
from calcarine.datasets.god._pictures import find_pictures, picture_files, read_pictures
from calcarine.datasets.god._rearranged import matches, regions
from calcarine.datasets.god._subject_files import (
    INFO,
    ON_REQUEST,
    WHO,
    find_subject,
    other_forms,
    search_folders,
)
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult

__all__ = ["check"]

_AGAIN = f"get it again from {INFO.source}"
_KNOWN = {"train": 1200, "test": 50, "repeats": 35, "trials": 1750, "imagery": 500}


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Compare the files in a folder with what is known of GOD.

    Parameters
    ----------
    data : str or Path
        The folder.
    subject : str, optional
        One of the five; by default all that have files.

    Returns
    -------
    list of CheckResult

    Examples
    --------
    >>> from calcarine.datasets import god, write_fake_dataset
    >>> write_fake_dataset("god", "god-check", people=1, voxels=30, pictures="npz")
    >>> for row in god.check("god-check")[:3]:
    ...     print(row.what, row.status)
    Subject1.h5 ok
    Subject1.h5: training trials note
    Subject1.h5: perception test trials note
    """
    wanted = [pick_subject(INFO, subject)] if subject else list(INFO.subjects)
    results: list[CheckResult] = []
    shown: dict[str, set[str]] = {}
    folders = search_folders(data)
    files = 0
    for who in wanted:
        for form, report in (("h5", _official), ("npz", _rearranged)):
            try:
                path = find_subject(data, who, form)
            except CalcarineError:
                continue
            files += 1
            results += collect_results(report(path, folders, shown), path.name, _AGAIN)
    if not files:
        names = " or ".join(INFO.files[0].split("|"))
        there = other_forms(data).strip(" ()")
        results.append(CheckResult(names, "missing", there, advice=f"get it from {INFO.source}"))
    results += collect_results(_pictures(folders, shown), "pictures", _AGAIN)
    return results


def _official(path: Path, folders: list[Path], shown: dict[str, set[str]]) -> Iterator[CheckResult]:
    data = BData.open(path)
    name = path.name
    yield CheckResult(name, "ok", f"{data.shape[0]} trials, {data.shape[1]} columns, {data.dtype}")
    kinds = trial_types(data)
    counts = Counter(kinds.tolist())
    yield compare_count(f"{name}: training trials", counts[1], _KNOWN["train"])
    yield compare_count(f"{name}: perception test trials", counts[2], _KNOWN["trials"])
    yield compare_count(f"{name}: imagery trials", counts[3], _KNOWN["imagery"])
    names = picture_names(data, folders, kinds)
    sides = {
        "train": [n for n, k in zip(names, kinds.tolist(), strict=True) if k == 1],
        "test": [n for n, k in zip(names, kinds.tolist(), strict=True) if k == 2],
    }
    yield from _shown(name, sides, shown)
    voxel = data.mask("VoxelData") if "VoxelData" in data else data.mask("ROI_VC")
    sizes = {roi: int(mask.sum()) for roi, mask in regions_of(data, voxel).items()}
    yield _voxels(name, int(voxel.sum()), sizes)
    values = data.select(voxel, np.float32)
    yield _values(f"{name}: responses", values)
    for key in ("Session", "Run"):
        if key not in data:
            yield CheckResult(f"{name}: {key}", "note", "not in the file", "", "not needed")
    if not all(f"voxel_{axis}" in data for axis in "xyz"):
        yield CheckResult(f"{name}: voxel_x, voxel_y, voxel_z", "note", "not in the file")


def _shown(
    name: str, sides: dict[str, list[str]], shown: dict[str, set[str]]
) -> Iterator[CheckResult]:
    for side, keys in sides.items():
        shown.setdefault(side, set()).update(keys)
        yield compare_count(f"{name}: {side} pictures", len(set(keys)), _KNOWN[side])
    repeats = set(Counter(sides["test"]).values())
    text = ", ".join(map(str, sorted(repeats)))
    right = repeats == {_KNOWN["repeats"]}
    yield CheckResult(
        f"{name}: repeats of test pictures", "ok" if right else "note", text, str(_KNOWN["repeats"])
    )
    both = set(sides["train"]) & set(sides["test"])
    if both:
        yield CheckResult(
            f"{name}: pictures in training and test",
            "wrong",
            f"{len(both)}, as {min(both)}",
            "0",
            f"these would leak; {_AGAIN}",
        )
    classes = [{category(key) for key in sides[side]} - {""} for side in ("train", "test")]
    if all(classes):
        common = len(classes[0] & classes[1])
        what = f"{name}: categories in training and test"
        yield CheckResult(what, "note" if common else "ok", str(common), "0")


def _voxels(name: str, total: int, sizes: dict[str, int]) -> CheckResult:
    text = ", ".join(f"{roi} {size}" for roi, size in sizes.items())
    return CheckResult(
        f"{name}: voxels",
        "note",
        f"{total} ({text or 'no regions'})",
        "",
        "published counts of VC differ between sources, so the file decides",
    )


def _values(what: str, values: NDArray[Any]) -> CheckResult:
    lost = check_finite_voxels(what, values, _AGAIN)
    if lost:
        return lost[0]
    if not values.size:
        return CheckResult(what, "wrong", "none", "", _AGAIN)
    still = count_constant(values)
    text = f"from {values.min():.3g} to {values.max():.3g}, {still} constant voxels"
    return CheckResult(what, "note" if still else "ok", text)


def _rearranged(
    path: Path, folders: list[Path], shown: dict[str, set[str]]
) -> Iterator[CheckResult]:
    file = NpzFile(path, WHO, INFO.source)
    name = path.name
    with np.errstate(over="ignore", invalid="ignore"):
        train = file.array("arr_0", 2).astype(np.float32)
    yield compare_count(f"{name}: arr_0, training trials", len(train), _KNOWN["train"])
    yield _values(f"{name}: arr_0, responses", train)
    sizes = {roi: int(mask.sum()) for roi, mask in regions(file, train.shape[1]).items()}
    yield _voxels(name, train.shape[1], sizes)
    index = file.array("arr_3", 1)
    listed = picture_list(folders, "train")
    known = len(listed) if listed else None
    base = first_index(index, known, f"arr_3 (training index) of {name}")
    yield CheckResult(
        f"{name}: arr_3, training index",
        "ok" if base == 0 else "note",
        f"begins at {base}",
        "begins at 0",
    )
    if "arr_1" in file and "arr_4" in file:
        yield from _test_trials(file, name)
    elif "arr_2" in file:
        means = file.array("arr_2", 2)
        yield CheckResult(f"{name}: arr_1, test trials", "note", f"only {len(means)} means (arr_2)")
    else:
        yield CheckResult(f"{name}: arr_1, test trials", "missing", advice=_AGAIN)


def _test_trials(file: NpzFile, name: str) -> Iterator[CheckResult]:
    with np.errstate(over="ignore", invalid="ignore"):
        trials, labels = file.array("arr_1", 2).astype(np.float32), file.array("arr_4", 1)
        means = file.array("arr_2", 2).astype(np.float32) if "arr_2" in file else None
    yield compare_count(f"{name}: arr_1, test trials", len(trials), _KNOWN["trials"])
    yield _values(f"{name}: arr_1, responses", trials)
    count = len(means) if means is not None else None
    base = first_index(labels, count, f"arr_4 (test labels) of {name}")
    yield CheckResult(f"{name}: arr_4, test labels", "ok", f"begin at {base}")
    if len(labels) != len(trials):
        yield CheckResult(
            f"{name}: arr_4, test labels", "wrong", str(len(labels)), str(len(trials)), _AGAIN
        )
    elif means is not None and means.shape[1] == trials.shape[1]:
        share = matches(trials, labels.astype(np.int64) - base, means)
        yield CheckResult(
            f"{name}: means of arr_1 by arr_4 against arr_2",
            "ok" if share >= 0.5 else "wrong",
            f"{share:.0%} alike",
            "100%",
            "" if share >= 0.5 else _AGAIN,
        )


def _pictures(folders: list[Path], shown: dict[str, set[str]]) -> Iterator[CheckResult]:
    place = find_pictures(folders, None)
    if place is None:
        yield CheckResult(
            "pictures", "missing", "", "stimuli/training and stimuli/test", ON_REQUEST
        )
        return
    yield from _array(place, folders) if place.is_file() else _files(place, shown)


def _array(place: Path, folders: list[Path]) -> Iterator[CheckResult]:
    arrays = read_pictures(place)
    height, width = arrays["train"].shape[1:3]
    yield CheckResult(place.name, "ok", f"{height} x {width} pixels")
    for which, images in arrays.items():
        yield compare_count(f"{place.name}: {which}_images", len(images), _KNOWN[which])
        listed = picture_list(folders, which)
        if listed is None:
            yield CheckResult(
                f"list of {which} pictures",
                "note",
                "not in the folder",
                "",
                "without a list, pictures have no names",
            )
        elif len(listed) != len(images):
            yield CheckResult(
                f"list of {which} pictures",
                "wrong",
                str(len(listed)),
                str(len(images)),
                "take the list of these pictures",
            )


def _files(place: Path, shown: dict[str, set[str]]) -> Iterator[CheckResult]:
    for which, result in picture_files(place).items():
        wanted = shown.get(which, set())
        lost = sorted(wanted - set(result))
        what = f"{which} picture files"
        if lost:
            yield CheckResult(
                what,
                "missing",
                f"{len(lost)} are missing, as {lost[0]}",
                str(len(wanted)),
                ON_REQUEST,
            )
        else:
            yield compare_count(what, len(result), _KNOWN[which])
