"""Small measured data sets: one table of what differs, and one reader for each of two forms."""

from __future__ import annotations

from pathlib import Path

from calcarine.brain.dataset import BrainDataset
from calcarine.datasets.prepare.events import Drift, Method
from calcarine.datasets.small import series, table, trials
from calcarine.datasets.small.blocks import LeaveOut
from calcarine.datasets.small.reader import SmallReader

__all__ = ["digits69", "haxby_slice", "miyawaki_vbcca", "ncc_s2"]


def _load_digits69(
    data: str | Path | None = None, subject: str | None = None, *, seed: int = 0
) -> BrainDataset:
    """Load 100 trials of 100 handwritten digits, each shown once.

    Parameters
    ----------
    data : str or Path
        Folder with ``digit69_28x28.mat``, or the folder above it.
    subject : str, optional
        ``"S1"``.
    seed : int
        Seed of the assignment of stimuli to the ten folds.

    Returns
    -------
    BrainDataset
        3092 voxels of visual cortex (ROI ``visual``); pictures of 28 x 28; splits ``fold-00`` to
        ``fold-09``, each with five sixes and five nines in the test. The file holds neither
        coordinates of voxels nor sessions.

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or another one.
    """
    return trials.load_trials(table.DIGITS69, trials.DIGITS, data, subject, seed)


def _load_miyawaki_vbcca(
    data: str | Path | None = None, subject: str | None = None
) -> BrainDataset:
    """Load 80 trials: ten figures, each shown eight times.

    Parameters
    ----------
    data : str or Path
        Folder with ``miyawaki_VBCCA_V1_mean_figure.mat``, or the folder above it.
    subject : str, optional
        ``"S1"``.

    Returns
    -------
    BrainDataset
        797 voxels (ROI ``V1``); pictures of 10 x 10; ten splits, each named after the one figure in
        the test. The file holds neither coordinates of voxels nor sessions.

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or another one.
    """
    return trials.load_trials(table.MIYAWAKI_VBCCA, trials.FIGURES, data, subject)


def _load_haxby_slice(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    leave_out: LeaveOut = "run",
    method: Method = "lsa",
    drift: Drift = "polynomial",
    delay: float = 2.5,
) -> BrainDataset:
    """Load 96 blocks of 22.5 s: eight categories, once in each of twelve runs.

    **The pictures are placeholders.** The files name the category of each block and do not hold the
    pictures, so each category has one plain field in a colour of its own. Use categories and
    captions (``"a face"``) only; a reconstruction of these pictures means nothing.

    Each category has an id in each run (``face-run03``), and a split leaves a run out: it measures
    whether a category is recognised, not a picture never seen.

    Responses are estimated from the volumes of each run alone, in percent signal change. Drift is a
    straight line: with one block of a category in a run, cosines of 128 s would remove part of the
    difference between categories.

    Parameters
    ----------
    data : str or Path
        Folder with ``attributes_literal.txt``, ``bold.nii.gz`` and ``mask.nii.gz``, or the folder
        above it.
    subject : str, optional
        ``"S1"``.
    leave_out : {"run", "category"}
        What each split leaves out.
    method, drift, delay
        How responses are estimated; see `calcarine.datasets.prepare.events.trial_betas`.

    Returns
    -------
    BrainDataset
        530 voxels (ROI ``slice``) with coordinates; sessions are runs.

    Raises
    ------
    CalcarineError
        If a file is missing or damaged, or the files do not fit each other.
    """
    return series.load_series(
        table.HAXBY_SLICE,
        series.HAXBY,
        data,
        subject,
        leave_out=leave_out,
        method=method,
        drift=drift,
        delay=delay,
    )


def _load_ncc_s2(
    data: str | Path | None = None,
    subject: str | None = None,
    *,
    leave_out: LeaveOut = "run",
    method: Method = "lsa",
    drift: Drift = "polynomial",
    delay: float = 5.0,
) -> BrainDataset:
    """Load 40 blocks of 12 s: five figures, twice in each of four runs.

    Responses are estimated from the volumes of each run alone, in percent signal change: no mean or
    scale is shared between runs, so nothing of a test run reaches training.

    The file names the figures and does not hold them; they are drawn after those of
    ``miyawaki_vbcca``, which are the same. With ``leave_out="run"`` the figures of the test are in
    training too, under other ids (``plus-run01``, ``plus-run02``): such a split measures whether a
    known figure is recognised. ``leave_out="category"`` tests a figure never seen. The first five
    blocks have the same order in all runs.

    Parameters
    ----------
    data : str or Path
        Folder with ``miyawaki_NCC_S2_figureImage.mat``, or the folder above it.
    subject : str, optional
        ``"S2"``.
    leave_out : {"run", "category"}
        What each split leaves out.
    method, drift, delay
        How responses are estimated; see `calcarine.datasets.prepare.events.trial_betas`.

    Returns
    -------
    BrainDataset
        910 voxels of V1 (ROIs ``V1``, ``V1d``, ``V1v``) with coordinates; pictures of 10 x 10;
        sessions are runs.

    Raises
    ------
    CalcarineError
        If the file is missing, damaged or another one.
    """
    return series.load_series(
        table.NCC_S2,
        series.NCC,
        data,
        subject,
        leave_out=leave_out,
        method=method,
        drift=drift,
        delay=delay,
    )


digits69 = SmallReader(table.DIGITS69, table.DIGITS69.info, _load_digits69, trials.write_digits)
miyawaki_vbcca = SmallReader(
    table.MIYAWAKI_VBCCA, table.MIYAWAKI_VBCCA.info, _load_miyawaki_vbcca, trials.write_figures
)
haxby_slice = SmallReader(
    table.HAXBY_SLICE, table.HAXBY_SLICE.info, _load_haxby_slice, series.write_haxby
)
ncc_s2 = SmallReader(table.NCC_S2, table.NCC_S2.info, _load_ncc_s2, series.write_ncc)
