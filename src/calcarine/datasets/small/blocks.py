"""Block designs: from a label for each volume to a data set with one response for each block.

A split assigns stimuli, and all repeats of a stimulus are on one side. So that a split can leave a
run out, a category has an id of its own in every run: ``face-run03``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo
from calcarine.brain.responses import make_responses
from calcarine.brain.split import Split
from calcarine.datasets.prepare.events import Drift, Method, trial_betas
from calcarine.errors import DamagedFileError, SettingError
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["BlockSeries", "LeaveOut", "block_dataset", "label_blocks", "simulated_series"]

LeaveOut = Literal["run", "category"]


@dataclass(frozen=True, eq=False)
class BlockSeries:
    """A time series with a label for each volume.

    Attributes
    ----------
    values : array of shape (time, voxel)
    labels : tuple of str
        What was shown in each volume.
    runs : int array of shape (time,)
        Run of each volume, from 1.
    tr : float
        Seconds from volume to volume.
    """

    values: NDArray[np.generic]
    labels: tuple[str, ...]
    runs: NDArray[np.int64]
    tr: float


def label_blocks(
    labels: Sequence[str], runs: NDArray[np.int64], tr: float, rest: Sequence[str]
) -> pd.DataFrame:
    """Return the blocks of a design with a label for each volume.

    Parameters
    ----------
    labels : sequence of str
    runs : int array of shape (time,)
        Label and run of each volume.
    tr : float
        Seconds from volume to volume.
    rest : sequence of str
        Labels of volumes without a stimulus.

    Returns
    -------
    DataFrame
        One row for each block: ``onset`` and ``duration`` in seconds, ``run``, ``label``.
    """
    rows = []
    names = np.asarray(labels, dtype=object)
    for run in pd.unique(runs):
        place = 0
        for label, group in groupby(names[runs == run]):
            length = sum(1 for _ in group)
            if label not in rest:
                rows.append((place * tr, length * tr, int(run), str(label)))
            place += length
    return pd.DataFrame(rows, columns=["onset", "duration", "run", "label"])


def block_dataset(
    info: DatasetInfo,
    subject: str,
    series: BlockSeries,
    rest: Sequence[str],
    pictures: Mapping[str, NDArray[np.uint8]],
    voxels: pd.DataFrame,
    rois: dict[str, NDArray[np.bool_]],
    *,
    method: Method,
    drift: Drift,
    delay: float,
    leave_out: LeaveOut,
    simulated: bool,
) -> BrainDataset:
    """Make a data set of one response for each block; sessions are runs.

    Parameters
    ----------
    info : DatasetInfo
    subject : str
    series : BlockSeries
    rest : sequence of str
        Labels of volumes without a stimulus.
    pictures : mapping of str to array
        Picture of each category, all of one size.
    voxels, rois
        See `BrainDataset`.
    method, drift, delay
        See `calcarine.datasets.prepare.events.trial_betas`.
    leave_out : {"run", "category"}
        What each split leaves out.
    simulated : bool
        See `BrainDataset`.
    """
    blocks = label_blocks(series.labels, series.runs, series.tr, rest)
    unknown = sorted(set(blocks["label"]) - set(pictures))
    if unknown or blocks.empty:
        raise DamagedFileError(
            f"Data set {info.name}: volumes are labelled {unknown[0] if unknown else 'rest only'}; "
            f"known are {', '.join(pictures)}, and the right file is from {info.source}."
        )
    values = trial_betas(
        series.values, blocks, series.tr, runs=series.runs, method=method, drift=drift, delay=delay
    )
    keys = [
        f"{label}-run{run:02d}" for label, run in zip(blocks["label"], blocks["run"], strict=True)
    ]
    shown = dict(zip(keys, zip(blocks["label"], blocks["run"], strict=True), strict=True))
    names = [label for label, _ in shown.values()]
    return BrainDataset(
        name=info.name,
        subject=subject,
        responses=make_responses(values, keys, blocks["run"].to_numpy()),
        voxels=voxels,
        rois=rois,
        stimuli=StimulusSet.from_arrays(
            np.stack([pictures[name] for name in names]),
            list(shown),
            captions=[_sentences(name.replace("-", " ")) for name in names],
            categories=names,
        ),
        splits=_splits(shown, leave_out, info),
        simulated=simulated,
        source=info.source,
        licence=info.licence,
    )


def _sentences(category: str) -> tuple[str, ...]:
    """Return captions of a picture of which only the category is known."""
    article = "an" if category[0] in "aeiou" else "a"
    return (f"{article} {category}", f"a picture of {article} {category}")


def _splits(
    shown: Mapping[str, tuple[str, int]], leave_out: str, info: DatasetInfo
) -> tuple[Split, ...]:
    if leave_out not in ("run", "category"):
        raise SettingError(
            f"Data set {info.name}: leave_out is run or category, not {leave_out!r}."
        )
    by_run = leave_out == "run"
    groups: dict[str, set[str]] = {}
    for key, (label, run) in shown.items():
        groups.setdefault(f"run-{run:02d}" if by_run else label, set()).add(key)
    rule = "one run left out; what was shown in it was shown in the other runs too"
    return tuple(
        Split(
            name=name,
            train=tuple(key for key in shown if key not in groups[name]),
            test=tuple(key for key in shown if key in groups[name]),
            rule=rule if by_run else "one category left out, in all runs",
        )
        for name in sorted(groups)
    )


def simulated_series(
    rng: np.random.Generator,
    labels: Sequence[str],
    runs: NDArray[np.int64],
    tr: float,
    rest: Sequence[str],
    n_voxels: int,
) -> NDArray[np.float64]:
    """Return volumes (time, voxel) with a pattern for each label, about 2 percent of the mean."""
    from nilearn.glm.first_level import compute_regressor

    blocks = label_blocks(labels, runs, tr, rest)
    names = sorted(set(blocks["label"]))
    patterns = rng.normal(0.6, 1.0, (len(names), n_voxels))
    baseline = rng.uniform(600, 900, n_voxels)
    values = np.empty((len(labels), n_voxels))
    for run in pd.unique(runs):
        own = blocks[blocks["run"] == run]
        times = np.arange(int((runs == run).sum())) * tr
        percent = rng.normal(0, 0.7, (len(times), n_voxels))
        percent += np.linspace(-1, 1, len(times))[:, None] * rng.normal(0, 0.5, n_voxels)
        for row, name in enumerate(names):
            part = own[own["label"] == name]
            if len(part):
                events = np.stack([part["onset"], part["duration"], np.ones(len(part))])
                percent += compute_regressor(events, "glover", times)[0] * patterns[row]
        values[runs == run] = baseline * (1 + percent / 100)
    return values
