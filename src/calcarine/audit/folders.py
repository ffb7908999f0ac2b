"""Read the inputs of an audit from folders of pictures, tables and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.audit.inputs import (
    AuditInputs,
    FitStatistics,
    PictureSet,
    Prediction,
    SampleChoice,
    TrialTable,
)
from calcarine.audit.reported_scores import read_numbers
from calcarine.audit.stimulus_names import Names
from calcarine.errors import CalcarineError
from calcarine.evaluation.inputs.array_files import (
    ARRAY_SUFFIXES,
    align_rows,
    read_arrays,
    read_stack,
)
from calcarine.evaluation.inputs.folders import is_stack, open_folders, picture_files
from calcarine.evaluation.inputs.image_stacks import ImageStack, from_array
from calcarine.stimuli.image_files import read_picture
from calcarine.stimuli.names import match_names
from calcarine.stimuli.tables import read_rows

COLUMNS = ("stimulus", "role", "session", "fold", "picture", "pretrain")
_TRUE = {"1", "true", "yes", "1.0"}
_FALSE = {"0", "false", "no", "0.0", ""}
_ROLES = {"training": "train", "testing": "test"}
Arrays = dict[str, NDArray[Any]]


def inputs_from_folders(
    images: Path,
    truth: Path,
    *,
    train: Path | None = None,
    ids: Path | None = None,
    responses: Path | None = None,
    predictions: Path | None = None,
    samples: Path | None = None,
    others: Sequence[Path] = (),
    numbers: str | None = None,
    seed: int = 0,
) -> AuditInputs:
    """Read a folder of reconstructions and any other inputs of an audit.

    Parameters
    ----------
    images, truth : Path
        Folders of pictures with the same names; samples are named ``NAME_0``, ``NAME_1``. Each
        folder of pictures can also be a stack (.pt, .npy, .npz).
    train : Path, optional
        Folder of the training pictures.
    ids : Path, optional
        CSV with one row for each trial: the column stimulus, and any of role, session, fold,
        picture and pretrain.
    responses : Path, optional
        CSV, .npz, .npy or .pt: see `read_responses`.
    predictions : Path, optional
        .npz or .pt with the array predictions and any of targets, train_targets and ids; or .npy.
    samples : Path, optional
        Folder of all samples, if ``images`` contains the chosen ones.
    others : sequence of Path
        Folders of pictures of the same stimuli by other methods.
    numbers : str, optional
        Reported scores, for example ``"PixCorr .32, SSIM .43"``.
    seed : int

    Returns
    -------
    AuditInputs

    Raises
    ------
    CalcarineError
        If a file is missing or unreadable, or files do not fit together.
    """
    given = [f"reconstructions: {images}", f"ground truths: {truth}"]
    seen, recon, notes = _pair(truth, images)
    given += notes
    result: dict[str, Any] = {}
    if train is not None:
        result["train"] = _folder(train)
        given.append(f"training pictures: {train}")
    trials = None
    if ids is not None:
        trials = trials_of(_columns(_table(ids)), ids)
        given.append(f"table of trials: {ids}")
    if responses is not None:
        own, values, statistics = read_responses(responses, trials)
        trials = own if trials is None else _merged(trials, own, ids, responses)
        result |= {"responses": values, "statistics": statistics}
        given.append(f"responses: {responses}")
    if predictions is not None:
        result["predictions"] = _predictions(predictions, seen.ids)
        given.append(f"predictions: {predictions}")
    if samples is not None:
        result["choice"] = _choice(truth, samples, recon)
        given.append(f"all samples: {samples}")
    if others:
        named = {_name(other): _pair(truth, other)[1] for other in others}
        if len(named) < len(others):
            raise CalcarineError(
                "Two folders of other methods have the same name; rename one of them."
            )
        result["others"] = named
        given.append(f"pictures of other methods: {', '.join(named)}")
    if numbers is not None:
        result["numbers"] = read_numbers(numbers)
        given.append(f"reported scores: {numbers}")
    trials = _by_names(trials, seen.ids, result.get("train"))
    return AuditInputs(
        _name(images.resolve()), recon, seen, trials=trials, seed=seed, given=given, **result
    )


def _pair(truth: Path, images: Path) -> tuple[PictureSet, PictureSet, tuple[str, ...]]:
    opened = open_folders(truth, images, "own", None)
    ids = tuple(opened.test.ids)
    return _as_set(ids, opened.test.truth), _as_set(ids, opened.methods["own"]), opened.notes


def _as_set(ids: Sequence[str], pictures: ImageStack) -> PictureSet:
    return PictureSet(ids, pictures.read, pictures.samples)


def _name(place: Path) -> str:
    return (place.stem if is_stack(place) else place.name) or str(place)


def _folder(folder: Path) -> PictureSet:
    if is_stack(folder):
        stack = from_array(read_stack(folder), f"training pictures {folder}")
        return _as_set([f"row {row}" for row in range(len(stack))], stack)
    files = picture_files(folder)
    if not files:
        raise CalcarineError(f"{folder} has no pictures; give the folder of training pictures.")
    stems = [path.stem for path in files]
    names = stems if len(set(stems)) == len(stems) else [path.name for path in files]
    return PictureSet(names, lambda row, _: read_picture(files[row]))


def _choice(truth: Path, samples: Path, shown: PictureSet) -> SampleChoice:
    """Find which sample is shown, by its pixels."""
    if shown.samples > 1:
        raise CalcarineError(
            "With --samples, --images must have one picture of each stimulus, the chosen one; "
            "remove the other samples from it."
        )
    everything = _pair(truth, samples)[1]
    chosen = np.empty(len(shown), np.int64)
    for row, key in enumerate(shown.ids):
        own = shown.full(row)
        same = [
            s
            for s in range(everything.samples)
            if everything.full(row, s).shape == own.shape
            and np.array_equal(everything.full(row, s), own)
        ]
        if not same:
            raise CalcarineError(
                f"The reconstruction of {key!r} equals none of its samples in {samples}; give the "
                "original samples in a lossless format."
            )
        chosen[row] = same[0]
    return SampleChoice(everything, chosen)


def _table(path: Path) -> pd.DataFrame:
    return read_rows(path, "table", COLUMNS, needed=("stimulus",))


def _columns(table: pd.DataFrame) -> dict[str, Any]:
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
            raise CalcarineError(
                f"{path} has no array responses; store one of shape (trial, voxel)."
            )
        columns: Mapping[str, Any] = arrays
        values = arrays["responses"]
    else:
        table = _table(path)
        arrays, columns = {}, _columns(table)
        rest = table.drop(columns=[name for name in COLUMNS if name in table])
        values = _numbers(rest, path)
    if "stimulus" in columns:
        trials = trials_of(columns, path)
    if trials is None:
        raise CalcarineError(
            f"{path} has no column stimulus; give --ids with one row for each trial."
        )
    fits = values.ndim == 2 and values.shape[1] and len(values) == len(trials.stimulus)
    if not fits or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise CalcarineError(
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
            raise CalcarineError(
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
            raise CalcarineError(
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


def _predictions(path: Path, ids: Sequence[str]) -> tuple[Prediction, ...]:
    arrays = read_arrays(path, "predictions")
    if "predictions" not in arrays:
        raise CalcarineError(
            f"{path} has no array predictions of shape (stimulus, features), only "
            f"{', '.join(arrays) or 'no array'}; rename or add it."
        )
    shape = arrays["predictions"].shape
    arrays = align_rows(arrays, ids, skip=("train_targets",))
    flat = {
        name: arrays[name].reshape(len(arrays[name]), -1).astype(np.float64)
        for name in ("predictions", "targets", "train_targets")
        if name in arrays and arrays[name].ndim >= 2 and arrays[name].dtype.kind in "iuf"
    }
    if "predictions" not in flat or len(flat["predictions"]) != len(ids):
        raise _wrong_rows(path, shape, ids)
    return (
        Prediction("features", flat["predictions"], flat.get("targets"), flat.get("train_targets")),
    )


def _wrong_rows(path: Path, shape: tuple[int, ...], ids: Sequence[str]) -> CalcarineError:
    return CalcarineError(
        f"{path} has predictions of shape {shape}; give one row of numbers for each of the "
        f"{len(ids)} test stimuli, in the order of the array ids or else of the sorted names."
    )


def _merged(trials: TrialTable, own: TrialTable, table: Path | None, responses: Path) -> TrialTable:
    """Merge the columns of two tables of trials row by row."""
    if own is trials:
        return trials
    result: dict[str, Any] = {}
    for field in fields(TrialTable):
        first, second = getattr(trials, field.name), getattr(own, field.name)
        result[field.name] = second if first is None else first
        if first is None or second is None or np.array_equal(first, second):
            continue
        raise CalcarineError(
            f"{table} and {responses} differ in the column {field.name}; give the trials in the "
            "same order in both files, or the column in only one of them."
        )
    return TrialTable(**result)


def _by_names(
    trials: TrialTable | None, ids: Sequence[str], train: PictureSet | None
) -> TrialTable | None:
    """Rename the stimuli of trials like the pictures, if none has the name of a picture.

    A table that contains names of pictures is left unchanged: another spelling can then hide a
    stimulus, which the checks must detect.
    """
    if trials is None or set(trials.stimulus.tolist()) & set(ids):
        return trials
    known = list(dict.fromkeys([*ids, *(() if train is None else train.ids)]))
    meant = match_names(trials.stimulus.tolist(), known)
    if not set(meant.values()) & set(ids):
        named = Names(trials.stimulus.tolist())
        if any(named.find(key) is not None for key in ids):
            return trials
        raise CalcarineError(
            f"The table of trials has none of the test pictures, such as {ids[0]!r}; write the "
            "names of their files into its column stimulus."
        )
    names = np.asarray([meant.get(name, name) for name in trials.stimulus.tolist()])
    return replace(trials, stimulus=names)
