"""Read tables of trials, and responses with their scalers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.audit.inputs import FitStatistics, TrialTable
from calcarine.errors import CalcarineError, SettingError, ShapeError
from calcarine.evaluation.inputs.array_files import ARRAY_SUFFIXES, read_arrays
from calcarine.stimuli.tables import read_rows

__all__ = ["COLUMNS", "columns_of", "read_responses", "read_trial_rows", "trials_of"]

COLUMNS = ("stimulus", "role", "session", "fold", "picture", "pretrain")


_TRUE = {"1", "true", "yes", "1.0"}


_FALSE = {"0", "false", "no", "0.0", ""}


_ROLES = {"training": "train", "testing": "test"}


Arrays = dict[str, NDArray[Any]]


def read_trial_rows(path: Path) -> pd.DataFrame:
    """Read a table of trials."""
    return read_rows(path, "table", COLUMNS, needed=("stimulus",))


def columns_of(table: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of a table by name."""
    return {str(name): table[name].to_numpy() for name in table.columns}


def trials_of(columns: Mapping[str, Any], where: Path) -> TrialTable:
    """Make a `TrialTable` from the columns of a table; missing columns are unknown."""
    texts = {name: np.asarray(columns[name]).astype(str) for name in COLUMNS if name in columns}
    result: dict[str, Any] = {
        name: texts[name] for name in ("stimulus", "role", "fold", "picture") if name in texts
    }
    if "role" in result:
        lower = np.char.lower(np.char.strip(result["role"]))
        result["role"] = np.asarray([_ROLES.get(role, role) for role in lower.tolist()], str)
    if "session" in texts:
        try:
            result["session"] = texts["session"].astype(float).astype(np.int64)
        except ValueError:
            result["session"] = np.unique(texts["session"], return_inverse=True)[1]
    if "pretrain" in texts:
        lower = np.char.lower(texts["pretrain"])
        other = sorted(set(lower.tolist()) - _TRUE - _FALSE)
        if other:
            raise CalcarineError(f"{where}: the column pretrain must be 0 or 1, not '{other[0]}'.")
        result["pretrain"] = np.isin(lower, sorted(_TRUE))
    return TrialTable(**result)


def read_responses(
    path: Path, trials: TrialTable | None
) -> tuple[TrialTable, NDArray[np.float64], list[FitStatistics]]:
    """Read responses with their trials and, if it is stored, the scaler.

    Parameters
    ----------
    path : Path
        A CSV file with columns of `TrialTable`; all other columns are voxels. Or an .npz or .pt
        file with the array responses (trial, voxel), any column of `TrialTable`, and the scaler:
        scaler_mean and scaler_scale of shape (voxel,), or of shape (session, voxel) together with
        scaler_sessions. With a scaler, the responses must be those before scaling. Or an .npy
        file with the responses alone.
    trials : TrialTable, optional
        The trials, if the file has no column stimulus.

    Returns
    -------
    trials : TrialTable
    responses : float64 array of shape (trial, voxel)
    statistics : list of FitStatistics
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        arrays = read_arrays(path, "responses")
        if "responses" not in arrays:
            raise ShapeError(f"{path} has no array responses; store one of shape (trial, voxel).")
        columns: Mapping[str, Any] = arrays
        values = arrays["responses"]
    else:
        table = read_trial_rows(path)
        arrays, columns = {}, columns_of(table)
        rest = table.drop(columns=[name for name in COLUMNS if name in table])
        values = _numbers(rest, path)
    if "stimulus" in columns:
        trials = trials_of(columns, path)
    if trials is None:
        raise SettingError(
            f"{path} has no column stimulus; give --ids with one row for each trial."
        )
    fits = values.ndim == 2 and values.shape[1] and len(values) == len(trials.stimulus)
    if not fits or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise ShapeError(
            f"{path} has responses of shape {values.shape}, or values that are not finite, for "
            f"{len(trials.stimulus)} trials; give one row of finite numbers for each trial."
        )
    values = values.astype(np.float64)
    return trials, values, _scalers(arrays, values, trials, path)


def _numbers(table: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    try:
        return table.to_numpy(dtype=np.float64)
    except ValueError:
        pass
    try:
        # Spreadsheets in many countries use a decimal comma.
        return table.replace(r"^(-?\d+),(\d+)$", r"\1.\2", regex=True).to_numpy(np.float64)
    except ValueError:
        raise CalcarineError(
            f"{path}: all columns other than {', '.join(COLUMNS)} are voxels and must be numbers."
        ) from None


def _session(value: Any) -> str:
    """Return the name of a session; 1, 1.0 and "01" are the same."""
    try:
        return str(int(float(value)))
    except (ValueError, OverflowError):
        return str(value)


def _scalers(
    arrays: Arrays, values: NDArray[np.float64], trials: TrialTable, path: Path
) -> list[FitStatistics]:
    train, test = trials.rows("train"), trials.rows("test")
    if "scaler_mean" not in arrays:
        return []
    if train is None or test is None:
        raise CalcarineError(
            f"{path} has a scaler, but the trials have no roles; add a column role with train and "
            "test."
        )
    width = values.shape[1]
    stored = {
        name: np.atleast_2d(arrays[f"scaler_{name}"]).astype(np.float64)
        for name in ("mean", "scale")
        if f"scaler_{name}" in arrays
    }
    sessions = arrays.get("scaler_sessions")
    rows = 1 if sessions is None else len(sessions)
    for name, array in stored.items():
        if array.shape != (rows, width):
            raise ShapeError(
                f"{path}: scaler_{name} has shape {arrays['scaler_' + name].shape}; give one value "
                f"for each of {width} voxels, and one row for each entry of scaler_sessions."
            )
    if sessions is not None and trials.session is None:
        raise CalcarineError(
            f"{path} has scaler_sessions, but the trials have no column session; add it."
        )
    result = []
    for row in range(rows):
        inside = np.ones(len(values), bool)
        label = ""
        if sessions is not None and trials.session is not None:
            label = f" of session {sessions[row]}"
            # The table of trials stores named sessions as numbers, so the file's names are used.
            known = arrays.get("session", trials.session)
            inside = np.array([_session(s) for s in known]) == _session(sessions[row])
            if not inside.any():
                raise CalcarineError(
                    f"{path}: no trial is{label}, which scaler_sessions lists; use the names of "
                    "the array session."
                )
        own, both = values[inside & train], values[inside & (train | test)]
        if len(own) < 2:
            raise SettingError(
                f"{path}: the scaler{label} has fewer than two training trials; give more trials."
            )
        unit = both.std(axis=0)
        unit = np.where(unit > 0, unit, 1.0)
        if "mean" in stored:
            result.append(
                FitStatistics(f"mean{label}", stored["mean"][row], own.mean(0), both.mean(0), unit)
            )
        if "scale" in stored:
            scale = stored["scale"][row]
            pairs = [(own.std(0, ddof=d), both.std(0, ddof=d)) for d in (0, 1)]
            nearest = min(pairs, key=lambda pair: min(np.abs(scale - p).max() for p in pair))
            result.append(FitStatistics(f"scale{label}", scale, *nearest, unit))
    return result
