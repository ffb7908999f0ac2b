"""The encoding analyses of a run: map files, figures and one HTML page."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from calcarine.encoding.analysis import edge_note
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingExtraError,
    out_of_memory,
)
from calcarine.files import is_disk_full, read_json, write_bytes
from calcarine.files.parquet import read_parquet
from calcarine.reporting import brain_maps
from calcarine.reporting.figures import mark_simulated, png
from calcarine.reporting.html_pages import data_uri, environment

__all__ = ["build_encoding_report", "encoding_figures", "read_encoding"]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7A5195", "#8A8A00")
_MEANINGS = {
    "latents": "Prediction of the measured test responses from each latent alone.",
    "noise": "z and z_c together at several noise levels: variance that only one of them explains.",
    "denoising_stages": "z and z_c together at early, middle and late steps of the denoising.",
    "blocks": "Blocks of the U-Net. Each voxel is assigned to the block that predicts it best in "
    "cross-validation on the training stimuli.",
    "extra": "Prediction from each of the extra feature spaces alone.",
}


@dataclass(frozen=True, eq=False)
class EncodingRecord:
    """Contents of the folder ``encoding`` of a run.

    Attributes
    ----------
    folder
        The run directory.
    summary
        Data set, settings and numbers of voxels.
    voxels, regions, unique, winners
        See `calcarine.encoding.Analysis`.
    """

    folder: Path
    summary: dict[str, Any]
    voxels: pd.DataFrame
    regions: pd.DataFrame
    unique: pd.DataFrame
    winners: pd.DataFrame

    @property
    def simulated(self) -> bool:
        """Whether the brain was simulated."""
        return bool(self.summary["simulated"])


def read_encoding(run: Path) -> EncodingRecord:
    """Read the encoding analyses of a run.

    Parameters
    ----------
    run : Path

    Returns
    -------
    EncodingRecord

    Raises
    ------
    CalcarineError
        If there are none, or a file is damaged.
    """
    folder = run / "encoding"
    with _whole(run):
        summary = read_json(folder / "summary.json")
        names = ("voxels", "regions", "unique", "winners")
        tables = {name: read_parquet(folder / f"{name}.parquet") for name in names}
        summary["simulated"], summary["facts"]["rate"]
    return EncodingRecord(run, summary, **tables)


@contextmanager
def _whole(run: Path) -> Iterator[None]:
    """Report any error in the contents of an analysis as a damaged analysis."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:  # tables and mappings of any shape
        if out_of_memory(error) or is_disk_full(error):
            raise
        raise DamagedFileError(
            f"The encoding analysis of {run} is incomplete or damaged ({type(error).__name__}); "
            f"delete {run / '.stages' / 'encode.json'} if it exists, and run 'calcarine encode "
            f"{run}'."
        ) from error


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
    """
    record = read_encoding(run)
    with _whole(run):
        figures, surface = _maps(record)
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
                sentences=_sentences(record),
                tables=_tables(record),
            )
        )
    target = run / "encoding.html"
    write_bytes(target, page.encode("utf-8"))
    return target


def _heading(analysis: str) -> str:
    return analysis.replace("_", " ").capitalize()


def encoding_figures(record: EncodingRecord) -> dict[str, Figure]:
    """Draw the figures by region, one for each analysis."""
    result = {}
    if not record.regions.empty:
        for question, table in record.regions.groupby("question", sort=False):
            name = str(question).replace(", ", "-")
            result[name] = _bars(
                table, f"{_heading(str(question))}: mean r over voxels", record.simulated
            )
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


def _maps(record: EncodingRecord) -> tuple[dict[str, Figure], str | None]:
    """Return the surface figures, and the path of the interactive page relative to the run."""
    voxels, folder = record.voxels, record.folder / "encoding" / "maps"
    figures: dict[str, Figure] = {}
    turned: dict[str, Any] = {}
    for name in map(str, voxels.columns):
        if not name.startswith(("r:", "winner:")) or name.startswith("r:unet"):
            continue
        values = voxels[name].to_numpy(dtype=np.float64)
        if name.startswith("winner:"):
            values = np.where(values < 0, np.nan, values)
        else:
            called = voxels[name.replace("r:", "significant:", 1)].to_numpy(dtype=bool)
            turned[name] = values = np.where(called, values, np.nan)
        plain = name.replace(":", "-").replace("@", "-")
        if brain_maps.has_volume(voxels):
            brain_maps.save_volume(folder, plain, voxels, values)
        if brain_maps.has_surface(voxels):
            categories = name.startswith("winner:")
            brain_maps.save_surface(folder, plain, voxels, values, categories=categories)
            figures[plain] = _map_figure(record, name, values)
    if not turned or not brain_maps.has_surface(voxels):
        return figures, None
    title = "r of significant voxels" + (" (SIMULATED brain)" if record.simulated else "")
    try:
        page = brain_maps.save_interactive(folder / "surface.html", voxels, turned, title)
    except MissingExtraError as error:
        warnings.warn(f"The interactive map is left out. {error}", stacklevel=2)
        return figures, None
    return figures, page.relative_to(record.folder).as_posix()


def _map_figure(record: EncodingRecord, name: str, values: Any) -> Figure:
    if name.startswith("winner:"):
        stage = name.removeprefix("winner:")
        table = record.winners[record.winners["question"] == f"blocks, {stage}"]
        names = tuple(
            str(space).split("@")[0].removeprefix("unet:") for space in table["space"].unique()
        )
        title = f"Best-predicting U-Net block, {stage} denoising"
        return brain_maps.surface_figure(
            record.voxels, values, title, record.simulated, names=names
        )
    title = f"r of {name.removeprefix('r:')}, significant voxels"
    return brain_maps.surface_figure(record.voxels, values, title, record.simulated)


def _sentences(record: EncodingRecord) -> list[str]:
    facts = record.summary["facts"]
    sentences = [
        f"{facts['voxels']:,} voxels and {facts['test_stimuli']} test stimuli. Significant voxels "
        f"have a false discovery rate of at most {facts['rate']:.0%} over voxels, with one-sided p "
        f"from the {facts['null']} null distribution of r."
    ]
    sentences += filter(None, [edge_note(facts)])
    table = record.regions
    if not table.empty and "latents" in set(table["question"]):
        latents = table[table["question"] == "latents"]
        for region, part in latents.groupby("region", sort=False):
            best = part.sort_values("r", ascending=False).iloc[0]
            second = part.sort_values("r", ascending=False).iloc[1]
            clear = best["low"] > second["high"]
            if best["low"] <= 0:
                sentences.append(
                    f"{region}: no feature space has a mean r above zero (highest: {best['space']} "
                    f"with {best['r']:.3f} [{best['low']:.3f}, {best['high']:.3f}])."
                )
                continue
            overlap = "" if clear else "; the intervals overlap"
            sentences.append(
                f"{region}: {best['space']} predicts best with a mean r of {best['r']:.3f} "
                f"[{best['low']:.3f}, {best['high']:.3f}], followed by {second['space']} with "
                f"{second['r']:.3f} [{second['low']:.3f}, {second['high']:.3f}]{overlap}."
            )
    return sentences


def _tables(record: EncodingRecord) -> dict[str, list[dict[str, Any]]]:
    counts = record.summary["facts"]["significant"]
    total = record.summary["facts"]["voxels"]
    rows = []
    for space, count in counts.items():
        r = record.voxels[f"r:{space}"]
        column = f"p_family:{space}"
        family = int((record.voxels[column] <= 0.05).sum()) if column in record.voxels else None
        rows.append(
            {
                "space": space,
                "significant": int(count),
                "share": count / total,
                "median": float(r.median()),
                "best": float(r.quantile(0.99)),
                "family": family,
            }
        )
    winners = [{str(k): v for k, v in row.items()} for row in record.winners.to_dict("records")]
    return {"spaces": rows, "winners": winners}
