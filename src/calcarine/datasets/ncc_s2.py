"""Five figures in V1 (Miyawaki et al. 2008; Yamada et al. 2015, subject 2), as a time series."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo, pick_subject
from calcarine.datasets._arrays import reason
from calcarine.datasets._blocks import BlockSeries, LeaveOut, block_dataset, simulated_series
from calcarine.datasets._find import find_file, is_simulated
from calcarine.datasets._small import check_small, on_github, small_assets
from calcarine.datasets.prepare.events import Drift, Method
from calcarine.errors import CalcarineError, DamagedFileError
from calcarine.files.hdf5 import open_hdf5
from calcarine.quality.findings import CheckResult

__all__ = ["INFO", "assets", "check", "fake", "load"]

_FILE = "miyawaki_NCC_S2_figureImage.mat"
_REST = ("test pre rest", "test rest")
_VOXELS, _RUN, _RUNS, _TR = 910, 130, 4, 2.0
_SIZE = 4_068_848
_COMMIT = "baea6b2821789523f5bf1a015ecb6f6c28b51510"

# Names in the file, and ours: those of the same figures in miyawaki_vbcca.
_NAMES = {
    "square8x8": "small-square",
    "smallFrame8x8": "small-frame",
    "largeFrame8x8": "large-frame",
    "plus8x8": "plus",
    "cross8x8": "cross",
}
_AREAS = ("V1d", "V1v")

INFO = DatasetInfo(
    name="ncc_s2",
    title="Five figures in V1, time series (Yamada et al. 2015, subject 2)",
    simulated=False,
    subjects=("S2",),
    source="github.com/KamitaniLab/NeuralCodeConverter (data/S2_figureImage.mat)",
    licence="ODC-BY",
    needs_folder=True,
    files=(_FILE,),
)


def load(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    leave_out: LeaveOut = "run",
    method: Method = "lsa",
    drift: Drift = "polynomial",
    delay: float = 5.0,
) -> BrainDataset:
    """Load 40 blocks of 12 s: five figures, twice in each of four runs.

    Responses are made from the volumes of each run alone, in percent signal
    change, by `calcarine.datasets.prepare.events.trial_betas`: no mean or
    scale is shared between runs, so none reaches from training to test.

    The file names the figures and does not hold them; they are drawn here
    after those of `miyawaki_vbcca`, which are the same.  With
    ``leave_out="run"`` the figures of the test are in training too, under
    other ids (``plus-run01``, ``plus-run02``): such a split asks whether a
    known figure is recognised.  ``leave_out="category"`` asks for a figure
    never seen.  The first five blocks have one order in all runs.

    Parameters
    ----------
    data
        Folder with ``miyawaki_NCC_S2_figureImage.mat``, or the folder above it.
    subject
        ``"S2"``.
    leave_out
        What a split leaves out: ``"run"`` or ``"category"``.
    method, drift, delay
        How blocks become responses; see `trial_betas`.

    Returns
    -------
    BrainDataset
        910 voxels of V1 (ROIs ``V1``, ``V1d``, ``V1v``) with coordinates;
        pictures of 10 x 10; sessions are runs.

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or not this file.
    """
    who = pick_subject(INFO, subject)
    path = find_file(INFO, data, _FILE)
    series, xyz, rois = _read(path)
    return block_dataset(
        INFO,
        who,
        series,
        _REST,
        {name: _figure(name) for name in _NAMES.values()},
        pd.DataFrame(xyz, columns=["x", "y", "z"]),
        rois,
        method=method,
        drift=drift,
        delay=delay,
        leave_out=leave_out,
        simulated=is_simulated(path),
    )


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Say whether the file is there and holds what is known of it."""
    expected = {
        "trials": "40",
        "voxels": str(_VOXELS),
        "sessions": str(_RUNS),
        "categories": ", ".join(f"{name} 8" for name in sorted(_NAMES.values())),
    }
    return check_small(INFO, data, subject, {_FILE: _SIZE}, load, expected)


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """The one file."""
    place = f"KamitaniLab/NeuralCodeConverter/{_COMMIT}/data/S2_figureImage.mat"
    return small_assets(INFO, subjects, on_github(INFO, place, _SIZE))


def fake(folder: str | Path, *, full_size: bool = False, seed: int = 0) -> None:
    """Write a file with the official names and sizes and a planted pattern for each figure.

    Parameters
    ----------
    folder
        Where to.
    full_size
        Makes no difference: the true sizes are small.
    seed
        Of the content.
    """
    import h5py

    rng = np.random.default_rng(seed)
    official = list(_NAMES)
    values: list[int] = []
    for _ in range(_RUNS):
        order = np.concatenate([rng.permutation(5), rng.permutation(5)])
        values += [1] * 10
        for figure in order:
            values += [2001 + int(figure)] * 6 + [2] * 6
    names = [*_REST, *official]
    known = dict(zip([1, 2, *range(2001, 2006)], names, strict=True))
    labels = [known[value] for value in values]
    runs = np.repeat(np.arange(1, _RUNS + 1), _RUN)
    series = simulated_series(rng, labels, runs, _TR, _REST, _VOXELS)
    with h5py.File(Path(folder) / _FILE, "w") as file:
        group = file.create_group("D")
        group["data"] = np.round(series).T
        group["labels"] = np.array(values, float)[None]
        group["inds_runs"] = np.array([[1 + _RUN * r, _RUN * (r + 1)] for r in range(_RUNS)], float)
        group["xyz"] = 3.0 * np.stack(np.unravel_index(np.arange(_VOXELS), (15, 15, 15)), 1)
        _write_cells(file, "labels_names", [_codes(name) for name in names])
        ends = np.cumsum([0, 338, 124, 224, 224])
        areas = [np.arange(a + 1, b + 1, dtype=float)[:, None] for a, b in pairwise(ends)]
        regions = ("LH_V1d", "LH_V1v", "RH_V1d", "RH_V1v")
        _write_cells(file, "rois_names", [_codes(f"VOX_FAKE_{name}") for name in regions])
        _write_cells(file, "rois_inds", areas)
        file["P/fMRI/TR"] = np.array([[_TR]])


