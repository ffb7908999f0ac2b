"""The files of a download, and their approximate sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from calcarine.brain.assets import Asset
from calcarine.brain.info import pick_subject
from calcarine.datasets.nsd.design import listed_sessions
from calcarine.datasets.nsd.layout import (
    ATLASES,
    BUCKET,
    COCO_SPLITS,
    COCO_URL,
    DIMS,
    INFO,
    N_IMAGES,
    PICTURE,
    SESSION_TRIALS,
    SESSIONS,
    NSDLayout,
)
from calcarine.errors import SettingError

__all__ = ["assets"]

# Packed size as a part of the plain one; guesses, as every size here is one.
_PACKED = {"betas": 0.75, "mask": 0.02, "ncsnr": 0.9}


def assets(
    subjects: Sequence[str] | None = None,
    *,
    sessions: int | Sequence[int] | None = None,
    betas: Literal["hdf5", "nii.gz"] = "hdf5",
    images: bool = True,
    captions: bool = True,
) -> list[Asset]:
    """List the files that `load` needs.

    Parameters
    ----------
    subjects : sequence of str, optional
        By default the first.
    sessions : int or sequence of int, optional
        How many from the first on, or which; all that a subject has if left out.
    betas : {"hdf5", "nii.gz"}
        Which of the two official formats: HDF5 is read far faster.
    images : bool
        Whether to get the 73,000 pictures.
    captions : bool
        Whether to get COCO's captions and objects.

    Examples
    --------
    >>> from calcarine.datasets import nsd
    >>> files = nsd.assets(["subj01"], sessions=1)
    >>> [path.split("/")[-1] for file in files if "betas_session" in (path := file.path)]
    ['betas_session01.hdf5']
    """
    if betas not in ("hdf5", "nii.gz"):
        raise SettingError(f"Data set nsd: betas come as hdf5 or nii.gz, not {betas}.")
    names = [pick_subject(INFO, name) for name in (subjects or INFO.subjects[:1])]
    layout = NSDLayout(Path(), names[0])
    results = [
        _official(layout.expdesign, 2_000_000),
        _official(layout.stim_info, 20_000_000),
        *(_official(layout.labels(atlas), 200) for atlas in ATLASES),
    ]
    for name in dict.fromkeys(names):
        results += _of_subject(NSDLayout(Path(), name), sessions, betas)
    if images:
        results.append(_official(layout.stimuli, N_IMAGES * PICTURE * PICTURE * 3))
    if captions:
        kinds = [(kind, split) for kind in ("captions", "instances") for split in COCO_SPLITS]
        folder = layout.annotations("captions", COCO_SPLITS[0]).parent
        # Members bring their folder, annotations/, along.
        results.append(
            Asset(
                (folder.parent / "annotations_trainval2017.zip").as_posix(),
                COCO_URL,
                241 * 2**20,
                members=tuple(f"{folder.name}/{kind}_{split}.json" for kind, split in kinds),
            )
        )
    return results


def _of_subject(layout: NSDLayout, sessions: int | Sequence[int] | None, betas: str) -> list[Asset]:
    last = SESSIONS[layout.subject]
    numbers = listed_sessions(last if sessions is None else sessions)
    if not numbers or numbers[0] < 1 or numbers[-1] > last:
        raise SettingError(
            f"Data set nsd: {layout.subject} has sessions 1 to {last}, but you asked for "
            f"{sessions}."
        )
    x, y, z = DIMS[layout.subject]
    voxels = x * y * z
    session = voxels * 2 * SESSION_TRIALS
    size = session if betas == "hdf5" else int(session * _PACKED["betas"])
    masks = [layout.roi("nsdgeneral"), *(layout.roi(atlas) for atlas in ATLASES), layout.brainmask]
    return [
        _official(layout.responses, 2_500_000),
        *(_official(path, int(voxels * 4 * _PACKED["mask"])) for path in masks),
        _official(layout.ncsnr, int(voxels * 4 * _PACKED["ncsnr"])),
        *(_official(layout.betas / f"betas_session{n:02d}.{betas}", size) for n in numbers),
    ]


def _official(path: Path, size: int) -> Asset:
    return Asset(path.as_posix(), f"{BUCKET}/{path.as_posix()}", size)
