"""Select the images that a report shows, by fixed rules and never by eye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calcarine.reporting.run_records import RunRecord, main_method, order_methods

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "N_RANDOM",
    "N_VARIETY",
    "QUANTILES",
    "SEED",
    "Pick",
    "Quality",
    "at_quantiles",
    "at_random",
    "quality",
]

QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)
SEED = 2023
N_RANDOM = 12
N_VARIETY = 3
_QUALITY = ("identification, pixels, fixed image", "pixel correlation", "SSIM")


@dataclass(frozen=True)
class Quality:
    """The score per image by which images are ranked.

    `at_ends` is the number of images that share the lowest or the highest value with others, and
    `candidates` are the metrics among which it was the first with the fewest of these.
    """

    method: str
    metric: str
    values: pd.Series
    at_ends: int = 0
    candidates: tuple[str, ...] = ()
    higher_is_better: bool = True


@dataclass(frozen=True)
class Pick:
    """An image to show and the reason; `score` is NaN if it has none."""

    id: str
    label: str
    score: float


def quality(record: RunRecord) -> Quality | None:
    """Return the score by which images are ranked, or None if there is none.

    Of the main method's identification of pixels, pixel correlation and SSIM (else all of its
    metrics), it is the one whose lowest and highest values are shared by the fewest images: where
    half of the images have the best possible score, a rank among them means nothing.
    """
    frame = record.per_image[record.per_image["id"].isin(record.ids)]
    drawn = [name for name in frame["method"].unique() if name in record.picture_methods]
    if not drawn:
        return None
    method = main_method(order_methods(drawn))
    frame = frame[frame["method"] == method].dropna(subset=["value"])
    metrics = list(frame["metric"].unique())
    if not metrics:
        return None
    candidates = [name for name in _QUALITY if name in metrics] or metrics
    means = frame.groupby(["metric", "id"])["value"].mean()
    ties = {name: _at_ends(means[name]) for name in candidates}
    metric = min(candidates, key=lambda name: ties[name])
    higher = record.higher_is_better(metric)
    return Quality(method, metric, means[metric], ties[metric], tuple(candidates), higher)


def _at_ends(values: pd.Series) -> int:
    """Return the number of values that equal another one at the lower or the upper end."""
    lowest, highest = values.min(), values.max()
    counts = {end: int((values == end).sum()) for end in (lowest, highest)}
    return sum(count for count in counts.values() if count > 1)


def at_quantiles(order: Quality) -> list[Pick]:
    """Select the images at the 5, 25, 50, 75 and 95 % quantiles; ties are sorted by id."""
    sign = 1 if order.higher_is_better else -1
    ranked = sorted(order.values.items(), key=lambda item: (sign * item[1], str(item[0])))
    places = [round(q * (len(ranked) - 1)) for q in QUANTILES]
    return [
        Pick(str(ranked[place][0]), f"{round(100 * q)} %", float(ranked[place][1]))
        for q, place in zip(QUANTILES, places, strict=True)
    ]


def at_random(record: RunRecord, order: Quality | None, n: int = N_RANDOM) -> list[Pick]:
    """Select ``n`` images with the fixed seed, independent of scores and of the order of files."""
    ids = record.ids
    drawn = np.random.default_rng(SEED).permutation(len(ids))[:n]
    values = {} if order is None else order.values.to_dict()
    return [Pick(ids[place], "random", float(values.get(ids[place], np.nan))) for place in drawn]
