"""Read the inputs of an audit from folders of pictures, tables and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from calcarine.audit.inputs import (
    AuditInputs,
    PictureSet,
    Prediction,
    SampleChoice,
    TrialTable,
)
from calcarine.audit.reported_scores import read_numbers
from calcarine.audit.stimulus_names import Names
from calcarine.audit.trial_files import columns_of, read_responses, read_trial_rows, trials_of
from calcarine.errors import CalcarineError, MissingFileError, SettingError, ShapeError
from calcarine.evaluation.inputs.array_files import (
    align_rows,
    read_arrays,
    read_stack,
)
from calcarine.evaluation.inputs.folders import is_stack, open_folders, picture_files
from calcarine.evaluation.inputs.image_stacks import ImageStack, from_array
from calcarine.stimuli.image_files import read_picture
from calcarine.stimuli.names import match_names

__all__ = ["inputs_from_folders"]


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

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from PIL import Image
    >>> from calcarine.audit import audit, inputs_from_folders
    >>> for folder, shift in [("truth", 0), ("images", 3)]:
    ...     Path(folder).mkdir()
    ...     for i, pixels in enumerate(np.random.default_rng(0).integers(0, 200, (12, 32, 32, 3))):
    ...         Image.fromarray((pixels + shift).astype(np.uint8)).save(f"{folder}/{i}.png")
    >>> inputs = inputs_from_folders(Path("images"), Path("truth"))
    >>> audit(inputs, only=["truth-copies"]).failed
    True
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
        trials = trials_of(columns_of(read_trial_rows(ids)), ids)
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
        result["sample_choice"] = _choice(truth, samples, recon)
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
        raise MissingFileError(f"{folder} has no pictures; give the folder of training pictures.")
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
            raise SettingError(
                f"The reconstruction of {key!r} equals none of its samples in {samples}; give the "
                "original samples in a lossless format."
            )
        chosen[row] = same[0]
    return SampleChoice(everything, chosen)


def _predictions(path: Path, ids: Sequence[str]) -> tuple[Prediction, ...]:
    arrays = read_arrays(path, "predictions")
    if "predictions" not in arrays:
        raise ShapeError(
            f"{path} has no array predictions of shape (stimulus, features), only "
            f"{', '.join(arrays) or 'no array'}; rename or add it."
        )
    shape = arrays["predictions"].shape
    arrays = align_rows(arrays, ids, skip=("train_targets",))
    flat = {}
    for name in ("predictions", "targets", "train_targets"):
        array = arrays.get(name)
        if array is None:
            continue
        if array.ndim < 2 or array.dtype.kind not in "iuf" or not array.size:
            if name == "predictions":
                raise _wrong_rows(path, shape, ids)
            raise ShapeError(
                f"{path} has {name} of shape {array.shape} and type {array.dtype}; give numbers "
                "of shape (stimulus, features), or leave it out."
            )
        flat[name] = array.reshape(len(array), -1).astype(np.float64)
    if len(flat["predictions"]) != len(ids):
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
        raise SettingError(
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
