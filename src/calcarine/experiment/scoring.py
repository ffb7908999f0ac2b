"""Scores of a run's pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.evaluation import baselines
from calcarine.evaluation.evaluate import evaluate, write_evaluation
from calcarine.evaluation.networks import load_judge
from calcarine.experiment.pictures import read_image
from calcarine.experiment.run_directory import readable

if TYPE_CHECKING:
    from calcarine.experiment.workspace import Workspace

Pictures = NDArray[np.uint8]


def score_pictures(work: Workspace) -> None:
    """Score every method, floor and ceiling; write ``summary.json`` and ``per_image.parquet``."""
    import pandas as pd

    config, dataset = work.config.evaluation, work.dataset
    file = work.run.reconstructions / "index.parquet"
    with readable(file, "reconstruct"):
        index = pd.read_parquet(file)
    ids = tuple(stimulus for split in work.splits for stimulus in split.test)
    methods = {
        str(method): _stack(work, rows, ids) for method, rows in index.groupby("method", sort=False)
    }
    samples = work.config.generation.samples
    if "z_c" in methods:
        methods["z_c"] = methods["z_c"][:, :samples]
    categories = [found[0] if found else "" for found in dataset.stimuli.categories(ids)]
    judge = load_judge(dataset.judge) if dataset.judge else None
    reads = sorted(set(categories)) if dataset.judge == "digits" else None
    with work.progress.track("Scores", len(methods) + 2) as advance:
        result = evaluate(
            dataset.stimuli.images(ids),
            methods,
            ids=ids,
            categories=categories if any(categories) else None,
            floors=_floors(work),
            judge=judge,
            within_groups=True,
            read_classes=reads,
            n_boot=config.n_boot,
            n_permutations=config.n_permutations,
            seed=config.seed,
            progress=lambda done, total, name: advance(1),
        )
    work.run.metrics.mkdir(parents=True, exist_ok=True)
    write_evaluation(work.run.metrics, result)


def _stack(work: Workspace, rows, ids: tuple[str, ...]) -> Pictures:  # type: ignore[no-untyped-def]
    by_id = {key: part.sort_values("sample") for key, part in rows.groupby("id")}
    return np.stack(
        [np.stack([read_image(work.run.path / file) for file in by_id[i]["file"]]) for i in ids]
    )


def _floors(work: Workspace) -> dict[str, Pictures]:
    """Pictures that know nothing of the test responses, fold by fold."""
    mean, drawn = [], []
    for split in work.splits:
        train = work.dataset.stimuli.images(split.train)
        mean.append(baselines.training_mean(train, len(split.test)))
        seed = work.config.evaluation.seed
        drawn.append(baselines.random_training_image(train, split.test, seed=seed))
    return {
        "training mean": np.concatenate(mean),
        "random training image": np.concatenate(drawn),
    }
