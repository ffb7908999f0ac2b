"""Small data sets that hold one response for each trial, in MATLAB files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import pick_subject
from calcarine.brain.responses import make_responses
from calcarine.brain.split import Split
from calcarine.datasets._data_files import find_file, is_simulated, read_mat
from calcarine.datasets._simulated_responses import linear_responses
from calcarine.datasets.small.pictures import draw_digit, upright
from calcarine.datasets.small.table import DIGITS69, MIYAWAKI_VBCCA, SmallDataset
from calcarine.errors import DamagedFileError
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = [
    "DIGITS",
    "FIGURES",
    "TrialForm",
    "Trials",
    "load_trials",
    "write_digits",
    "write_figures",
]

Arrays = Mapping[str, NDArray[np.generic]]
_N_FOLDS = 10


@dataclass(frozen=True)
class Trials:
    """What a file holds.

    Attributes
    ----------
    responses : array of shape (trial, voxel)
    owner : int array of shape (trial,)
        Picture of each trial.
    pixels : uint8 array of shape (picture, side * side)
        Grey values, stored by columns.
    categories : list of str
        Category of each picture.
    """

    responses: NDArray[np.generic]
    owner: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    categories: list[str]


@dataclass(frozen=True)
class TrialForm:
    """How a file with one response for each trial is read.

    Attributes
    ----------
    arrays : dict of str to (int, int)
        Names of the arrays in the file, and their shapes.
    parse : callable
        Makes `Trials` of the arrays; the path is for its error.
    region : str
        Name of the region of all voxels.
    side : int
        Height and width of the pictures.
    id_format : str
        Format of the stimulus ids.
    captions : tuple of str
        Captions; ``{name}`` stands for the category in words.
    words : dict of str to str
        The categories in words.
    splits : callable
        Makes the splits from ids, categories and a seed.
    judge : str, optional
        See `BrainDataset`.
    """

    arrays: dict[str, tuple[int, int]]
    parse: Callable[[Arrays, Path], Trials]
    region: str
    side: int
    id_format: str
    captions: tuple[str, ...]
    words: dict[str, str]
    splits: Callable[[tuple[str, ...], Sequence[str], int], tuple[Split, ...]]
    judge: str | None = None


def load_trials(
    table: SmallDataset,
    form: TrialForm,
    data: str | Path | None,
    subject: str | None,
    seed: int = 0,
) -> BrainDataset:
    """Load a data set with one response for each trial.

    Parameters
    ----------
    table, form
        The data set.
    data, subject
        See `calcarine.datasets.load_dataset`.
    seed : int
        Seed of the splits, if they are random.

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or another one.
    """
    info = table.info
    who = pick_subject(info, subject)
    path = find_file(info, data, table.file)
    trials = form.parse(read_mat(info, path, form.arrays), path)
    ids = tuple(form.id_format.format(index) for index in range(len(trials.pixels)))
    words = [form.words[name] for name in trials.categories]
    return BrainDataset(
        name=info.name,
        subject=who,
        responses=make_responses(trials.responses, [ids[row] for row in trials.owner]),
        voxels=pd.DataFrame(np.full((table.n_voxels, 3), np.nan), columns=["x", "y", "z"]),
        rois={form.region: np.ones(table.n_voxels, dtype=np.bool_)},
        stimuli=StimulusSet.from_arrays(
            upright(trials.pixels, form.side),
            ids,
            captions=[tuple(text.format(name=word) for text in form.captions) for word in words],
            categories=trials.categories,
        ),
        splits=form.splits(ids, trials.categories, seed),
        simulated=is_simulated(path),
        source=info.source,
        licence=info.licence,
        judge=form.judge,
    )


def _parse_digits(arrays: Arrays, path: Path) -> Trials:
    labels = np.concatenate([arrays["labelTrn"], arrays["labelTest"]]).ravel().astype(int)
    names = DIGITS69.categories
    if set(labels.tolist()) != set(names):
        raise DamagedFileError(
            f"Data set digits69: labels in {path} are {sorted(set(labels.tolist()))} and should "
            f"be 1 (six) and 2 (nine); the right file is from {DIGITS69.source}."
        )
    return Trials(
        np.concatenate([arrays["fmriTrn"], arrays["fmriTest"]]),
        np.arange(len(labels)),
        np.concatenate([arrays["stimTrn"], arrays["stimTest"]]).astype(np.uint8),
        [names[label] for label in labels.tolist()],
    )


def _parse_figures(arrays: Arrays, path: Path) -> Trials:
    """Number the distinct columns of ``I2`` by their first appearance.

    The columns are read column by column (``order="F"``): only then do the last five figures spell
    the letters n, e, u, r and o upright.
    """
    lit = np.asarray(arrays["I2"], dtype=np.float64).T > 0
    _, first, inverse = np.unique(lit, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    owner = rank[inverse.ravel()]
    n_figures = len(MIYAWAKI_VBCCA.categories)
    times = MIYAWAKI_VBCCA.n_trials // n_figures
    if len(order) != n_figures or set(np.bincount(owner).tolist()) != {times}:
        raise DamagedFileError(
            f"Data set miyawaki_vbcca: {path} has {len(order)} figures and should have ten shown "
            f"eight times each; the right file is from {MIYAWAKI_VBCCA.source}."
        )
    return Trials(
        np.asarray(arrays["R2"], dtype=np.float32).T,
        owner,
        lit[first[order]].astype(np.uint8) * 255,
        list(MIYAWAKI_VBCCA.categories.values()),
    )


def _stratified_folds(
    ids: tuple[str, ...], categories: Sequence[str], seed: int
) -> tuple[Split, ...]:
    """Ten folds with as many sixes as nines in each."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(ids), dtype=np.int64)
    for name in DIGITS69.categories.values():
        members = rng.permutation(np.flatnonzero(np.asarray(categories) == name))
        fold[members] = np.arange(len(members)) % _N_FOLDS
    return tuple(
        Split(
            name=f"fold-{number:02d}",
            train=tuple(key for key, own in zip(ids, fold, strict=True) if own != number),
            test=tuple(key for key, own in zip(ids, fold, strict=True) if own == number),
            rule=f"fold {number} of {_N_FOLDS}, shuffled within each digit",
            seed=seed,
        )
        for number in range(_N_FOLDS)
    )


