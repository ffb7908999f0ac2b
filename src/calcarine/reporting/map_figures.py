"""Brain maps of a run's encoding analyses: files, figures and the interactive page."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calcarine.encoding.region_scores import ceiling_r
from calcarine.errors import MissingExtraError
from calcarine.reporting import brain_maps
from calcarine.reporting.encoding_record import EncodingRecord

__all__ = ["write_maps"]


_R = "r of predicted and measured mean responses (no unit)"
_CEILING = "ceiling"


def write_maps(record: EncodingRecord) -> tuple[dict[str, Figure], str | None]:
    """Write the map files of a run.

    Returns
    -------
    figures : dict of str to Figure
        By name; empty if the voxels have no place on the surface.
    page : str or None
        Path of the interactive page, relative to the run.
    """
    voxels, folder = record.voxels, record.folder / "encoding" / "maps"
    compared, winners = _compared(voxels), _winners(voxels)
    on_surface = brain_maps.has_surface(voxels)
    for name, values in {**compared, **winners}.items():
        plain = _file_name(name)
        if brain_maps.has_volume(voxels):
            brain_maps.save_volume(folder, plain, voxels, values)
        if on_surface:
            brain_maps.save_surface(folder, plain, voxels, values, categories=name in winners)
    if not on_surface:
        return {}, None
    return _figures(record, compared, winners), _interactive(record, compared)


def _compared(voxels: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return r of significant voxels by feature space, and the noise ceiling as an r."""
    maps = {}
    for name in map(str, voxels.columns):
        if name.startswith("r:") and not name.startswith("r:unet"):
            called = voxels[name.replace("r:", "significant:", 1)].to_numpy(dtype=bool)
            maps[name] = np.where(called, voxels[name].to_numpy(dtype=np.float64), np.nan)
    if _CEILING in voxels:
        maps[_CEILING] = ceiling_r(voxels[_CEILING].to_numpy(dtype=np.float64))
    return maps


def _winners(voxels: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    names = [str(name) for name in voxels if str(name).startswith("winner:")]
    numbers = {name: voxels[name].to_numpy(dtype=np.float64) for name in names}
    return {name: np.where(best < 0, np.nan, best) for name, best in numbers.items()}


def _file_name(name: str) -> str:
    return name.replace(":", "-").replace("@", "-")


def _figures(
    record: EncodingRecord,
    compared: dict[str, NDArray[np.float64]],
    winners: dict[str, NDArray[np.float64]],
) -> dict[str, Figure]:
    """Draw all maps with the outlines of regions; those of r share one colour scale."""
    outlines = brain_maps.region_outlines(record.voxels)
    limits = brain_maps.common_limits(compared.values())
    figures = {}
    for name, values in compared.items():
        figures[_file_name(name)] = brain_maps.surface_figure(
            record.voxels,
            values,
            _title(name),
            record.simulated,
            limits,
            label=_R,
            outlines=outlines,
        )
    for name, values in winners.items():
        stage = name.removeprefix("winner:")
        table = record.winners[record.winners["question"] == f"blocks, {stage}"]
        blocks = (str(space).split("@")[0] for space in table["space"].unique())
        figures[_file_name(name)] = brain_maps.surface_figure(
            record.voxels,
            values,
            f"Best-predicting U-Net block, {stage} denoising",
            record.simulated,
            names=tuple(block.removeprefix("unet:") for block in blocks),
            label="block of the U-Net",
            outlines=outlines,
        )
    return figures


def _title(name: str) -> str:
    if name == _CEILING:
        return "Noise ceiling: the r of a perfect model, all voxels"
    return f"r of {name.removeprefix('r:')}, significant voxels"


def _interactive(record: EncodingRecord, compared: dict[str, NDArray[np.float64]]) -> str | None:
    if not compared:
        return None
    title = "r of predicted and measured responses"
    title += " (SIMULATED brain)" if record.simulated else ""
    named = {_title(name): values for name, values in compared.items()}
    target = record.folder / "encoding" / "maps" / "surface.html"
    try:
        page = brain_maps.save_interactive(target, record.voxels, named, title, label=_R)
    except MissingExtraError as error:
        warnings.warn(f"The interactive map is left out. {error}", stacklevel=2)
        return None
    return page.relative_to(record.folder).as_posix()
