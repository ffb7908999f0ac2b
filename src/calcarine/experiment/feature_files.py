"""Feature spaces of your own, from array files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import (
    DamagedFileError,
    MissingFileError,
    SettingError,
    ShapeError,
    one_line,
)
from calcarine.evaluation.inputs.array_files import read_arrays
from calcarine.files import read_json
from calcarine.stimuli import StimulusSet
from calcarine.stimuli.tables import read_rows

__all__ = ["read_feature_file", "read_feature_files"]

_IDS, _ID = "ids", "id"


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
        ``.npy`` with the features; ``.npz`` with one array of features and, optionally, an array
        ``ids`` of stimulus ids; or ``.parquet`` with a column of lists, nested for more than one
        axis, or a column of numbers for each value, and optionally a column ``id``. Ids may also
        be in a file of the same name that ends with ``.json`` (a list) or ``.csv`` (a column
        ``id``). Without ids the rows are those of the data set's stimuli, in their order.
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
    if path.suffix.lower() not in (".npy", ".npz", ".parquet"):
        raise SettingError(
            f"The features '{name}' are in {path}; save them as .npy, .npz or .parquet, one row "
            "per stimulus."
        )
    if path.suffix.lower() == ".parquet":
        arrays = _read_parquet(path)
    else:
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


def _read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    """Return the features of a parquet file and, if it has a column of them, the ids."""
    import pyarrow.parquet as parquet
    import pyarrow.types as types

    if not path.is_file():
        raise MissingFileError(f"There is no file {path}; check its name.")
    try:
        table = parquet.read_table(path)
    except Exception as error:  # damaged files raise errors of many kinds
        raise DamagedFileError(
            f"{path} cannot be read as parquet ({one_line(error)}); save it again."
        ) from error
    arrays: dict[str, NDArray[Any]] = {}
    if _ID in table.column_names:
        if table[_ID].null_count:
            raise DamagedFileError(f"The column {_ID} of {path} lacks values; name every stimulus.")
        arrays[_IDS] = np.asarray([str(each) for each in table[_ID].to_pylist()])
    # pandas writes its index as a column.
    names = [n for n in table.column_names if n != _ID and not n.startswith("__index_level_")]
    if not names:
        return arrays
    if len(names) == 1 and types.is_nested(table.schema.field(names[0]).type):
        arrays[names[0]] = _nested(table[names[0]].combine_chunks(), path, names[0])
        return arrays
    wrong = [
        name
        for name in names
        if table[name].null_count
        or not (types.is_integer(kind := table.schema.field(name).type) or types.is_floating(kind))
    ]
    if wrong:
        raise DamagedFileError(
            f"The column {wrong[0]} of {path} holds other values than numbers, or none; keep an "
            f"{_ID} and either one column of lists or columns of numbers."
        )
    columns = [table[name].to_numpy().astype(np.float32) for name in names]
    arrays["features"] = np.stack(columns, axis=1)
    return arrays


def _nested(values: Any, path: Path, name: str) -> NDArray[Any]:
    """Return a column of lists as an array, with an axis for each level of lists."""
    import pyarrow as pa
    import pyarrow.compute as compute
    import pyarrow.types as types

    shape = [len(values)]
    while types.is_nested(values.type):
        lists = types.is_list(values.type) or types.is_large_list(values.type)
        if not lists and not types.is_fixed_size_list(values.type):
            break
        lengths = set(compute.unique(compute.list_value_length(values)).to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise ShapeError(
                f"The lists in the column {name} of {path} have unequal lengths; give every "
                "stimulus the same number of values."
            )
        shape.append(int(lengths.pop()))
        values = values.flatten()
    number = types.is_integer(values.type) or types.is_floating(values.type)
    if not number or (isinstance(values, pa.Array) and values.null_count):
        raise DamagedFileError(
            f"The lists in the column {name} of {path} hold other values than numbers, or none; "
            "save numbers."
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


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
