"""Responses of one brain to stimuli, with regions, stimuli and splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from calcarine.brain._consistency import (
    check_responses,
    check_scaling,
    check_shown,
    check_splits,
    check_trials,
    check_voxels,
)
from calcarine.brain._from_arrays import (
    Images,
    Pictures,
    Test,
    Texts,
    parts_from_arrays,
    voxel_table,
)
from calcarine.brain._summary import describe, digest, summary, title
from calcarine.brain.regions import region_mask
from calcarine.brain.responses import Responses, check_finite, common_session, group_means
from calcarine.brain.scaling import SessionScaling, ZScore, describe_scaling, scale_sessions
from calcarine.brain.split import Split
from calcarine.display import html_table, text_table
from calcarine.errors import SettingError, did_you_mean
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["BrainDataset"]

_JUDGES = ("scenes", "digits", None)


@dataclass(frozen=True, eq=False, repr=False)
class BrainDataset:
    """Responses of one subject with everything needed to decode them.

    `from_arrays` makes one from your own arrays, `calcarine.datasets.load_dataset` from files.

    Attributes
    ----------
    name, subject : str
        Data set and subject.
    responses : DataArray of shape (trial, voxel)
        Floating-point, in order of presentation, with the coordinates ``stimulus``, ``session``
        and ``repeat`` of ``trial``. An array on disk is checked for NaN when it is read.
    voxels : DataFrame
        One row for each voxel, with columns ``x``, ``y`` and ``z`` in millimetres, NaN where
        unknown.
    rois : dict of str to bool array of shape (voxel,)
        Regions of interest.
    stimuli : StimulusSet
        Every stimulus shown.
    splits : tuple of Split
        At least one; the first is the default.
    simulated : bool
        Whether the responses are simulated.
    source, licence : str
        Where the data comes from, and what you may do with it.
    judge : {"scenes", "digits"}, optional
        The bundled network that recognises such pictures.
    ground_truth : dict
        What the simulation knows; empty for measured data.
    scaling : SessionScaling, optional
        How the sessions of `responses` were z-scored; None if they were not. If test stimuli of a
        split were used, `train` and `test` scale the sessions again by the training trials of
        that split.

    Raises
    ------
    ShapeError
        If an array does not fit the others.
    CalcarineError
        If parts do not agree, or voxels hold NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(10))
    >>> betas = np.random.default_rng(0).standard_normal((20, 5))  # each scene was shown twice
    >>> brain = ca.BrainDataset.from_arrays(betas, [*seen.ids, *seen.ids], seen, test=2)
    >>> brain.n_trials, brain.n_voxels
    (20, 5)
    >>> brain.train().data.shape  # single trials
    (16, 5)
    >>> brain.test().data.shape  # means over the repeats
    (2, 5)
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
    ground_truth: dict[str, Any] = field(default_factory=dict)
    scaling: SessionScaling | None = None

    def __post_init__(self) -> None:
        who, shown = self._who, self.trial_stimuli if "stimulus" in self.responses.coords else ()
        check_responses(who, self.responses)
        check_voxels(who, self.voxels, self.rois, self.n_voxels)
        repeats = [int(value) for value in self.responses.coords["repeat"].values]
        check_trials(who, shown, repeats, self.stimuli)
        check_splits(who, self.splits, frozenset(shown))
        if self.ground_truth and not self.simulated:
            raise SettingError(
                f"{who} is measured, so its ground truth is not known; leave ground_truth out."
            )
        check_scaling(who, self.scaling, self.sessions, self.n_voxels)
        if self.judge not in _JUDGES:
            raise SettingError(f"{who}: judge is scenes, digits or None, not {self.judge}.")

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

    def split(self, name: str | Split | None = None) -> Split:
        """Return a split by its name; by default the first.

        Parameters
        ----------
        name : str or Split, optional
            A `Split` of your own is returned if all its stimuli were shown.

        Raises
        ------
        SettingError
            If there is no split of that name; the message lists those there are.

        Examples
        --------
        >>> import numpy as np
        >>> import calcarine as ca
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(4))
        >>> splits = [
        ...     ca.Split("first", seen.ids[1:], seen.ids[:1], rule="the first is the test"),
        ...     ca.Split("last", seen.ids[:-1], seen.ids[-1:], rule="the last is the test"),
        ... ]
        >>> brain = ca.BrainDataset.from_arrays(np.zeros((4, 3)), seen.ids, seen, test=splits)
        >>> brain.split().name, brain.split("last").test
        ('first', ('scene-0-00003',))
        """
        if isinstance(name, Split):
            if name not in self.splits:
                check_shown(self._who, name, frozenset(self.trial_stimuli))
            return name
        if name is None:
            return self.splits[0]
        for split in self.splits:
            if split.name == name:
                return split
        known = [split.name for split in self.splits]
        raise SettingError(
            f"{self._who} has no split {name}; it has {', '.join(known)}."
            + did_you_mean(name, known)
        )

    def roi_mask(self, name: str = "all") -> NDArray[np.bool_]:
        """Return the voxels of a region as a new bool array of shape (voxel,).

        Parameters
        ----------
        name : str
            A region, ``"all"``, or several joined by ``+``.

        Raises
        ------
        SettingError
            If a region does not exist or has no voxels.

        Examples
        --------
        >>> import numpy as np
        >>> import calcarine as ca
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(4))
        >>> rois = {"V1": [True, True, False, False], "V2": [False, False, True, False]}
        >>> brain = ca.BrainDataset.from_arrays(np.zeros((4, 4)), seen.ids, seen, test=1, rois=rois)
        >>> brain.roi_mask("V1+V2").tolist()
        [True, True, True, False]
        """
        return region_mask(name, self.rois, self.n_voxels, self._who)

    def train(self, split: str | Split | None = None, roi: str = "all") -> Responses:
        """Return the single trials of the training stimuli, in order of presentation.

        Parameters
        ----------
        split : str or Split, optional
            See `split`.
        roi : str
            See `roi_mask`.

        Returns
        -------
        Responses
            Role ``"train"``, shape (training trials, voxels of the region).

        Examples
        --------
        >>> import numpy as np
        >>> import calcarine as ca
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(10))
        >>> betas = np.random.default_rng(0).standard_normal((20, 5))
        >>> brain = ca.BrainDataset.from_arrays(betas, seen.ids * 2, seen, test=2)
        >>> train = brain.train()
        >>> train.data.shape, len(train.stimulus_ids)
        ((16, 5), 16)
        """
        chosen = self.split(split)
        rows = self.trials_of(chosen.train)
        shown = self.trial_stimuli
        ids = tuple(shown[row] for row in rows)
        data = self.read_trials(rows, np.flatnonzero(self.roi_mask(roi)), chosen)
        return Responses(data, ids, "train", self.sessions[rows])

    def test(self, split: str | Split | None = None, roi: str = "all") -> Responses:
        """Return the mean over the repeats of each test stimulus, in the order of the split.

        Parameters
        ----------
        split, roi
            See `train`.

        Returns
        -------
        Responses
            Role ``"test"``, shape (test stimuli, voxels of the region).

        Examples
        --------
        >>> import numpy as np
        >>> import calcarine as ca
        >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(10))
        >>> betas = np.random.default_rng(0).standard_normal((20, 5))
        >>> brain = ca.BrainDataset.from_arrays(betas, seen.ids * 2, seen, test=seen.ids[:2])
        >>> brain.test().stimulus_ids
        ('scene-0-00000', 'scene-0-00001')
        """
        chosen = self.split(split)
        ids = chosen.test
        rows = self.trials_of(ids)
        place = {key: position for position, key in enumerate(ids)}
        shown = self.trial_stimuli
        owner = np.array([place[shown[row]] for row in rows], dtype=np.int64)
        single = self.read_trials(rows, np.flatnonzero(self.roi_mask(roi)), chosen)
        sessions = common_session(self.sessions[rows], owner, len(ids))
        return Responses(group_means(single, owner, len(ids)), ids, "test", sessions)

    def trials_of(self, stimuli: Collection[str]) -> NDArray[np.int64]:
        """Return the trials that show any of some stimuli, in order of presentation."""
        wanted = frozenset(stimuli)
        rows = [row for row, key in enumerate(self.trial_stimuli) if key in wanted]
        return np.array(rows, dtype=np.int64)

    def rescales(self, split: Split) -> bool:
        """Return whether test trials of a split were used to scale the sessions.

        If so, `read_trials` reads all trials and scales them again by the training trials of the
        split, unless the data set was loaded with ``zscore="session-all"``.
        """
        if self.scaling is None or self.scaling.method == "session-all":
            return False
        return not self.scaling.stimuli.isdisjoint(split.test)

    def scaling_note(self, splits: Sequence[Split] | None = None) -> str:
        """Describe by which trials the sessions were z-scored.

        Parameters
        ----------
        splits : sequence of Split, optional
            By default all.
        """
        if self.scaling is None:
            return "not z-scored"
        trains = [self._is_train(split) for split in splits or self.splits]
        return describe_scaling(self.scaling.method, self.sessions, trains)

    def _is_train(self, split: Split) -> NDArray[np.bool_]:
        """Return which trials are training trials of a split, shape (trial,)."""
        return np.isin(self.trial_stimuli, split.train)

    def read_trials(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], split: Split
    ) -> NDArray[np.float32]:
        """Return single trials of some voxels, scaled for a split.

        Parameters
        ----------
        rows, columns : int arrays
            Trials and voxels.
        split : Split
            See `rescales`.

        Returns
        -------
        float32 array of shape (rows, columns)

        Raises
        ------
        CalcarineError
            If a voxel holds NaN or infinity.
        """
        rescaled = self.rescales(split)
        part = self.responses[
            {"trial": np.arange(self.n_trials) if rescaled else rows, "voxel": columns}
        ].values
        check_finite(part, columns, self._who)
        values = np.ascontiguousarray(part, dtype=np.float32)
        if not rescaled or self.scaling is None:
            return values
        raw = self.scaling.undo(values, self.sessions, columns)
        method, train = self.scaling.method, self._is_train(split)
        return scale_sessions(raw, self.sessions, train, method=method, who=self._who)[0][rows]

    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of everything that is measured, shown or split."""
        return digest(self)

    def describe(self) -> dict[str, Any]:
        """Return names, sizes, splits, scaling, source and licence, ready for JSON."""
        return describe(self)

    @classmethod
    def from_arrays(
        cls,
        responses: ArrayLike,
        stimulus_ids: Sequence[object],
        images: Images,
        *,
        test: Test = 0.1,
        image_ids: Sequence[object] | None = None,
        rois: Mapping[str, ArrayLike] | None = None,
        sessions: ArrayLike | None = None,
        captions: Texts = None,
        categories: Texts = None,
        voxels: pd.DataFrame | ArrayLike | None = None,
        zscore: ZScore = "none",
        seed: int = 0,
        name: str = "own",
        subject: str = "S1",
        simulated: bool = False,
        source: str = "not stated",
        licence: str = "not stated",
    ) -> BrainDataset:
        """Make a data set from arrays in memory.

        Parameters
        ----------
        responses : array of shape (trial, voxel)
            One response for each trial (for example GLMsingle betas), in order of presentation.
        stimulus_ids : sequence of shape (trial,)
            Which stimulus each trial showed; numbers become text. Repeats have the same id.
        images : array, mapping or StimulusSet
            The pictures, uint8. A mapping of id to picture of shape (height, width, 3), an array
            of shape (n, height, width, 3) with `image_ids`, or without them an array with one
            picture for each trial.
        test : float, int, sequence of ids, Split or sequence of Split
            The test stimuli: a share of the stimuli (0.1), a number of stimuli (10), a list of
            ids, or splits of your own. A share or number is drawn at random with `seed`. All
            repeats of a stimulus are on the same side.
        image_ids : sequence of str, optional
            Id of each picture in `images`.
        rois : mapping of str to bool array of shape (voxel,), optional
            Regions of interest.
        sessions : array of int of shape (trial,), optional
            Session of each trial; by default all trials are of one session.
        captions, categories : mapping of id to text, or sequence, optional
            A text or several for each picture; a sequence is in the order of the pictures.
        voxels : array of shape (voxel, 3) or DataFrame, optional
            Coordinates ``x``, ``y`` and ``z`` in millimetres.
        zscore : {"none", "session", "training", "session-all"}
            How sessions are z-scored; see `calcarine.brain.scaling.ZScore`. By default the
            responses stay as they are.
        seed : int
            Seed of the random test stimuli.
        name, subject, source, licence : str
            What reports and figures call the data.
        simulated : bool
            Whether the responses are simulated; reports say so.

        Returns
        -------
        BrainDataset

        Raises
        ------
        ShapeError
            If an array has the wrong shape or type.
        SettingError
            If ids, regions or the test stimuli do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> from calcarine.brain import BrainDataset
        >>> rng = np.random.default_rng(0)
        >>> pictures = {f"img{i}": rng.integers(0, 256, (8, 8, 3), np.uint8) for i in range(10)}
        >>> shown = [*pictures, *pictures]
        >>> betas = rng.standard_normal((20, 5))
        >>> brain = BrainDataset.from_arrays(
        ...     betas, shown, pictures, test=["img8", "img9"], rois={"V1": [True] * 3 + [False] * 2}
        ... )
        >>> brain.train(roi="V1").data.shape, brain.test(roi="V1").data.shape
        ((16, 3), (2, 3))
        """
        who = f"Data set {name}, subject {subject}"
        pictures = Pictures(images, image_ids, captions, categories)
        parts = parts_from_arrays(
            who, responses, stimulus_ids, pictures, test, sessions, seed, zscore
        )
        parts["rois"] = {str(roi): np.asarray(mask) for roi, mask in (rois or {}).items()}
        parts["voxels"] = voxel_table(voxels, parts["responses"].shape[1], who)
        return cls(name, subject, simulated=simulated, source=source, licence=licence, **parts)

    def __repr__(self) -> str:
        return text_table(title(self), summary(self))

    def _repr_html_(self) -> str:
        return html_table(title(self), summary(self))
