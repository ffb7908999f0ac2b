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
_QUALITY = ("identification, pixels, fixed image", "pixel correlation")


@dataclass(frozen=True)
class Quality:
    """The score per image by which images are ranked."""

    method: str
    metric: str
    values: pd.Series
    higher_is_better: bool = True


@dataclass(frozen=True)
class Pick:
    """An image to show and the reason; `score` is NaN if it has none."""

    id: str
    label: str
    score: float


def quality(record: RunRecord) -> Quality | None:
    """Return the score by which images are ranked, or None if there is none.

    It is the pixel identification (else the pixel correlation, else the first metric) of the main
    method.
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
    metric = next((name for name in _QUALITY if name in metrics), metrics[0])
    values = frame[frame["metric"] == metric].groupby("id")["value"].mean()
    return Quality(method, metric, values, record.higher_is_better(metric))


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
