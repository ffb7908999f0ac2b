"""A small tree of BIDS derivatives with a simulated BOLD signal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets._simulated_responses import linear_responses
from calcarine.datasets.own._fake import (
    AFFINE,
    FakeDesign,
    draw_volume,
    write_masks,
    write_stimuli,
)
from calcarine.files import write_text

__all__ = ["write_bids"]

_TR, _SPACING, _HRF_END = 2.0, 6.0, 24.0
_SPACE = "T1w"

_TEXT = """\
name: mylab
subject: "01"
bids:
  derivatives: derivatives/fmriprep
  raw: .
  task: pictures
  nuisance: [button]
rois: {early: early.nii.gz, ventral: ventral.nii.gz}
images: stimuli/
captions: captions.csv
test: shared.txt
"""


def write_bids(root: Path, full_size: bool, seed: int) -> None:
    """Write raw events, derivatives as of fMRIPrep, pictures, regions and a description."""
    rng = np.random.default_rng(seed)
    sessions, runs, length = (10, 10, 60) if full_size else (2, 2, 16)
    design = FakeDesign(rng, sessions, runs * length, 128 if full_size else 24)
    masks = draw_volume(rng, full_size)
    count = int(masks["mask"].sum())
    amplitudes = 0.3 + 1.5 * linear_responses(rng, design.features[design.shown], count, 0.3)
    derivatives = root / "derivatives" / "fmriprep"
    _describe(root, "raw")
    _describe(derivatives, "derivative")
    write_text(derivatives / "SIMULATED.txt", "Nothing in these files was measured.\n")
    write_stimuli(root, design)
    write_masks(root, {name: masks[name] for name in ("early", "ventral")})
    for row in range(sessions * runs):
        trials = np.arange(row * length, (row + 1) * length)
        session, run = row // runs + 1, row % runs + 1
        stem = f"sub-01_ses-{session:02d}_task-pictures_run-{run}"
        func = Path("sub-01") / f"ses-{session:02d}" / "func"
        names = [design.ids[shown] for shown in design.shown[trials]]
        events = _events(rng, names)
        (root / func).mkdir(parents=True, exist_ok=True)
        events.to_csv(root / func / f"{stem}_events.tsv", sep="\t", index=False)
        _write_run(rng, derivatives / func, stem, events, amplitudes[trials], masks["mask"])
    write_text(root / "calcarine.yaml", _TEXT)


def _describe(folder: Path, kind: str) -> None:
    about = {"Name": "Simulated: nothing was measured", "BIDSVersion": "1.9.0", "DatasetType": kind}
    write_text(folder / "dataset_description.json", json.dumps(about, indent=1))


def _events(rng: np.random.Generator, names: list[str]) -> pd.DataFrame:
    """Return a picture every few seconds, and some button presses."""
    onset = 6.0 + _SPACING * np.arange(len(names)) + rng.choice([0.0, 1.0, 2.0], len(names))
    pictures = pd.DataFrame(
        {
            "onset": onset,
            "duration": 3.0,
            "trial_type": "picture",
            "stim_file": [f"stimuli/{name}.png" for name in names],
        }
    )
    presses = pd.DataFrame(
        {"onset": onset[2::5] + 1.5, "duration": 0.0, "trial_type": "button", "stim_file": "n/a"}
    )
    return pd.concat([pictures, presses]).sort_values("onset", ignore_index=True)


def _write_run(
    rng: np.random.Generator,
    folder: Path,
    stem: str,
    events: pd.DataFrame,
    amplitudes: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> None:
    """Write time series, brain mask, confounds and sidecar of one run."""
    import nibabel as nib
    from nilearn.glm.first_level import compute_regressor

    folder.mkdir(parents=True, exist_ok=True)
    length = int((events["onset"].max() + _HRF_END) / _TR)
    times = np.arange(length) * _TR + _TR / 2
    pictures = events[events["trial_type"] == "picture"]
    columns = [
        compute_regressor(np.array([[onset], [duration], [1.0]]), "glover", times)[0][:, 0]
        for onset, duration in zip(pictures["onset"], pictures["duration"], strict=True)
    ]
    motion = np.cumsum(rng.normal(0, 0.01, (length, 6)), axis=0)
    percent = np.stack(columns, 1) @ amplitudes + motion @ rng.normal(0, 3, (6, len(amplitudes[0])))
    percent += rng.normal(0, 0.4, percent.shape)
    bold = np.zeros((*mask.shape, length), np.int16)
    bold[mask] = np.round(10_000 * (1 + percent / 100)).T
    image = nib.Nifti1Image(bold, AFFINE)
    image.header.set_zooms((2.0, 2.0, 2.0, _TR))
    nib.save(image, folder / f"{stem}_space-{_SPACE}_desc-preproc_bold.nii.gz")
    brain = nib.Nifti1Image(mask.astype(np.uint8), AFFINE)
    nib.save(brain, folder / f"{stem}_space-{_SPACE}_desc-brain_mask.nii.gz")
    about = {"RepetitionTime": _TR, "StartTime": _TR / 2, "TaskName": "pictures"}
    write_text(folder / f"{stem}_space-{_SPACE}_desc-preproc_bold.json", json.dumps(about))
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    table = pd.DataFrame(motion, columns=names)
    table["framewise_displacement"] = np.r_[np.nan, np.abs(np.diff(motion, axis=0)).sum(1)]
    table.to_csv(
        folder / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a"
    )
