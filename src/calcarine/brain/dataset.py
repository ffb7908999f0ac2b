"""Responses of one brain to stimuli, and how the stimuli are split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from calcarine.brain.scaling import SessionScaling, describe_scaling, scale_sessions
from calcarine.brain.split import Split
from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["BrainDataset", "Responses", "group_means", "make_responses", "with_trials"]

Role = Literal["train", "test"]
_JUDGES = ("scenes", "digits", None)


@dataclass(frozen=True, eq=False)
class Responses:
    """Responses that say which side of a split they are from.

    Attributes
    ----------
    data
        float32, shape (n, v): rows are trials in training, means over
        repeats in test.
    stimulus_ids
        Stimulus of each row.
    role
        ``"train"`` or ``"test"``; only training responses may reach a fit.
    sessions
        int, shape (n,): session of each row, -1 for a mean over sessions.
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


@dataclass(frozen=True, eq=False)
class BrainDataset:
    """Responses of one subject with everything needed to decode them.

    Attributes
    ----------
    name, subject
        Data set and subject.
    responses
        Shape (trial, voxel), float, rows in order of presentation, with the
        coordinates ``stimulus``, ``session`` and ``repeat`` on ``trial``.
        Arrays that are read lazily are checked for NaN when they are read.
    voxels
        One row a voxel, with columns ``x``, ``y``, ``z`` in millimetres, NaN
        where unknown.
    rois
        Boolean masks of shape (voxel,).
    stimuli
        Every stimulus shown.
    splits
        At least one; the first is the default.
    simulated
        Whether the responses were made by a program.
    source, licence
        Where the data is from and what may be done with it.
    judge
        Bundled network that reads these pictures: ``"scenes"``,
        ``"digits"`` or None.
    truth
        For simulated data only: what the simulation knows.
    scaling
        How the sessions of `responses` were z-scored, None if they were not.
        Where a split has test stimuli that helped to scale, its sessions are
        scaled anew by its own training trials when they are read.

    Raises
    ------
    CalcarineError
        If parts do not agree, or voxels hold NaN.
    """

    name: str
    subject: str
    responses: xr.DataArray
    voxels: pd.DataFrame
    rois: dict[str, NDArray[np.bool_]]
    stimuli: StimulusSet
    splits: tuple[Split, ...]
    simulated: bool
    source: str
    licence: str
    judge: str | None = None
    truth: dict[str, Any] = field(default_factory=dict)
    scaling: SessionScaling | None = None

    def __post_init__(self) -> None:
        self._check_responses()
        self._check_voxels()
        self._check_trials()
        self._check_splits()
        if self.truth and not self.simulated:
            raise SettingError(f"{self._who} is measured, so nobody knows its truth; leave it.")
        self._check_scaling()
        if self.judge not in _JUDGES:
            raise SettingError(f"{self._who}: judge is scenes, digits or None, not {self.judge}.")

    @property
    def _who(self) -> str:
        return f"Data set {self.name}, subject {self.subject}"

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(self.responses.sizes["voxel"])

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return int(self.responses.sizes["trial"])

    @property
    def trial_stimuli(self) -> tuple[str, ...]:
        """Stimulus of each trial, in order of presentation."""
        return tuple(str(key) for key in self.responses.coords["stimulus"].values)

    @property
    def sessions(self) -> NDArray[np.int64]:
        """Session of each trial, shape (trial,)."""
        return np.asarray(self.responses.coords["session"].values, dtype=np.int64)

    def _check_responses(self) -> None:
        if self.responses.dims != ("trial", "voxel"):
            raise ShapeError(
                f"{self._who}: responses need dimensions (trial, voxel), not {self.responses.dims}."
            )
        for name in ("stimulus", "session", "repeat"):
            coord = self.responses.coords.get(name)
            if coord is None or coord.dims != ("trial",):
                raise ShapeError(f"{self._who}: trials have no coordinate {name}; add it.")
        if not np.issubdtype(self.responses.dtype, np.floating):
            raise ShapeError(
                f"{self._who}: responses are {self.responses.dtype}; make them floating-point."
            )
        if isinstance(self.responses.variable._data, np.ndarray):
            _check_finite(self.responses.values, np.arange(self.n_voxels), self._who)

    def _check_voxels(self) -> None:
        if len(self.voxels) != self.n_voxels:
            raise ShapeError(
                f"{self._who}: the voxel table has {len(self.voxels)} rows for "
                f"{self.n_voxels} voxels of responses."
            )
        missing = [name for name in ("x", "y", "z") if name not in self.voxels.columns]
        if missing:
            raise ShapeError(f"{self._who}: the voxel table has no column {missing[0]}.")
        for name, mask in self.rois.items():
            if mask.dtype != np.bool_ or mask.shape != (self.n_voxels,):
                raise ShapeError(
                    f"{self._who}: ROI {name} must be boolean of shape ({self.n_voxels},), "
                    f"not {mask.dtype} of shape {mask.shape}."
                )
            if "+" in name:
                raise SettingError(f"{self._who}: the ROI name {name} may not hold a plus.")

    def _check_trials(self) -> None:
        unknown = [key for key in self.trial_stimuli if key not in self.stimuli]
        if unknown:
            raise CalcarineError(
                f"{self._who}: {len(unknown)} trials show stimuli that are not among its "
                f"{len(self.stimuli)} stimuli, the first {unknown[0]}."
            )
        repeats = (int(value) for value in self.responses.coords["repeat"].values)
        for (key, repeat), times in Counter(zip(self.trial_stimuli, repeats, strict=True)).items():
            if times > 1:
                raise CalcarineError(
                    f"{self._who}: repeat {repeat} of stimulus {key} occurs {times} times; "
                    "number the repeats of a stimulus."
                )

    def _check_splits(self) -> None:
        if not self.splits:
            raise SettingError(f"{self._who} has no split; give at least one.")
        names = Counter(split.name for split in self.splits)
        for name, times in names.items():
            if times > 1:
                raise SettingError(f"{self._who} has {times} splits named {name}; rename one.")
        shown = frozenset(self.trial_stimuli)
        for split in self.splits:
            self._check_shown(split, shown)

    def _check_shown(self, split: Split, shown: frozenset[str]) -> None:
        for key in (*split.train, *split.test):
            if key not in shown:
                raise SettingError(
                    f"{self._who}: stimulus {key} of split {split.name} was shown in no trial; "
                    "make the split from the stimuli of this subject."
                )

    def _check_scaling(self) -> None:
        if self.scaling is None:
            return
        width = self.scaling.mean.shape[1]
        if width != self.n_voxels:
            raise ShapeError(
                f"{self._who}: the scaling is for {width} voxels and there are {self.n_voxels}."
            )
        if not np.isin(self.sessions, self.scaling.sessions).all():
            raise CalcarineError(f"{self._who}: the scaling does not know all sessions.")

    def split(self, name: str | Split | None = None) -> Split:
        """Find a split by its name; the first if left out.

        Raises
        ------
        CalcarineError
            If there is none of that name, listing those there are.
        """
        if isinstance(name, Split):
            if name not in self.splits:
                self._check_shown(name, frozenset(self.trial_stimuli))
            return name
        if name is None:
            return self.splits[0]
        for split in self.splits:
            if split.name == name:
                return split
        known = ", ".join(split.name for split in self.splits)
        raise SettingError(f"{self._who} has no split {name}; it has {known}.")

    def roi_mask(self, name: str = "all") -> NDArray[np.bool_]:
        """Voxels of a region.

        Parameters
        ----------
        name
            A region, ``"all"``, or several joined by ``+``.

        Returns
        -------
        bool array of shape (voxel,)
            A new array.

        Raises
        ------
        CalcarineError
            If a region is unknown, listing the known ones, or empty.
        """
        mask = np.zeros(self.n_voxels, dtype=np.bool_)
        for part in (piece.strip() for piece in name.split("+")):
            if part in self.rois:
                mask |= self.rois[part]
            elif part == "all":
                mask[:] = True
            else:
                known = ", ".join(dict.fromkeys(["all", *self.rois]))
                raise SettingError(
                    f"{self._who} has no ROI {part or 'of an empty name'}; it has {known}."
                )
        if not mask.any():
            raise SettingError(f"{self._who}: ROI {name} has no voxels; choose another.")
        return mask

    def train(self, split: str | Split | None = None, roi: str = "all") -> Responses:
        """Single trials of the training stimuli, in order of presentation.

        Parameters
        ----------
        split, roi
            See `split` and `roi_mask`.

        Returns
        -------
        Responses
            Role ``"train"``, shape (training trials, voxels of the ROI).
        """
        chosen = self.split(split)
        rows = self.trials_of(chosen.train)
        shown = self.trial_stimuli
        ids = tuple(shown[row] for row in rows)
        data = self.read_trials(rows, np.flatnonzero(self.roi_mask(roi)), chosen)
        return Responses(data, ids, "train", self.sessions[rows])

    def test(self, split: str | Split | None = None, roi: str = "all") -> Responses:
        """Mean over the repeats of each test stimulus, in the order of the split.

        Parameters
        ----------
        split, roi
            See `split` and `roi_mask`.

        Returns
        -------
        Responses
            Role ``"test"``, shape (test stimuli, voxels of the ROI).
        """
        chosen = self.split(split)
        ids = chosen.test
        rows = self.trials_of(ids)
        place = {key: position for position, key in enumerate(ids)}
        shown = self.trial_stimuli
        owner = np.array([place[shown[row]] for row in rows], dtype=np.int64)
        single = self.read_trials(rows, np.flatnonzero(self.roi_mask(roi)), chosen)
        sessions = _common_session(self.sessions[rows], owner, len(ids))
        return Responses(group_means(single, owner, len(ids)), ids, "test", sessions)

    def trials_of(self, stimuli: Collection[str]) -> NDArray[np.int64]:
        """Trials that show some stimuli, in order of presentation."""
        wanted = frozenset(stimuli)
        rows = [row for row, key in enumerate(self.trial_stimuli) if key in wanted]
        return np.array(rows, dtype=np.int64)

    def rescales(self, split: Split) -> bool:
        """Whether test trials of a split helped to scale the sessions.

        All trials are then read and scaled anew by its own training trials;
        but not where the data set was asked to scale by test trials, too.
        """
        if self.scaling is None or self.scaling.method == "session-all":
            return False
        return not self.scaling.stimuli.isdisjoint(split.test)

    def scaling_note(self, splits: Sequence[Split] | None = None) -> str:
        """Say in words by which trials the sessions were z-scored.

        Parameters
        ----------
        splits
            Those that are read; all by default.
        """
        if self.scaling is None:
            return "not z-scored"
        trains = [self._is_train(split) for split in splits or self.splits]
        return describe_scaling(self.scaling.method, self.sessions, trains)

    def _is_train(self, split: Split) -> NDArray[np.bool_]:
        """Which trials are training, shape (trial,)."""
        return np.isin(self.trial_stimuli, split.train)

    def read_trials(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], split: Split
    ) -> NDArray[np.float32]:
        """Single trials of some voxels, scaled as the split asks for.

        Parameters
        ----------
        rows, columns
            Trials and voxels.
        split
            See `rescales`.

        Raises
        ------
        CalcarineError
            If a voxel holds NaN or infinity.
        """
        anew = self.rescales(split)
        part = self.responses[
            {"trial": np.arange(self.n_trials) if anew else rows, "voxel": columns}
        ].values
        _check_finite(part, columns, self._who)
        values = np.ascontiguousarray(part, dtype=np.float32)
        if not anew or self.scaling is None:
            return values
        raw = self.scaling.undo(values, self.sessions, columns)
        method, train = self.scaling.method, self._is_train(split)
        return scale_sessions(raw, self.sessions, train, method=method, who=self._who)[0][rows]

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of responses, trials, voxels, ROIs, stimuli and splits."""
        sizes = [self.n_trials, self.n_voxels]
        total = hashlib.sha256(json.dumps([self.name, self.subject, sizes]).encode())
        for start in range(0, self.n_trials, 1000):
            rows = self.responses[{"trial": slice(start, start + 1000)}].values
            total.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        repeats = [int(value) for value in self.responses.coords["repeat"].values]
        trials = [list(self.trial_stimuli), self.sessions.tolist(), repeats]
        total.update(json.dumps(trials).encode())
        total.update(self.voxels.to_csv(index=False).encode())
        for name in sorted(self.rois):
            total.update(json.dumps(name).encode() + np.packbits(self.rois[name]).tobytes())
        total.update(self.stimuli.digest().encode())
        total.update("".join(split.digest() for split in self.splits).encode())
        return total.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Plain facts for people, ready for JSON.

        Returns
        -------
        dict
            name, subject, kind (``"simulated"`` or ``"measured"``), trials,
            stimuli, picture_size, sessions, voxels (by ROI), repeats (how
            many stimuli were shown how often), splits (sizes by name),
            scaling (in words), judge, source, licence.
        """
        times = Counter(Counter(self.trial_stimuli).values())
        return {
            "name": self.name,
            "subject": self.subject,
            "kind": "simulated" if self.simulated else "measured",
            "simulated": self.simulated,
            "trials": self.n_trials,
            "stimuli": len(self.stimuli),
            "picture_size": list(self.stimuli.size),
            "sessions": len(np.unique(self.sessions)),
            "voxels": {
                "all": self.n_voxels,
                **{name: int(mask.sum()) for name, mask in self.rois.items()},
            },
            "repeats": {str(repeat): times[repeat] for repeat in sorted(times)},
            "splits": {s.name: {"train": len(s.train), "test": len(s.test)} for s in self.splits},
            "scaling": self.scaling_note(),
            "judge": self.judge,
            "source": self.source,
            "licence": self.licence,
        }


