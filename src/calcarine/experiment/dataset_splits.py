"""Splitting a data set's stimuli by a rule, and searching a split that it has for duplicates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.errors import SettingError, ShapeError

if TYPE_CHECKING:
    from calcarine.brain import BrainDataset
    from calcarine.splits.duplicate_search import DuplicateReport
    from calcarine.splits.stimulus_pool import SplitWithPartners
    from calcarine.stimuli import StimulusSet

__all__ = ["RULES", "find_data_set_duplicates", "split_data_set", "stimulus_features"]

RULES = ("random", "minimum-distance", "cluster", "category", "out-of-distribution")
"""Rules of `split_data_set`."""


def split_data_set(
    dataset: BrainDataset,
    rule: str,
    *,
    features: str = "pixels",
    metric: str = "correlation",
    seed: int = 0,
    test_size: float = 0.1,
    tau: float | None = None,
    quantile: float | None = None,
    clusters: int = 10,
    method: str | None = None,
    categories: str | None = None,
    match: str = "main",
    partners: int = 3,
) -> tuple[SplitWithPartners, tuple[str, ...], Any]:
    """Split the stimuli that a data set shows.

    Parameters
    ----------
    dataset : BrainDataset
    rule : str
        One of `RULES`.
    features : str
        As in :func:`stimulus_features`.
    metric : {"correlation", "cosine", "euclidean"}
        Distance between stimuli.
    seed : int
    test_size : float
        A number of test stimuli, or a share below 1.
    tau, quantile : float, optional
        Smallest distance between training and test, for the rule minimum-distance; the quantile
        is of distances to the nearest neighbour, .5 by default.
    clusters : int
        Number of clusters, for the rule cluster.
    method : str, optional
        For the rules cluster (kmeans, agglomerative) and out-of-distribution (neighbours,
        mahalanobis).
    categories : str, optional
        Names separated by commas, or how many to draw, for the rule category.
    match : {"main", "any"}
        Which of a stimulus' categories counts, for the rule category.
    partners : int
        Number of random splits of the same sizes.

    Returns
    -------
    made : SplitWithPartners
    ids : tuple of str
        The stimuli that are shown.
    values : array
        Their features.

    Raises
    ------
    CalcarineError
        If there is no such rule, or it cannot be kept.
    """
    from calcarine.splits import split_rules
    from calcarine.splits.stimulus_pool import shown_stimuli

    if rule not in RULES:
        raise SettingError(f"There is no rule {rule}; the rules are {', '.join(RULES)}.")
    size: int | float = int(test_size) if test_size >= 1 and test_size.is_integer() else test_size
    ids = shown_stimuli(dataset)
    common: dict[str, Any] = {"seed": seed, "n_partners": partners}
    values = stimulus_features(features)(dataset.stimuli, ids)
    spaced = {**common, "test_size": size, "metric": metric, "space": features}
    if rule == "random":
        made = split_rules.random_split(ids, size, **common)
    elif rule == "minimum-distance":
        if tau is None and quantile is None:
            quantile = 0.5
        made = split_rules.minimum_distance(ids, values, tau, quantile, **spaced)
    elif rule == "cluster":
        made = split_rules.cluster_holdout(
            ids,
            values,
            clusters,
            method=method or "kmeans",  # type: ignore[arg-type]
            **spaced,
        )
    elif rule == "category":
        shown = dataset.stimuli.categories(ids)
        made = split_rules.category_holdout(ids, shown, _held_out(categories), match, **common)  # type: ignore[arg-type]
    else:
        made = split_rules.out_of_distribution(ids, values, method=method or "neighbours", **spaced)  # type: ignore[arg-type]
    return made, ids, values


def find_data_set_duplicates(
    name: str,
    data: Path | None,
    subjects: Sequence[str] = (),
    *,
    split: str | None = None,
    features: str = "pixels",
    metric: str = "correlation",
    near: float | None = None,
    flips: bool = False,
    **options: Any,
) -> tuple[BrainDataset, DuplicateReport]:
    """Look for test stimuli that training has seen, or nearly.

    Parameters
    ----------
    name, data
        As in :func:`calcarine.datasets.load`.
    subjects : sequence of str
        The subject with the test stimuli, and further ones with training stimuli that are
        compared too.
    split : str, optional
        A split's JSON file or name; the data set's first by default.
    features, metric
        As in :func:`split_data_set`.
    near : float, optional
        Flag test stimuli at most this far from training.
    flips : bool
        Compare mirror images as well.
    **options
        Options of the data set.

    Returns
    -------
    dataset : BrainDataset
    report : DuplicateReport
    """
    from calcarine import datasets
    from calcarine.splits.duplicate_search import find_duplicates
    from calcarine.splits.split_files import find_split

    dataset = datasets.load_dataset(name, data, subjects[0] if subjects else None, **options)
    chosen = dataset.split() if split is None else find_split(dataset, split)
    others: dict[str, tuple[StimulusSet, tuple[str, ...]]] = {}
    for subject in subjects[1:]:
        other = datasets.load_dataset(name, data, subject, **options)
        same = [each for each in other.splits if each.name == chosen.name]
        others[subject] = (other.stimuli, (same[0] if same else other.split()).train)
    report = find_duplicates(
        chosen,
        dataset.stimuli,
        stimulus_features(features),
        others,
        metric,
        near,
        flips=flips,
        subject=dataset.subject,
    )
    return dataset, report


def stimulus_features(space: str) -> Callable[[StimulusSet, tuple[str, ...]], Any]:
    """Return the function that makes, or reads, features of stimuli.

    Parameters
    ----------
    space : str
        ``pixels`` (small opponent-colour pictures), ``z`` (latents of the mini model), or a file
        with a row for each stimulus of the data set.

    Raises
    ------
    CalcarineError
        If it is none of these.
    """
    from calcarine.evaluation.inputs.array_files import ARRAY_SUFFIXES
    from calcarine.splits.feature_distances import pixel_features

    if space == "pixels":
        return pixel_features
    if space == "z":
        return _latents
    if Path(space).suffix.lower() in ARRAY_SUFFIXES:
        return lambda stimuli, ids: _rows(Path(space), stimuli, ids)
    raise SettingError(f"Features are pixels, z or a file .npy, .npz or .pt, not {space}.")


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
        raise ShapeError(
            f"{path} has features of shape {values.shape}; it needs one row for each of the "
            f"{len(stimuli)} stimuli of this subject, in their order."
        )
    return values[stimuli.rows(ids)]


def _held_out(text: str | None) -> int | list[str]:
    """Return how many categories to hold out, or their names."""
    if text is None:
        return 1
    text = text.strip()
    return int(text) if text.isdigit() else [part.strip() for part in text.split(",")]
