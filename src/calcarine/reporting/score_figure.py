"""The figure of a run's main scores: every method, floor and ceiling has a line with its name."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from calcarine.reporting.figures import GREY, INK, mark_simulated, method_styles
from calcarine.reporting.run_records import Score
from calcarine.reporting.score_tables import ScoreRow, axis_label, main_rows, names_of_role

__all__ = ["scores_figure"]

# Of an A4 page with margins, so that the letters keep their size in print.
_WIDTH = 7.5
_COLUMNS = 3
_LINE_INCHES, _FRAME_INCHES, _TOP_INCHES = 0.17, 1.1, 0.3
_FONT = 8.0
# Share of a line over which the shuffled brains of several methods spread.
_SPREAD = 0.7
_SHUFFLED = "shuffled brain"
_HEADINGS = {"method": "methods", "floor": "floors", "ceiling": "ceilings"}


@dataclass(frozen=True)
class _Line:
    """A line of every panel: a heading, or what it shows; of a shuffled brain several methods."""

    name: str
    shown: tuple[str, ...] = ()


def scores_figure(scores: Sequence[Score], simulated: bool) -> Figure:
    """Plot the main scores, with one panel for each.

    Parameters
    ----------
    scores : sequence of Score
        All scores of the run.
    simulated : bool
        Whether to mark the figure as simulated.

    Returns
    -------
    matplotlib.figure.Figure
        Each line has the name of a method, a floor or a ceiling; bars are intervals over images,
        and chance is dashed. The shuffled brains of all methods share a line.
    """
    rows = main_rows(scores)
    lines = _lines(scores)
    styles = method_styles(names_of_role(scores, "method"))
    columns = 2 if len(rows) == 4 else min(_COLUMNS, max(len(rows), 1))
    count = math.ceil(max(len(rows), 1) / columns)
    height = count * (len(lines) * _LINE_INCHES + _FRAME_INCHES) + _TOP_INCHES
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - _TOP_INCHES / height), w_pad=0.08)
    figure = Figure(figsize=(_WIDTH, height), layout=layout)
    panels = figure.subplots(count, columns, squeeze=False, sharey=True)
    for place, axes in enumerate(panels.flat):
        if place >= len(rows):
            axes.set_visible(False)
            continue
        _panel(axes, rows[place], lines, styles)
        if place % columns == 0:
            _name_lines(axes, lines)
    _say_what_is_drawn(figure, rows, height)
    if simulated:
        mark_simulated(figure)
    return figure


def _lines(scores: Sequence[Score]) -> list[_Line]:
    """Return the lines from top to bottom, with a heading above each role."""
    result: list[_Line] = []
    for role, heading in _HEADINGS.items():
        names = names_of_role(scores, role)
        shuffled = tuple(name for name in names if name.startswith(_SHUFFLED))
        own = [_Line(name, (name,)) for name in names if name not in shuffled]
        if shuffled:
            own.append(_Line(_SHUFFLED, shuffled))
        if own:
            result += [_Line(heading), *own]
    return result


def _panel(
    axes: Axes, row: ScoreRow, lines: Sequence[_Line], styles: dict[str, tuple[str, str]]
) -> None:
    for height, line in enumerate(lines):
        if not line.shown:
            axes.axhspan(height - 0.5, height + 0.5, color="#eceff2", zorder=0)
        for place, name in enumerate(line.shown):
            if name in row.cells:
                offset = _SPREAD * ((place + 0.5) / len(line.shown) - 0.5)
                _point(axes, row.cells[name], height + offset, _style(name, styles))
    if math.isfinite(row.chance):
        axes.axvline(row.chance, linestyle="--", color=INK, linewidth=1, zorder=1)
    notes = [f"pool {row.pool}"] * bool(row.pool) + [f"judge {row.judge}"] * bool(row.judge)
    title = textwrap.fill(row.metric, 30) + (f"\n({', '.join(notes)})" if notes else "")
    axes.set_title(title, loc="left", fontsize=_FONT, fontweight="bold", parse_math=False)
    axes.set_xlabel(
        axis_label(row.metric, row.higher_is_better).replace(" (", "\n("), fontsize=_FONT
    )
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=_FONT)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.grid(axis="x", color="#e3e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _name_lines(axes: Axes, lines: Sequence[_Line]) -> None:
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=_FONT)
    axes.tick_params(axis="y", labelleft=True)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_parse_math(False)
        if not line.shown:
            label.set_fontweight("bold")


def _style(name: str, styles: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Return colour and marker; a shuffled brain has those of its method."""
    method = name.removeprefix(f"{_SHUFFLED} (").removesuffix(")")
    return styles.get(method, (GREY, "o"))


def _point(axes: Axes, score: Score, height: float, style: tuple[str, str]) -> None:
    colour, marker = style
    if math.isfinite(score.ci_low) and math.isfinite(score.ci_high):
        axes.plot([score.ci_low, score.ci_high], [height] * 2, color=colour, linewidth=1.8)
    filled = score.role == "method"
    axes.plot(
        score.value,
        height,
        marker,
        color=colour,
        markersize=5.5 if score.role != "floor" else 4.5,
        markerfacecolor=colour if filled else "white",
        markeredgecolor="white" if filled else colour,
        markeredgewidth=0.6 if filled else 1.1,
        zorder=4,
    )


def _say_what_is_drawn(figure: Figure, rows: Sequence[ScoreRow], height: float) -> None:
    chance = ", dashed: chance" if any(math.isfinite(row.chance) for row in rows) else ""
    figure.text(
        0.01,
        1 - 0.08 / height,
        f"Points: scores, bars: 95 % intervals over images{chance}",
        fontsize=_FONT,
        color=INK,
        va="top",
    )