def make_responses(
    data: ArrayLike,
    stimulus_ids: list[str] | tuple[str, ...],
    sessions: ArrayLike | None = None,
) -> xr.DataArray:
    """Give trials in order of presentation their coordinates.

    Parameters
    ----------
    data
        Shape (trial, voxel).
    stimulus_ids
        Stimulus of each trial.
    sessions
        Session of each trial; one session if left out.

    Returns
    -------
    DataArray
        float32, dimensions (trial, voxel), repeats numbered from 0 as they came.

    Raises
    ------
    CalcarineError
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
    """Give an array of trials, in memory or lazy, the coordinates of `BrainDataset`."""
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
    """Mean over the rows of each group.

    Parameters
    ----------
    values
        Shape (n, v).
    owner
        Group of each row, from 0; every group has one.
    count
        Groups.
    """
    sums = np.zeros((count, values.shape[1]), dtype=np.float64)
    np.add.at(sums, owner, values)
    return (sums / np.bincount(owner, minlength=count)[:, None]).astype(np.float32)


def _check_finite(values: NDArray[Any], columns: NDArray[np.int64], who: str) -> None:
    """Name the voxels that hold NaN or infinity."""
    bad = columns[~np.isfinite(values).all(axis=0)]
    if len(bad):
        first = ", ".join(str(int(column)) for column in bad[:5])
        more = " and so on" if len(bad) > 5 else ""
        raise CalcarineError(
            f"{who}: {len(bad)} of {len(columns)} voxels hold NaN or infinity (voxel {first}{more})"
            "; drop them before loading."
        )


def _common_session(
    sessions: NDArray[np.int64], owner: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Session of each mean, -1 where its repeats are from several."""
    low = np.full(count, np.iinfo(np.int64).max)
    high = np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(low, owner, sessions)
    np.maximum.at(high, owner, sessions)
    return np.where(low == high, low, -1)
