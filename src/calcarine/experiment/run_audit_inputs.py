"""The inputs of an audit, from a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.audit import (
    AuditInputs,
    PictureSet,
    ReportedScore,
    SampleChoice,
    TrialTable,
    read_numbers,
)
from calcarine.brain import BrainDataset, Split
from calcarine.brain.scaling import scale_sessions
from calcarine.decoding import choose_by_brain
from calcarine.errors import CalcarineError, DamagedFileError, SettingError
from calcarine.experiment.manifest import pretrained_on_test
from calcarine.experiment.reconstructions import CHOSEN, finished_pictures
from calcarine.experiment.run_decoder_evidence import (
    MOST_RESPONSES,
    decoder_choices,
    decoder_predictions,
    decoder_statistics,
    session_statistics,
    stored_predictions,
)
from calcarine.experiment.run_directory import opened_run
from calcarine.experiment.workspace import Workspace
from calcarine.linear import grouped_folds

__all__ = ["inputs_from_run", "opened_inputs"]

_NO_PRETRAINING = (
    "A run trains only its ridge decoders on responses, and these refuse anything but "
    "training responses; there is no pre-training."
)
_PRETRAINING = (
    "Vis-Dec trained on {pool} and on training responses with their pictures; no test response of "
    "a fold was given to a training of that fold."
)


@contextmanager
def opened_inputs(
    run: Path, method: str | None, numbers: str | None, seed: int, writes: bool = False
) -> Iterator[AuditInputs]:
    """Open the folder of a run, and yield the inputs of its audit while the run is locked.

    Parameters
    ----------
    run : Path
    method, seed
        See `inputs_from_run`.
    numbers : str, optional
        Reported scores as text, such as ``"PixCorr .32"``; by default those of the run.
    writes : bool
        Whether the audit writes into the folder.

    Yields
    ------
    AuditInputs
    """
    reported = () if numbers is None else read_numbers(numbers)
    with opened_run(run, writes=writes) as opened:
        yield inputs_from_run(Workspace(opened), method, reported, seed)


def inputs_from_run(
    work: Workspace,
    method: str | None = None,
    numbers: Sequence[ReportedScore] = (),
    seed: int = 0,
) -> AuditInputs:
    """Return pictures, splits, responses and decoders of a run.

    Parameters
    ----------
    work : Workspace
        Workspace of a run with finished pictures.
    method : str, optional
        Method to audit; by default z_c, or the first one without it.
    numbers : sequence of ReportedScore
        Reported scores; by default those of the run.
    seed : int
        Seed of shuffles and resamples.

    Returns
    -------
    AuditInputs

    Raises
    ------
    CalcarineError
        If the run is not finished, or has no such method.
    """
    from calcarine.reporting.run_records import main_method, run_title

    path = work.run.path
    opened = finished_pictures(work)
    names = [name for name in opened.methods if not name.startswith("ceiling")]
    chosen_method = method or main_method([name for name in names if name != CHOSEN])
    if chosen_method not in names:
        raise SettingError(
            f"{path} has no method '{chosen_method}'; choose among {', '.join(names)}."
        )
    dataset, splits, ids = work.dataset, work.splits, tuple(opened.test.ids)
    _check_index(path, splits, ids)
    sets = {
        name: PictureSet(ids, pictures.read, pictures.samples)
        for name, pictures in opened.methods.items()
    }
    # Candidates beyond the samples serve only the choice among them; scores leave them out.
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
        title=f"{run_title(dataset.name, dataset.subject, path)}: {chosen_method}",
        recon=sets[chosen_method],
        truth=PictureSet(ids, opened.test.truth.read),
        train=PictureSet(train_ids, lambda row, _: dataset.stimuli.image(train_ids[row])),
        allowed=allowed,
        trials=trials,
        responses=values,
        statistics=[
            *(decoder_statistics(work, dataset, splits) if decoded else ()),
            *session_statistics(dataset, splits[0]),
        ],
        predictions=decoder_predictions(work, dataset, splits, ids) if decoded else [],
        sample_choice=choice,
        decoder_choices=list(decoder_choices(work, dataset, splits)) if decoded else [],
        others={n: s for n, s in sets.items() if n in names and n not in (chosen_method, CHOSEN)},
        numbers=tuple(numbers) or _scores(path, chosen_method),
        facts=facts,
        simulated=dataset.simulated,
        seed=seed,
        given=(f"run {path}: pictures, splits, responses, decoders and scores",),
        judge=dataset.judge or "scenes",
    )


def _check_index(path: Path, splits: Sequence[Split], ids: Sequence[str]) -> None:
    """Refuse an index of pictures that does not name exactly the test stimuli."""
    wanted = {key for split in splits for key in split.test}
    for names, what in (
        (wanted - set(ids), "lacks"),
        (set(ids) - wanted, "names, besides those of the run,"),
    ):
        if names:
            raise DamagedFileError(
                f"{path / 'reconstructions' / 'index.parquet'} {what} {len(names)} test stimuli, "
                f"the first {min(names)!r}: call 'calcarine reconstruct {path}' again."
            )


def _allowed(
    splits: Sequence[Split], ids: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.bool_] | None]:
    """Return all training stimuli, and which of them each test stimulus had where splits differ."""
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
    """Return single trials of the first split as its decoders read them, with their roles."""
    step = max(1, -(-dataset.n_trials * dataset.n_voxels // MOST_RESPONSES))
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
    """Return what is known of responses in pre-training: a fact, or the trials in it."""
    config, own_class = work.config.visdec, work.config.decodes_by_own_class
    if not config.enabled:
        return {} if own_class else {"pretraining-on-test": _NO_PRETRAINING}, trials
    use = pretrained_on_test(config)
    if use == "yes":
        return {}, replace(trials, pretrain=trials.rows("test"))
    if use == "unknown" or own_class:
        return {}, trials
    pool = "the pool " + ", ".join(part.source for part in config.pretrain.pool)
    used = pool if config.runs("pretrain") else "no unlabelled vectors"
    return {"pretraining-on-test": _PRETRAINING.format(pool=used)}, trials


def _inner_folds(work: Workspace, shown: NDArray[Any]) -> NDArray[np.int64]:
    """Return the folds in which penalties were chosen, by the settings of the run."""
    ridge = work.config.ridge
    count = min(ridge.n_folds, len(set(shown.tolist())))
    if ridge.grouped:
        return np.asarray(grouped_folds(shown, count))
    blocks = np.array_split(np.arange(len(shown)), count)
    return np.repeat(np.arange(count), [len(block) for block in blocks])


def _choice(
    work: Workspace, samples: PictureSet, shown: PictureSet, ids: Sequence[str]
) -> SampleChoice:
    """Return which samples are shown, and which the rule chooses when it is applied again."""
    count = min(samples.samples, work.config.generation.candidates)
    place = {key: row for row, key in enumerate(ids)}
    chosen, reapplied = np.full(len(ids), -1), np.empty(len(ids), np.int64)
    for split in work.splits:
        rows = [place[key] for key in split.test]
        stack = np.stack([np.stack([samples.full(r, s) for s in range(count)]) for r in rows])
        for row, pictures in zip(rows, stack, strict=True):
            same = [s for s in range(count) if np.array_equal(pictures[s], shown.full(row))]
            chosen[row] = same[0] if same else -1
        latents = stored_predictions(work, split, ("z", "reliability_z"))
        reapplied[rows] = choose_by_brain(work.model, stack, latents["z"], latents["reliability_z"])
    return SampleChoice(PictureSet(ids, samples.read, count), chosen, reapplied)


def _scores(path: Path, method: str) -> tuple[ReportedScore, ...]:
    """Return scores of the run that need no network, under its leading protocol."""
    from calcarine.evaluation.results.evaluation import main_protocol
    from calcarine.reporting.run_records import read_run_scores

    try:
        scores = read_run_scores(path)
    except CalcarineError:
        return ()
    leading = main_protocol(score.protocol for score in scores)
    return tuple(
        ReportedScore(score.metric, score.value, 4)
        for score in scores
        if (score.method, score.protocol) == (method, leading)
        and score.metric in ("pixel correlation", "SSIM")
    )
