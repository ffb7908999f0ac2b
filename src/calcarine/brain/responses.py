"""Responses of voxels to stimuli, with the coordinates that a data set needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from calcarine.display import html_table
from calcarine.errors import CalcarineError, SettingError, ShapeError

__all__ = [
    "Responses",
    "Role",
    "check_finite",
    "common_session",
    "group_means",
    "make_responses",
    "with_trials",
]

Role = Literal["train", "test"]
_DOUBLES = 2**24


@dataclass(frozen=True, eq=False, repr=False)
class Responses:
    """Responses that know which side of a split they belong to.

    Attributes
    ----------
    data : float32 array of shape (n, voxel)
        Single trials for training, means over repeats for the test.
    stimulus_ids : tuple of str
        Stimulus of each row.
    role : {"train", "test"}
        Only training responses may be used in a fit.
    sessions : int array of shape (n,)
        Session of each row, -1 for a mean over several sessions.

    Raises
    ------
    ShapeError
        If the numbers of rows differ.
    SettingError
        If the role is neither ``"train"`` nor ``"test"``.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> pictures = np.zeros((4, 8, 8, 3), np.uint8)
    >>> shown, ids = ["a", "b", "c", "d", "d"], ["a", "b", "c", "d"]
    >>> betas = [[1, 0], [2, 0], [3, 0], [4, 2], [6, 4]]
    >>> brain = ca.BrainDataset.from_arrays(betas, shown, pictures, image_ids=ids, test=["d"])
    >>> brain.train().stimulus_ids
    ('a', 'b', 'c')
    >>> brain.test().data  # the mean of two trials
    array([[5., 3.]], dtype=float32)
    """

    data: NDArray[np.float32]
    stimulus_ids: tuple[str, ...]
    role: Role
    sessions: NDArray[np.int64]

    def __post_init__(self) -> None:
        rows = len(self.stimulus_ids)
        if self.data.ndim != 2 or len(self.data) != rows or self.sessions.shape != (rows,):
            raise ShapeError(
                f"Responses of shape {self.data.shape} do not fit {rows} stimulus ids and "
                f"sessions of shape {self.sessions.shape}."
            )
        if self.role not in ("train", "test"):
            raise SettingError(f"The role of responses is train or test, not {self.role}.")

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def _summary(self) -> dict[str, object]:
        rows = "trials" if self.role == "train" else "means over repeats"
        return {
            "role": self.role,
            "rows": f"{len(self):,} {rows} of {len(set(self.stimulus_ids)):,} stimuli",
            "voxels": f"{self.data.shape[1]:,}",
            "sessions": len(np.unique(self.sessions[self.sessions >= 0])),
        }

    def __repr__(self) -> str:
        inside = "; ".join(f"{name}: {value}" for name, value in self._summary().items())
        return f"Responses({inside})"

    def _repr_html_(self) -> str:
        return html_table("Responses", self._summary())


def make_responses(
    data: ArrayLike,
    stimulus_ids: list[str] | tuple[str, ...],
    sessions: ArrayLike | None = None,
) -> xr.DataArray:
    """Label trials in order of presentation with stimulus, session and repeat.

    Parameters
    ----------
    data : array of shape (trial, voxel)
    stimulus_ids : list of str
        Stimulus of each trial.
    sessions : array of int of shape (trial,), optional
        Session of each trial; by default all trials are of one session.

    Returns
    -------
    DataArray
        float32, dimensions (trial, voxel). Repeats of a stimulus are numbered from 0.

    Raises
    ------
    ShapeError
        If the lengths differ.
    """
    values = np.asarray(data, dtype=np.float32)
    count = len(stimulus_ids)
    numbers = np.zeros(count, np.int64) if sessions is None else np.asarray(sessions, np.int64)
    if values.ndim != 2 or len(values) != count or numbers.shape != (count,):
        raise ShapeError(
            f"Responses of shape {values.shape} do not fit {count} stimulus ids and "
            f"{numbers.size} sessions; give one of each per trial."
        )
    return with_trials(xr.Variable(("trial", "voxel"), values), stimulus_ids, numbers)


def with_trials(
    values: xr.Variable, stimulus_ids: Sequence[str], sessions: NDArray[np.int64]
) -> xr.DataArray:
    """Add the coordinates that `BrainDataset` needs to an array in memory or on disk.

    Parameters
    ----------
    values : Variable of dimensions (trial, voxel)
    stimulus_ids : sequence of str
        Stimulus of each trial.
    sessions : int array of shape (trial,)
        Session of each trial.
    """
    seen: Counter[str] = Counter()
    repeats = np.empty(len(stimulus_ids), dtype=np.int64)
    for row, key in enumerate(stimulus_ids):
        repeats[row] = seen[key]
        seen[key] += 1
    return xr.DataArray(
        values,
        coords={
            "stimulus": ("trial", np.asarray(stimulus_ids, dtype=str)),
            "session": ("trial", sessions),
            "repeat": ("trial", repeats),
        },
    )


def group_means(
    values: NDArray[Any], owner: NDArray[np.integer], count: int
) -> NDArray[np.float32]:
    """Return the mean over the rows of each group.

    Parameters
    ----------
    values : array of shape (n, voxel)
    owner : int array of shape (n,)
        Group of each row, from 0; every group has at least one row.
    count : int
        Number of groups.

    Returns
    -------
    float32 array of shape (count, voxel)
    """
    repeats = np.bincount(owner, minlength=count)[:, None]
    ones = np.ones(len(owner))
    sums = csr_array((ones, (owner, np.arange(len(owner)))), shape=(count, len(owner)))
    means = np.empty((count, values.shape[1]), dtype=np.float32)
    width = max(1, _DOUBLES // max(1, len(owner)))
    for start in range(0, values.shape[1], width):  # a copy in float64 of some voxels only
        part = np.asarray(values[:, start : start + width], dtype=np.float64)
        means[:, start : start + width] = (sums @ part) / repeats
    return means


def check_finite(values: NDArray[Any], columns: NDArray[np.int64], who: str) -> None:
    """Raise if voxels hold NaN or infinity, and name the first of them.

    Parameters
    ----------
    values : array of shape (n, voxel)
    columns : int array of shape (voxel,)
        Number of each voxel, for the message.
    who : str
        Begins the message.
    """
    bad = columns[~np.isfinite(values).all(axis=0)]
    if len(bad):
        first = ", ".join(str(int(column)) for column in bad[:5])
        more = " and so on" if len(bad) > 5 else ""
        raise CalcarineError(
            f"{who}: {len(bad)} of {len(columns)} voxels hold NaN or infinity (voxel {first}{more})"
            "; drop them before loading."
        )


def common_session(
    sessions: NDArray[np.int64], owner: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the session of each group of rows, -1 for a group from several sessions."""
    low = np.full(count, np.iinfo(np.int64).max)
    high = np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(low, owner, sessions)
    np.maximum.at(high, owner, sessions)
    return np.where(low == high, low, -1)
