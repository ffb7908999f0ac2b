"""Find metrics by name, among those of this package and of other installed packages."""

from __future__ import annotations

import calcarine.evaluation.metrics.array_metrics
import calcarine.evaluation.metrics.classification
import calcarine.evaluation.metrics.identification
import calcarine.evaluation.metrics.image_similarity  # noqa: F401 (registers the metrics)
from calcarine.evaluation.metrics.metric import METRICS, Metric
from calcarine.files.registries import find_entry, load_entry_points

__all__ = ["ENTRY_POINTS", "find_metric", "list_metrics"]

ENTRY_POINTS = "calcarine.metrics"
"""Group under which other packages register metrics."""


def list_metrics() -> list[str]:
    """Return the names of all metric classes, sorted, with those of other installed packages.

    Examples
    --------
    >>> from calcarine.evaluation import list_metrics
    >>> "PixelCorrelation" in list_metrics()
    True
    """
    load_entry_points(ENTRY_POINTS)
    return sorted(METRICS)


def find_metric(name: str) -> type[Metric]:
    """Return the metric class of a name.

    Parameters
    ----------
    name : str
        One of `list_metrics`.

    Returns
    -------
    type of Metric

    Raises
    ------
    SettingError
        If no metric has this name.

    Examples
    --------
    >>> from calcarine.evaluation import find_metric
    >>> find_metric("PixelCorrelation").__name__
    'PixelCorrelation'
    """
    load_entry_points(ENTRY_POINTS)
    return find_entry(METRICS, "metric", name)
