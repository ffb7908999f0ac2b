"""Scaling of sessions by training trials alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import CalcarineError

_COLUMNS = 256
"""Voxels scaled at a time: few enough for the processor's cache."""

__all__ = ["SessionScaling", "scale_sessions", "session_scaling", "zscore_sessions"]


@dataclass(frozen=True, eq=False)
class SessionScaling:
    """Mean and scale that were taken from each session.

    Attributes
    ----------
    sessions
        int, shape (session,).
    mean, scale
        float, shape (session, voxel): ``scaled = (raw - mean) / scale``.
    stimuli
        Stimuli whose trials gave mean and scale.
    """

    sessions: NDArray[np.int64]
    mean: NDArray[np.floating]
    scale: NDArray[np.floating]
    stimuli: frozenset[str]

    def __post_init__(self) -> None:
        shape = (len(self.sessions), self.mean.shape[-1])
        if self.mean.shape != shape or self.scale.shape != shape:
            raise CalcarineError(
                f"Scaling of {len(self.sessions)} sessions needs a mean and a scale for each, not "
                f"shapes {self.mean.shape} and {self.scale.shape}."
            )

    def undo(
        self, scaled: NDArray[np.float32], sessions: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Responses as they were before scaling.

        Parameters
        ----------
        scaled
            Shape (trial, chosen voxels).
        sessions
            Session of each trial.
        columns
            Which voxels were chosen.
        """
        order = np.argsort(self.sessions)
        place = order[np.searchsorted(self.sessions, sessions, sorter=order)]
        raw = np.empty_like(scaled)
        for row in np.unique(place):
            inside = place == row
            raw[inside] = scaled[inside] * self.scale[row, columns] + self.mean[row, columns]
        return raw


def session_scaling(
    values: NDArray[np.generic], who: str = "This session"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and SD of one session's training trials, for every voxel.

    Parameters
    ----------
    values
        Training trials of one session, shape (trial, voxel).
    who
        What the values are, for the error.

    Returns
    -------
    mean, scale
        Shape (voxel,); the scale of a constant voxel is 1.

    Raises
    ------
    CalcarineError
        If there are fewer than two trials.
    """
    if len(values) < 2:
        raise CalcarineError(
            f"{who} has {len(values)} training trials; z-scoring needs two, so choose a split with "
            "training trials in every session, or no scaling."
        )
    mean, spread = np.empty((2, values.shape[1]))
    for start in range(0, values.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        part = values[:, columns].astype(np.float64)
        mean[columns] = part.mean(0)
        part -= mean[columns]
        spread[columns] = np.sqrt(np.einsum("ij,ij->j", part, part) / len(part))
    # Rounding leaves a constant voxel a spread just above zero.
    spread[spread <= 1e-12 * np.maximum(np.abs(mean), 1e-300)] = 1.0
    return mean, spread


def zscore_sessions(
    data: ArrayLike, sessions: ArrayLike, is_train: ArrayLike
) -> NDArray[np.float32]:
    """Z-score every session with the mean and SD of its training trials.

    Test trials are scaled by the same numbers and never enter them.

    Parameters
    ----------
    data
        Shape (trial, voxel).
    sessions
        Session of each trial, shape (trial,).
    is_train
        bool, shape (trial,).

    Returns
    -------
    float32 array of shape (trial, voxel)
        A voxel that is constant over a session's training trials is only centred.

    Raises
    ------
    CalcarineError
        If shapes differ or a session has fewer than two training trials.
    """
    return scale_sessions(data, sessions, is_train)[0]


def scale_sessions(
    data: ArrayLike,
    sessions: ArrayLike,
    is_train: ArrayLike,
    stimulus_ids: Sequence[str] | None = None,
) -> tuple[NDArray[np.float32], SessionScaling]:
    """Z-score as `zscore_sessions` does, and tell with what.

    Parameters
    ----------
    data, sessions, is_train
        See `zscore_sessions`.
    stimulus_ids
        Stimulus of each trial, for the record of whose trials were used.

    Returns
    -------
    scaled, scaling
        float32 of shape (trial, voxel), and a `SessionScaling`.
    """
    values = np.asarray(data)
    labels, train = np.asarray(sessions), np.asarray(is_train)
    if values.ndim != 2 or labels.shape != (len(values),) or train.shape != labels.shape:
        raise CalcarineError(
            f"Z-scoring needs a session and a role for each trial, not shapes {labels.shape} "
            f"and {train.shape} for data of shape {values.shape}."
        )
    if train.dtype != np.bool_:
        raise CalcarineError(f"is_train must be boolean, not {train.dtype}.")
    known = np.unique(labels)
    scaled = np.empty(values.shape, dtype=np.float32)
    mean, scale = np.empty((2, len(known), values.shape[1]))
    for row, session in enumerate(known):
        inside = labels == session
        mean[row], scale[row] = session_scaling(values[inside & train], f"Session {session}")
        scaled[inside] = (values[inside] - mean[row]) / scale[row]
    used = (
        ()
        if stimulus_ids is None
        else (key for key, own in zip(stimulus_ids, train, strict=True) if own)
    )
    return scaled, SessionScaling(known.astype(np.int64), mean, scale, frozenset(used))
