"""Checks of betas, masks, pictures and captions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from calcarine.datasets.nsd.annotations import Annotations, elements
from calcarine.datasets.nsd.betas import session_shape
from calcarine.datasets.nsd.design import read_stim_info
from calcarine.datasets.nsd.files import (
    message_without_name,
    read_label_names,
    read_labels,
    read_volume,
)
from calcarine.datasets.nsd.layout import (
    ATLASES,
    COCO_SPLITS,
    DIMS,
    N_IMAGES,
    NSDGENERAL,
    PICTURE,
    SESSIONS,
    TAKAGI_SESSIONS,
    NSDLayout,
)
from calcarine.errors import CalcarineError
from calcarine.files.hdf5 import open_hdf5
from calcarine.quality.check_results import CheckResult, Status
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["Grid", "check_betas", "check_captions", "check_masks", "check_pictures"]

Grid = tuple[int, ...]


def check_betas(layout: NSDLayout, trials: pd.DataFrame | None) -> Iterator[CheckResult]:
    """Check the sessions on disk, their shapes, and the noise ceiling."""
    there = layout.sessions()
    official = SESSIONS[layout.subject]
    if not there:
        yield CheckResult(
            "betas",
            "missing",
            "no sessions",
            f"{official} sessions",
            f"get {layout.origin(layout.session(1))} and so on",
        )
    else:
        yield _sessions(layout, there, official)
    grid = _mask_grid(layout)
    lengths: dict[int, int] = {}
    if trials is not None:
        numbers, counts = np.unique(trials["session"].to_numpy(), return_counts=True)
        lengths = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    good: list[int] = []
    for number in there:
        problem = _session_problem(layout, number, grid, lengths)
        if problem:
            yield CheckResult(
                layout.session(number).name, "wrong", problem, "", "get the file again"
            )
        else:
            good.append(number)
    if good:
        known = "the same as masks and responses" if grid and lengths else ""
        yield CheckResult("betas' shapes", "ok", f"{len(good)} sessions fit", known)
    yield from _ncsnr(layout, grid)


def _sessions(layout: NSDLayout, there: tuple[int, ...], official: int) -> CheckResult:
    missing = sorted(set(range(1, official + 1)) - set(there))
    result = f"{len(there)} sessions, {there[0]} to {there[-1]}"
    expected = f"{official} officially; Takagi & Nishimoto used 1 to {TAKAGI_SESSIONS}"
    if not missing:
        return CheckResult("betas", "ok", result, expected)
    advice = f"the first that is not here: {layout.origin(layout.session(missing[0]))}"
    # Nobody scans session 4 without 3: a gap is a file that got lost, and its trials would too.
    gaps = [number for number in missing if number < there[-1]]
    if gaps:
        lost = ", ".join(map(str, gaps))
        return CheckResult("betas", "missing", f"{result}, without {lost}", expected, advice)
    return CheckResult("betas", "note", result, expected, advice)


def _mask_grid(layout: NSDLayout) -> Grid | None:
    for path in (layout.roi("nsdgeneral"), layout.roi("streams"), layout.brainmask):
        try:
            if path.is_file():
                return read_labels(path)[0].shape
        except CalcarineError:
            continue
    return None


def _session_problem(
    layout: NSDLayout, number: int, grid: Grid | None, lengths: dict[int, int]
) -> str:
    try:
        shape = session_shape(layout.session(number))
    except CalcarineError as error:
        return message_without_name(error)
    if grid and shape.grid[::-1] != grid:
        turned = " (axes in the opposite order)" if shape.grid == grid else ""
        return f"{shape.grid[::-1]} voxels (X, Y, Z), masks have {grid}{turned}"
    if lengths and lengths.get(number) != shape.trials:
        return f"{shape.trials} trials, responses.tsv has {lengths.get(number, 0)}"
    return ""


def _ncsnr(layout: NSDLayout, grid: Grid | None) -> Iterator[CheckResult]:
    if not layout.ncsnr.is_file():
        others = [path.name for path in layout.betas.glob("*ncsnr*")]
        advice = (
            f"give {others[0]} its official name back, ncsnr.nii.gz"
            if others
            else f"get {layout.origin(layout.ncsnr)}"
        )
        yield CheckResult("ncsnr.nii.gz", "missing", ", ".join(others), "noise ceilings", advice)
        return
    shape = read_volume(layout.ncsnr)[0].shape
    fits = grid is None or shape == grid
    yield CheckResult(
        "ncsnr.nii.gz",
        "ok" if fits else "wrong",
        f"{shape} (X, Y, Z)",
        f"{grid}" if grid else "",
        "" if fits else "get the file again",
    )


def check_masks(layout: NSDLayout) -> Iterator[CheckResult]:
    """Check masks and atlases with their label tables, their shapes and sizes."""
    grid: Grid | None = None
    for name in ("nsdgeneral", *ATLASES, "brainmask"):
        path = layout.brainmask if name == "brainmask" else layout.roi(name)
        if not path.is_file():
            yield CheckResult(path.name, "missing", advice=f"get {layout.origin(path)}")
            continue
        try:
            labels = read_labels(path)[0]
        except CalcarineError as error:
            yield CheckResult(
                path.name, "wrong", message_without_name(error), "", "get the file again"
            )
            continue
        if grid is None:
            grid = labels.shape
            yield _dims(layout, labels.shape)
        if labels.shape != grid:
            text = f"{labels.shape} voxels (X, Y, Z)"
            yield CheckResult(path.name, "wrong", text, f"{grid}", "get the file again")
        yield from _labels(layout, name, labels)


def _dims(layout: NSDLayout, found: Grid) -> CheckResult:
    official = DIMS[layout.subject]
    status: Status = "ok" if found == official else "note"
    if found == official[::-1]:
        return CheckResult(
            "volume",
            "wrong",
            f"{found} voxels",
            f"{official} (X, Y, Z)",
            "the axes are in the opposite order: get the masks again",
        )
    return CheckResult("volume", status, f"{found} voxels (X, Y, Z)", f"officially {official}")


def _labels(layout: NSDLayout, name: str, labels: np.ndarray) -> Iterator[CheckResult]:
    inside = int((labels > 0).sum())
    if name not in ATLASES:
        official = NSDGENERAL[layout.subject] if name == "nsdgeneral" else None
        status: Status = "ok" if official in (None, inside) else "note"
        text = f"officially {official}" if official else ""
        yield CheckResult(name, status, f"{inside} voxels", text)
        return
    path, names = layout.labels(name), ATLASES[name]
    if path.is_file():
        names = read_label_names(path)
        differs = names != ATLASES[name]
        yield CheckResult(
            path.name,
            "note" if differs else "ok",
            ", ".join(names.values()),
            ", ".join(ATLASES[name].values()) if differs else "",
        )
    else:
        advice = f"the known names are used; get {layout.origin(path)}"
        yield CheckResult(path.name, "missing", advice=advice)
    sizes = ", ".join(f"{known} {int((labels == value).sum())}" for value, known in names.items())
    unknown = sorted(set(np.unique(labels[labels > 0]).tolist()) - set(names))
    if unknown:
        yield CheckResult(
            name,
            "wrong",
            f"label {unknown[0]} has no name",
            ", ".join(map(str, names)),
            "get the volume and its label table again",
        )
    else:
        yield CheckResult(name, "ok", f"{inside} voxels: {sizes}")


def check_pictures(layout: NSDLayout) -> Iterator[CheckResult]:
    """Check the file of pictures."""
    path = layout.stimuli
    if not path.is_file():
        yield CheckResult(path.name, "missing", advice=f"get {layout.origin(path)}")
        return
    pictures = StimulusSet.from_hdf5(path, "imgBrick", [0], ["first"])
    pictures.image("first")
    with open_hdf5(path) as file:
        count = len(file["imgBrick"])
    height, width = pictures.size
    listed = len(read_stim_info(layout)) if layout.stim_info.is_file() else 0
    if listed > count:
        text = f"{listed} as in {layout.stim_info.name}"
        yield CheckResult(path.name, "wrong", f"{count} pictures", text, "get the file again")
        return
    fits = (count, height, width) == (N_IMAGES, PICTURE, PICTURE)
    yield CheckResult(
        path.name,
        "ok" if fits else "note",
        f"{count} pictures of {height} x {width}",
        f"officially {N_IMAGES} of {PICTURE} x {PICTURE}, rows from 0",
    )


def check_captions(layout: NSDLayout) -> Iterator[CheckResult]:
    """Check COCO's files; captions are read, of the large files of objects only the beginning."""
    for kind, split in product(("captions", "instances"), COCO_SPLITS):
        path = layout.annotations(kind, split)
        if not path.is_file():
            advice = f"get {layout.origin(path)} and unpack it to {path.parent}"
            yield CheckResult(path.name, "missing", "", f"COCO's {kind}", advice)
            continue
        try:
            yield CheckResult(path.name, "ok", _content(path, kind))
        except CalcarineError as error:
            yield CheckResult(
                path.name, "wrong", message_without_name(error), "", f"get {layout.origin(path)}"
            )
    if layout.stim_info.is_file() and layout.annotations("captions", COCO_SPLITS[0]).is_file():
        # Reads columns of the table of pictures that nothing else does.
        Annotations(layout, [0], (1, 1)).captions("nsd-00000")


def _content(path: Path, kind: str) -> str:
    entries = elements(path, ("annotations",))
    if kind == "captions":
        return f"{sum(1 for _ in entries)} captions"
    return "is there" if next(entries, None) is not None else "is there, without objects"
