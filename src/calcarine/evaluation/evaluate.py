"""Score methods, floors and ceilings on the same images, with intervals and tests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.evaluation import metrics
from calcarine.evaluation.statistics import (
    PermutationResult,
    bootstrap_interval,
    paired_difference,
    permutation_test,
)
from calcarine.files import write_text, written_aside
from calcarine.stimuli.images import resize_images

if TYPE_CHECKING:
    from calcarine.evaluation.networks import Judge, JudgeReading

Images = NDArray[np.uint8]
Record = dict[str, Any]
Progress = Callable[[int, int, str], None]
Role = Literal["method", "floor", "ceiling"]

SUMMARY_NAME = "summary.json"
NOTES_NAME = "notes.json"
PER_IMAGE_NAME = "per_image.parquet"
MIN_GROUP, MAX_GROUPS = 5, 10
_DIRECTIONS: tuple[Literal["image", "reconstruction"], ...] = ("image", "reconstruction")
# Pixels of all pairs; beyond this, structural similarity of every pair takes tens of minutes.
_MAX_PAIR_PIXELS = 20e9


@dataclass(frozen=True)
class Evaluation:
    """Scores of all methods.

    Parameters
    ----------
    records : list of dict
        One for each method and metric: method, role ("method", "floor" or "ceiling"), metric,
        protocol, value, ci_low, ci_high (95 %, over images), n (images), pool (candidates; of the
        smallest category where categories compete), chance (None where theory gives none), p
        (permutation, one-sided), null_mean and null_sd (shuffled pairs). The records of a
        "shuffled brain" hold the null distribution and no p.
    per_image : DataFrame
        Columns id, method, metric, value and category.
    notes : list of str
        What was left out, and why.
    """

    records: list[Record]
    per_image: pd.DataFrame
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Score:
    """One metric of one method, before its statistics."""

    metric: str
    matrix: NDArray[np.float64]
    chance: float | None = None
    pool: int | None = None
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class _Plan:
    """What is the same for every method."""

    truth: Images
    ids: list[str]
    categories: list[str] | None
    judge: Judge | None
    truth_reading: JudgeReading | None
    groups: NDArray[np.int64] | None
    labels: NDArray[np.int64] | None
    readable: NDArray[np.int64] | None
    n_way: list[tuple[int, int]]
    protocol: str
    n_boot: int
    n_permutations: int
    seed: int


def evaluate(
    truth: Images,
    methods: dict[str, Images],
    *,
    ids: Sequence[str],
    categories: Sequence[str] | None = None,
    floors: dict[str, Images] | None = None,
    judge: Judge | None = None,
    protocol: str = "calcarine",
    within_groups: bool = False,
    read_classes: Sequence[str] | None = None,
    n_way: Sequence[tuple[int, int]] = ((10, 1), (24, 5)),
    n_boot: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Score reconstructions against ground truths.

    Parameters
    ----------
    truth : uint8 array of shape (n, height, width, 3)
        Ground truths. Pixel metrics are computed at this size.
    methods : dict of str to uint8 array of shape (n, samples, height, width, 3)
        Reconstructions, resized where their size differs. A name that begins with "ceiling" marks
        a ceiling.
    ids : sequence of str
        Ids of the n stimuli.
    categories : sequence of str, optional
        Main category of each stimulus.
    floors : dict, optional
        Like `methods`, of images that were made without the brain.
    judge : Judge, optional
        Network for feature metrics; without it only pixels are compared.
    protocol : str
        Name under which the scores are filed; scores of different protocols are not comparable.
    within_groups : bool
        Also identify within categories, if there are at most 10 with at least 5 images each.
    read_classes : sequence of str, optional
        Classes of the judge that "category read" may answer; all by default.
    n_way : sequence of (int, int)
        Classes in a draw and ranks that count. Those with more classes than the judge knows are
        left out; if none remains, all classes of the judge and rank 1 are used.
    n_boot, n_permutations, seed : int
        Bootstrap resamples, shuffles and the seed of both.
    progress : callable, optional
        Called with (done, total, name) after each method.

    Returns
    -------
    Evaluation

    Raises
    ------
    CalcarineError
        If images, ids and categories do not fit together.
    """
    sets = _with_roles(methods, floors or {})
    _check_input(truth, ids, categories, {name: images for name, (images, _) in sets.items()})
    notes: list[str] = []
    names = None if categories is None else [str(category) for category in categories]
    labels, readable = _label_indices(judge, names, read_classes, notes)
    plan = _Plan(
        truth=truth,
        ids=[str(stimulus) for stimulus in ids],
        categories=names,
        judge=judge,
        truth_reading=None if judge is None else judge.read(truth),
        groups=_category_groups(names, notes) if within_groups else None,
        labels=labels,
        readable=readable,
        n_way=[] if judge is None else _fitting_ways(n_way, len(judge.labels)),
        protocol=protocol,
        n_boot=n_boot,
        n_permutations=n_permutations,
        seed=seed,
    )
    if min(truth.shape[1:3]) < metrics.SSIM_WINDOW:
        notes.append(f"SSIM is left out: images are smaller than {metrics.SSIM_WINDOW} pixels.")
    records: list[Record] = []
    tables: list[pd.DataFrame] = []
    for done, (name, (images, role)) in enumerate(sets.items(), start=1):
        for score in _scores(plan, images, notes):
            records += _records(plan, name, role, score)
            tables.append(_per_image(plan, name, score))
        if progress is not None:
            progress(done, len(sets), name)
    return Evaluation(records, pd.concat(tables, ignore_index=True), list(dict.fromkeys(notes)))


