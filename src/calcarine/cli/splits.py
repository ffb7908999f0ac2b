"""Commands ``calcarine datasets split`` and ``audit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calcarine.cli.datasets import Data, Name, Options, Subject, datasets_app, options_from
from calcarine.errors import CalcarineError

if TYPE_CHECKING:
    import pandas as pd

    from calcarine.brain import BrainDataset
    from calcarine.splits.pool import MadeSplit
    from calcarine.stimuli import StimulusSet

RULES = ("random", "minimum-distance", "cluster", "category", "out-of-distribution")

FeatureOption = Annotated[
    str,
    typer.Option(
        "--features",
        help="pixels (small opponent-colour pictures), z (latents of the mini model), or a .npy "
        "file with a row for each stimulus of the data set.",
    ),
]
MetricOption = Annotated[
    str, typer.Option("--metric", help="Distance: correlation, cosine or euclidean.")
]


@datasets_app.command("split")
def split_dataset(
    name: Name,
    rule: Annotated[str, typer.Option(help=f"One of {', '.join(RULES)}.")],
    data: Data = None,
    subject: Subject = None,
    features: FeatureOption = "pixels",
    metric: MetricOption = "correlation",
    out: Annotated[Path, typer.Option(help="Folder for the JSON files.")] = Path("splits"),
    seed: Annotated[int, typer.Option(help="Of everything drawn.", min=0)] = 0,
    test_size: Annotated[
        float, typer.Option(help="Test stimuli: a number, or a share below 1.", min=0)
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
    clusters: Annotated[int, typer.Option(help="cluster: how many in all.")] = 10,
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
    match: Annotated[str, typer.Option(help="category: by the main category or by any.")] = "main",
    partners: Annotated[int, typer.Option(help="Random splits of the same sizes.", min=0)] = 3,
    settings: Options = None,
) -> None:
    """Split a data set's stimuli by a rule, with random partners of the same sizes."""
    from calcarine import datasets
    from calcarine.splits import makers
    from calcarine.splits.pool import shown_stimuli
    from calcarine.splits.split_files import save_splits

    if rule not in RULES:
        raise CalcarineError(f"There is no rule {rule}; there are {', '.join(RULES)}.")
    size: int | float = int(test_size) if test_size >= 1 and test_size.is_integer() else test_size
    dataset = datasets.load_dataset(name, data, subject, **options_from(settings))
    ids = shown_stimuli(dataset)
    common: dict[str, Any] = {"seed": seed, "n_partners": partners}
    values = _features(features)(dataset.stimuli, ids)
    spaced = {**common, "test_size": size, "metric": metric, "space": features}
    if rule == "random":
        made = makers.random_split(ids, size, **common)
    elif rule == "minimum-distance":
        if tau is None and quantile is None:
            quantile = 0.5
        made = makers.minimum_distance(ids, values, tau, quantile, **spaced)
    elif rule == "cluster":
        made = makers.cluster_holdout(ids, values, clusters, method=method or "kmeans", **spaced)  # type: ignore[arg-type]
    elif rule == "category":
        held = _held(categories)
        shown = dataset.stimuli.categories(ids)
        made = makers.category_holdout(ids, shown, held, match, **common)  # type: ignore[arg-type]
    else:
        made = makers.out_of_distribution(ids, values, method=method or "neighbours", **spaced)  # type: ignore[arg-type]
    files = save_splits(made, out)
    _print_made(dataset, made, files, (ids, values, metric, features))


