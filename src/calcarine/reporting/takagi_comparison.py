"""Comparison of a run with Takagi & Nishimoto (2023): what z, c and z_c each preserve.

The paper reports that z alone preserves the appearance but not the semantic content, c alone the
semantic content but not the appearance, and z_c both (Figures 3 and 5).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "AS_PAPER",
    "INCONCLUSIVE",
    "METHODS",
    "NOT_AS_PAPER",
    "N_BOOT",
    "MetricPattern",
    "PairedComparison",
    "TakagiComparison",
    "compare_with_takagi",
    "level",
    "paired_interval",
]

AS_PAPER = "as in the paper"
NOT_AS_PAPER = "not as in the paper"
INCONCLUSIVE = "inconclusive"
METHODS = ("z", "c", "z_c")
N_BOOT = 2000
_SEED = 2023
# Expected pairs (better, worse) by level.
_EXPECTED = {
    "appearance": (("z", "c"), ("z_c", "c")),
    "semantic": (("c", "z"), ("z_c", "z")),
}


@dataclass(frozen=True)
class PairedComparison:
    """One paired comparison on one metric; positive differences favour `better`."""

    better: str
    worse: str
    difference: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class MetricPattern:
    """Scores of z, c and z_c on one metric, and their paired comparisons."""

    level: str
    metric: str
    n: int
    means: dict[str, float]
    best: str
    clear: bool
    comparisons: tuple[PairedComparison, ...]


@dataclass(frozen=True)
class TakagiComparison:
    """Result of the comparison with the paper: a verdict for each level, and all metrics."""

    verdicts: dict[str, str]
    metrics: tuple[MetricPattern, ...]

    @property
    def verdict(self) -> str:
        """Verdict over both levels; inconclusive if a level was not measured."""
        result = list(self.verdicts.values())
        if set(self.verdicts) != set(_EXPECTED) and NOT_AS_PAPER not in result:
            return INCONCLUSIVE
        return _combine(result)


def level(metric: str) -> str | None:
    """Return whether a metric measures "appearance" or "semantic" content, or None."""
    name = metric.lower()
    if re.search(r"within category|among the|median rank|top-1 of the pool", name):
        return None  # these are variants of the same comparisons
    if re.search(r"pixel|ssim|\bearly\b", name):
        return "appearance"
    if re.search(r"\blate\b|^category|-way", name):
        return "semantic"
    return None


def paired_interval(
    difference: NDArray[np.float64], n_boot: int = N_BOOT, seed: int = _SEED
) -> tuple[float, float]:
    """Compute the bootstrap interval of the mean of paired differences over images.

    Parameters
    ----------
    difference : array of shape (n_images,)
        Score of one method minus score of the other, for each image.
    n_boot : int
        Number of resamples.
    seed : int
        Seed of the resampling.

    Returns
    -------
    low, high : float
        Limits of the 95 % percentile interval.
    """
    rng = np.random.default_rng(seed)
    means = np.empty(n_boot)
    for i in range(n_boot):
        means[i] = difference[rng.integers(0, len(difference), len(difference))].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def compare_with_takagi(
    per_image: pd.DataFrame, higher_is_better: Callable[[str], bool] = lambda metric: True
) -> TakagiComparison | None:
    """Compare the scores of z, c and z_c with the pattern in the paper.

    Parameters
    ----------
    per_image : pandas.DataFrame
        Columns id, method, metric, value.
    higher_is_better : callable
        Tells by the name of a metric whether higher values are better.

    Returns
    -------
    Pattern or None
        None if one of the three methods is missing or no metric belongs to a level.
    """
    if not set(METHODS) <= set(per_image["method"]):
        return None
    readings = []
    for metric in per_image["metric"].unique():
        where = level(str(metric))
        table = _table(per_image, str(metric)) if where else None
        if where and table is not None:
            sign = 1 if higher_is_better(str(metric)) else -1
            readings.append(_read_metric(where, str(metric), table, sign))
    if not readings:
        return None
    verdicts = {
        name: _combine([c.verdict for r in readings if r.level == name for c in r.comparisons])
        for name in _EXPECTED
        if any(reading.level == name for reading in readings)
    }
    readings.sort(key=lambda reading: list(_EXPECTED).index(reading.level))
    return TakagiComparison(verdicts, tuple(readings))


def _table(per_image: pd.DataFrame, metric: str) -> pd.DataFrame | None:
    rows = per_image[(per_image["metric"] == metric) & per_image["method"].isin(METHODS)]
    table = rows.pivot_table(index="id", columns="method", values="value", aggfunc="mean")
    if not set(METHODS) <= set(table.columns):
        return None
    table = table[list(METHODS)].dropna()
    return table if len(table) > 1 else None


def _read_metric(where: str, metric: str, table: pd.DataFrame, sign: int) -> MetricPattern:
    means = {name: float(table[name].mean()) for name in METHODS}
    ranked = sorted(METHODS, key=lambda name: -sign * means[name])
    values = {name: sign * table[name].to_numpy(dtype=float) for name in METHODS}
    low, _ = paired_interval(values[ranked[0]] - values[ranked[1]])
    comparisons = tuple(_compare(better, worse, values) for better, worse in _EXPECTED[where])
    return MetricPattern(where, metric, len(table), means, ranked[0], low > 0, comparisons)


def _compare(better: str, worse: str, values: dict[str, NDArray[np.float64]]) -> PairedComparison:
    difference = values[better] - values[worse]
    low, high = paired_interval(difference)
    verdict = AS_PAPER if low > 0 else NOT_AS_PAPER if high < 0 else INCONCLUSIVE
    return PairedComparison(better, worse, float(difference.mean()), low, high, verdict)


def _combine(verdicts: list[str]) -> str:
    if NOT_AS_PAPER in verdicts:
        return NOT_AS_PAPER
    return AS_PAPER if set(verdicts) == {AS_PAPER} else INCONCLUSIVE
