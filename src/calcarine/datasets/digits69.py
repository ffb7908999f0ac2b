"""Handwritten sixes and nines (van Gerven et al. 2010), one subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset, make_responses
from calcarine.brain.info import DatasetInfo, pick_subject
from calcarine.brain.split import Split
from calcarine.datasets._find import find_file, is_simulated, read_mat
from calcarine.datasets._small import (
    check_small,
    nowhere,
    on_github,
    planted,
    small_assets,
    upright,
)
from calcarine.errors import DamagedFileError
from calcarine.quality.findings import CheckResult
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["INFO", "assets", "check", "fake", "load"]

_FILE = "digit69_28x28.mat"
_FOLDS = 10
_VOXELS = 3092
_SIZE = 2_390_173
_COMMIT = "286503c79b010fd285065da7092ca43f873c1f58"
_NAMES = {1: "six", 2: "nine"}

INFO = DatasetInfo(
    name="digits69",
    title="Handwritten sixes and nines in visual cortex (van Gerven et al. 2010)",
    simulated=False,
    subjects=("S1",),
    source="Donders repository DSC_2018.00112_485 (this file: github.com/ChangdeDu/DGMM)",
    licence="none stated: do not redistribute",
    needs_folder=True,
    files=(_FILE,),
)


def load(
    data: str | Path | None = None, subject: str | None = None, *, seed: int = 0
) -> BrainDataset:
    """Load 100 trials, one of each of 100 handwritten digits.

    Parameters
    ----------
    data
        Folder with ``digit69_28x28.mat``, or the folder above it.
    subject
        ``"S1"``.
    seed
        Of the assignment of stimuli to the ten folds.

    Returns
    -------
    BrainDataset
        3092 voxels of visual cortex (ROI ``visual``); pictures of 28 x 28;
        splits ``fold-00`` to ``fold-09``, each with five sixes and five nines
        in test.  The file tells neither places of voxels nor sessions.

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or not this file.
    """
    who = pick_subject(INFO, subject)
    path = find_file(INFO, data, _FILE)
    arrays = read_mat(
        INFO,
        path,
        {
            "fmriTrn": (90, _VOXELS),
            "fmriTest": (10, _VOXELS),
            "stimTrn": (90, 784),
            "stimTest": (10, 784),
            "labelTrn": (90, 1),
            "labelTest": (10, 1),
        },
    )
    labels = np.concatenate([arrays["labelTrn"], arrays["labelTest"]]).ravel().astype(int)
    if set(labels.tolist()) != set(_NAMES):
        raise DamagedFileError(
            f"Data set digits69: labels in {path} are {sorted(set(labels.tolist()))} and should "
            f"be 1 (six) and 2 (nine); the right file is from {INFO.source}."
        )
    ids = tuple(f"d69-{index:03d}" for index in range(len(labels)))
    pixels = np.concatenate([arrays["stimTrn"], arrays["stimTest"]]).astype(np.uint8)
    brain = np.concatenate([arrays["fmriTrn"], arrays["fmriTest"]])
    return BrainDataset(
        name=INFO.name,
        subject=who,
        responses=make_responses(brain, ids),
        voxels=nowhere(_VOXELS),
        rois={"visual": np.ones(_VOXELS, dtype=np.bool_)},
        stimuli=_stimuli(ids, pixels, labels),
        splits=_folds(ids, labels, seed),
        simulated=is_simulated(path),
        source=INFO.source,
        licence=INFO.licence,
        judge="digits",
    )


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Say whether the file is there and holds what is known of it."""
    expected = {
        "trials": "100",
        "voxels": str(_VOXELS),
        "stimuli": "100",
        "categories": "nine 50, six 50",
    }
    return check_small(INFO, data, subject, {_FILE: _SIZE}, load, expected)


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """The one file."""
    place = f"ChangdeDu/DGMM/{_COMMIT}/{_FILE}"
    return small_assets(INFO, subjects, on_github(INFO, place, _SIZE))


def fake(folder: str | Path, *, full_size: bool = False, seed: int = 0) -> None:
    """Write a file with the official names and shapes: drawn digits, planted responses.

    Parameters
    ----------
    folder
        Where to.
    full_size
        Makes no difference: the true size is small.
    seed
        Of the content.
    """
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 2, 1, 2], [45, 45, 5, 5])
    pictures = np.stack([_drawn(rng, int(label)) for label in labels])
    brain = planted(rng, pictures.reshape(100, -1) / 255.0, _VOXELS, noise=1.0)
    # MATLAB stores pictures column by column.
    columns = pictures.transpose(0, 2, 1).reshape(100, -1)
    content: dict[str, NDArray[np.generic]] = {
        "fmri": brain,
        "stim": columns,
        "label": labels.astype(np.uint8)[:, None],
    }
    parts = {f"{name}Trn": values[:90] for name, values in content.items()}
    parts |= {f"{name}Test": values[90:] for name, values in content.items()}
    savemat(Path(folder) / _FILE, parts, do_compression=True)


def _drawn(rng: np.random.Generator, label: int) -> NDArray[np.uint8]:
    """A ring with a stem above it (a six), or turned by half a turn (a nine)."""
    rows, columns = np.mgrid[:28, :28].astype(float)
    row, column, radius = rng.uniform(17, 19), rng.uniform(12, 16), rng.uniform(4, 6)
    ring = np.abs(np.hypot(rows - row, columns - column) - radius)
    stem = np.abs(columns - (column - radius + rng.uniform(0, 2)))
    stem = np.where((rows > 4) & (rows < row), stem, 99.0)
    ink = np.clip(2.2 - np.minimum(ring, stem), 0, 1)
    picture = np.round(255 * ink).astype(np.uint8)
    return picture if label == 1 else picture[::-1, ::-1]


def _stimuli(
    ids: tuple[str, ...], pixels: NDArray[np.uint8], labels: NDArray[np.int_]
) -> StimulusSet:
    names = [_NAMES[int(label)] for label in labels]
    return StimulusSet.from_arrays(
        upright(pixels, 28),
        ids,
        captions=[
            (
                f"a handwritten {name}",
                f"the digit {name} written by hand",
                f"a picture of a handwritten {name}",
                f"a white {name} in black",
                f"there is a handwritten {name}",
            )
            for name in names
        ],
        categories=names,
    )


def _folds(ids: tuple[str, ...], labels: NDArray[np.int_], seed: int) -> tuple[Split, ...]:
    """Ten folds with as many sixes as nines in each."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(ids), dtype=np.int64)
    for label in _NAMES:
        members = rng.permutation(np.flatnonzero(labels == label))
        fold[members] = np.arange(len(members)) % _FOLDS
    return tuple(
        Split(
            name=f"fold-{number:02d}",
            train=tuple(key for key, own in zip(ids, fold, strict=True) if own != number),
            test=tuple(key for key, own in zip(ids, fold, strict=True) if own == number),
            rule=f"fold {number} of {_FOLDS}, shuffled within each digit",
            seed=seed,
        )
        for number in range(_FOLDS)
    )
