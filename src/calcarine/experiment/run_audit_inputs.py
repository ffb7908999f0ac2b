"""What an audit looks at, from a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.audit import (
    AuditInputs,
    FitStatistics,
    PictureSet,
    Prediction,
    ReportedScore,
    SampleChoice,
    Selection,
    TrialTable,
)
from calcarine.brain import BrainDataset, Split
from calcarine.brain.scaling import scale_sessions
from calcarine.decoding import LatentRegression, choose_by_brain
from calcarine.decoding.latent_regression import fit_ridge
from calcarine.errors import CalcarineError
from calcarine.experiment.manifest import met_test_responses
from calcarine.experiment.reconstructions import CHOSEN, finished_pictures
from calcarine.experiment.run_directory import readable
from calcarine.experiment.workspace import Workspace
from calcarine.linear.folds import grouped_folds

_NO_PRETRAINING = (
    "A run trains on responses in one place, its ridge decoders, and these refuse anything but "
    "training responses; there is no pre-training."
)
_PRETRAINING = (
    "Vis-Dec trained on {pool} and on training responses with their pictures; no test response of "
    "a fold was given to a training of that fold."
)
# Beyond these, some voxels and some training rows stand for all.
_MOST_RESPONSES = 400_000_000
_MOST_TARGETS = 200_000_000
# Targets for which penalties are chosen again, and multiplications that this may take.
_COLUMNS = 32
_MOST_WORK = 2e11


def inputs_from_run(
    work: Workspace,
    method: str | None = None,
    numbers: Sequence[ReportedScore] = (),
    seed: int = 0,
) -> AuditInputs:
    """Pictures, splits, responses and decoders of a run.

    Parameters
    ----------
    work : Workspace
        Of the run; its pictures must be made.
    method : str, optional
        Which pictures; z_c, or the first there are, by default.
    numbers : sequence of ReportedScore
        Claimed scores; those of the run by default.
    seed : int

    Returns
    -------
    Material

    Raises
    ------
    CalcarineError
        If the run is not finished, or has no such method.
    """
    from calcarine.reporting.run_records import main_method

    path = work.run.path
    opened = finished_pictures(work)
    names = [name for name in opened.methods if not name.startswith("ceiling")]
    chosen_method = method or main_method([name for name in names if name != CHOSEN])
    if chosen_method not in names:
        raise CalcarineError(
            f"{path} has no method '{chosen_method}'; choose among {', '.join(names)}."
        )
    dataset, splits, ids = work.dataset, work.splits, tuple(opened.test.ids)
    _check_index(path, splits, ids)
    sets = {
        name: PictureSet(ids, pictures.read, pictures.samples)
        for name, pictures in opened.methods.items()
    }
    # Candidates beyond the samples are only there to be chosen from; scores leave them out.
    everything = sets.get("z_c")
    if everything is not None:
        scored = min(everything.samples, work.config.generation.samples)
        sets["z_c"] = PictureSet(ids, everything.read, scored)
    values, trials = _as_read(work, dataset, splits[0])
    train_ids, allowed = _allowed(splits, ids)
    choice = None
    if everything is not None and CHOSEN in sets:
        choice = _choice(work, everything, sets[CHOSEN], ids)
    facts, trials = _pretraining(work, trials)
    decoded = work.config.ridge.enabled
    if choice is None:
        facts["best-of-samples"] = "All samples are scored, and none was chosen."
    return AuditInputs(
        title=f"{work.config.name}: {chosen_method}",
        recon=sets[chosen_method],
        truth=PictureSet(ids, opened.test.truth.read),
        train=PictureSet(train_ids, lambda row, _: dataset.stimuli.image(train_ids[row])),
        allowed=allowed,
        trials=trials,
        responses=values,
        statistics=[
            *(_statistics(work, dataset, splits) if decoded else ()),
            *_by_test_too(dataset, splits[0]),
        ],
        predictions=_predictions(work, dataset, splits, ids) if decoded else [],
        choice=choice,
        selections=list(_selections(work, dataset, splits)) if decoded else [],
        others={n: s for n, s in sets.items() if n in names and n not in (chosen_method, CHOSEN)},
        numbers=tuple(numbers) or _scores(path, chosen_method),
        facts=facts,
        simulated=dataset.simulated,
        seed=seed,
        given=(f"run {path}: pictures, splits, responses, decoders and scores",),
    )


def _check_index(path: Path, splits: Sequence[Split], ids: Sequence[str]) -> None:
    """The index of pictures names every test stimulus, and no other."""
    wanted = {key for split in splits for key in split.test}
    for names, what in (
        (wanted - set(ids), "lacks"),
        (set(ids) - wanted, "names, beside those of the run,"),
    ):
        if names:
            raise CalcarineError(
                f"{path / 'reconstructions' / 'index.parquet'} {what} {len(names)} test stimuli, "
                f"the first {min(names)!r}: call 'calcarine reconstruct {path}' again."
            )


def _allowed(
    splits: Sequence[Split], ids: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.bool_] | None]:
    """All stimuli of training, and who was in training for whom where folds differ."""
    if len(splits) == 1:
        return splits[0].train, None
    train = tuple(dict.fromkeys(key for split in splits for key in split.train))
    place = {key: column for column, key in enumerate(train)}
    allowed = np.zeros((len(ids), len(train)), bool)
    fold = {key: split for split in splits for key in split.test}
    for row, key in enumerate(ids):
        allowed[row, [place[other] for other in fold[key].train]] = True
    return train, allowed


def _as_read(
    work: Workspace, dataset: BrainDataset, split: Split
) -> tuple[NDArray[Any], TrialTable]:
    """Single trials of the first fold as its decoders read them, with roles and inner folds."""
    step = max(1, -(-dataset.n_trials * dataset.n_voxels // _MOST_RESPONSES))
    columns = np.arange(0, dataset.n_voxels, step)
    values = np.asarray(dataset.responses[{"voxel": columns}].values)
    shown, sessions = np.array(dataset.trial_stimuli), dataset.sessions
    train, test = np.isin(shown, split.train), np.isin(shown, split.test)
    if dataset.scaling is not None and dataset.rescales(split):
        values = dataset.scaling.undo(values, sessions, columns)
        values = scale_sessions(values, sessions, train, method=dataset.scaling.method)[0]
    fold = np.full(len(shown), "", dtype=object)
    fold[train] = _inner_folds(work, shown[train]).astype(str)
    kept = train | test
    trials = TrialTable(
        stimulus=shown[kept],
        role=np.where(train, "train", "test")[kept],
        session=sessions[kept],
        fold=fold[kept].astype(str),
        fold_role="inner",
    )
    return values[kept], trials


def _pretraining(work: Workspace, trials: TrialTable) -> tuple[dict[str, str], TrialTable]:
    """What is known of responses in pre-training: a fact, or which trials were in it."""
    config = work.config.visdec
    if not work.config.visdec.runs("finetune"):
        return {"pretraining-on-test": _NO_PRETRAINING}, trials
    met = met_test_responses(config)
    if met == "yes":
        return {}, replace(trials, pretrain=trials.rows("test"))
    if met == "unknown":
        return {}, trials
    pool = "the pool " + ", ".join(part.source for part in config.pretrain.pool)
    told = pool if config.runs("pretrain") else "no unlabelled vectors"
    return {"pretraining-on-test": _PRETRAINING.format(pool=told)}, trials


def _inner_folds(work: Workspace, shown: NDArray[Any]) -> NDArray[np.int64]:
    """Folds in which penalties were chosen, made again by the settings of the run."""
    ridge = work.config.ridge
    count = min(ridge.n_folds, len(set(shown.tolist())))
    if ridge.grouped:
        return np.asarray(grouped_folds(shown, count))
    blocks = np.array_split(np.arange(len(shown)), count)
    return np.repeat(np.arange(count), [len(block) for block in blocks])


def _statistics(
    work: Workspace, dataset: BrainDataset, splits: Sequence[Split]
) -> Iterator[FitStatistics]:
    """Means that decoders stored, and those of their rows of training and of all."""
    shown = np.array(dataset.trial_stimuli)
    for split in splits:
        regression = _decoder(work, split)
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


def _by_test_too(dataset: BrainDataset, split: Split) -> Iterator[FitStatistics]:
    """Means of sessions that were scaled by all their trials, test trials included."""
    if dataset.scaling is None or dataset.scaling.method != "session-all":
        return
    step = max(1, -(-dataset.n_trials * dataset.n_voxels // _MOST_RESPONSES))
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


def _decoder(work: Workspace, split: Split) -> LatentRegression:
    folder = work.run.decoder / split.name
    with readable(folder, "fit"):
        return LatentRegression.load(folder)


def _selections(
    work: Workspace, dataset: BrainDataset, splits: Sequence[Split]
) -> Iterator[Selection]:
    """Penalties, voxels and repeats of the decoders, made again from training alone."""
    targets = {"z": work.z, "c": work.c}
    ids = dataset.stimuli.ids
    spent = 0.0
    for split in splits:
        regression = _decoder(work, split)
        stored = _stored_predictions(work, split, ("z", "c"))
        for name, roi in regression.rois_.items():
            ridge, train = regression.ridge_[name], dataset.train(split, roi)
            label = name if len(splits) == 1 else f"{name}, {split.name}"
            voxels, rows = train.data.shape[1], int(ridge.n_features_in_)
            yield Selection(f"voxels for {label}", max(voxels, rows), min(voxels, rows))
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
                yield Selection(f"penalties for {label}", len(columns), int(same.sum()))
                yield Selection(f"weights for {label}", len(columns), int((near | ~same).sum()))


def _repeats(label: str, again: NDArray[Any], stored: NDArray[Any]) -> Selection:
    """Test stimuli whose prediction is that of the mean over all of their repeats."""
    rows = [each.reshape(len(stored), -1).astype(np.float64) for each in (again, stored)]
    spread = max(float(rows[0].std()), 1e-12)
    same = np.abs(rows[0] - rows[1]).max(axis=1) <= 1e-3 * spread
    return Selection(f"predictions of {label} from all repeats", len(same), int(same.sum()))


def _predictions(
    work: Workspace, dataset: BrainDataset, splits: Sequence[Split], ids: Sequence[str]
) -> list[Prediction]:
    place = {key: row for row, key in enumerate(ids)}
    owner = np.empty(len(ids), np.int64)
    stored: dict[str, NDArray[Any]] = {}
    for number, split in enumerate(splits):
        rows = [place[key] for key in split.test]
        owner[rows] = number
        found = _stored_predictions(work, split, ("z", "c"))
        for name in ("z", "c"):
            flat = found[name].reshape(len(rows), -1)
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
                _again(work, dataset, splits, ids, owner, name),
            )
        )
    return made


def _stored_predictions(
    work: Workspace, split: Split, names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """What the decoders of a split predicted for its test stimuli."""
    from safetensors.numpy import load_file

    file = work.run.decoder / split.name / "predictions.safetensors"
    with readable(file, "fit"):
        found = load_file(file)
        return {name: found[name] for name in names}


def _again(
    work: Workspace,
    dataset: BrainDataset,
    splits: Sequence[Split],
    ids: Sequence[str],
    owner: NDArray[np.int64],
    name: str,
) -> Any:
    """Predict some test stimuli from their responses alone, with the stored decoders."""

    def again(rows: NDArray[np.int64]) -> NDArray[Any]:
        found: dict[int, NDArray[Any]] = {}
        for number in np.unique(owner[rows]):
            split = splits[number]
            regression = _decoder(work, split)
            roi = regression.rois_[name]
            own = rows[owner[rows] == number]
            place = {key: row for row, key in enumerate(split.test)}
            data = dataset.test(split, roi).data[[place[ids[row]] for row in own]]
            predicted = regression.predict_target(name, data).reshape(len(own), -1)
            found |= dict(zip(own.tolist(), predicted, strict=True))
        return np.stack([found[int(row)] for row in rows])

    return again


def _choice(
    work: Workspace, samples: PictureSet, shown: PictureSet, ids: Sequence[str]
) -> SampleChoice:
    """Which samples are shown, and which the rule chooses when it is applied again."""
    count = min(samples.samples, work.config.generation.candidates)
    place = {key: row for row, key in enumerate(ids)}
    chosen, reapplied = np.full(len(ids), -1), np.empty(len(ids), np.int64)
    for split in work.splits:
        rows = [place[key] for key in split.test]
        stack = np.stack([np.stack([samples.full(r, s) for s in range(count)]) for r in rows])
        for row, pictures in zip(rows, stack, strict=True):
            same = [s for s in range(count) if np.array_equal(pictures[s], shown.full(row))]
            chosen[row] = same[0] if same else -1
        found = _stored_predictions(work, split, ("z", "reliability_z"))
        reapplied[rows] = choose_by_brain(work.model, stack, found["z"], found["reliability_z"])
    return SampleChoice(PictureSet(ids, samples.read, count), chosen, reapplied)


def _scores(path: Path, method: str) -> tuple[ReportedScore, ...]:
    """Scores of the run that need no network, under one protocol: a name may be in several."""
    from calcarine.evaluation.results.evaluation import main_protocol
    from calcarine.reporting.run_records import read_scores

    try:
        scores = read_scores(path)
    except CalcarineError:
        return ()
    leading = main_protocol(score.protocol for score in scores)
    return tuple(
        ReportedScore(score.metric, score.value, 4)
        for score in scores
        if (score.method, score.protocol) == (method, leading)
        and score.metric in ("pixel correlation", "SSIM")
    )
