"""Handwritten sixes and nines (van Gerven et al. 2010), one subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.core import BrainDataset, make_responses
from calcarine.datasets.provider import DatasetInfo, find_file, pick_subject, read_mat
from calcarine.datasets.splits.split import Split
from calcarine.errors import CalcarineError
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["INFO", "load"]

_FILE = "digit69_28x28.mat"
_FOLDS = 10
_VOXELS = 3092
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
        raise CalcarineError(
            f"Data set digits69: labels in {path} are {sorted(set(labels.tolist()))} and should "
            f"be 1 (six) and 2 (nine); the right file is from {INFO.source}."
        )
    ids = tuple(f"d69-{index:03d}" for index in range(len(labels)))
    pixels = np.concatenate([arrays["stimTrn"], arrays["stimTest"]]).astype(np.uint8)
    brain = np.concatenate([arrays["fmriTrn"], arrays["fmriTest"]])
    nowhere = np.full((_VOXELS, 3), np.nan)
    return BrainDataset(
        name=INFO.name,
        subject=who,
        responses=make_responses(brain, ids),
        voxels=pd.DataFrame(nowhere, columns=["x", "y", "z"]),
        rois={"visual": np.ones(_VOXELS, dtype=np.bool_)},
        stimuli=_stimuli(ids, pixels, labels),
        splits=_folds(ids, labels, seed),
        simulated=False,
        source=INFO.source,
        licence=INFO.licence,
        judge="digits",
    )


def _stimuli(
    ids: tuple[str, ...], pixels: NDArray[np.uint8], labels: NDArray[np.int_]
) -> StimulusSet:
    # MATLAB stores pictures column by column.
    upright = pixels.reshape(-1, 28, 28).transpose(0, 2, 1)
    names = [_NAMES[int(label)] for label in labels]
    return StimulusSet.from_arrays(
        np.ascontiguousarray(np.repeat(upright[..., None], 3, axis=3)),
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
