"""What an audit learns from the decoders of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.audit import DecoderChoices, FitStatistics, Prediction
from calcarine.brain import BrainDataset, Split
from calcarine.decoding import LatentRegression
from calcarine.decoding.ridge_fits import fit_ridge
from calcarine.experiment.run_directory import readable

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace

__all__ = [
    "decoder_choices",
    "decoder_predictions",
    "decoder_statistics",
    "session_statistics",
    "stored_predictions",
]

# Above these sizes an audit uses some of the voxels and some of the training rows.
MOST_RESPONSES = 400_000_000
_MOST_TARGETS = 200_000_000
# Targets for which penalties are chosen again, and multiplications that this may take.
_COLUMNS = 32
_MOST_WORK = 2e11


def decoder_statistics(
    work: Workspace, dataset: BrainDataset, splits: Sequence[Split]
) -> Iterator[FitStatistics]:
    """Yield means that decoders stored, with the means of training trials and of all trials."""
    shown = np.array(dataset.trial_stimuli)
    for split in splits:
        regression = work.fitted_decoder(split)
        if not isinstance(regression, LatentRegression):
            continue  # what it stored is its own affair
        times = np.array([(shown == key).sum() for key in split.test], dtype=np.float64)
        for name, roi in regression.rois_.items():
            train, test = dataset.train(split, roi), dataset.test(split, roi)
            by_train = train.data.mean(0, dtype=np.float64)
            total = by_train * len(train) + times @ test.data.astype(np.float64)
            ridge = regression.ridge_[name]
            yield FitStatistics(
                f"mean stored by the decoder of {name}, {split.name}",
                np.asarray(ridge.x_mean_, np.float64),
                by_train,
                total / (len(train) + times.sum()),
                np.maximum(np.asarray(ridge.x_scale_, np.float64), 1e-12),
            )


def session_statistics(dataset: BrainDataset, split: Split) -> Iterator[FitStatistics]:
    """Yield means of sessions that were scaled by all their trials, with test trials."""
    if dataset.scaling is None or dataset.scaling.method != "session-all":
        return
    step = max(1, -(-dataset.n_trials * dataset.n_voxels // MOST_RESPONSES))
    columns = np.arange(0, dataset.n_voxels, step)
    sessions, train = dataset.sessions, np.isin(dataset.trial_stimuli, split.train)
    values = np.asarray(dataset.responses[{"voxel": columns}].values)
    raw = dataset.scaling.undo(values, sessions, columns).astype(np.float64)
    by_all_training = raw[train].mean(0)
    for row, session in enumerate(dataset.scaling.sessions):
        inside = sessions == session
        own = inside & train
        if own.sum() == inside.sum():
            continue
        yield FitStatistics(
            f"mean by which session {session} was centred",
            dataset.scaling.mean[row, columns],
            raw[own].mean(0) if own.sum() >= 2 else by_all_training,
            raw[inside].mean(0),
            dataset.scaling.scale[row, columns],
        )


def decoder_choices(
    work: Workspace, dataset: BrainDataset, splits: Sequence[Split]
) -> Iterator[DecoderChoices]:
    """Yield penalties, voxels and repeats of the decoders, computed again from training alone."""
    if work.config.decodes_by_own_class:
        return  # only a registered class itself knows how it chooses
    targets = {"z": work.z, "c": work.c}
    ids = dataset.stimuli.ids
    spent = 0.0
    for split in splits:
        regression = work.fitted_decoder(split)
        assert isinstance(regression, LatentRegression)
        stored = stored_predictions(work, split, ("z", "c"))
        for name, roi in regression.rois_.items():
            ridge, train = regression.ridge_[name], dataset.train(split, roi)
            label = name if len(splits) == 1 else f"{name}, {split.name}"
            voxels, rows = train.data.shape[1], int(ridge.n_features_in_)
            yield DecoderChoices(f"voxels for {label}", max(voxels, rows), min(voxels, rows))
            test = dataset.test(split, roi).data
            if rows == voxels:
                yield _repeats(label, regression.predict_target(name, test), stored[name])
            spent += len(train) * voxels * min(len(train), voxels)
            if rows == voxels and spent <= _MOST_WORK:
                flat = targets[name].reshape(len(ids), -1)
                columns = np.unique(np.linspace(0, flat.shape[1] - 1, _COLUMNS).astype(int))
                again = fit_ridge(train, ids, flat[:, columns], **work.ridge_options)[0]
                alphas, weights = np.asarray(ridge.alpha_)[columns], ridge.coef_[columns]
                same = np.isclose(alphas, np.asarray(again.alpha_), rtol=1e-6)
                size = np.abs(again.coef_).max(axis=1, keepdims=True) + 1e-12
                near = (np.abs(weights - again.coef_) <= 1e-2 * size).all(axis=1)
                yield DecoderChoices(f"penalties for {label}", len(columns), int(same.sum()))
                yield DecoderChoices(
                    f"weights for {label}", len(columns), int((near | ~same).sum())
                )


def decoder_predictions(
    work: Workspace, dataset: BrainDataset, splits: Sequence[Split], ids: Sequence[str]
) -> list[Prediction]:
    """Return predictions of test stimuli, with targets and a way to predict them alone."""
    place = {key: row for row, key in enumerate(ids)}
    owner = np.empty(len(ids), np.int64)
    stored: dict[str, NDArray[Any]] = {}
    for number, split in enumerate(splits):
        rows = [place[key] for key in split.test]
        owner[rows] = number
        latents = stored_predictions(work, split, ("z", "c"))
        for name in ("z", "c"):
            flat = latents[name].reshape(len(rows), -1)
            stored.setdefault(name, np.empty((len(ids), flat.shape[1]), np.float32))[rows] = flat
    targets = {"z": work.z, "c": work.c}
    test_rows = dataset.stimuli.rows(ids)
    train = dataset.stimuli.rows(list(dict.fromkeys(k for s in splits for k in s.train)))
    made = []
    for name, values in stored.items():
        flat = targets[name].reshape(len(targets[name]), -1)
        most = max(2, _MOST_TARGETS // flat.shape[1])
        made.append(
            Prediction(
                name,
                values,
                flat[test_rows],
                flat[train[:most]],
                _predict_again(work, dataset, splits, ids, owner, name),
            )
        )
    return made


def stored_predictions(
    work: Workspace, split: Split, names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Read what the decoders of a split predicted for its test stimuli."""
    from safetensors.numpy import load_file

    file = work.run.decoder / split.name / "predictions.safetensors"
    with readable(file, "fit"):
        arrays = load_file(file)
        return {name: arrays[name] for name in names}


