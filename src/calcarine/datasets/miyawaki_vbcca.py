"""Ten binary figures in V1 (Miyawaki et al. 2008), averaged figure trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset, make_responses
from calcarine.brain.info import DatasetInfo, pick_subject
from calcarine.brain.split import Split
from calcarine.datasets._find import find_file, is_simulated, read_mat
from calcarine.datasets._small import (
    check_small,
    nowhere,
    on_github,
    planted,
    small_assets,
    upright,
)
from calcarine.errors import DamagedFileError
from calcarine.quality.findings import CheckResult
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["INFO", "assets", "check", "fake", "load"]

_FILE = "miyawaki_VBCCA_V1_mean_figure.mat"
_VOXELS, _TRIALS = 797, 80
_SIZE = 494_782
_COMMIT = "357a0948bddb96834cf564745233ec4d19356afc"

INFO = DatasetInfo(
    name="miyawaki_vbcca",
    title="Binary figures in V1 (Miyawaki et al. 2008; Fujiwara et al. 2013)",
    simulated=False,
    subjects=("S1",),
    source="github.com/KamitaniLab/VBCCA (sample/data)",
    licence="3-clause BSD text in its README",
    needs_folder=True,
    files=(_FILE,),
)

# In the order in which the figures first appear in the file.
_SHAPES: tuple[tuple[str, str], ...] = (
    ("small-square", "small square"),
    ("small-frame", "small frame"),
    ("plus", "plus"),
    ("cross", "diagonal cross"),
    ("large-frame", "large frame"),
    ("letter-n", "letter n"),
    ("letter-e", "letter e"),
    ("letter-u", "letter u"),
    ("letter-r", "letter r"),
    ("letter-o", "letter o"),
)


def load(data: str | Path | None = None, subject: str | None = None) -> BrainDataset:
    """Load 80 trials: ten figures, each shown eight times.

    The columns of ``I2`` are read column by column (``order="F"``): only so
    do the last five figures spell the letters n, e, u, r and o upright.

    Parameters
    ----------
    data
        Folder with ``miyawaki_VBCCA_V1_mean_figure.mat``, or the folder above it.
    subject
        ``"S1"``.

    Returns
    -------
    BrainDataset
        797 voxels (ROI ``V1``); pictures of 10 x 10; ten splits, each named
        by the one figure in test.  The file tells neither places of voxels
        nor sessions.

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or not this file.
    """
    who = pick_subject(INFO, subject)
    path = find_file(INFO, data, _FILE)
    arrays = read_mat(INFO, path, {"R2": (_VOXELS, _TRIALS), "I2": (100, _TRIALS)})
    figures, owner = _figures(arrays["I2"])
    counts = np.bincount(owner)
    if len(figures) != len(_SHAPES) or set(counts.tolist()) != {_TRIALS // len(_SHAPES)}:
        raise DamagedFileError(
            f"Data set miyawaki_vbcca: {path} has {len(figures)} figures and should have ten shown "
            f"eight times each; the right file is from {INFO.source}."
        )
    ids = tuple(f"shape-{index:02d}" for index in range(len(figures)))
    return BrainDataset(
        name=INFO.name,
        subject=who,
        responses=make_responses(
            np.asarray(arrays["R2"], dtype=np.float32).T, [ids[own] for own in owner]
        ),
        voxels=nowhere(_VOXELS),
        rois={"V1": np.ones(_VOXELS, dtype=np.bool_)},
        stimuli=_stimuli(ids, figures),
        splits=tuple(_left_out(ids, index) for index in range(len(ids))),
        simulated=is_simulated(path),
        source=INFO.source,
        licence=INFO.licence,
        judge=None,
    )


def check(data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Say whether the file is there and holds what is known of it."""
    expected = {
        "trials": str(_TRIALS),
        "voxels": str(_VOXELS),
        "stimuli": "10",
        "categories": ", ".join(f"{name} 8" for name in sorted(name for name, _ in _SHAPES)),
    }
    return check_small(INFO, data, subject, {_FILE: _SIZE}, load, expected)


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """The one file."""
    place = f"KamitaniLab/VBCCA/{_COMMIT}/sample/data/V1_mean_figure.mat"
    return small_assets(INFO, subjects, on_github(INFO, place, _SIZE))


def fake(folder: str | Path, *, full_size: bool = False, seed: int = 0) -> None:
    """Write a file with the official names and shapes: random figures, planted responses.

    Parameters
    ----------
    folder
        Where to.
    full_size
        Makes no difference: the true size is small.
    seed
        Of the content.
    """
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    figures = np.zeros((len(_SHAPES), 5, 5))
    for row, figure in enumerate(figures):
        figure.flat[rng.choice(25, 8 + row, replace=False)] = 1
    pixels = figures.repeat(2, axis=1).repeat(2, axis=2).reshape(len(_SHAPES), 100)
    shown = np.concatenate([rng.permutation(len(_SHAPES)) for _ in range(8)])
    brain = planted(rng, pixels[shown], _VOXELS, noise=1.0)
    savemat(Path(folder) / _FILE, {"R2": brain.T, "I2": pixels[shown].T}, do_compression=True)


def _figures(columns: NDArray[np.generic]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Distinct columns by first appearance, (figure, 100), and the figure of each trial."""
    lit = np.asarray(columns, dtype=np.float64).T > 0
    _, first, inverse = np.unique(lit, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return lit[first[order]], rank[inverse.ravel()]


def _stimuli(ids: tuple[str, ...], figures: NDArray[np.bool_]) -> StimulusSet:
    return StimulusSet.from_arrays(
        upright(figures.astype(np.uint8) * 255, 10),
        ids,
        captions=[
            (
                "a white shape in black",
                f"a white {kind}",
                f"a white {kind} in black",
                f"a picture of a {kind}",
                f"there is a {kind}",
            )
            for _, kind in _SHAPES
        ],
        categories=[name for name, _ in _SHAPES],
    )


def _left_out(ids: tuple[str, ...], index: int) -> Split:
    return Split(
        name=_SHAPES[index][0],
        train=tuple(key for key in ids if key != ids[index]),
        test=(ids[index],),
        rule="one figure left out with all its repeats",
        seed=None,
    )
