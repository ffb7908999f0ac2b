"""The figures of a report."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from calcarine.reporting.run_records import RunRecord, Score
from calcarine.reporting.score_tables import MIDDLE, Group, ScoreRow, arrange, names_of_role
from calcarine.reporting.shown_stimuli import Pick
from calcarine.stimuli.image_files import read_picture

__all__ = ["INK", "mark_simulated", "method_styles", "png", "scores_figure", "sheet_figure"]

# Colours of Okabe & Ito, which are distinguishable with any colour vision; markers differ as well.
_KNOWN_STYLES = {
    "z": ("#0072B2", "o"),
    "c": ("#E69F00", "s"),
    "z_c": ("#009E73", "D"),
    "z_c, chosen by the brain": ("#CC79A7", "P"),
    "vis-dec": ("#D55E00", "X"),
    "direct ridge": ("#56B4E9", "v"),
}
_OTHER_STYLES = (("#7A5195", "h"), ("#8A8A00", "*"), ("#444444", "p"))
INK, _GREY, _ALARM = "#1c2733", "#9aa5b1", "#a33b00"
_ROW_INCHES = 0.17


def png(figure: Figure, dpi: int = 130) -> bytes:
    """Render a figure as PNG; equal figures have equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def scores_figure(scores: Sequence[Score], simulated: bool) -> Figure:
    """Plot the scores with one panel for each family of metrics and protocol.

    Median ranks are left out, because their means are shown.

    Parameters
    ----------
    scores : sequence of Score
        All scores of the run.
    simulated : bool
        Whether to mark the figure as simulated.

    Returns
    -------
    matplotlib.figure.Figure
        Methods are points with intervals, floors and ceilings are grey, chance is dashed.
    """
    groups = [group for group in arrange(scores) if _plottable(group)]
    methods = names_of_role(scores, "method")
    styles = method_styles(methods)
    slots = max(len(methods), 1) + 1.5
    sizes = [max(len(group.rows) * slots * _ROW_INCHES, 0.6) for group in groups] or [0.6]
    height = sum(sizes) + 0.75 * len(sizes) + 0.9
    # The top margin is reserved for the legend.
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.6 / height))
    figure = Figure(figsize=(10, height), layout=layout)
    panels = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axes, group in zip(panels, groups, strict=False):
        _panel(axes, group, methods, styles, slots)
    figure.legend(
        handles=_legend(methods, styles, scores),
        loc="upper left",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    if simulated:
        mark_simulated(figure)
    return figure


def sheet_figure(record: RunRecord, picks: Sequence[Pick], caption: str) -> Figure:
    """Draw stimuli and reconstructions: one column for each image, one row for each method.

    Parameters
    ----------
    record : RunRecord
        The run.
    picks : sequence of Pick
        The selected images.
    caption : str
        Caption below the pictures, for example how images were selected.
    """
    rows = ["truth", *record.picture_methods]
    columns = max(len(picks), 1)
    width, height = 1.15 * columns + 1.5, 1.15 * len(rows) + 0.95
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=1.4 / width,
        right=1 - 0.1 / width,
        top=1 - 0.45 / height,
        bottom=0.5 / height,
        wspace=0.05,
        hspace=0.05,
    )
    for axes_row, method in zip(grid, rows, strict=True):
        for axes, pick in zip(axes_row, picks, strict=False):
            _show(axes, record, pick.id, method)
        axes_row[0].set_ylabel(
            textwrap.fill("stimulus" if method == "truth" else method, 14),
            rotation=0,
            ha="right",
            va="center",
            fontsize=10,
            color=INK,
            parse_math=False,
        )
    for axes, pick in zip(grid[0], picks, strict=False):
        axes.set_title(pick.label, fontsize=9, color=INK, parse_math=False)
    figure.text(
        0.1 / width,
        0.12 / height,
        textwrap.fill(caption, int(width * 15)),
        fontsize=7.5,
        color="#55606c",
        va="bottom",
        parse_math=False,
    )
    if record.simulated:
        mark_simulated(figure)
    return figure


