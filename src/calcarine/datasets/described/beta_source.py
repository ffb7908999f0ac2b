"""Betas in one file or one per session: which axis is trials, and reading them masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.described.description import Description
from calcarine.datasets.described.description_arrays import ArrayFile, ArrayStack, find_all, stamp
from calcarine.datasets.described.regions import VoxelGrid, read_mask, same_columns, same_space
from calcarine.datasets.described.subject_trials import SubjectTrials
from calcarine.datasets.described.trials import read_trials
from calcarine.errors import CalcarineError, SettingError, ShapeError

__all__ = ["betas_source"]

_AT_ONCE = 2**26
"""Numbers of a volume file that are read at once while masking."""

Betas = ArrayFile | ArrayStack


@dataclass(frozen=True, eq=False)
class _Sessions:
    """Where the trials of each session are stored.

    Attributes
    ----------
    places : dict of int to (Betas, int, int)
        Session to file, first trial in it and number of trials.
    axis : int
        Of trials in each file.
    """

    places: dict[int, tuple[Betas, int, int]]
    axis: int

    def part(self, session: int, start: int, stop: int) -> NDArray[Any]:
        """Return the trials ``start`` to ``stop`` of a session, trials first."""
        file, first, _ = self.places[session]
        index = [slice(None)] * len(file.shape)
        index[self.axis] = slice(first + start, first + stop)
        values = np.moveaxis(file.read(tuple(index)), self.axis, 0)
        return values.reshape(len(values), *_space(file, self.axis))


def betas_source(description: Description, root: Path) -> SubjectTrials:
    """Return the trials of a description's betas, table of trials and mask.

    Raises
    ------
    CalcarineError
        If files do not fit each other.
    """
    assert description.trials is not None
    tables = [path for path, _ in find_all(root, description.trials, "table of trials")]
    trials = read_trials(tables)
    files = _opened(description, root, trials, tables)
    given = read_mask(root, description.mask) if description.mask else None
    axis = _trial_axis(files, trials, given, description.layout)
    for file in files:
        _check_axes(file, axis, description)
    sessions, trials = _placed(files, trials, axis)
    grid = _grid(files, axis, given, sessions)
    columns = _columns(files, axis, grid, description)

    def read(session: int) -> NDArray[np.float32]:
        count = sessions.places[session][2]
        result = np.empty((count, int(grid.mask.sum())), dtype=np.float32)
        step = max(1, _AT_ONCE // max(1, int(np.prod(files[0].shape)) // files[0].shape[axis]))
        # A compressed file is unpacked from its beginning each time.
        step = count if files[0].about.at_once and isinstance(files[0], ArrayFile) else step
        for start in range(0, count, step):
            part = sessions.part(session, start, min(start + step, count))
            with np.errstate(over="ignore", invalid="ignore"):
                result[start : start + step] = part[:, columns] * description.scale
        _check_values(result, session, sessions.places[session][0].path, grid)
        return result

    provenance = {
        "betas": [each for file in files for each in file.stamps()],
        "mask": stamp(given.path) if given is not None and given.path else None,
        "layout": axis,
        "voxel_order": description.voxel_order,
        "scale": description.scale,
        "units": description.units,
    }
    return SubjectTrials(trials, grid, read, provenance)


def _opened(
    description: Description, root: Path, trials: pd.DataFrame, tables: Sequence[Path]
) -> tuple[Betas, ...]:
    """Open the files of betas; files of one trial each become one array."""
    names: str | list[str] | None = description.betas
    if names is None:
        if "betas" not in trials.columns:
            raise SettingError(
                f"There is no key 'betas', and {tables[0]} has no column betas that names a file a "
                "trial; give betas and trials, or bids."
            )
        names = trials["betas"].tolist()
        twice = trials["betas"][trials["betas"].duplicated()]
        if len(twice):
            raise CalcarineError(
                f"{tables[0]} names {twice.iloc[0]} for two trials; the column betas names a file "
                "a trial."
            )
    files = ArrayFile.open_all(root, names, "betas")
    files = tuple(file.with_axes(description.betas_axes) for file in files)
    if len(files) > 1 and (stack := ArrayStack.of(files)) is not None:
        if len(files) == len(trials):
            for file in files[1:]:
                if file.affine is not None and files[0].affine is not None:
                    same_space(file.path, file.affine, files[0].path, files[0].affine)
                same_columns(file.path, file.about.space, files[0].path, files[0].about.space)
            return (stack,)
        if len(files[0].shape) in (1, 3):
            raise CalcarineError(
                f"There are {len(files)} files of one trial each, as {files[0].path.name}, and the "
                f"table of trials has {len(trials)} trials."
            )
    return files


def _check_axes(file: Betas, axis: int, description: Description) -> None:
    """Raise for volumes in which x and z may be exchanged."""
    space = _space(file, axis)
    known = file.about.writer != "unknown" or not (description.mask or description.rois)
    if known or len(space) != 3 or space != space[::-1]:
        return
    raise SettingError(
        f"{file.path} does not say whether Python or MATLAB wrote it, and with {space[0]} voxels "
        "along both the first and the last axis both readings fit, of which one exchanges x and "
        "z; add 'betas_axes: numpy' (h5py shows x, y, z in this order) or 'betas_axes: matlab' "
        "(MATLAB does, and h5py shows z, y, x) to the description."
    )


def _columns(files: Sequence[Betas], axis: int, grid: VoxelGrid, description: Description) -> Any:
    """Return the index that orders the betas' voxels as the kept voxels."""
    if len(_space(files[0], axis)) > 1 or grid.mask.ndim == 1:
        return grid.mask
    order = description.voxel_order
    by_matlab = [file.path for file in files if file.about.writer == "matlab"]
    if order is None and by_matlab:
        raise SettingError(
            f"{by_matlab[0]} is MATLAB's and has a row of voxels, of which the order in the volume "
            f"of {grid.path or 'the mask'} is not known; add 'voxel_order: matlab' (as "
            "find(mask) gives them) or 'voxel_order: numpy' (as mask.nonzero() and nilearn give "
            "them) to the description."
        )
    return grid.from_matlab() if order == "matlab" else slice(None)


