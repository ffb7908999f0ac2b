"""From the official files to a recording, and from that to a `BrainDataset`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import pick_subject
from calcarine.brain.scaling import ZScore, check_zscore
from calcarine.datasets._data_files import is_simulated
from calcarine.datasets.nsd.annotations import Annotations, missing_annotations
from calcarine.datasets.nsd.betas import SessionShape, read_session, session_shape
from calcarine.datasets.nsd.design import choose_sessions, make_splits, read_trials
from calcarine.datasets.nsd.files import content_error
from calcarine.datasets.nsd.layout import BETAS, INFO, SPACE, NSDLayout, find_layout
from calcarine.datasets.nsd.regions import MaskedVoxels, check_grid, keep_voxels
from calcarine.datasets.prepare.preparation import Recording, prepare
from calcarine.errors import SettingError
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["load", "recording"]

_IMAGES = "imgBrick"


def recording(
    data: str | Path | None,
    subject: str | None = None,
    *,
    mask: str = "nsdgeneral",
    sessions: int | Sequence[int] | None = None,
    zscore: ZScore = "session",
) -> Recording:
    """Return what to prepare of a subject, and how it is read.

    Parameters
    ----------
    data : str or Path, optional
        Folder that holds ``nsddata`` and ``nsddata_betas``, or the folder above.
    subject : str, optional
        ``"subj01"`` to ``"subj08"``; by default the first.
    mask : str
        Voxels to keep: ``"nsdgeneral"``, ``"brain"``, an atlas (``"streams"``,
        ``"prf-visualrois"``, ``"floc-faces"`` and so on) or one of its
        regions (``"early"``, ``"V1"``, ``"PPA"``), several joined by ``+``.
    sessions : int or sequence of int, optional
        How many from the first on, or which; those on disk if left out.
    zscore : str
        ``"session"``: each session by its training trials (by all training
        trials where it has fewer than two); ``"training"``: by all training
        trials; ``"session-all"``: by all trials of the session, test trials
        included; ``"none"`` keeps percent signal change.

    Returns
    -------
    Recording
        Betas of version ``betas_fithrf_GLMdenoise_RR`` in space func1pt8mm,
        in percent signal change (stored values / 300).  Splits: ``shared``
        (the pictures that all subjects were to see are the test) and, with
        exactly sessions 1 to 37, ``takagi2023``.

    Raises
    ------
    CalcarineError
        If files are missing, damaged or contradict each other.

    Examples
    --------
    >>> from calcarine.datasets import nsd
    >>> nsd.fake("nsd-recording", n_subjects=1, sessions=1)
    >>> recording = nsd.recording("nsd-recording", "subj01", mask="V1")
    >>> len(recording.trials), [split.name for split in recording.splits]
    (30, ['shared'])
    """
    who = pick_subject(INFO, subject)
    check_zscore(zscore, "Data set nsd")
    layout = find_layout(data, who)
    trials = read_trials(layout)
    chosen = choose_sessions(layout, trials, sessions)
    trials = trials[trials["session"].isin(chosen)].reset_index(drop=True)
    kept = keep_voxels(layout, mask)
    shapes = {number: _checked_shape(layout, number, trials, kept) for number in chosen}

    def read(session: int) -> NDArray[np.float32]:
        if session not in shapes:
            raise SettingError(f"Session {session} was not chosen; chosen are {chosen}.")
        return read_session(layout.session(session), shapes[session], kept.places)

    made = "; these files were made by a program" if _simulated(data, layout) else ""
    return Recording(
        dataset=INFO.name,
        subject=who,
        source=INFO.source + made,
        licence=INFO.licence,
        trials=trials,
        voxels=kept.voxels,
        rois=kept.rois,
        splits=make_splits(trials, chosen),
        read=read,
        provenance=_provenance(layout, chosen, mask),
        zscore=zscore,
    )


def _checked_shape(
    layout: NSDLayout, session: int, trials: pd.DataFrame, kept: MaskedVoxels
) -> SessionShape:
    path = layout.session(session)
    shape = session_shape(path)
    check_grid(path, shape.grid[::-1], kept.grid[::-1], "the masks")
    wanted = int((trials["session"] == session).sum())
    if shape.trials != wanted:
        raise content_error(
            path,
            f"holds {shape.trials} trials and {layout.responses.name} has {wanted} of session "
            f"{session}; get both again.",
        )
    return shape


def _provenance(layout: NSDLayout, sessions: Sequence[int], mask: str) -> dict[str, Any]:
    paths = [layout.session(number) for number in sessions]
    return {
        "betas": BETAS,
        "space": SPACE,
        "unit": "percent signal change (stored values / 300)",
        "mask": mask,
        "files": {path.name: _stamp(path) for path in paths},
    }


def _stamp(path: Path) -> list[int]:
    """Return size and time; a file that was downloaded again has its old size."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _simulated(data: str | Path | None, layout: NSDLayout) -> bool:
    return is_simulated(layout.root) or (data is not None and is_simulated(data))


