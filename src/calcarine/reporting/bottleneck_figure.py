"""The bottleneck curve of a run as a table and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from calcarine.errors import DamagedFileError
from calcarine.evaluation.results.evaluation import main_protocol
from calcarine.files import read_json
from calcarine.reporting.figures import INK, mark_simulated, method_styles
from calcarine.reporting.score_tables import HEADLINES, axis_label, number

__all__ = ["HEADINGS", "curve_figure", "curve_rows", "read_curve"]

HEADINGS = ("method", "metric", "dimensions", "score", "95 % interval", "chance")
_SHOWN = tuple(name for name in HEADLINES if name != "identification, early layer, fixed image")


def read_curve(run: Path) -> list[dict[str, Any]]:
    """Read the main metrics of ``bottleneck/curve.json``; an empty list if there is no such file.

    Raises
    ------
    CalcarineError
        If the file is damaged.
    """
    file = run / "bottleneck" / "curve.json"
    if not file.is_file():
        return []
    try:
        records = read_json(file)
        leading = main_protocol(row["protocol"] for row in records)
        own = [r for r in records if r["protocol"] == leading]
        shown = _metrics(own)
        result = [r for r in own if r["metric"] in shown]
        curve_rows(result)  # raises if a value is not a number
        return result
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{file} cannot be read; make it again with `calcarine bottleneck {run}`."
        ) from error


def _metrics(records: list[dict[str, Any]]) -> list[str]:
    """Return the main metrics, or else the first metrics with an interval."""
    known = list(dict.fromkeys(row["metric"] for row in records if row["ci_low"] is not None))
    return [name for name in _SHOWN if name in known] or known[: len(_SHOWN)]


def curve_rows(records: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return table rows by metric, method and rank."""
    rows: list[tuple[str, ...]] = []
    for metric in _metrics(records):
        for row in records:
            if row["metric"] == metric:
                rank = f"all ({row['rank']})" if row["whole"] else str(row["rank"])
                interval = f"{number(row['ci_low'])} to {number(row['ci_high'])}"
                chance = "–" if row["chance"] is None else number(row["chance"])
                rows.append((row["method"], metric, rank, number(row["value"]), interval, chance))
    return rows


def curve_figure(records: list[dict[str, Any]], simulated: bool) -> Figure:
    """Plot score against rank with intervals, with one panel for each main metric.

    Parameters
    ----------
    records : list of dict
        From `read_curve`, not empty.
    simulated : bool
        Whether to mark the figure as simulated.
    """
    metrics = _metrics(records)
    methods = list(dict.fromkeys(row["method"] for row in records))
    styles = method_styles(methods)
    figure = Figure(figsize=(10, 2.9), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.93)))
    for axes, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        for method in methods:
            rows = [r for r in records if (r["metric"], r["method"]) == (metric, method)]
            # Ranks are doubled at each step, so they are equally spaced, with 0 first.
            places = list(range(len(rows)))
            colour, marker = styles[method]
            axes.plot(places, [r["value"] for r in rows], marker=marker, color=colour, label=method)
            axes.fill_between(
                places,
                [r["ci_low"] for r in rows],
                [r["ci_high"] for r in rows],
                color=colour,
                alpha=0.18,
                linewidth=0,
            )
            names = ["all" if r["whole"] else str(r["rank"]) for r in rows]
            axes.set_xticks(places, names, fontsize=8)
        chance = next((r["chance"] for r in records if r["metric"] == metric), None)
        if chance is not None:
            axes.axhline(chance, linestyle="--", color=INK, linewidth=1)
        axes.set_title(metric.replace(", fixed image", "").replace(", ", ",\n", 1), fontsize=9)
        better = all(r.get("higher_is_better", True) for r in records if r["metric"] == metric)
        axes.set_ylabel(axis_label(metric, better).replace(" (", "\n("), fontsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(color="#e3e7eb", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("dimensions of brain activity that z and c each use", fontsize=9)
    if len(methods) > 1:
        figure.axes[0].legend(fontsize=8, frameon=False)
    if simulated:
        mark_simulated(figure)
    return figure