def _leave_one_out(ids: tuple[str, ...], categories: Sequence[str], seed: int) -> tuple[Split, ...]:
    """One split for each figure."""
    return tuple(
        Split(
            name=name,
            train=tuple(each for each in ids if each != key),
            test=(key,),
            rule="one figure left out with all its repeats",
            seed=None,
        )
        for key, name in zip(ids, categories, strict=True)
    )


DIGITS = TrialForm(
    arrays={
        "fmriTrn": (90, 3092),
        "fmriTest": (10, 3092),
        "stimTrn": (90, 784),
        "stimTest": (10, 784),
        "labelTrn": (90, 1),
        "labelTest": (10, 1),
    },
    parse=_parse_digits,
    region="visual",
    side=28,
    id_format="d69-{:03d}",
    captions=(
        "a handwritten {name}",
        "the digit {name} written by hand",
        "a picture of a handwritten {name}",
        "a white {name} in black",
        "there is a handwritten {name}",
    ),
    words={name: name for name in DIGITS69.categories.values()},
    splits=_stratified_folds,
    judge="digits",
)

FIGURES = TrialForm(
    arrays={"R2": (797, 80), "I2": (100, 80)},
    parse=_parse_figures,
    region="V1",
    side=10,
    id_format="shape-{:02d}",
    captions=(
        "a white shape in black",
        "a white {name}",
        "a white {name} in black",
        "a picture of a {name}",
        "there is a {name}",
    ),
    words={name: str(word) for word, name in MIYAWAKI_VBCCA.categories.items()},
    splits=_leave_one_out,
)


def write_digits(folder: Path, seed: int) -> None:
    """Write a file of drawn digits and simulated responses."""
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 2, 1, 2], [45, 45, 5, 5])
    pictures = np.stack([draw_digit(rng, DIGITS69.categories[int(label)]) for label in labels])
    responses = linear_responses(rng, pictures.reshape(100, -1) / 255.0, DIGITS69.n_voxels, 1.0)
    # MATLAB stores pictures column by column.
    columns = pictures.transpose(0, 2, 1).reshape(100, -1)
    content: dict[str, NDArray[np.generic]] = {
        "fmri": responses,
        "stim": columns,
        "label": labels.astype(np.uint8)[:, None],
    }
    parts = {f"{name}Trn": values[:90] for name, values in content.items()}
    parts |= {f"{name}Test": values[90:] for name, values in content.items()}
    savemat(folder / DIGITS69.file, parts, do_compression=True)


def write_figures(folder: Path, seed: int) -> None:
    """Write a file of random figures and simulated responses."""
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    count = len(MIYAWAKI_VBCCA.categories)
    figures = np.zeros((count, 5, 5))
    for row, figure in enumerate(figures):
        figure.flat[rng.choice(25, 8 + row, replace=False)] = 1
    pixels = figures.repeat(2, axis=1).repeat(2, axis=2).reshape(count, 100)
    shown = np.concatenate([rng.permutation(count) for _ in range(8)])
    responses = linear_responses(rng, pixels[shown], MIYAWAKI_VBCCA.n_voxels, 1.0)
    content = {"R2": responses.T, "I2": pixels[shown].T}
    savemat(folder / MIYAWAKI_VBCCA.file, content, do_compression=True)