def mark_simulated(figure: Figure) -> None:
    """Write SIMULATED into the upper right corner of a figure."""
    figure.text(
        0.995,
        1 - 0.06 / figure.get_figheight(),
        "SIMULATED",
        ha="right",
        va="top",
        fontsize=10,
        fontweight="bold",
        color=_ALARM,
    )


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each method; known methods always have the same."""
    others = [name for name in methods if name not in _KNOWN_STYLES]
    styles = {name: _OTHER_STYLES[i % len(_OTHER_STYLES)] for i, name in enumerate(others)}
    return styles | {name: _KNOWN_STYLES[name] for name in methods if name in _KNOWN_STYLES}


def _plottable(group: Group) -> bool:
    return group.family != MIDDLE and any(
        math.isfinite(s.value) for row in group.rows for s in row.cells.values()
    )


def _panel(
    axes: Axes,
    group: Group,
    methods: Sequence[str],
    styles: dict[str, tuple[str, str]],
    slots: float,
) -> None:
    for place, row in enumerate(group.rows):
        centre = place * slots
        if place % 2:
            axes.axhspan(centre - slots / 2, centre + slots / 2, color="#f3f5f7", zorder=0)
        _grey_marks(axes, row, centre, slots)
        for slot, method in enumerate(methods):
            if method in row.cells:
                offset = slot - (len(methods) - 1) / 2
                _point(axes, row.cells[method], centre + offset, styles[method])
    axes.set_yticks(
        [place * slots for place in range(len(group.rows))],
        [_row_label(row) for row in group.rows],
        fontsize=8.5,
    )
    axes.set_ylim((len(group.rows) - 0.5) * slots, -0.5 * slots)
    axes.set_title(group.title, loc="left", fontsize=10, fontweight="bold", parse_math=False)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)


def _grey_marks(axes: Axes, row: ScoreRow, centre: float, slots: float) -> None:
    for role, marker in (("floor", "<"), ("ceiling", ">")):
        values = [score.value for score in row.of_role(role)]
        if values:
            # The markers of one row must not overlap those of the next row.
            step = min(0.9, (slots - 1) / max(len(values) - 1, 1))
            heights = centre + (np.arange(len(values)) - (len(values) - 1) / 2) * step
            axes.scatter(values, heights, marker=marker, s=24, color=_GREY, zorder=2)
    if math.isfinite(row.chance):
        ends = [centre - slots / 2, centre + slots / 2]
        axes.plot([row.chance] * 2, ends, "--", color=INK, linewidth=1, zorder=1)


def _point(axes: Axes, score: Score, height: float, style: tuple[str, str]) -> None:
    colour, marker = style
    if math.isfinite(score.ci_low) and math.isfinite(score.ci_high):
        axes.plot([score.ci_low, score.ci_high], [height] * 2, color=colour, linewidth=2, zorder=3)
    axes.plot(
        score.value,
        height,
        marker,
        color=colour,
        markersize=7.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=4,
    )


def _row_label(row: ScoreRow) -> str:
    name = row.metric
    for family in ("identification within category, ", "identification, "):
        name = name.removeprefix(family)
    name = textwrap.fill(name.removeprefix("identification "), 26)
    return name if row.pool is None else f"{name}\n(pool {row.pool})"


def _legend(
    methods: Sequence[str], styles: dict[str, tuple[str, str]], scores: Sequence[Score]
) -> list[Line2D]:
    handles = [
        Line2D([], [], color=styles[name][0], marker=styles[name][1], label=name)
        for name in methods
    ]
    for role, marker in (("floor", "<"), ("ceiling", ">")):
        if any(score.role == role for score in scores):
            handles.append(
                Line2D([], [], color=_GREY, marker=marker, linestyle="", label=f"{role}s")
            )
    if any(math.isfinite(score.chance) for score in scores):
        handles.append(Line2D([], [], color=INK, linestyle="--", label="chance"))
    return handles


def _show(axes: Axes, record: RunRecord, stimulus: str, method: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    path = record.truth(stimulus) if method == "truth" else record.picture(stimulus, method)
    if path is None:
        axes.text(0.5, 0.5, "none", ha="center", va="center", color=_GREY)
        return
    axes.imshow(read_picture(path), interpolation="lanczos", aspect="equal")
