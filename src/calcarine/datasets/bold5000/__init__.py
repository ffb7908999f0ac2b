"""BOLD5000 (Chang et al. 2019), release 2: GLMsingle betas of five visual regions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import pick_subject
from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import SessionScaling, ZScore, check_zscore, scale_sessions
from calcarine.brain.split import Split
from calcarine.datasets._data_files import is_simulated
from calcarine.datasets._numpy_files import open_npy
from calcarine.datasets.bold5000._check import check
from calcarine.datasets.bold5000._fake import fake
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
from calcarine.datasets.bold5000._pictures import bold5000_stimuli
from calcarine.errors import DamagedFileError, MissingFileError, SettingError

__all__ = ["INFO", "assets", "check", "fake", "load"]


def load(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    size: int = 256,
    zscore: ZScore = "session",
) -> BrainDataset:
    """Load all trials of one subject.

    Parameters
    ----------
    data : str or Path, optional
        Folder with ``BOLD5000_GLMsingle_ROI_betas`` and ``BOLD5000_Stimuli``,
        or the folder above it.
    subject : str, optional
        ``"CSI1"`` to ``"CSI4"``; the fourth did not finish all sessions.
    size : int
        Side in pixels to which pictures are cropped and resized; they were
        shown in several sizes.
    zscore : str
        ``"session"``: every session by mean and SD of its training trials
        (of all training trials where it has fewer than two); ``"training"``:
        by all training trials; ``"session-all"``: every session by all its
        trials, test trials included; ``"none"``: betas as they are.

    Returns
    -------
    BrainDataset
        Stimuli are named as their files.  Regions are EarlyVis, LOC, OPA,
        PPA and RSC, each of both hemispheres and as ``LHLOC`` and so on;
        ``early`` is EarlyVis and ``ventral`` the other four.  Split
        ``repeated113``: the pictures shown repeatedly are the test.  Trials
        have the coordinates ``run`` and ``marked_repeat``.

    Raises
    ------
    CalcarineError
        If a file is missing or damaged, or betas and lists do not agree.

    Examples
    --------
    >>> from calcarine.datasets import bold5000, write_fake_dataset
    >>> write_fake_dataset("bold5000", "bold", people=["CSI1"], voxels=10, size=32)
    >>> brain = bold5000.load("bold", "CSI1", size=32)
    >>> brain.split().name, "PPA" in brain.rois
    ('repeated113', True)
    """
    who = pick_subject(INFO, subject)
    check_zscore(zscore, WHO)
    if size < 1:
        raise SettingError(f"{WHO}: size is {size}; give at least 1.")
    layout = find_layout(data)
    trials = read_trials(layout, who)
    betas, voxels = _betas(layout, who, trials)
    split = _split(layout, who, trials)
    scaling: SessionScaling | None = None
    if zscore != "none":
        train = np.isin(trials.stimuli, split.train)
        _check_finite(betas, who)
        betas, scaling = scale_sessions(
            betas, trials.sessions, train, trials.stimuli, zscore, f"{WHO}, subject {who}"
        )
    responses = make_responses(betas, trials.stimuli, trials.sessions)
    names = tuple(dict.fromkeys(trials.stimuli))
    return BrainDataset(
        name=INFO.name,
        subject=who,
        responses=responses.assign_coords(
            run=("trial", trials.runs), marked_repeat=("trial", trials.marked)
        ),
        voxels=voxels,
        rois=_rois(voxels),
        stimuli=bold5000_stimuli(layout, names, size),
        splits=(split,),
        simulated=is_simulated(layout.root),
        source=INFO.source,
        licence=INFO.licence,
        scaling=scaling,
    )


def _betas(
    layout: BOLD5000Layout, subject: str, trials: TrialList
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Return the betas of all regions side by side, and the region of each column."""
    parts, rows = [], []
    for region in REGIONS:
        for side in HEMISPHERES:
            path = layout.betas / beta_name(subject, side, region)
            if not path.is_file():
                raise MissingFileError(
                    f"{WHO}: {path} does not exist; it is in BOLD5000_GLMsingle_ROI_betas.zip of "
                    f"{INFO.source}."
                )
            values = open_npy(path, WHO, INFO.source)
            if values.ndim != 2 or len(values) != len(trials.stimuli):
                raise DamagedFileError(
                    f"{WHO}: {path.name} is of shape {values.shape} and the presentation lists of "
                    f"{subject} list {len(trials.stimuli)} trials; both should be of the same "
                    "release and whole."
                )
            parts.append(values)
            rows += [(side, region)] * values.shape[1]
    joined = np.empty((len(trials.stimuli), len(rows)), dtype=np.float32)
    start = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for values in parts:
            joined[:, start : start + values.shape[1]] = values
            start += values.shape[1]
    table = pd.DataFrame(rows, columns=["hemisphere", "region"])
    return joined, table.assign(x=np.nan, y=np.nan, z=np.nan)


def _check_finite(betas: NDArray[np.float32], subject: str) -> None:
    bad = int((~np.isfinite(betas)).any(axis=0).sum())
    if bad:
        raise DamagedFileError(
            f"{WHO}: {bad} of {betas.shape[1]} voxels of {subject} hold NaN or infinity; get the "
            f"betas again from {INFO.source}."
        )


def _rois(voxels: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    region, side = voxels["region"].to_numpy(), voxels["hemisphere"].to_numpy()
    results = {name: region == name for name in REGIONS}
    results |= {
        f"{s}{name}": (region == name) & (side == s) for name in REGIONS for s in HEMISPHERES
    }
    results |= {"early": region == "EarlyVis", "ventral": region != "EarlyVis"}
    return {name: np.asarray(mask, dtype=np.bool_) for name, mask in results.items() if mask.any()}


def _split(layout: BOLD5000Layout, subject: str, trials: TrialList) -> Split:
    shown = set(trials.stimuli)
    listed = repeated_list(layout)
    test = [name for name in listed if name in shown]
    if not test:
        raise DamagedFileError(
            f"{WHO}: none of the {len(listed)} pictures of repeated_stimuli_113_list.txt is in the "
            f"presentation lists of {subject}; both should be from BOLD5000_Stimuli.zip."
        )
    inside = set(test)
    train = [name for name in dict.fromkeys(trials.stimuli) if name not in inside]
    return Split(
        "repeated113",
        tuple(train),
        tuple(test),
        "pictures of repeated_stimuli_113_list.txt are the test, all others training",
    )


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """Return nothing: release 2 must be downloaded from bold5000.org; see ``INFO.access``.

    Examples
    --------
    >>> from calcarine.datasets import bold5000
    >>> bold5000.assets()
    []
    """
    return []
