"""Undoing the z-scoring of sessions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calcarine.brain import BrainDataset
from calcarine.brain.responses import make_responses
from calcarine.errors import SettingError

__all__ = ["without_session_scaling"]


def without_session_scaling(dataset: BrainDataset) -> BrainDataset:
    """Return a data set with the mean and scale of each session put back.

    Raises
    ------
    CalcarineError
        If the data set keeps no record of its scaling.
    """
    if dataset.scaling is None:
        raise SettingError(
            f"Data set {dataset.name} keeps no record of how its sessions were scaled, so the "
            "scaling cannot be undone; use dataset.zscore_sessions=true."
        )
    sessions, columns = dataset.sessions, np.arange(dataset.n_voxels)
    raw = dataset.scaling.undo(np.asarray(dataset.responses.values), sessions, columns)
    responses = make_responses(raw, dataset.trial_stimuli, sessions)
    responses = responses.assign_coords(repeat=dataset.responses.coords["repeat"])
    return replace(dataset, responses=responses, scaling=None)