def compare(
    per_image: pd.DataFrame,
    a: str,
    b: str,
    *,
    n_boot: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two methods image by image.

    Parameters
    ----------
    per_image : DataFrame
        Of one `Evaluation`.
    a, b : str
        Names of the methods.
    n_boot, n_permutations, seed : int
        Bootstrap resamples, sign flips and the seed of both.

    Returns
    -------
    DataFrame
        One row a metric: metric, value_a, value_b, difference (a - b), ci_low, ci_high, p
        (two-sided sign flips), n.

    Raises
    ------
    CalcarineError
        If a method is missing or the two have no metric in common.
    """
    wide = {}
    for name in (a, b):
        rows = per_image[per_image["method"] == name]
        if rows.empty:
            known = ", ".join(sorted(map(str, per_image["method"].unique())))
            raise CalcarineError(f"there are no scores of {name!r}: choose among {known}.")
        wide[name] = rows.set_index(["metric", "id"])["value"]
    table = []
    for metric in per_image.loc[per_image["method"] == a, "metric"].unique():
        if metric not in wide[b].index.get_level_values("metric"):
            continue
        joined = pd.concat([wide[a][metric], wide[b][metric]], axis=1, join="inner")
        scores_a, scores_b = joined.to_numpy(np.float64).T
        result = paired_difference(scores_a, scores_b, n_boot, n_permutations, seed=seed)
        values = {"metric": metric, "value_a": scores_a.mean(), "value_b": scores_b.mean()}
        table.append(values | vars(result))
    if not table:
        raise CalcarineError(f"{a!r} and {b!r} have no metric in common: evaluate them together.")
    order = ["metric", "value_a", "value_b", "difference", "ci_low", "ci_high", "p", "n"]
    return pd.DataFrame(table)[order]


def write_evaluation(folder: str | Path, evaluation: Evaluation) -> None:
    """Write ``summary.json`` (a list of records), ``notes.json`` and ``per_image.parquet``.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    evaluation : Evaluation
        Records are sorted by method and metric, numbers rounded to six digits after the point.

    Notes
    -----
    Each file is written aside and renamed, so a half-written one is never found.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = sorted(evaluation.records, key=lambda r: (r["method"], r["metric"], r["role"]))
    rounded = [{key: _rounded(value) for key, value in row.items()} for row in records]
    with written_aside(folder / PER_IMAGE_NAME) as aside:
        evaluation.per_image.to_parquet(aside)
    for name, content in ((NOTES_NAME, evaluation.notes), (SUMMARY_NAME, rounded)):
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_text(folder / name, text)


def read_summary(folder: str | Path) -> list[Record]:
    """Read the records that `write_evaluation` wrote.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of dict

    Raises
    ------
    CalcarineError
        If the file is missing or malformed.
    """
    path = Path(folder) / SUMMARY_NAME
    records = _read_list(path)
    if not records:
        raise CalcarineError(_malformed(path))
    return records


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read back all that `write_evaluation` wrote.

    Parameters
    ----------
    folder : path

    Returns
    -------
    Evaluation
        Records sorted and rounded.

    Raises
    ------
    CalcarineError
        If a file is missing or malformed.
    """
    records, notes = read_summary(folder), _read_list(Path(folder) / NOTES_NAME)
    path = Path(folder) / PER_IMAGE_NAME
    try:
        per_image = pd.read_parquet(path)
    except (OSError, ValueError):
        raise CalcarineError(_malformed(path)) from None
    return Evaluation(records, per_image, notes)


def _scores(plan: _Plan, images: Images, notes: list[str]) -> list[_Score]:
    resized = _resize(images, plan.truth.shape[1:3])
    pixels = metrics.pixel_correlation_matrix(plan.truth, resized)
    scores = [_Score("pixel correlation", pixels)]
    if min(plan.truth.shape[1:3]) >= metrics.SSIM_WINDOW:
        scores.append(_Score("SSIM", _ssim(plan.truth, resized, notes)))
    scores += _identification(plan, "pixels", pixels)
    if plan.judge is None or plan.truth_reading is None:
        return scores
    n, samples = images.shape[:2]
    reading = plan.judge.read(images.reshape(n * samples, *images.shape[2:]))
    for layer, features in reading.layers.items():
        correlations = metrics.feature_correlation_matrix(
            plan.truth_reading.layers[layer], features.reshape(n, samples, -1)
        )
        scores += _identification(plan, f"{layer} layer", correlations)
    probabilities = reading.probabilities.reshape(n, samples, -1)
    return scores + _class_scores(plan, plan.truth_reading.probabilities, probabilities)


def _identification(plan: _Plan, what: str, correlations: NDArray[np.float64]) -> list[_Score]:
    scores = []
    for groups in [None] if plan.groups is None else [None, plan.groups]:
        name = "identification" if groups is None else "identification within category"
        pool = len(plan.truth) if groups is None else int(np.bincount(groups).min())
        for direction in _DIRECTIONS:
            matrix = metrics.identification_matrix(correlations, direction, "half", groups)
            scores.append(_Score(f"{name}, {what}, fixed {direction}", matrix, 0.5, pool, groups))
    return scores


def _class_scores(
    plan: _Plan, truth: NDArray[np.float32], probabilities: NDArray[np.float32]
) -> list[_Score]:
    scores = []
    for ways, k in plan.n_way:
        matrix = metrics.n_way_top_k_matrix(truth, probabilities, ways, k)
        scores.append(_Score(f"{ways}-way top-{k}", matrix, k / ways, ways))
    if plan.labels is not None and plan.readable is not None:
        matrix = metrics.label_matrix(plan.labels, probabilities, plan.readable)
        pool = len(plan.readable)
        scores.append(_Score("category read", matrix, 1 / pool, pool))
    return scores


def _ssim(truth: Images, recon: Images, notes: list[str]) -> NDArray[np.float64]:
    """Every pair, or only the diagonal (the rest NaN) where every pair would take too long."""
    if float(len(truth)) * recon[..., 0].size <= _MAX_PAIR_PIXELS:
        return metrics.ssim_matrix(truth, recon)
    notes.append("SSIM has no permutation test: there are too many pairs of pictures this large.")
    matrix = np.full((len(truth), len(truth)), np.nan)
    np.fill_diagonal(matrix, metrics.ssim_matrix(truth, recon, pairs="diagonal"))
    return matrix


def _records(plan: _Plan, method: str, role: Role, score: _Score) -> list[Record]:
    values = np.diagonal(score.matrix)
    low, high = bootstrap_interval(values, plan.n_boot, seed=plan.seed)
    null = _null(plan, score)
    record: Record = {
        "method": method,
        "role": role,
        "metric": score.metric,
        "protocol": plan.protocol,
        "value": float(values.mean()),
        "ci_low": low,
        "ci_high": high,
        "n": len(values),
        "pool": score.pool,
        "chance": score.chance,
        "p": None if null is None else null.p,
        "null_mean": None if null is None else null.null_mean,
        "null_sd": None if null is None else null.null_sd,
    }
    if role != "method" or null is None:
        return [record]
    shuffled = record | {
        "method": f"shuffled brain ({method})",
        "role": "floor",
        "value": null.null_mean,
        "ci_low": null.null_low,
        "ci_high": null.null_high,
        "p": None,
    }
    return [record, shuffled]


def _null(plan: _Plan, score: _Score) -> PermutationResult | None:
    if score.groups is None and np.isnan(score.matrix).any():
        return None
    return permutation_test(score.matrix, plan.n_permutations, plan.seed, score.groups)


def _per_image(plan: _Plan, method: str, score: _Score) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": plan.ids,
            "method": method,
            "metric": score.metric,
            "value": np.diagonal(score.matrix).copy(),
            "category": pd.Series(plan.categories, index=range(len(plan.ids)), dtype="object"),
        }
    )


def _with_roles(
    methods: dict[str, Images], floors: dict[str, Images]
) -> dict[str, tuple[Images, Role]]:
    twice = sorted(set(methods) & set(floors))
    if twice or not methods:
        problem = f"{twice[0]!r} is both a method and a floor" if twice else "there is no method"
        raise CalcarineError(f"{problem}: give each set of images one name of its own.")
    sets: dict[str, tuple[Images, Role]] = {
        name: (images, "ceiling" if name.startswith("ceiling") else "method")
        for name, images in methods.items()
    }
    return sets | {name: (images, "floor") for name, images in floors.items()}


def _check_input(
    truth: Images,
    ids: Sequence[str],
    categories: Sequence[str] | None,
    sets: dict[str, Images],
) -> None:
    if truth.ndim != 4 or truth.shape[-1] != 3 or truth.dtype != np.uint8 or len(truth) < 2:
        raise CalcarineError(
            f"ground truths are {truth.dtype} of shape {truth.shape}: give at least two uint8 "
            "images of shape (n, height, width, 3)."
        )
    if len(ids) != len(truth) or len({str(stimulus) for stimulus in ids}) != len(ids):
        raise CalcarineError(
            f"{len(ids)} ids were given for {len(truth)} images: give each image one id of its own."
        )
    if categories is not None and len(categories) != len(truth):
        raise CalcarineError(
            f"{len(categories)} categories were given for {len(truth)} images: give one for each."
        )
    for name, images in sets.items():
        fits = images.ndim == 5 and images.shape[-1] == 3 and len(images) == len(truth)
        if not fits or images.dtype != np.uint8 or not images.size:
            raise CalcarineError(
                f"the images of {name!r} are {images.dtype} of shape {images.shape}: give uint8 "
                f"of shape ({len(truth)}, samples, height, width, 3)."
            )


def _label_indices(
    judge: Judge | None,
    categories: list[str] | None,
    read_classes: Sequence[str] | None,
    notes: list[str],
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    if judge is None or categories is None:
        return None, None
    place = {label: index for index, label in enumerate(judge.labels)}
    allowed = list(place) if read_classes is None else [str(name) for name in read_classes]
    for name in allowed:
        if name not in place:
            raise CalcarineError(
                f"the judge does not know the class {name!r} of read_classes: choose among "
                f"{', '.join(judge.labels)}."
            )
    unread = sorted(set(categories) - set(allowed))
    if unread:
        notes.append(f"category read is left out: the judge cannot read {', '.join(unread)}.")
        return None, None
    indices = np.asarray([place[name] for name in categories], np.int64)
    return indices, np.unique(np.asarray([place[name] for name in allowed], np.int64))


def _category_groups(categories: list[str] | None, notes: list[str]) -> NDArray[np.int64] | None:
    counts = Counter(categories or [])
    if not counts or len(counts) > MAX_GROUPS or min(counts.values()) < MIN_GROUP:
        notes.append(
            "identification within category is left out: it needs at most "
            f"{MAX_GROUPS} categories with at least {MIN_GROUP} images each."
        )
        return None
    return np.asarray(np.unique(np.asarray(categories), return_inverse=True)[1], np.int64)


def _fitting_ways(n_way: Sequence[tuple[int, int]], classes: int) -> list[tuple[int, int]]:
    fitting = [(ways, k) for ways, k in n_way if ways <= classes]
    return list(dict.fromkeys(fitting)) if fitting or not n_way else [(classes, 1)]


def _resize(images: Images, size: tuple[int, ...]) -> Images:
    n, samples = images.shape[:2]
    flat = resize_images(images.reshape(n * samples, *images.shape[2:]), (size[0], size[1]))
    return flat.reshape(n, samples, *flat.shape[1:])


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _read_list(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CalcarineError(_malformed(path)) from None
    if not isinstance(content, list):
        raise CalcarineError(_malformed(path))
    return content


def _malformed(path: Path) -> str:
    return f"the scores {path} are missing or malformed: run the evaluation again."
