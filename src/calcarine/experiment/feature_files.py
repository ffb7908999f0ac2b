"""Feature spaces of your own, from array files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import DamagedFileError, SettingError, ShapeError
from calcarine.evaluation.inputs.array_files import read_arrays
from calcarine.files import read_json
from calcarine.stimuli import StimulusSet
from calcarine.stimuli.tables import read_rows

__all__ = ["read_feature_file", "read_feature_files"]

_IDS = "ids"


def read_feature_files(
    files: Mapping[str, str], stimuli: StimulusSet
) -> dict[str, NDArray[np.float32]]:
    """Read feature spaces of your own; see :func:`read_feature_file`."""
    return {name: read_feature_file(name, Path(file), stimuli) for name, file in files.items()}


def read_feature_file(name: str, path: Path, stimuli: StimulusSet) -> NDArray[np.float32]:
    """Read one feature space of your own.

    Parameters
    ----------
    name : str
        Name of the feature space.
    path : Path
        ``.npy`` with the features, or ``.npz`` with one array of features and, optionally, an
        array ``ids`` of stimulus ids. Ids may also be in a file of the same name that ends with
        ``.json`` (a list) or ``.csv`` (a column ``id``). Without ids the rows are those of the
        data set's stimuli, in their order.
    stimuli : StimulusSet
        Stimuli of the data set.

    Returns
    -------
    float32 array of shape (stimulus, ...)
        A row for each of ``stimuli.ids``, in their order.

    Raises
    ------
    CalcarineError
        If the file cannot be read, a stimulus has no row, or values are not finite numbers.
    """
    if path.suffix.lower() not in (".npy", ".npz"):
        raise SettingError(
            f"The features '{name}' are in {path}; save them as .npy or .npz, one row per stimulus."
        )
    arrays = dict(read_arrays(path, "features"))
    ids = _ids(path, arrays.pop(_IDS, None))
    if len(arrays) != 1:
        raise DamagedFileError(
            f"{path} must hold one array of features, and optionally ids; it holds "
            f"{', '.join(arrays) or 'none'}."
        )
    values = next(iter(arrays.values()))
    if values.dtype.kind not in "fiub" or values.ndim < 2:
        raise ShapeError(
            f"{path} holds an array of shape {values.shape} and type {values.dtype}; features are "
            "numbers with one row for each stimulus and at least one column."
        )
    values = values[_rows(name, path, len(values), ids, stimuli)]
    features = np.asarray(values, np.float32)
    if not np.isfinite(features).all():
        raise DamagedFileError(
            f"The features '{name}' in {path} hold values that are not finite; replace them."
        )
    return features


def _ids(path: Path, inside: NDArray[Any] | None) -> list[str] | None:
    """Return the ids of the rows, from the archive itself or a file of the same name."""
    if inside is not None:
        return [str(each) for each in np.ravel(inside)]
    listed, table = path.with_suffix(".json"), path.with_suffix(".csv")
    if listed.is_file():
        try:
            content = read_json(listed)
        except (OSError, ValueError) as error:
            raise DamagedFileError(f"{listed} is not JSON; write a list of ids.") from error
        if not isinstance(content, list):
            raise DamagedFileError(f"{listed} must hold a list of stimulus ids, one for each row.")
        return [str(each) for each in content]
    if table.is_file():
        return [str(each) for each in read_rows(table, "table of ids", needed=("id",))["id"]]
    return None


def _rows(
    name: str, path: Path, count: int, ids: list[str] | None, stimuli: StimulusSet
) -> NDArray[np.int64]:
    """Return which row of the file belongs to each stimulus."""
    if ids is None:
        if count != len(stimuli):
            raise ShapeError(
                f"The features '{name}' in {path} have {count} rows, and the data set has "
                f"{len(stimuli)} stimuli; give one row for each, or ids in {path.stem}.json."
            )
        return np.arange(count)
    if len(ids) != count:
        raise ShapeError(
            f"The features '{name}' in {path} have {count} rows and {len(ids)} ids; give one id "
            "for each row."
        )
    place = {key: row for row, key in enumerate(ids)}
    if len(place) < len(ids):
        twice = next(key for row, key in enumerate(ids) if place[key] != row)
        raise ShapeError(f"The ids of {path} name '{twice}' twice; give each stimulus one row.")
    missing = [key for key in stimuli.ids if key not in place]
    if missing:
        raise ShapeError(
            f"The features '{name}' in {path} lack {len(missing)} of {len(stimuli)} stimuli, the "
            f"first '{missing[0]}'; add their rows."
        )
    return np.asarray([place[key] for key in stimuli.ids], np.int64)
