"""Z-scoring of sessions, by default with training trials only.

Every reader that scales goes through `scaling_plan`, which says by which trials each session is
scaled, or raises.  A check calls it before anything is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calcarine.errors import SettingError, ShapeError

_COLUMNS = 256
"""Voxels scaled at a time: few enough for the processor's cache."""

ZScore = Literal["session", "training", "session-all", "none"]
"""By which trials a session is scaled.

``"session"``: its training trials, or all training trials of the subject
where it has fewer than two; ``"training"``: all training trials of the
subject; ``"session-all"``: all its trials, test trials included;
``"none"``: not at all.
"""

Source = Literal["session", "training", "session-all"]

__all__ = [
    "SessionMoments",
    "SessionScaling",
    "Source",
    "ZScore",
    "check_zscore",
    "describe_scaling",
    "mean_and_scale",
    "moments",
    "pooled_moments",
    "scale_sessions",
    "scaling_plan",
    "trials_of_source",
    "zscore_sessions",
]


@dataclass(frozen=True, eq=False)
class SessionScaling:
    """Mean and scale of each session.

    Attributes
    ----------
    sessions
        int, shape (session,).
    mean, scale
        float, shape (session, voxel): ``scaled = (raw - mean) / scale``.
    stimuli
        Stimuli of the trials that mean and scale were computed from.
    method
        How the sessions were scaled; another split is scaled in the same way.
    """

    sessions: NDArray[np.int64]
    mean: NDArray[np.floating]
    scale: NDArray[np.floating]
    stimuli: frozenset[str]
    method: ZScore = "session"

    def __post_init__(self) -> None:
        shape = (len(self.sessions), self.mean.shape[-1])
        if self.mean.shape != shape or self.scale.shape != shape:
            raise ShapeError(
                f"Scaling of {len(self.sessions)} sessions needs a mean and a scale for each, not "
                f"shapes {self.mean.shape} and {self.scale.shape}."
            )

    def undo(
        self, scaled: NDArray[np.float32], sessions: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return responses as they were before scaling.

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


@dataclass(frozen=True, eq=False)
class SessionMoments:
    """Number, mean and sum of squared deviations of trials.

    Attributes
    ----------
    count
        Trials.
    mean, squares
        float64, shape (voxel,).
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: SessionMoments) -> SessionMoments:
        """Return the moments of both groups together (Chan et al. 1979, eq. 2.1)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step**2 * (self.count * other.count / count)
        return SessionMoments(count, mean, squares)


def moments(values: NDArray[np.generic]) -> SessionMoments:
    """Return the moments of trials, shape (trial, voxel); there may be none."""
    mean, squares = np.zeros((2, values.shape[1]))
    for start in range(0, values.shape[1] if len(values) else 0, _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        part = values[:, columns].astype(np.float64)
        mean[columns] = part.mean(0)
        part -= mean[columns]
        squares[columns] = np.einsum("ij,ij->j", part, part)
    return SessionMoments(len(values), mean, squares)


def pooled_moments(parts: Iterable[SessionMoments]) -> SessionMoments:
    """Return the moments of several groups of trials together; at least one group."""
    return reduce(SessionMoments.__add__, parts)


def mean_and_scale(known: SessionMoments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and SD of every voxel; the scale of a constant voxel is 1."""
    spread = np.sqrt(known.squares / known.count)
    # Rounding leaves a constant voxel a spread just above zero.
    spread[spread <= 1e-12 * np.maximum(np.abs(known.mean), 1e-300)] = 1.0
    return known.mean, spread


def check_zscore(zscore: object, who: str) -> ZScore:
    """Return a scaling method, or raise if there is no such method."""
    known = get_args(ZScore)
    if zscore not in known:
        raise SettingError(
            f"{who}: zscore is {', '.join(known[:-1])} or {known[-1]}, not {zscore}."
        )
    return zscore  # type: ignore[return-value]


def scaling_plan(
    sessions: ArrayLike,
    is_train: ArrayLike,
    method: ZScore = "session",
    who: str = "This subject",
) -> dict[int, Source]:
    """Return which trials scale each session.

    Parameters
    ----------
    sessions
        Session of each trial, shape (trial,).
    is_train
        bool, shape (trial,).
    method
        See `ZScore`.
    who
        Whose trials, for the error.

    Returns
    -------
    dict
        Session to ``"session"`` (its training trials), ``"training"`` (all
        training trials of the subject) or ``"session-all"`` (all its trials);
        empty if nothing is scaled.

    Raises
    ------
    CalcarineError
        If there are fewer than two trials to scale a session by.

    Examples
    --------
    >>> scaling_plan([1, 1, 2], [True, True, False])
    {1: 'session', 2: 'training'}
    """
    if method == "none":
        return {}
    labels, train = np.asarray(sessions), np.asarray(is_train, dtype=np.bool_)
    known, row, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if method == "session-all":
        if (counts < 2).any():
            raise SettingError(
                f"{who} has a single trial in session {known[np.argmin(counts)]}; z-scoring by all "
                "trials of a session needs two, so choose zscore: session, training or none."
            )
        return {int(session): "session-all" for session in known}
    own = np.bincount(row[train], minlength=len(known))
    if own.sum() < 2 and len(known):
        raise SettingError(
            f"{who} has {own.sum()} training trials; z-scoring needs two, so choose a split with "
            "more training trials, or zscore: none."
        )
    return {
        int(session): "session" if method == "session" and count >= 2 else "training"
        for session, count in zip(known, own, strict=True)
    }


def trials_of_source(
    source: Source, inside: NDArray[np.bool_], is_train: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which trials determine the mean and scale of a session, shape (trial,)."""
    if source == "training":
        return is_train
    return inside & is_train if source == "session" else inside


def describe_scaling(
    method: ZScore, sessions: ArrayLike, trains: Sequence[NDArray[np.bool_]]
) -> str:
    """Describe in words which trials scale the sessions.

    Parameters
    ----------
    method, sessions
        See `scaling_plan`.
    trains
        Which trials are training, one array a split.
    """
    if method == "none":
        return "not z-scored"
    if method == "session-all":
        return (
            "each session z-scored by all its trials, test trials included: a test response alone "
            "cannot be decoded as it is here"
        )
    if method == "training":
        return "all sessions z-scored by all training trials of the subject"
    plans = [scaling_plan(sessions, train, method) for train in trains]
    lacking = [{key for key, by in plan.items() if by == "training"} for plan in plans]
    some = sorted(set().union(*lacking))
    text = "each session z-scored by its training trials"
    if not some:
        return text
    names = _listed(some)
    if all(one == set(some) for one in lacking):
        return f"{text}; {names} with fewer than two training trials by all training trials"
    return (
        f"{text}; where a split leaves fewer than two in a session ({names}), by all training "
        "trials"
    )


def _listed(sessions: Sequence[int]) -> str:
    shown = ", ".join(map(str, sessions[:10])) + (" and others" if len(sessions) > 10 else "")
    return f"session {shown}" if len(sessions) == 1 else f"sessions {shown}"


def zscore_sessions(
    data: ArrayLike, sessions: ArrayLike, is_train: ArrayLike, method: ZScore = "session"
) -> NDArray[np.float32]:
    """Z-score every session with the mean and SD of training trials.

    Test trials are scaled by the same numbers and never enter them, except
    by ``"session-all"``.

    Parameters
    ----------
    data
        Shape (trial, voxel).
    sessions
        Session of each trial, shape (trial,).
    is_train
        bool, shape (trial,).
    method
        See `ZScore`: by default the training trials of the session itself,
        and all training trials for a session that has fewer than two.

    Returns
    -------
    float32 array of shape (trial, voxel)
        A voxel that is constant over the trials used is only centred.

    Raises
    ------
    CalcarineError
        If shapes differ or there are fewer than two trials to scale by.
    """
    return scale_sessions(data, sessions, is_train, method=method)[0]


def scale_sessions(
    data: ArrayLike,
    sessions: ArrayLike,
    is_train: ArrayLike,
    stimulus_ids: Sequence[str] | None = None,
    method: ZScore = "session",
    who: str = "This subject",
) -> tuple[NDArray[np.float32], SessionScaling]:
    """Z-score as `zscore_sessions` does, and also return the scaling.

    Parameters
    ----------
    data, sessions, is_train, method
        See `zscore_sessions`; the method is not ``"none"``.
    stimulus_ids
        Stimulus of each trial, to record which trials were used.
    who
        Whose trials, for the error.

    Returns
    -------
    scaled, scaling
        float32 of shape (trial, voxel), and a `SessionScaling`.
    """
    values = np.asarray(data)
    labels, train = np.asarray(sessions), np.asarray(is_train)
    if values.ndim != 2 or labels.shape != (len(values),) or train.shape != labels.shape:
        raise ShapeError(
            f"Z-scoring needs a session and a role for each trial, not shapes {labels.shape} "
            f"and {train.shape} for data of shape {values.shape}."
        )
    if train.dtype != np.bool_:
        raise ShapeError(f"is_train must be boolean, not {train.dtype}.")
    plan = scaling_plan(labels, train, method, who)
    known = np.array(sorted(plan), dtype=np.int64)
    own = {
        key: moments(values[trials_of_source(by, labels == key, train)])
        for key, by in plan.items()
        if by != "training"
    }
    whole = moments(values[train]) if "training" in plan.values() else None
    scaled = np.empty(values.shape, dtype=np.float32)
    mean, scale = np.empty((2, len(known), values.shape[1]))
    for row, session in enumerate(known.tolist()):
        inside, used = labels == session, own.get(session, whole)
        assert used is not None
        mean[row], scale[row] = mean_and_scale(used)
        scaled[inside] = (values[inside] - mean[row]) / scale[row]
    rows = np.ones_like(train) if method == "session-all" else train
    used_ids = frozenset(np.asarray(stimulus_ids, dtype=object)[rows]) if stimulus_ids else ()
    return scaled, SessionScaling(known, mean, scale, frozenset(used_ids), method)
