"""The picture sheet of a report, and what its figures share."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from calcarine.reporting.run_records import RunRecord
from calcarine.reporting.shown_stimuli import Pick
from calcarine.stimuli.image_files import read_picture

__all__ = ["GREY", "INK", "mark_simulated", "method_styles", "png", "sheet_figure"]

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
INK, GREY, _ALARM = "#1c2733", "#6b7580", "#a33b00"


def png(figure: Figure, dpi: int = 130) -> bytes:
    """Render a figure as PNG; equal figures have equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


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


def _show(axes: Axes, record: RunRecord, stimulus: str, method: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    path = record.truth(stimulus) if method == "truth" else record.picture(stimulus, method)
    if path is None:
        axes.text(0.5, 0.5, "none", ha="center", va="center", color=GREY)
        return
    axes.imshow(read_picture(path), interpolation="lanczos", aspect="equal")
