"""Responses before their sessions were z-scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calcarine.brain import BrainDataset
from calcarine.brain.dataset import make_responses
from calcarine.errors import CalcarineError


def without_session_scaling(dataset: BrainDataset) -> BrainDataset:
    """The same data with the mean and scale of each session put back.

    Raises
    ------
    CalcarineError
        If the data set does not know what was taken from its sessions.
    """
    if dataset.scaling is None:
        raise CalcarineError(
            f"Data set {dataset.name} keeps no record of how its sessions were scaled, so that "
            "cannot be taken back; use dataset.zscore_sessions=true."
        )
    sessions, columns = dataset.sessions, np.arange(dataset.n_voxels)
    raw = dataset.scaling.undo(np.asarray(dataset.responses.values), sessions, columns)
    responses = make_responses(raw, dataset.trial_stimuli, sessions)
    responses = responses.assign_coords(repeat=dataset.responses.coords["repeat"])
    return replace(dataset, responses=responses, scaling=None)