def _codes(text: str) -> NDArray[np.uint16]:
    return np.array([[ord(letter)] for letter in text], np.uint16)


def _write_cells(file: Any, name: str, values: Sequence[NDArray[np.generic]]) -> None:
    import h5py

    places = [file.create_dataset(f"#refs#/{name}{i}", data=v) for i, v in enumerate(values)]
    file["D"].create_dataset(
        name, data=np.array([[place.ref] for place in places], object), dtype=h5py.ref_dtype
    )


def _read(path: Path) -> tuple[BlockSeries, NDArray[np.float64], dict[str, NDArray[np.bool_]]]:
    try:
        with open_hdf5(path) as file:
            return _series(file)
    except CalcarineError:
        raise
    except Exception as error:  # h5py meets damage with errors of many kinds
        raise DamagedFileError(
            f"Data set {INFO.name}: {path} is damaged or not this file ({reason(error)}); get it "
            f"again from {INFO.source}."
        ) from error


def _series(file: Any) -> tuple[BlockSeries, NDArray[np.float64], dict[str, NDArray[np.bool_]]]:
    data = np.asarray(file["D/data"], dtype=np.float64).T
    codes = np.asarray(file["D/labels"]).ravel()
    edges = np.asarray(file["D/inds_runs"], dtype=np.float64)
    xyz = np.asarray(file["D/xyz"], dtype=np.float64)
    tr = float(np.asarray(file["P/fMRI/TR"]).ravel()[0])
    names, known = _texts(file, "D/labels_names"), np.unique(codes)
    if len(names) != len(known) or data.ndim != 2 or len(codes) != len(data):
        raise ValueError(f"{len(known)} labels, {len(names)} names, data {data.shape}")
    if xyz.shape != (data.shape[1], 3) or edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"xyz {xyz.shape}, runs {edges.shape}, data {data.shape}")
    runs = np.zeros(len(data), np.int64)
    for number, (first, last) in enumerate(edges, 1):
        runs[int(first) - 1 : int(last)] = number
    if not np.isfinite(data).all() or not np.isfinite(xyz).all() or (runs == 0).any():
        raise ValueError("values are not finite, or volumes belong to no run")
    named = {code: _NAMES.get(name, name) for code, name in zip(known, names, strict=True)}
    labels = tuple(named[code] for code in codes)
    return BlockSeries(data, labels, runs, tr), xyz, _areas(file, data.shape[1])


def _areas(file: Any, count: int) -> dict[str, NDArray[np.bool_]]:
    """Dorsal and ventral V1 of both hemispheres."""
    rois = {"V1": np.ones(count, bool), **{name: np.zeros(count, bool) for name in _AREAS}}
    places = np.asarray(file["D/rois_inds"]).ravel()
    for name, place in zip(_texts(file, "D/rois_names"), places, strict=True):
        area = name.rsplit("_", 1)[-1]
        rows = np.asarray(file[place], dtype=np.float64).ravel()
        if area not in rois or rows.min() < 1 or rows.max() > count:
            raise ValueError(f"region {name} does not fit {count} voxels")
        rois[area][rows.astype(np.int64) - 1] = True
    return rois


def _texts(file: Any, name: str) -> list[str]:
    """A cell array of texts."""
    return [
        "".join(chr(int(code)) for code in np.asarray(file[place]).ravel())
        for place in np.asarray(file[name]).ravel()
    ]


def _figure(name: str) -> NDArray[np.uint8]:
    """One figure, white on black, 10 x 10 pixels."""
    lit = np.zeros((10, 10), bool)
    if name in ("small-square", "small-frame"):
        lit[3:7, 3:7] = True
        lit[4:6, 4:6] = name == "small-square"
    elif name == "large-frame":
        lit[1:9, 1:9] = True
        lit[3:7, 3:7] = False
    elif name == "plus":
        lit[1:9, 4:6] = lit[4:6, 1:9] = True
    else:
        row, column = np.mgrid[1:9, 1:9]
        lit[1:9, 1:9] = (abs(row - column) <= 1) | (abs(row + column - 9) <= 1)
        # As shown: the two ends of each arm are two squares wide.
        lit[[1, 8]] = False
        lit[np.ix_([1, 8], [1, 2, 7, 8])] = True
    return np.repeat((lit * np.uint8(255))[..., None], 3, axis=2)