def _space(file: Betas, axis: int) -> tuple[int, ...]:
    """Return the axes other than trials; GLMsingle adds two axes of length 1 to rows of voxels."""
    space = file.shape[:axis] + file.shape[axis + 1 :]
    return space[:1] if file.affine is None and space[1:] == (1, 1) else space


def _trial_axis(
    files: Sequence[Betas], trials: pd.DataFrame, given: VoxelGrid | None, layout: str | None
) -> int:
    """Return which axis is trials, from counts and the mask."""
    first = files[0]
    ndim = len(first.shape)
    if any(len(file.shape) != ndim for file in files) or ndim not in (2, 4):
        shapes = ", ".join(str(file.shape) for file in files[:3])
        raise ShapeError(
            f"Betas have shape {shapes}{' and so on' if len(files) > 3 else ''}; they should be "
            "(trial, voxel), (voxel, trial), or a trial and three axes of a volume, alike in all "
            "files."
        )
    axes = list(first.about.trial_axes)
    if layout is not None and len(axes) > 1:
        axes = [0 if layout == "trials-first" else ndim - 1]
    fitting = [axis for axis in axes if _counts_fit(files, trials, axis)]
    placed = [axis for axis in fitting if _spaces_fit(files, given, axis)]
    if not fitting:
        raise ShapeError(_counts_sentence(files, trials, axes))
    if not placed:
        raise ShapeError(_space_sentence(files, given, fitting[0]))
    if len(placed) == 2 and not (first.about.trials_last and ndim == 4):
        raise SettingError(
            f"{first.path} has shape {first.shape}, so trials could come first or last; add "
            "'layout: trials-first' or 'layout: trials-last' to the description."
        )
    return placed[-1]


def _counts(trials: pd.DataFrame) -> list[int] | None:
    """Return the number of trials of each session; None if sessions are unknown."""
    if "session" not in trials.columns:
        return None
    return [int(n) for n in trials["session"].value_counts().sort_index()]


def _counts_fit(files: Sequence[Betas], trials: pd.DataFrame, axis: int) -> bool:
    lengths = [file.shape[axis] for file in files]
    counts = _counts(trials)
    if len(files) > 1 and counts is not None:
        return lengths == counts
    return sum(lengths) == len(trials)


def _counts_sentence(files: Sequence[Betas], trials: pd.DataFrame, axes: list[int]) -> str:
    counts = _counts(trials)
    if len(files) == 1 or counts is None:
        shapes = " and ".join(str(file.shape) for file in files[:3])
        return (
            f"The table has {len(trials)} trials and the betas {files[0].path.name}"
            f"{' and so on' if len(files) > 1 else ''} have shape {shapes}; no axis of theirs fits "
            "this count."
        )
    if len(files) != len(counts):
        return (
            f"There are {len(files)} files of betas and {len(counts)} sessions in the table of "
            "trials; give one file per session, or one in all."
        )
    wrong = next(
        (row for row, n in enumerate(counts) if all(files[row].shape[axis] != n for axis in axes)),
        0,
    )
    return (
        f"{files[wrong].path.name} has shape {files[wrong].shape}, and session {wrong + 1} of the "
        f"table has {counts[wrong]} trials; files and sessions are taken in natural order."
    )