def _repeats(label: str, again: NDArray[Any], stored: NDArray[Any]) -> DecoderChoices:
    """Count test stimuli with the prediction of the mean over all of their repeats."""
    rows = [each.reshape(len(stored), -1).astype(np.float64) for each in (again, stored)]
    spread = max(float(rows[0].std()), 1e-12)
    same = np.abs(rows[0] - rows[1]).max(axis=1) <= 1e-3 * spread
    return DecoderChoices(f"predictions of {label} from all repeats", len(same), int(same.sum()))


def _predict_again(
    work: Workspace,
    dataset: BrainDataset,
    splits: Sequence[Split],
    ids: Sequence[str],
    owner: NDArray[np.int64],
    name: str,
) -> Any:
    """Predict some test stimuli from their responses alone, with the stored decoders."""

    def again(rows: NDArray[np.int64]) -> NDArray[Any]:
        by_row: dict[int, NDArray[Any]] = {}
        for number in np.unique(owner[rows]):
            split = splits[number]
            own = rows[owner[rows] == number]
            few = replace(split, test=tuple(ids[row] for row in own))
            predicted = work.fitted_decoder(split).predict(dataset, few)[name]
            predicted = predicted.reshape(len(own), -1)
            by_row |= dict(zip(own.tolist(), predicted, strict=True))
        return np.stack([by_row[int(row)] for row in rows])

    return again
