"""GOD as published: one BData file per subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.bdata import BData
from calcarine.datasets.god._ids import (
    category,
    first_index,
    names_of,
    parse_name,
    picture_list,
)
from calcarine.datasets.god._subject_files import INFO, WHO, GodTrials, add_unions
from calcarine.errors import DamagedFileError, MissingFileError, SettingError

__all__ = ["LABELS", "picture_names", "read_official", "regions_of", "trial_types"]

TRAIN, PERCEPTION, IMAGERY = 1, 2, 3
LABELS = ("stimulus_id", "Label", "image_id", "ImageID")


def trial_types(data: BData) -> NDArray[np.int64]:
    """Return the type of each trial: 1 training, 2 perception test, 3 imagery test."""
    kinds = data.label("DataType")
    if not np.isin(kinds, (TRAIN, PERCEPTION, IMAGERY)).all():
        strange = next(k for k in kinds.tolist() if k not in (TRAIN, PERCEPTION, IMAGERY))
        raise DamagedFileError(
            f"{WHO}: DataType in {data.path} holds {strange}; it should be 1 (training), 2 "
            f"(perception test) or 3 (imagery), so get the file again from {INFO.source}."
        )
    return kinds.astype(np.int64)


def picture_names(
    data: BData, folders: list[Path], kinds: NDArray[np.int64], given: int | None = None
) -> list[str]:
    """Return the picture of each training and perception trial; imagery trials have none.

    Labels come from the first of `LABELS` that the file has, through its
    vmap where there is one, else from ``image_index`` and the CSV lists.
    """
    shown = np.flatnonzero(kinds != IMAGERY)
    names = [""] * len(kinds)
    for key in LABELS:
        if key not in data or data.mask(key).sum() != 1:
            continue
        values = data.label(key)
        texts = data.vmap.get(key, {})
        if texts:
            results = [_mapped(texts, value, key, data.path) for value in values[shown].tolist()]
        elif (np.abs(values[shown]) >= 1e6).all():
            if data.dtype.itemsize < 8:
                raise DamagedFileError(
                    f"{WHO}: {data.path} is stored in {data.dtype}, which holds no six decimals of "
                    f"a picture's label; get the file again from {INFO.source}."
                )
            results = names_of(values[shown], f"{WHO}, {key} in {data.path}")
        else:
            continue
        for row, name in zip(shown.tolist(), results, strict=True):
            names[row] = name
        return names
    return _indexed(data, folders, kinds, names, given)


def _mapped(texts: object, value: float, key: str, path: Path) -> str:
    text = texts.get(value) if isinstance(texts, dict) else None
    name = parse_name(text) if text else None
    if name is None:
        raise DamagedFileError(
            f"{WHO}: vmap of {path} gives {key} {value:g} no picture such as n01518878_10042; get "
            f"the file again from {INFO.source}."
        )
    return name


def _indexed(
    data: BData, folders: list[Path], kinds: NDArray[np.int64], names: list[str], given: int | None
) -> list[str]:
    if "image_index" not in data:
        raise DamagedFileError(
            f"{WHO}: {data.path} has no labels of pictures ({', '.join(LABELS)} or image_index); "
            f"its columns are {', '.join(data.keys) or 'none'}."
        )
    index = data.label("image_index")
    for side, kind in (("train", TRAIN), ("test", PERCEPTION)):
        own = np.flatnonzero(kinds == kind)
        listed = picture_list(folders, side)
        if listed is None:
            raise MissingFileError(
                f"{WHO}: {data.path} numbers its pictures and does not name them; put "
                "imageID_training.csv and imageID_test.csv (in data/ of "
                "github.com/KamitaniLab/GenericObjectDecoding) into the folder."
            )
        where = f"{WHO}: image_index of the {side} trials in {data.path}"
        base = first_index(index[own], len(listed), where, given)
        for row in own.tolist():
            names[row] = listed[int(index[row]) - base]
    return names


def read_official(
    path: Path, folders: list[Path], test: str = "perception", given: int | None = None
) -> GodTrials:
    """Read one subject of the published form.

    Parameters
    ----------
    path
        ``SubjectN.h5``.
    folders
        Where lists of pictures may be.
    test
        ``"perception"`` or ``"imagery"``: which trials are the test's.
    given
        Where image_index begins, if known.
    """
    data = BData.open(path)
    kinds = trial_types(data)
    names = picture_names(data, folders, kinds, given)
    wanted = PERCEPTION if test == "perception" else IMAGERY
    if test == "imagery":
        _name_imagined(data, kinds, names)
    kept = np.flatnonzero((kinds == TRAIN) | (kinds == wanted))
    is_test = kinds[kept] != TRAIN
    if is_test.all() or not is_test.any():
        raise DamagedFileError(
            f"{WHO}: {path} has {int((~is_test).sum())} training and {int(is_test.sum())} {test} "
            f"trials and needs both; get the file again from {INFO.source}."
        )
    voxel = data.mask("VoxelData") if "VoxelData" in data else data.mask("ROI_VC")
    if not voxel.any():
        raise DamagedFileError(f"{WHO}: {path} marks no column as VoxelData; get it again.")
    rois = regions_of(data, voxel)
    sessions, runs = _sessions(data, kept, is_test)
    return GodTrials(
        responses=data.select(voxel, np.float32)[kept],
        names=[names[row] for row in kept],
        is_test=is_test,
        sessions=sessions,
        voxels=_coordinates(data, voxel),
        rois=add_unions(rois),
        runs=runs,
        rows=_rows(data, kinds, names, folders),
    )


def regions_of(data: BData, voxel: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Return masks over the voxels of the keys ``ROI_...``, by the rest of the key."""
    results = {}
    for key in (key for key in data.keys if key.startswith("ROI_")):
        mask = data.mask(key)
        if (mask & ~voxel).any():
            raise DamagedFileError(
                f"{WHO}: {key} in {data.path} marks {int((mask & ~voxel).sum())} columns that are "
                f"no voxels; get the file again from {INFO.source}."
            )
        results[key[4:]] = mask[voxel]
    return results


