"""Scores of a run's pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calcarine.checkpoints.network_weights import WeightsStore
from calcarine.evaluation import baselines
from calcarine.evaluation.inputs.image_stacks import ImageStack, from_array
from calcarine.evaluation.networks.feature_networks import missing_weights
from calcarine.evaluation.protocols.catalogue import find_protocol
from calcarine.evaluation.results.evaluation import (
    DEFAULT_PROTOCOL,
    SUMMARY_NAME,
    Evaluation,
    read_evaluation,
    write_evaluation,
)
from calcarine.evaluation.scoring.score import score_folder
from calcarine.evaluation.scoring.scoring import ScoredSet, Scoring
from calcarine.evaluation.scoring.settings import ScoreSettings
from calcarine.experiment.progress import Advance
from calcarine.experiment.reconstructions import finished_pictures, predictions
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.shared_pieces import do_pieces
from calcarine.files import parse_json

if TYPE_CHECKING:
    from calcarine.brain import Split
    from calcarine.experiment.config import Experiment
    from calcarine.experiment.workspace import Workspace

__all__ = ["missing_networks", "score_pictures", "score_run", "scoring_of", "share_scores"]

# Share of a picture's width: contours of objects vanish, the layout stays.
_BLUR = 1 / 16


def score_pictures(work: Workspace) -> None:
    """Score every method, floor and ceiling; write ``summary.json`` and ``per_image.parquet``."""
    # What an interrupted command left may have been scored without weights that are here now.
    work.run.queue("evaluate", "scores").forget()
    with _scoring(work) as scoring:
        result = scoring.join(_score_sets(work, scoring))
    work.run.metrics.mkdir(parents=True, exist_ok=True)
    write_evaluation(work.run.metrics, result)
    # What scores the pictures again reads the judge here, without the data set.
    work.run.update_manifest(judge=work.dataset.judge)


def share_scores(work: Workspace) -> None:
    """Share the sets of `score_pictures` in another process."""
    with _scoring(work) as scoring:
        _score_sets(work, scoring)


def _score_sets(work: Workspace, scoring: Scoring) -> list[ScoredSet]:
    """Score the sets that no other process scores, and return the scores of all."""
    queue = work.run.queue("evaluate", "scores")

    def score(number: int, advance: Advance) -> str:
        scored = json.dumps(asdict(scoring.score(number)))
        advance(1)
        return scored

    do_pieces(work.progress, "Scores", queue, [1] * len(scoring.titles), score)
    return [ScoredSet(**parse_json(text)) for _, text in sorted(queue.remarks().items())]


def _scoring(work: Workspace) -> Scoring:
    """Return the sets of pictures to score."""
    config, dataset = work.config.evaluation, work.dataset
    opened = finished_pictures(work)
    ids, methods = opened.test.ids, dict(opened.methods)
    if "z_c" in methods:  # candidates beyond the samples serve only the choice
        made = methods["z_c"]
        methods["z_c"] = ImageStack(len(made), work.config.generation.samples, made.read)
    if config.ceilings:
        truth = dataset.stimuli.images(ids)
        blurred = baselines.blurred_truth(truth, _BLUR * truth.shape[2])
        methods["ceiling blurred truth"] = from_array(blurred, "blurred truth")
    categories, settings = scoring_of(work, ids)
    return Scoring(
        opened.test,
        methods,
        floors=_floors(work, ids),
        categories=categories,
        settings=settings,
    )


def missing_networks(experiment: Experiment, out: Path) -> str | None:
    """Return one sentence on scores that a run will lack because weights are missing, or None.

    Raises
    ------
    CalcarineError
        If a protocol is unknown, or the folder of weights does not exist.
    """
    config = experiment.evaluation
    protocols = [find_protocol(name)() for name in config.protocols]
    # Calcarine's own protocol is scored with whatever exists; only others can be missing.
    used = {
        feature[0]: protocol.name
        for protocol in protocols
        if protocol.name != DEFAULT_PROTOCOL
        for metric in protocol.metrics()
        for feature in metric.required_features()
        if feature[0] not in (None, "judge")
    }
    if not used:
        return None
    titles = missing_weights(used, WeightsStore(config.weights))
    if not titles:
        return None
    names = list(dict.fromkeys(used.values()))
    options = " ".join(f"--protocol {name}" for name in names)
    return (
        f"The weights of {', '.join(titles)} are missing, so the scores of protocol "
        f"{' and '.join(names)} that need them are left out; for these call 'calcarine score "
        f"{out} {options} --download' after the run, or put the weights into a folder, give it as "
        "evaluation.weights and repeat the command."
    )


def scoring_of(work: Workspace, ids: Sequence[str]) -> tuple[list[str] | None, ScoreSettings]:
    """Return the main category of each stimulus, where all have one, and how a run scores."""
    named = work.dataset.stimuli.categories(ids)
    # Pictures without a category do not form one.
    categories = [names[0] for names in named] if all(named) else None
    own = _own_settings(work.config, work.dataset.judge, categories)
    return categories, ScoreSettings(**own)


def score_run(
    run: Path,
    *,
    categories: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Evaluation:
    """Score the pictures of a run as the run itself scores them.

    The run's data set is not read: judge and categories are those of its evaluation.

    Parameters
    ----------
    run : Path
        Folder of a run.
    categories : mapping of str to str, optional
        Main category of each stimulus by its id; by default those of the run.
    settings : mapping of str to object, optional
        Fields of `ScoreSettings` that replace the run's own.
    **options
        See `calcarine.evaluation.score_folder`.

    Returns
    -------
    Evaluation
        Scores of methods and of ceilings that are pictures of the run, without its other floors
        and ceilings, which need the data set.

    Raises
    ------
    CalcarineError
        If the run has no finished pictures, or one of its files is damaged.
    """
    given = dict(settings or {})
    if not (run / "experiment.yaml").is_file():  # pictures in the form of a run
        return score_folder(
            run=run, categories=categories, settings=ScoreSettings(**given), **options
        )
    opened = RunDirectory(run)
    manifest = opened.manifest()
    judge = manifest.get("judge")
    evaluated = (opened.metrics / SUMMARY_NAME).is_file()
    if categories is None and evaluated:
        categories = _categories_in(read_evaluation(opened.metrics))
    names = None if categories is None else list(categories.values())
    own = _own_settings(opened.experiment, judge, names)
    if given.get("judge", judge) != judge:
        own["read_classes"] = None
    # Candidates beyond the samples serve only the choice among them.
    samples = {"z_c": opened.experiment.generation.samples}
    result = score_folder(
        run=run,
        categories=categories,
        samples=samples,
        settings=ScoreSettings(**{**own, **given}),
        **options,
    )
    about = manifest.get("dataset", {})
    result = replace(result, subject=about.get("subject"), dataset=about.get("name"))
    if evaluated:
        return result
    note = (
        f"{run} has not been evaluated, so metrics that need its categories or its judge may be "
        f"left out; call 'calcarine evaluate {run}' first."
    )
    return replace(result, notes=[note, *result.notes])


def _own_settings(
    experiment: Experiment, judge: str | None, categories: Sequence[str] | None
) -> dict[str, Any]:
    """Return the fields of `ScoreSettings` by which a run scores."""
    config = experiment.evaluation
    return {
        "protocols": config.protocols,
        "weights": config.weights,
        "judge": judge,
        "read_classes": sorted(set(categories)) if categories and judge == "digits" else None,
        "n_boot": config.n_boot,
        "n_permutations": config.n_permutations,
        "seed": config.seed,
        "device": experiment.compute.device,
    }


def _categories_in(evaluation: Evaluation) -> dict[str, str] | None:
    """Return the main category of each stimulus of an evaluation, where all have one."""
    table = evaluation.per_image
    if "category" not in table or table["category"].isna().any() or table.empty:
        return None
    return dict(zip(table["id"].astype(str), table["category"].astype(str), strict=True))


def _floors(work: Workspace, ids: Sequence[str]) -> dict[str, ImageStack]:
    """Return baselines of every split: two without the brain, one looked up by its prediction."""
    by_fold: dict[str, list[NDArray[np.uint8]]] = {}
    for split in work.splits:
        train = work.dataset.stimuli.images(split.train)
        seed = work.config.evaluation.seed
        floors = {
            "training mean": baselines.training_mean(train, len(split.test)),
            "random training image": baselines.random_training_image(train, split.test, seed=seed),
        }
        features = _decoded_features(work, split, train)
        if features is not None:
            floors["nearest training image"] = baselines.nearest_training_image(train, *features)
        for name, pictures in floors.items():
            by_fold.setdefault(name, []).append(pictures)
    made = (stimulus for split in work.splits for stimulus in split.test)
    place = {stimulus: row for row, stimulus in enumerate(made)}
    rows = [place[stimulus] for stimulus in ids]
    return {name: from_array(np.concatenate(folds)[rows], name) for name, folds in by_fold.items()}


def _decoded_features(
    work: Workspace, split: Split, train: NDArray[np.uint8]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return features of training pictures and decoded ones: z, else pixels, else None."""
    predicted = predictions(work, split)
    if "z" in predicted:
        return work.z[work.dataset.stimuli.rows(split.train)], predicted["z"]
    if "direct" in predicted and predicted["direct"].shape[1:] == train.shape[1:]:
        return train, predicted["direct"]
    return None
