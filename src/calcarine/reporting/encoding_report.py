"""The encoding analyses of a run: map files, figures and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calcarine.files import write_bytes
from calcarine.reporting.encoding_record import EncodingRecord, encoding_files, read_encoding
from calcarine.reporting.encoding_tables import (
    ceiling_sentence,
    region_rows,
    result_sentences,
    space_rows,
    winner_rows,
)
from calcarine.reporting.figures import mark_simulated, png
from calcarine.reporting.html_pages import data_uri, environment
from calcarine.reporting.map_figures import write_maps

__all__ = ["build_encoding_report", "encoding_figures", "read_encoding"]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7A5195", "#8A8A00")
_MEANINGS = {
    "latents": "Prediction of the test responses from each latent alone.",
    "noise": "z and z_c together at several noise levels: variance that only one of them explains.",
    "denoising_stages": "z and z_c together at early, middle and late steps of the denoising.",
    "blocks": "Blocks of the U-Net. Each voxel is assigned to the block that predicts it best in "
    "cross-validation on the training stimuli.",
    "extra": "Prediction from each of the extra feature spaces alone.",
}


def build_encoding_report(run: Path) -> Path:
    """Write maps, figures and ``encoding.html`` of a run.

    Parameters
    ----------
    run
        The run directory with its folder ``encoding``.

    Returns
    -------
    Path
        ``run/encoding.html``, one file that works offline. The folder ``encoding/maps`` has NIfTI
        or GIFTI files and interactive surfaces, if the voxels have coordinates.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import build_encoding_report
    >>> page = build_encoding_report(Path("runs/takagi"))  # doctest: +SKIP
    """
    record = read_encoding(run)
    with encoding_files(run):
        figures, surface = write_maps(record)
        plots = {name: png(figure, 110) for name, figure in encoding_figures(record).items()}
        maps = {name: png(figure, 100) for name, figure in figures.items()}
        for name, content in {**plots, **maps}.items():
            write_bytes(run / "encoding" / "figures" / f"{name}.png", content)
        page = (
            environment()
            .get_template("encoding.html.j2")
            .render(
                record=record,
                headings={name: _heading(name.replace("-", ", ")) for name in plots},
                title=f"Encoding: {record.summary['dataset']}, {record.summary['subject']}",
                plots={name: data_uri(content) for name, content in plots.items()},
                maps={name: data_uri(content) for name, content in maps.items()},
                surface=surface,
                meanings=_MEANINGS,
                sentences=[*result_sentences(record), ceiling_sentence(record)],
                spaces=space_rows(record),
                regions=region_rows(record),
                winners=winner_rows(record),
                ceiling="ceiling" in record.voxels,
            )
        )
    target = run / "encoding.html"
    write_bytes(target, page.encode("utf-8"))
    return target


def _heading(analysis: str) -> str:
    heading = analysis.replace("_", " ").capitalize()
    # "early" is a region too, so the stage says of what.
    return f"{heading} denoising" if heading.startswith("Blocks, ") else heading


def encoding_figures(record: EncodingRecord) -> dict[str, Figure]:
    """Draw the figures by region, one for each analysis."""
    result = {}
    if not record.regions.empty:
        analysis = record.regions["question"].str.split(", ").str[0]
        for question, table in record.regions.groupby("question", sort=False):
            name = str(question).replace(", ", "-")
            title = f"{_heading(str(question))}: mean r over voxels"
            figure = _bars(table, title, record.simulated)
            _same_range(figure, record.regions[analysis == name.split("-")[0]])
            result[name] = figure
    for question, table in (
        record.unique.groupby("question", sort=False) if len(record.unique) else ()
    ):
        result[str(question)] = _lines(
            table, f"{_heading(str(question))}: unique r²", record.simulated
        )
    return result


def _bars(table: pd.DataFrame, title: str, simulated: bool) -> Figure:
    regions, spaces = table["region"].unique(), table["space"].unique()
    figure = Figure(
        figsize=(8.5, 1.1 + 0.16 * len(regions) * (len(spaces) + 1)), layout="constrained"
    )
    axes = figure.subplots()
    for at, space in enumerate(spaces):
        rows = table[table["space"] == space].set_index("region").loc[regions]
        y = np.arange(len(regions)) * (len(spaces) + 1) + at
        error = np.abs(rows[["low", "high"]].to_numpy().T - rows["r"].to_numpy())
        axes.errorbar(rows["r"], y, xerr=error, fmt="o", ms=4, color=_COLOURS[at % 8], label=space)
    ticks = np.arange(len(regions)) * (len(spaces) + 1) + (len(spaces) - 1) / 2
    sizes = table.groupby("region")["voxels"].first()
    axes.set_yticks(ticks, [f"{region} ({sizes[region]})" for region in regions], fontsize=8)
    axes.set_ylim(len(regions) * (len(spaces) + 1) - 0.5, -1.5)
    axes.axvline(0, color="#1c2733", lw=0.8, ls="--")
    return _finished(figure, axes, title, "mean r with 95 % interval over test stimuli", simulated)


def _same_range(figure: Figure, compared: pd.DataFrame) -> None:
    """Give a figure the range of all that it is compared with, as the stages of the denoising."""
    low, high = min(0.0, compared["low"].min()), max(0.0, compared["high"].max())
    margin = 0.04 * max(high - low, 1e-6)
    figure.axes[0].set_xlim(low - margin, high + margin)


def _lines(table: pd.DataFrame, title: str, simulated: bool) -> Figure:
    regions, pairs = table["region"].unique(), table["pair"].unique()
    columns = min(4, len(regions))
    rows = -(-len(regions) // columns)
    figure = Figure(figsize=(2.5 * columns + 0.6, 2.1 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(regions) :]:
        axes.axis("off")
    names = [pair.split(" + ")[1].removeprefix("z_c@").split(":")[-1] for pair in pairs]
    for axes, region in zip(panels.flat, regions, strict=False):
        part = table[table["region"] == region]
        for at, (label, own) in enumerate((("z", True), ("z_c", False))):
            line = part[(part["space"] == "z") == own].set_index("pair").loc[pairs]
            error = np.abs(line[["low", "high"]].to_numpy().T - line["unique_r2"].to_numpy())
            axes.errorbar(
                range(len(pairs)),
                line["unique_r2"],
                yerr=error,
                marker="o",
                ms=4,
                color=_COLOURS[at],
                label=f"only {label}",
            )
        axes.set_title(f"{region} ({int(part['voxels'].iloc[0])})", fontsize=9)
        axes.axhline(0, color="#1c2733", lw=0.8, ls="--")
        axes.set_xticks(range(len(pairs)), names, fontsize=8)
    panels.flat[0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    # The pairs of one question differ in the noise level or in the stage of the denoising.
    levels = all(name.replace(".", "", 1).isdigit() for name in names)
    figure.supxlabel("noise level of z_c" if levels else "stage of the denoising", fontsize=9)
    figure.supylabel("unique r²", fontsize=9)
    if simulated:
        mark_simulated(figure)
    return figure


def _finished(figure: Figure, axes: Any, title: str, label: str, simulated: bool) -> Figure:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(label, fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    if simulated:
        mark_simulated(figure)
    return figure
