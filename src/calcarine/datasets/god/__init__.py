"""Generic Object Decoding (Horikawa & Kamitani 2017), as published or rearranged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import pick_subject
from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import SessionScaling, ZScore, scale_sessions, scaling_plan
from calcarine.brain.split import Split
from calcarine.datasets._data_files import is_simulated
from calcarine.datasets.bdata import BData
from calcarine.datasets.god._check import check
from calcarine.datasets.god._fake import fake
from calcarine.datasets.god._ids import category, stimulus_name
from calcarine.datasets.god._official import read_official
from calcarine.datasets.god._pictures import find_pictures, god_stimuli, read_pictures
from calcarine.datasets.god._rearranged import read_rearranged
from calcarine.datasets.god._subject_files import INFO, WHO, GodTrials, find_subject, search_folders
from calcarine.errors import DamagedFileError, SettingError

__all__ = ["INFO", "assets", "check", "columns", "fake", "load", "stimulus_name"]

Scale = Literal["none", "session", "training", "session-all", "training-scalar"]

_FIGSHARE = {"S1": 15049646, "S2": 15049649, "S3": 15049652, "S4": 15049655, "S5": 15049658}


def load(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    form: str = "auto",
    test: Literal["perception", "imagery"] = "perception",
    pictures: str | None = None,
    size: int | None = None,
    scale: Scale = "none",
    first_index: int | None = None,
) -> BrainDataset:
    """Load training trials of one subject and the trials of the zero-shot test.

    Parameters
    ----------
    data : str or Path, optional
        Folder with ``SubjectN.h5`` (BData, as published) or ``sbj_N.npz``
        (rearranged), or the folder above it.
    subject : str, optional
        ``"S1"`` to ``"S5"``.
    form : str
        ``"h5"``, ``"npz"``, or the first that is there.
    test : {"perception", "imagery"}
        ``"perception"``, or with the published form ``"imagery"``: trials of
        imagining, each under the test picture of its category.
    pictures : str, optional
        Folder with ``stimuli/training`` and ``stimuli/test``, or an
        ``images_*.npz``, where it is not in the data folder; ``"none"`` to
        load without.
    size : int, optional
        Side in pixels to bring pictures to; picture files come in many sizes
        and are brought to 256 if left out.
    scale : Scale
        ``"none"``: responses as they are (the published ones are scaled
        within runs); ``"training"``: every voxel by mean and SD of the
        training trials; ``"session"``: each session by its training trials,
        and the sessions of the test, which have none, by all training trials;
        ``"session-all"``: each session by all its trials, test trials
        included, so that a test response alone cannot be decoded the same
        way; ``"training-scalar"``: all voxels by one mean and one SD of the
        training trials, as MinD-Vis does.
    first_index : int, optional
        0 or 1, if the files do not show where their indices begin.

    Returns
    -------
    BrainDataset
        Stimuli are named as ``n01518878_10042`` (``god-train-0000`` where no
        list names them).  Regions are those of the file, and ``early`` (V1,
        V2, V3; else LVC) and ``ventral`` (HVC; else LOC, FFA, PPA).  Split
        ``official``: the test shows other categories than the training.
        Where the pictures are missing, asking for one says how to get them.

    Raises
    ------
    CalcarineError
        If a file is missing, damaged, or does not fit the others.

    Examples
    --------
    >>> from calcarine.datasets import god, write_fake_dataset
    >>> write_fake_dataset("god", "god", pictures="npz", people=1)
    >>> brain = god.load("god", "S1")
    >>> brain.split().name, "HVC" in brain.rois
    ('official', True)
    """
    who = pick_subject(INFO, subject)
    path = find_subject(data, who, form)
    assert data is not None  # find_subject raises without
    if test not in ("perception", "imagery"):
        raise SettingError(f"{WHO}: test is perception or imagery, not {test}.")
    if size is not None and size < 1:
        raise SettingError(f"{WHO}: size is {size}; give at least 1.")
    folders = search_folders(data)
    place = find_pictures(folders, pictures)
    arrays = read_pictures(place) if place is not None and place.is_file() else None
    parts = _read(path, folders, test, arrays, first_index)
    responses, scaling = _scaled(parts, scale)
    trials = make_responses(responses, parts.names, parts.sessions)
    if parts.runs is not None:
        trials = trials.assign_coords(run=("trial", parts.runs))
    return BrainDataset(
        name=INFO.name,
        subject=who,
        responses=trials,
        voxels=parts.voxels,
        rois=parts.rois,
        stimuli=god_stimuli(parts, folders, place, size, arrays),
        splits=(_split(parts, test),),
        simulated=any(is_simulated(root) for root in (data, path.parent)),
        source=INFO.source,
        licence=INFO.licence,
        scaling=scaling,
    )


def _read(
    path: Path,
    folders: list[Path],
    test: str,
    arrays: dict[str, NDArray[np.uint8]] | None,
    first_index: int | None,
) -> GodTrials:
    if path.suffix == ".h5":
        return read_official(path, folders, test, first_index)
    if test == "imagery":
        raise DamagedFileError(f"{WHO}: {path} holds no imagery trials; load the form h5.")
    counts = {side: len(images) for side, images in (arrays or {}).items()}
    return read_rearranged(path, folders, counts, first_index)


def _split(parts: GodTrials, test: str) -> Split:
    pairs = set(zip(parts.names, parts.is_test.tolist(), strict=True))
    train = tuple(sorted(name for name, own in pairs if not own))
    held = tuple(sorted(name for name, own in pairs if own))
    shared = {category(n) for n in train} & {category(n) for n in held} - {""}
    rule = "training and test pictures of the release"
    rule += f", {test} trials in test" if test == "imagery" else ""
    rule += f"; {len(shared)} categories are in both" if shared else "; no category is in both"
    named = any(category(n) for n in train)
    return Split("official", train, held, rule if named else rule.split(";")[0])


def _scaled(parts: GodTrials, scale: str) -> tuple[NDArray[np.float32], SessionScaling | None]:
    if scale not in get_args(Scale):
        known = ", ".join(get_args(Scale)[:-1])
        raise SettingError(f"{WHO}: scale is {known} or training-scalar, not {scale}.")
    if scale == "none":
        return parts.responses, None
    if scale == "training-scalar":
        return _by_one_number(parts)
    method = cast(ZScore, scale)
    return scale_sessions(parts.responses, parts.sessions, ~parts.is_test, parts.names, method, WHO)


def _by_one_number(parts: GodTrials) -> tuple[NDArray[np.float32], SessionScaling]:
    train = parts.responses[~parts.is_test]
    known = np.array(sorted(scaling_plan(parts.sessions, ~parts.is_test, "training", WHO)))
    mean, scale = train.mean(dtype=np.float64), max(float(train.std(dtype=np.float64)), 1e-300)
    shape = (len(known), train.shape[1])
    names = frozenset(np.asarray(parts.names, dtype=object)[~parts.is_test])
    scaling = SessionScaling(known, np.full(shape, mean), np.full(shape, scale), names, "training")
    return ((parts.responses - mean) / scale).astype(np.float32), scaling


def columns(data: str | Path, subject: str | None = None) -> pd.DataFrame:
    """Return the numbers of columns of a BData file by key.

    Parameters
    ----------
    data : str or Path
        A ``.h5`` file in BData form, or GOD's folder.
    subject : str, optional
        Subject; by default the first.

    Returns
    -------
    DataFrame
        See `BData.columns`.

    Examples
    --------
    >>> from calcarine.datasets import god, write_fake_dataset
    >>> write_fake_dataset("god", "god-columns", people=1, voxels=30, pictures="none")
    >>> god.columns("god-columns").key.tolist()[:4]
    ['VoxelData', 'DataType', 'stimulus_id', 'image_index']
    """
    path = Path(data)
    if not path.is_file():
        path = find_subject(data, pick_subject(INFO, subject), "h5")
    return BData.open(path).columns()


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """Return the preprocessed BData of the subjects, on figshare; pictures come on request.

    Examples
    --------
    >>> from calcarine.datasets import god
    >>> [asset.path for asset in god.assets(["S1"])]
    ['Subject1.h5']
    """
    chosen = [pick_subject(INFO, name) for name in subjects] if subjects else [INFO.subjects[0]]
    return [
        Asset(
            path=f"Subject{name[1:]}.h5",
            url=f"https://ndownloader.figshare.com/files/{_FIGSHARE[name]}",
        )
        for name in chosen
    ]