def _name_imagined(data: BData, kinds: NDArray[np.int64], names: list[str]) -> None:
    """Assign imagery trials, which name a category, the test picture of that category."""
    owner = {
        category(names[row]): names[row] for row in np.flatnonzero(kinds == PERCEPTION).tolist()
    }
    key = next((key for key in LABELS if key in data and data.mask(key).sum() == 1), None)
    if key is None:
        raise DamagedFileError(f"{WHO}: imagery trials in {data.path} have no label of a category.")
    values, texts = data.label(key), data.vmap.get(key, {})
    for row in np.flatnonzero(kinds == IMAGERY).tolist():
        value = values[row]
        text = texts.get(value, "")
        synset = text[:9] if text else f"n{int(value):08d}" if np.isfinite(value) else ""
        if synset not in owner:
            raise SettingError(
                f"{WHO}: imagery trial {row} in {data.path} is of category {synset or value}, "
                "which no test picture has; use test=perception."
            )
        names[row] = owner[synset]


def _sessions(
    data: BData, kept: NDArray[np.int64], is_test: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    numbers: dict[str, NDArray[np.int64] | None] = {}
    for key in ("Session", "Run"):
        known = key in data and data.mask(key).sum() == 1
        values = data.label(key)[kept] if known else None
        whole = values is not None and bool(
            (np.isfinite(values) & (np.abs(values) < 1e9) & (values == np.round(values))).all()
        )
        if values is not None and not whole:
            raise DamagedFileError(
                f"{WHO}: {key} in {data.path} should be whole numbers; get it again."
            )
        numbers[key] = values.astype(np.int64) if values is not None else None
    sessions = numbers["Session"]
    if sessions is None:
        return np.where(is_test, 2, 1).astype(np.int64), numbers["Run"]
    if np.intersect1d(sessions[is_test], sessions[~is_test]).size:
        # Training and test were measured in sessions of their own, each counted from 1.
        sessions = sessions + np.where(is_test, int(sessions[~is_test].max()), 0)
    return sessions, numbers["Run"]


def _coordinates(data: BData, voxel: NDArray[np.bool_]) -> pd.DataFrame:
    empty = np.full(int(voxel.sum()), np.nan)
    return pd.DataFrame(
        {
            axis: data.row(f"voxel_{axis}")[voxel] if f"voxel_{axis}" in data else empty
            for axis in "xyz"
        }
    )


def _rows(
    data: BData, kinds: NDArray[np.int64], names: list[str], folders: list[Path]
) -> dict[str, dict[str, int]]:
    """Return the row of each picture in ``images_*.npz``, from the lists or from image_index."""
    results: dict[str, dict[str, int]] = {}
    for side, kind in (("train", TRAIN), ("test", PERCEPTION)):
        own = np.flatnonzero(kinds == kind)
        listed = picture_list(folders, side)
        if listed is not None:
            results[side] = {name: row for row, name in enumerate(listed)}
        elif "image_index" in data and data.mask("image_index").sum() == 1 and len(own):
            index = data.label("image_index")[own]
            pairs = {
                (names[row], value) for row, value in zip(own.tolist(), index.tolist(), strict=True)
            }
            shown = {name for name, _ in pairs}
            if len(pairs) == len(shown) == len({value for _, value in pairs}):
                base = first_index(index, len(shown), f"{WHO}: image_index in {data.path}")
                results[side] = {name: int(value) - base for name, value in pairs}
    return results
