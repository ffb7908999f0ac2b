"""Commands ``calcarine datasets split`` and ``calcarine datasets duplicates``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calcarine.cli._options import (
    DataFolder,
    DatasetArgument,
    DatasetOptions,
    SubjectName,
    options_from,
)
from calcarine.cli.datasets import datasets_app
from calcarine.cli.table import print_table

if TYPE_CHECKING:
    import pandas as pd

    from calcarine.brain import BrainDataset
    from calcarine.splits.stimulus_pool import SplitWithPartners

__all__ = ["list_duplicates", "split_dataset"]

_Features = Annotated[
    str,
    typer.Option(
        "--features",
        help="pixels (small opponent-colour pictures), z (latents of the mini model), or a .npy "
        "file with a row for each stimulus of the data set.",
    ),
]
_Metric = Annotated[
    str, typer.Option("--metric", help="Distance: correlation, cosine or euclidean.")
]


@datasets_app.command("split")
def split_dataset(
    name: DatasetArgument,
    rule: Annotated[
        str,
        typer.Option(
            help="One of random, minimum-distance, cluster, category, out-of-distribution."
        ),
    ],
    data: DataFolder = None,
    subject: SubjectName = None,
    features: _Features = "pixels",
    metric: _Metric = "correlation",
    out: Annotated[Path, typer.Option(help="Folder for the JSON files.")] = Path("splits"),
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.", min=0)] = 0,
    test_size: Annotated[
        float, typer.Option(help="Number of test stimuli, or a share below 1.", min=0)
    ] = 0.1,
    tau: Annotated[
        float | None, typer.Option(help="minimum-distance: smallest distance allowed.")
    ] = None,
    quantile: Annotated[
        float | None,
        typer.Option(
            help="minimum-distance: tau as a quantile of distances to the nearest neighbour; .5 "
            "if neither is given."
        ),
    ] = None,
    clusters: Annotated[int, typer.Option(help="cluster: number of clusters.")] = 10,
    method: Annotated[
        str | None,
        typer.Option(
            help="cluster: kmeans or agglomerative; out-of-distribution: neighbours or mahalanobis."
        ),
    ] = None,
    categories: Annotated[
        str | None,
        typer.Option(help="category: names separated by commas, or how many to draw."),
    ] = None,
    match: Annotated[
        str, typer.Option(help="category: main for the main category, or any.")
    ] = "main",
    partners: Annotated[
        int, typer.Option(help="Number of random splits of the same sizes.", min=0)
    ] = 3,
    settings: DatasetOptions = None,
) -> None:
    """Split a data set's stimuli by a rule, with random partners of the same sizes."""
    from calcarine import datasets
    from calcarine.experiment.dataset_splits import split_data_set
    from calcarine.splits.split_files import save_splits

    dataset = datasets.load_dataset(name, data, subject, **options_from(settings))
    made, ids, values = split_data_set(
        dataset,
        rule,
        features=features,
        metric=metric,
        seed=seed,
        test_size=test_size,
        tau=tau,
        quantile=quantile,
        clusters=clusters,
        method=method,
        categories=categories,
        match=match,
        partners=partners,
    )
    _print_made(dataset, made, save_splits(made, out), (ids, values, metric, features))


@datasets_app.command("duplicates")
def list_duplicates(
    name: DatasetArgument,
    data: DataFolder = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="Subject with the test stimuli; repeat it for further subjects, with training "
            "stimuli that are compared too."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="JSON file or name of a split; by default the first.")
    ] = None,
    features: _Features = "pixels",
    metric: _Metric = "correlation",
    near: Annotated[
        float | None, typer.Option(help="Flag test stimuli at most this far from training.")
    ] = None,
    flips: Annotated[bool, typer.Option("--flips", help="Compare mirror images as well.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file for all test stimuli.")] = None,
    worst: Annotated[int, typer.Option(help="Number of test stimuli to show.", min=0)] = 5,
    settings: DatasetOptions = None,
) -> None:
    """Find test pictures that training has seen, or nearly; exit code 1 if there are any."""
    from calcarine.experiment.dataset_splits import find_data_set_duplicates
    from calcarine.files import write_text

    subjects = subject or []
    dataset, report = find_data_set_duplicates(
        name,
        data,
        subjects,
        split=split,
        features=features,
        metric=metric,
        near=near,
        flips=flips,
        **options_from(settings),
    )
    print(("Simulated data. " if dataset.simulated else "") + report.summary)
    if worst:
        _print_rows(_readable(report.worst(worst), len(subjects) > 1))
        print(
            "nearest: by distance of features. nearest by hash: by bits in which hashes differ.\n"
            "alike: pixel correlation with the nearest by hash, where few bits differ."
        )
    if out is not None:
        write_text(out, report.table.to_csv(index=False))
        print(f"All {len(report.table)} test stimuli: {out}")
    if report.n_duplicates:
        raise typer.Exit(1)


def _print_made(
    dataset: BrainDataset,
    made: SplitWithPartners,
    files: list[Path],
    space: tuple[Any, Any, str, str],
) -> None:
    import numpy as np

    from calcarine.splits.duplicate_search import nearest_training

    ids, values, metric, name = space
    print(("Simulated data. " if dataset.simulated else "") + f"Rule: {made.split.rule}.")
    headings = ("split", "train", "test", "neither", "smallest", "median", "file")
    rows = []
    for split, file in zip(made.all, files, strict=True):
        away = nearest_training(split, ids, values, metric)
        unused = len(ids) - len(split.train) - len(split.test)
        rows.append(
            (
                split.name,
                str(len(split.train)),
                str(len(split.test)),
                str(unused),
                f"{away.min():.3f}",
                f"{np.median(away):.3f}",
                str(file),
            )
        )
    print_table("", headings, rows)
    print(
        "train, test, neither: numbers of stimuli. smallest and median: "
        f"{metric} distance in {name} of test stimuli to the nearest training "
        f"stimulus.\nUse: calcarine run --set dataset.split={files[0]} ..., and the same "
        "with each partner."
    )


def _readable(rows: pd.DataFrame, several: bool) -> pd.DataFrame:
    import pandas as pd

    def place(key: str, who: str) -> str:
        return f"{key} ({who})" if several and key else key

    return pd.DataFrame(
        {
            "test stimulus": rows["stimulus"],
            "flag": rows["flag"],
            "nearest": map(place, rows["nearest"], rows["nearest_subject"]),
            "distance": [f"{value:.3f}" for value in rows["distance"]],
            "nearest by hash": map(place, rows["hash_nearest"], rows["hash_subject"]),
            "bits of 128": [str(value) for value in rows["bits"]],
            "alike": ["" if value != value else f"{value:.2f}" for value in rows["alike"]],
            "also trained on by": rows["also_in"],
        }
    ).drop(columns=[] if several else ["also trained on by"])


def _print_rows(rows: pd.DataFrame) -> None:
    cells = [tuple(map(str, row)) for row in rows.itertuples(index=False)]
    print_table("", list(rows.columns), cells)
