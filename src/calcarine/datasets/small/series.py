"""Small data sets that hold a time series with a label for each volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import pick_subject
from calcarine.datasets._data_files import find_file, is_simulated
from calcarine.datasets._integer_labels import whole_numbers
from calcarine.datasets._numpy_files import reason
from calcarine.datasets.prepare.events import Drift, Method
from calcarine.datasets.small.blocks import BlockSeries, LeaveOut, block_dataset, simulated_series
from calcarine.datasets.small.pictures import colour_fields, draw_figure
from calcarine.datasets.small.table import HAXBY_SLICE, NCC_S2, SmallDataset
from calcarine.errors import CalcarineError, DamagedFileError
from calcarine.files.hdf5 import open_hdf5

__all__ = ["HAXBY", "NCC", "SeriesForm", "load_series", "write_haxby", "write_ncc"]

_HAXBY_TR, _NCC_TR = 2.5, 2.0
_NCC_RUN = 130  # volumes


@dataclass(frozen=True)
class Series:
    """What the files hold.

    Attributes
    ----------
    blocks : BlockSeries
    places : array of shape (voxel, 3)
        Coordinates in millimetres.
    rois : dict of str to bool array of shape (voxel,)
    """

    blocks: BlockSeries
    places: NDArray[Any]
    rois: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class SeriesForm:
    """How a time series with a label for each volume is read.

    Attributes
    ----------
    read : callable
        Reads `Series` from a folder.
    rest : tuple of str
        Labels of volumes without a stimulus.
    pictures : dict of str to array
        Picture of each category.
    signal_file : str
        The file of the time series.
    """

    read: Callable[[str | Path | None], Series]
    rest: tuple[str, ...]
    pictures: dict[str, NDArray[np.uint8]]
    signal_file: str


def load_series(
    table: SmallDataset,
    form: SeriesForm,
    data: str | Path | None,
    subject: str | None,
    *,
    leave_out: LeaveOut,
    method: Method,
    drift: Drift,
    delay: float,
) -> BrainDataset:
    """Load a data set whose responses are estimated from a time series.

    Parameters
    ----------
    table, form
        The data set.
    data, subject
        See `calcarine.datasets.load_dataset`.
    leave_out, method, drift, delay
        See `calcarine.datasets.small.blocks.block_dataset`.

    Raises
    ------
    CalcarineError
        If a file is missing or damaged, or the files do not fit each other.
    """
    who = pick_subject(table.info, subject)
    series = form.read(data)
    return block_dataset(
        table.info,
        who,
        series.blocks,
        form.rest,
        form.pictures,
        pd.DataFrame(series.places, columns=["x", "y", "z"]),
        series.rois,
        method=method,
        drift=drift,
        delay=delay,
        leave_out=leave_out,
        simulated=is_simulated(find_file(table.info, data, form.signal_file)),
    )


def _read_haxby(data: str | Path | None) -> Series:
    info, (label_file, bold_file, mask_file) = HAXBY_SLICE.info, HAXBY_SLICE.files
    labels, runs = _labels(find_file(info, data, label_file))
    bold, affine = _volume(find_file(info, data, bold_file), 4)
    mask_path = find_file(info, data, mask_file)
    mask, _ = _volume(mask_path, 3)
    inside = whole_numbers(mask, mask_path, "mask") > 0
    if bold.shape[:3] != mask.shape or bold.shape[3] != len(labels) or not inside.any():
        raise DamagedFileError(
            f"Data set {info.name}: {bold_file} of shape {bold.shape}, {mask_file} of shape "
            f"{mask.shape} with {int(inside.sum())} voxels and {len(labels)} lines of {label_file} "
            f"do not fit; the right files are from {info.source}."
        )
    places = np.column_stack([np.argwhere(inside), np.ones(int(inside.sum()))]) @ affine.T
    names = tuple(HAXBY_SLICE.categories.get(label, label) for label in labels)
    values = np.ascontiguousarray(bold[inside].T)
    blocks = BlockSeries(values, names, runs, _HAXBY_TR)
    return Series(blocks, places[:, :3], {"slice": np.ones(int(inside.sum()), bool)})


def _labels(path: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Read what each volume shows, and its run from 1."""
    info = HAXBY_SLICE.info
    try:
        rows = [
            line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        names = tuple(name for name, _ in rows)
        runs = np.array([int(run) for _, run in rows], np.int64) + 1
    except (OSError, ValueError, OverflowError) as error:
        raise DamagedFileError(
            f"Data set {info.name}: lines of {path} should be a category and a run, as 'face 0'; "
            f"get it again from {info.source}."
        ) from error
    if not rows or (np.diff(runs) < 0).any() or runs[0] < 1:
        raise DamagedFileError(
            f"Data set {info.name}: the runs in {path} are not in order; get it again from "
            f"{info.source}."
        )
    return names, runs


def _volume(path: Path, ndim: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a NIfTI file and its affine."""
    import nibabel as nib

    info = HAXBY_SLICE.info
    try:
        image = nib.load(path)
        values = np.asarray(image.dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, dtype=np.float64)  # type: ignore[attr-defined]
        if values.ndim != ndim or not np.isfinite(values).all() or not np.isfinite(affine).all():
            raise ValueError(f"shape {values.shape}, or values that are not finite")
    except Exception as error:  # damage makes nibabel and gzip raise errors of many kinds
        raise DamagedFileError(
            f"Data set {info.name}: {path} is damaged or another volume ({reason(error)}); get it "
            f"again from {info.source}."
        ) from error
    return values, affine


def _read_ncc(data: str | Path | None) -> Series:
    info = NCC_S2.info
    path = find_file(info, data, NCC_S2.file)
    try:
        with open_hdf5(path) as file:
            return _ncc_series(file)
    except CalcarineError:
        raise
    except Exception as error:  # damage makes h5py raise errors of many kinds
        raise DamagedFileError(
            f"Data set {info.name}: {path} is damaged or another file ({reason(error)}); get it "
            f"again from {info.source}."
        ) from error


def _ncc_series(file: Any) -> Series:
    data = np.asarray(file["D/data"], dtype=np.float64).T
    codes = np.asarray(file["D/labels"]).ravel()
    edges = np.asarray(file["D/inds_runs"], dtype=np.float64)
    xyz = np.asarray(file["D/xyz"], dtype=np.float64)
    tr = float(np.asarray(file["P/fMRI/TR"]).ravel()[0])
    names, known = _cell_texts(file, "D/labels_names"), np.unique(codes)
    if len(names) != len(known) or data.ndim != 2 or len(codes) != len(data):
        raise ValueError(f"{len(known)} labels, {len(names)} names, data {data.shape}")
    if xyz.shape != (data.shape[1], 3) or edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"xyz {xyz.shape}, runs {edges.shape}, data {data.shape}")
    runs = np.zeros(len(data), np.int64)
    for number, (first, last) in enumerate(edges, 1):
        runs[int(first) - 1 : int(last)] = number
    if not np.isfinite(data).all() or not np.isfinite(xyz).all() or (runs == 0).any():
        raise ValueError("values are not finite, or volumes belong to no run")
    named = {
        code: NCC_S2.categories.get(name, name) for code, name in zip(known, names, strict=True)
    }
    labels = tuple(named[code] for code in codes)
    return Series(BlockSeries(data, labels, runs, tr), xyz, _ncc_regions(file, data.shape[1]))


def _ncc_regions(file: Any, count: int) -> dict[str, NDArray[np.bool_]]:
    """Read dorsal and ventral V1 of both hemispheres."""
    rois = {"V1": np.ones(count, bool), "V1d": np.zeros(count, bool), "V1v": np.zeros(count, bool)}
    places = np.asarray(file["D/rois_inds"]).ravel()
    for name, place in zip(_cell_texts(file, "D/rois_names"), places, strict=True):
        area = name.rsplit("_", 1)[-1]
        rows = np.asarray(file[place], dtype=np.float64).ravel()
        if area not in rois or rows.min() < 1 or rows.max() > count:
            raise ValueError(f"region {name} does not fit {count} voxels")
        rois[area][rows.astype(np.int64) - 1] = True
    return rois


def _cell_texts(file: Any, name: str) -> list[str]:
    """Read a MATLAB cell array of texts."""
    return [
        "".join(chr(int(code)) for code in np.asarray(file[place]).ravel())
        for place in np.asarray(file[name]).ravel()
    ]


HAXBY = SeriesForm(
    read=_read_haxby,
    rest=("rest",),
    # The files name the category of each block and do not hold the pictures.
    pictures=colour_fields(list(HAXBY_SLICE.categories.values())),
    signal_file="bold.nii.gz",
)

NCC = SeriesForm(
    read=_read_ncc,
    rest=("test pre rest", "test rest"),
    # The file names the figures, which are those of MIYAWAKI_VBCCA.
    pictures={name: draw_figure(name) for name in NCC_S2.categories.values()},
    signal_file=NCC_S2.file,
)


def write_haxby(folder: Path, seed: int) -> None:
    """Write three files with a simulated pattern for each category."""
    import nibabel as nib

    rng = np.random.default_rng(seed)
    n_runs = HAXBY_SLICE.n_sessions or 0
    labels: list[str] = []
    for _ in range(n_runs):
        labels += ["rest"] * 6
        for place, category in enumerate(rng.permutation(list(HAXBY_SLICE.categories))):
            labels += [str(category)] * 9 + ["rest"] * (6 if place in (0, 4, 7) else 5)
    runs = np.repeat(np.arange(n_runs), len(labels) // n_runs)
    inside = np.zeros((40, 20, 1), bool)
    inside.flat[rng.choice(inside.size, HAXBY_SLICE.n_voxels, replace=False)] = True
    affine = np.array(
        [[-3.1, 0, 0, 60.45], [0, 3.75, 0, -35.625], [0, 0, 3.75, 0], [0, 0, 0, 1]], float
    )
    bold = np.zeros((*inside.shape, len(labels)), np.int16)
    series = simulated_series(rng, labels, runs, _HAXBY_TR, HAXBY.rest, HAXBY_SLICE.n_voxels)
    bold[inside] = np.round(series).T
    label_file, bold_file, mask_file = HAXBY_SLICE.files
    text = "".join(f"{label} {run}\n" for label, run in zip(labels, runs, strict=True))
    (folder / label_file).write_text(text)
    nib.save(nib.Nifti1Image(bold, affine), folder / bold_file)
    nib.save(nib.Nifti1Image(inside.astype(np.int16), affine), folder / mask_file)


def write_ncc(folder: Path, seed: int) -> None:
    """Write a file with a simulated pattern for each figure."""
    import h5py

    rng = np.random.default_rng(seed)
    n_runs = NCC_S2.n_sessions or 0
    values: list[int] = []
    for _ in range(n_runs):
        order = np.concatenate([rng.permutation(5), rng.permutation(5)])
        values += [1] * 10
        for figure in order:
            values += [2001 + int(figure)] * 6 + [2] * 6
    names = [*NCC.rest, *map(str, NCC_S2.categories)]
    known = dict(zip([1, 2, *range(2001, 2006)], names, strict=True))
    runs = np.repeat(np.arange(1, n_runs + 1), _NCC_RUN)
    labels = [known[value] for value in values]
    series = simulated_series(rng, labels, runs, _NCC_TR, NCC.rest, NCC_S2.n_voxels)
    edges = [[1 + _NCC_RUN * run, _NCC_RUN * (run + 1)] for run in range(n_runs)]
    places = np.unravel_index(np.arange(NCC_S2.n_voxels), (15, 15, 15))
    with h5py.File(folder / NCC_S2.file, "w") as file:
        group = file.create_group("D")
        group["data"] = np.round(series).T
        group["labels"] = np.array(values, float)[None]
        group["inds_runs"] = np.array(edges, float)
        group["xyz"] = 3.0 * np.stack(places, 1)
        _write_cells(file, "labels_names", [_codes(name) for name in names])
        ends = np.cumsum([0, 338, 124, 224, 224])
        areas = [np.arange(a + 1, b + 1, dtype=float)[:, None] for a, b in pairwise(ends)]
        regions = ("LH_V1d", "LH_V1v", "RH_V1d", "RH_V1v")
        _write_cells(file, "rois_names", [_codes(f"VOX_FAKE_{name}") for name in regions])
        _write_cells(file, "rois_inds", areas)
        file["P/fMRI/TR"] = np.array([[_NCC_TR]])


def _codes(text: str) -> NDArray[np.uint16]:
    return np.array([[ord(letter)] for letter in text], np.uint16)


def _write_cells(file: Any, name: str, values: Sequence[NDArray[np.generic]]) -> None:
    """Write a MATLAB cell array."""
    import h5py

    places = [file.create_dataset(f"#refs#/{name}{i}", data=v) for i, v in enumerate(values)]
    file["D"].create_dataset(
        name, data=np.array([[place.ref] for place in places], object), dtype=h5py.ref_dtype
    )
