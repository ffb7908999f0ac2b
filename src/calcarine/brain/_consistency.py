"""Checks that the parts of a data set fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from calcarine.brain.responses import check_finite
from calcarine.brain.scaling import SessionScaling
from calcarine.brain.split import Split
from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = [
    "check_responses",
    "check_scaling",
    "check_shown",
    "check_splits",
    "check_trials",
    "check_voxels",
]


def check_responses(who: str, responses: xr.DataArray) -> None:
    """Raise unless responses have dimensions, coordinates and finite floating-point values."""
    if responses.dims != ("trial", "voxel"):
        raise ShapeError(f"{who}: responses need dimensions (trial, voxel), not {responses.dims}.")
    for name in ("stimulus", "session", "repeat"):
        coord = responses.coords.get(name)
        if coord is None or coord.dims != ("trial",):
            raise ShapeError(f"{who}: trials have no coordinate {name}; add it.")
    if not np.issubdtype(responses.dtype, np.floating):
        raise ShapeError(f"{who}: responses are {responses.dtype}; make them floating-point.")
    # Arrays on disk are checked when they are read.
    if isinstance(responses.variable._data, np.ndarray):
        check_finite(responses.values, np.arange(responses.sizes["voxel"]), who)


def check_voxels(
    who: str, voxels: pd.DataFrame, rois: Mapping[str, NDArray[Any]], n_voxels: int
) -> None:
    """Raise unless the voxel table and the regions fit the number of voxels."""
    if len(voxels) != n_voxels:
        raise ShapeError(
            f"{who}: the voxel table has {len(voxels)} rows for {n_voxels} voxels of responses."
        )
    missing = [name for name in ("x", "y", "z") if name not in voxels.columns]
    if missing:
        raise ShapeError(f"{who}: the voxel table has no column {missing[0]}.")
    for name, mask in rois.items():
        if mask.dtype != np.bool_ or mask.shape != (n_voxels,):
            raise ShapeError(
                f"{who}: region {name} must be boolean of shape ({n_voxels},), "
                f"not {mask.dtype} of shape {mask.shape}."
            )
        if "+" in name:
            raise SettingError(
                f"{who}: the name of region {name} must not contain a plus, which joins regions."
            )


def check_trials(
    who: str, trial_stimuli: Sequence[str], repeats: Sequence[int], stimuli: StimulusSet
) -> None:
    """Raise unless every trial shows a known stimulus and repeats are numbered."""
    unknown = [key for key in trial_stimuli if key not in stimuli]
    if unknown:
        raise CalcarineError(
            f"{who}: {len(unknown)} trials show stimuli that are not among its "
            f"{len(stimuli)} stimuli, the first {unknown[0]}."
        )
    for (key, repeat), times in Counter(zip(trial_stimuli, repeats, strict=True)).items():
        if times > 1:
            raise CalcarineError(
                f"{who}: repeat {repeat} of stimulus {key} occurs {times} times; "
                "number the repeats of a stimulus."
            )


def check_splits(who: str, splits: Sequence[Split], shown: frozenset[str]) -> None:
    """Raise unless there are splits with different names, of stimuli that were shown."""
    if not splits:
        raise SettingError(f"{who} has no split; give at least one.")
    names = Counter(split.name for split in splits)
    for name, times in names.items():
        if times > 1:
            raise SettingError(f"{who} has {times} splits named {name}; rename one.")
    for split in splits:
        check_shown(who, split, shown)


def check_shown(who: str, split: Split, shown: frozenset[str]) -> None:
    """Raise unless all stimuli of a split were shown."""
    for key in (*split.train, *split.test):
        if key not in shown:
            raise SettingError(
                f"{who}: stimulus {key} of split {split.name} was shown in no trial; "
                "make the split from the stimuli of this subject."
            )


def check_scaling(
    who: str, scaling: SessionScaling | None, sessions: NDArray[np.int64], n_voxels: int
) -> None:
    """Raise unless the scaling covers all voxels and sessions."""
    if scaling is None:
        return
    width = scaling.mean.shape[1]
    if width != n_voxels:
        raise ShapeError(f"{who}: the scaling is for {width} voxels and there are {n_voxels}.")
    if not np.isin(sessions, scaling.sessions).all():
        raise ShapeError(f"{who}: the scaling lacks some of the sessions.")