@datasets_app.command("audit")
def audit_dataset(
    name: Name,
    data: Data = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="The audited person; given again: further persons whose training stimuli are "
            "compared too."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="A split's JSON file or name; the data set's first.")
    ] = None,
    features: FeatureOption = "pixels",
    metric: MetricOption = "correlation",
    near: Annotated[
        float | None, typer.Option(help="Flag test stimuli at most this far from training.")
    ] = None,
    flips: Annotated[bool, typer.Option(help="Compare mirror images as well.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file for all test stimuli.")] = None,
    worst: Annotated[int, typer.Option(help="Test stimuli to show.", min=0)] = 5,
    settings: Options = None,
) -> None:
    """Look for test pictures that training has seen, or nearly; exit with 1 if there are any."""
    from calcarine import datasets
    from calcarine.files import write_text
    from calcarine.splits.duplicates import audit_split
    from calcarine.splits.split_files import find_split

    options = options_from(settings)
    people = list(subject or [])
    dataset = datasets.load_dataset(name, data, people[0] if people else None, **options)
    chosen = dataset.split() if split is None else find_split(dataset, split)
    others: dict[str, tuple[StimulusSet, tuple[str, ...]]] = {}
    for person in people[1:]:
        other = datasets.load_dataset(name, data, person, **options)
        same = [each for each in other.splits if each.name == chosen.name]
        others[person] = (other.stimuli, (same[0] if same else other.split()).train)
    found = audit_split(
        chosen,
        dataset.stimuli,
        _features(features),
        others,
        metric,
        near,
        flips=flips,
        subject=dataset.subject,
    )
    print(("Simulated data. " if dataset.simulated else "") + found.summary)
    if worst:
        _print_table(_readable(found.worst(worst), bool(others)))
    if out is not None:
        write_text(out, found.table.to_csv(index=False))
        print(f"All {len(found.table)} test stimuli: {out}")
    if found.n_duplicates:
        raise typer.Exit(1)


def _features(space: str) -> Callable[[StimulusSet, tuple[str, ...]], Any]:
    """Give the function that makes, or reads, the features of some stimuli."""
    from calcarine.evaluation.inputs.array_files import ARRAY_SUFFIXES
    from calcarine.splits.distances import pixel_features

    if space == "pixels":
        return pixel_features
    if space == "z":
        return _latents
    if Path(space).suffix.lower() in ARRAY_SUFFIXES:
        return lambda stimuli, ids: _rows(Path(space), stimuli, ids)
    raise CalcarineError(f"Features are pixels, z or a file .npy, .npz or .pt, not {space}.")


def _latents(stimuli: StimulusSet, ids: tuple[str, ...]) -> Any:
    import tempfile

    from calcarine.diffusion import LatentDiffusion
    from calcarine.features import FeatureStore, visual_latent

    model = LatentDiffusion.from_pretrained("mini")
    with tempfile.TemporaryDirectory() as folder:
        return visual_latent(FeatureStore(Path(folder)), model, stimuli.subset(ids))


def _rows(path: Path, stimuli: StimulusSet, ids: tuple[str, ...]) -> Any:
    from calcarine.evaluation.inputs.array_files import read_stack

    values = read_stack(path, "features")
    if values.dtype.kind not in "iuf" or values.ndim < 2 or len(values) != len(stimuli):
        raise CalcarineError(
            f"{path} has features of shape {values.shape}; it needs one row for each of the "
            f"{len(stimuli)} stimuli of this subject, in their order."
        )
    return values[stimuli.rows(ids)]


def _held(text: str | None) -> int | list[str]:
    if text is None:
        return 1
    text = text.strip()
    return int(text) if text.isdigit() else [part.strip() for part in text.split(",")]


def _print_made(
    dataset: BrainDataset, made: MadeSplit, files: list[Path], space: tuple[Any, Any, str, str]
) -> None:
    import pandas as pd

    from calcarine.splits.duplicates import nearest_training

    ids, values, metric, name = space
    print(("Simulated data. " if dataset.simulated else "") + f"Rule: {made.split.rule}.")
    rows = []
    for split, file in zip(made.all, files, strict=True):
        away = nearest_training(split, ids, values, metric)
        rows.append(
            {
                "split": split.name,
                "train": str(len(split.train)),
                "test": str(len(split.test)),
                "neither": str(len(ids) - len(split.train) - len(split.test)),
                "smallest": f"{away.min():.3f}",
                "median": f"{pd.Series(away).median():.3f}",
                "file": str(file),
            }
        )
    _print_table(pd.DataFrame(rows))
    print(
        f"smallest and median: {metric} distance in {name} of test stimuli to the nearest "
        f"training stimulus.\nUse: calcarine run --set dataset.split={files[0]} ..., and the same "
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


def _print_table(rows: pd.DataFrame) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in rows.columns:
        table.add_column(str(heading), overflow="fold")
    for row in rows.itertuples(index=False):
        table.add_row(*map(str, row))
    console = Console()
    # In a file or a pipe nothing should be cut or wrapped to 80 columns.
    Console(width=None if console.is_terminal else 200).print(table)
