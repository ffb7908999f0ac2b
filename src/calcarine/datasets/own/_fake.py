"""A described subject with a simulated signal, written as raw files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from calcarine.datasets._simulated_responses import linear_responses
from calcarine.errors import SettingError
from calcarine.files import write_text
from calcarine.simulation.linear_signal import draw_pictures

__all__ = [
    "AFFINE",
    "Betas",
    "FakeDesign",
    "draw_design",
    "draw_volume",
    "write_own",
    "write_stimuli",
]

Betas = Literal["npy", "nii", "h5"]

AFFINE = np.array([[-2.0, 0, 0, 78], [0, 2.0, 0, -112], [0, 0, 2.0, -70], [0, 0, 0, 1]])

_TEXT = """\
name: mylab
subject: s01
betas: {betas}
trials: trials.csv
mask: mask.nii.gz
rois: {{early: early.nii.gz, ventral: ventral.nii.gz}}
images: stimuli/
captions: captions.csv
test: shared.txt
"""


class FakeDesign:
    """Pictures, and the order in which they are shown.

    Attributes
    ----------
    ids, pictures, features
        Pictures of the stimuli, uint8 (n, side, side, 3) and what the signal is linear in.
    shown, sessions
        Row of the stimulus and session of each trial.
    test
        Ids that are shown once a session; the others are shown once.
    """

    def __init__(self, rng: np.random.Generator, sessions: int, length: int, side: int) -> None:
        repeated = max(4, length // 5)
        single = length - repeated
        count = repeated + sessions * single
        self.pictures, self.features = draw_pictures(rng, np.arange(count) % 5, side)
        self.ids = [f"pic{row:04d}" for row in rng.permutation(count)]
        blocks = [
            rng.permutation(
                np.r_[:repeated, repeated + part * single : repeated + (part + 1) * single]
            )
            for part in range(sessions)
        ]
        self.shown: NDArray[np.int64] = np.concatenate(blocks)
        self.sessions = np.repeat(np.arange(1, sessions + 1), length)
        self.test = self.ids[:repeated]


def draw_design(rng: np.random.Generator, full_size: bool) -> FakeDesign:
    """Draw ten sessions of 300 trials, or three of 30."""
    return FakeDesign(rng, 10, 300, 128) if full_size else FakeDesign(rng, 3, 30, 24)


def draw_volume(rng: np.random.Generator, full_size: bool) -> dict[str, NDArray[np.bool_]]:
    """Draw a mask (an ellipsoid) with an early and a ventral region."""
    shape = np.array((36, 40, 32) if full_size else (7, 8, 6))
    grid = np.moveaxis(np.indices(tuple(shape)), 0, -1)
    centred = (grid - (shape - 1) / 2) / (shape / 2)
    mask = (centred**2).sum(-1) < 0.95
    early = mask & (centred[..., 1] < -0.2)
    ventral = mask & (centred[..., 1] > 0.2) & (centred[..., 2] < 0.2)
    return {"mask": mask, "early": early, "ventral": ventral}


def write_stimuli(root: Path, design: FakeDesign) -> None:
    """Write pictures, captions and the list of test stimuli."""
    folder = root / "stimuli"
    folder.mkdir(parents=True, exist_ok=True)
    for key, picture in zip(design.ids, design.pictures, strict=True):
        Image.fromarray(picture).save(folder / f"{key}.png")
    names = ("red", "green", "blue")
    strongest = design.features.reshape(len(design.ids), 4, 3).sum(1).argmax(1)
    captions = [f"four quarters with much {names[k]}|a {names[k]} pattern" for k in strongest]
    pd.DataFrame({"id": design.ids, "caption": captions}).to_csv(root / "captions.csv", index=False)
    write_text(root / "shared.txt", "\n".join(design.test) + "\n")


def write_masks(root: Path, masks: dict[str, NDArray[np.bool_]]) -> None:
    """Write one NIfTI image per mask."""
    import nibabel as nib

    for name, mask in masks.items():
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), root / f"{name}.nii.gz")


def write_own(root: Path, full_size: bool, seed: int, betas: str) -> None:
    """Write raw files and the YAML file that describes them."""
    if betas not in get_args(Betas):
        raise SettingError(f"Simulated betas are {', '.join(get_args(Betas))}, not {betas!r}.")
    rng = np.random.default_rng(seed)
    design, masks = draw_design(rng, full_size), draw_volume(rng, full_size)
    count = int(masks["mask"].sum())
    values = linear_responses(rng, design.features[design.shown], count, 1.0).astype(np.float32)
    drift = rng.normal(0, 0.5, (int(design.sessions.max()) + 1, count))
    values = values + drift[design.sessions].astype(np.float32)
    write_stimuli(root, design)
    write_masks(root, masks)
    ids = [design.ids[row] for row in design.shown]
    table = pd.DataFrame({"stimulus": ids, "session": design.sessions})
    table.to_csv(root / "trials.csv", index=False)
    pattern = _write_betas(root, values, design.sessions, masks["mask"], betas)
    write_text(root / "calcarine.yaml", _TEXT.format(betas=pattern))


def _write_betas(
    root: Path,
    values: NDArray[np.float32],
    sessions: NDArray[np.int64],
    mask: NDArray[np.bool_],
    betas: str,
) -> str:
    """Write betas in one of three forms; return their part of the description."""
    (root / "betas").mkdir()
    if betas == "h5":
        import h5py

        with h5py.File(root / "betas" / "betas.h5", "w") as file:
            file["betas"] = _volumes(values, mask)
        return "betas/betas.h5:betas"
    for session in np.unique(sessions):
        part, stem = values[sessions == session], root / "betas" / f"session{session}"
        if betas == "npy":
            np.save(stem.with_suffix(".npy"), part)
        else:
            import nibabel as nib

            image = nib.Nifti1Image(np.moveaxis(_volumes(part, mask), 0, -1), AFFINE)
            nib.save(image, f"{stem}.nii.gz")
    return "betas/*.npy" if betas == "npy" else "betas/*.nii.gz"


def _volumes(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    result = np.zeros((len(values), *mask.shape), np.float32)
    result[:, mask] = values
    return result