def _spaces_fit(files: Sequence[Betas], given: VoxelGrid | None, axis: int) -> bool:
    spaces = {_space(file, axis) for file in files}
    if len(spaces) > 1:
        return False
    if given is None:
        return True
    (space,) = spaces
    return space == given.mask.shape or space == (int(given.mask.sum()),)


def _space_sentence(files: Sequence[Betas], given: VoxelGrid | None, axis: int) -> str:
    spaces = [_space(file, axis) for file in files]
    odd = next((row for row, space in enumerate(spaces) if space != spaces[0]), None)
    if odd is not None or given is None:
        return (
            f"{files[0].path.name} has {_voxels(spaces[0])} and {files[odd or 0].path.name} has "
            f"{_voxels(spaces[odd or 0])}; betas of all sessions must be of the same voxels."
        )
    return (
        f"The betas {files[0].path.name} have {_voxels(spaces[0])}, and the mask {given.path} has "
        f"{int(given.mask.sum())} (shape {given.mask.shape}); give the mask that the betas were "
        f"made with, or check the order of their axes{_swapped(files[0], spaces[0], given)}."
    )


def _voxels(space: tuple[int, ...]) -> str:
    return f"{space[0]} voxels" if len(space) == 1 else f"voxels of shape {space}"


def _swapped(file: Betas, space: tuple[int, ...], given: VoxelGrid) -> str:
    """Return what to do if the axes of an array in HDF5 are reversed."""
    fits = space[::-1] in (given.mask.shape, (int(given.mask.sum()), 1, 1))
    if file.about.writer == "unknown" and fits:
        return " ('betas_axes: matlab' reads the file as MATLAB shows it)"
    return ""


def _placed(
    files: Sequence[Betas], trials: pd.DataFrame, axis: int
) -> tuple[_Sessions, pd.DataFrame]:
    """Return where the trials of each session are, and the table with sessions."""
    lengths = [file.shape[axis] for file in files]
    if "session" not in trials.columns:
        numbers = np.repeat(np.arange(1, len(files) + 1), lengths)
        trials = trials.assign(session=numbers)
    numbers = trials["session"].to_numpy()
    places: dict[int, tuple[Betas, int, int]] = {}
    for row, session in enumerate(np.unique(numbers)):
        rows = np.flatnonzero(numbers == session)
        if np.any(np.diff(rows) != 1):
            raise CalcarineError(
                f"The trials of session {session} are not consecutive in the table; sort it by "
                "session, trials in order of presentation."
            )
        one = len(files) == 1
        places[int(session)] = (files[0 if one else row], int(rows[0]) if one else 0, len(rows))
    return _Sessions(places, axis), trials


def _grid(
    files: Sequence[Betas], axis: int, given: VoxelGrid | None, sessions: _Sessions
) -> VoxelGrid:
    """Return the kept voxels: those of the mask, or those with responses in the first session."""
    space = _space(files[0], axis)
    for file in files:
        other = given if given is not None and given.affine is not None else files[0]
        if file.affine is not None and other.affine is not None:
            same_space(file.path, file.affine, other.path, other.affine)
        same_columns(file.path, file.about.space, files[0].path, files[0].about.space)
        if given is not None:
            same_columns(file.path, file.about.space, given.path, given.space)
    if given is not None:
        return given if given.affine is not None else replace(given, affine=files[0].affine)
    if len(space) == 1:
        return VoxelGrid(np.ones(space, dtype=np.bool_), space=files[0].about.space)
    session, (file, _, count) = next(iter(sessions.places.items()))
    values = sessions.part(session, 0, count)
    kept = np.isfinite(values).all(0) & (values != 0).any(0)
    if not kept.any():
        raise CalcarineError(f"{file.path} has no voxel with finite responses in all trials.")
    return VoxelGrid(kept, files[0].affine)


def _check_values(found: NDArray[np.float32], session: int, path: Path, grid: VoxelGrid) -> None:
    bad = np.asarray(~np.isfinite(found).all(0))
    if bad.any():
        hint = "leave them out of the mask" if grid.path else "give a mask without them"
        raise CalcarineError(
            f"{path}: {int(bad.sum())} of {len(bad)} voxels hold NaN or infinity in session "
            f"{session}; {hint}."
        )