def load(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    mask: str = "nsdgeneral",
    sessions: int | Sequence[int] | None = None,
    size: int | tuple[int, int] | None = None,
    zscore: ZScore = "session",
    captions: bool | None = None,
    prepared: str | Path | None = None,
    workers: int = 2,
) -> BrainDataset:
    """Load a subject; what is not prepared yet is prepared first.

    Parameters
    ----------
    data, subject, mask, sessions, zscore
        See `recording`.
    size : int or (int, int), optional
        Resize pictures; 425 x 425 as stored if left out.
    captions : bool, optional
        True: COCO's captions must be there; False: leave them out; None:
        take them where they are.  So with categories and semantic maps, of which the
        numbers are in `calcarine.datasets.nsd.coco_maps.CATEGORIES`.
    prepared : str or Path, optional
        Folder of prepared subjects; by default ``prepared`` in `data`.
    workers : int
        Sessions that are prepared at the same time.

    Returns
    -------
    BrainDataset
        Pictures, captions and responses are read when they are used.
        Stimuli are named ``nsd-00000`` to ``nsd-72999`` by their number from 0.

    Raises
    ------
    CalcarineError
        If files are missing, damaged or contradict each other.

    Examples
    --------
    >>> from calcarine.datasets import nsd
    >>> nsd.fake("nsd", n_subjects=1, sessions=2)
    >>> brain = nsd.load("nsd", "subj01", mask="nsdgeneral", size=32)
    >>> brain.n_trials, brain.stimuli.size
    (60, (32, 32))
    >>> brain.split().name
    'shared'
    """
    result = recording(data, subject, mask=mask, sessions=sessions, zscore=zscore)
    layout = find_layout(data, result.subject)
    stimuli = _stimuli(layout, result.trials, size, captions)
    # `find_layout` has refused a missing folder.
    store = prepare(result, prepared or Path(str(data)) / "prepared", workers)
    return store.dataset(stimuli, simulated=_simulated(data, layout))


def _stimuli(
    layout: NSDLayout,
    trials: pd.DataFrame,
    size: int | tuple[int, int] | None,
    captions: bool | None,
) -> StimulusSet:
    shown = trials.drop_duplicates("image").sort_values("image")
    rows, ids = shown["image"].tolist(), shown["stimulus"].tolist()
    path = layout.need(layout.stimuli)
    if captions:
        for missing in missing_annotations(layout, "captions"):
            layout.need(missing)
    if captions is False or not layout.stim_info.is_file():
        return StimulusSet.from_hdf5(path, _IMAGES, rows, ids, size=size)
    plain = StimulusSet.from_hdf5(path, _IMAGES, rows, ids, size=size)
    coco = Annotations(layout, rows, plain.size)
    return StimulusSet.from_hdf5(
        path, _IMAGES, rows, ids, coco.captions, coco.categories, size, coco.semantic_map
    )
