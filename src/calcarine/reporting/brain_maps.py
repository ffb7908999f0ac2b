"""Brain maps of voxel values: NIfTI and GIFTI files, figures and interactive pages."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calcarine.errors import CalcarineError, need_extra
from calcarine.files import atomic_write, write_text
from calcarine.reporting.roi_outlines import Outlines, outlines_of

__all__ = [
    "common_limits",
    "has_surface",
    "has_volume",
    "region_outlines",
    "save_interactive",
    "save_surface",
    "save_volume",
    "surface_figure",
]

HEMISPHERES = ("left", "right")
_ON_SURFACE = ("hemisphere", "vertex")
_IN_VOLUME = ("i", "j", "k", "x", "y", "z")


def has_surface(voxels: pd.DataFrame) -> bool:
    """Return whether every voxel has a vertex of fsaverage5 (columns hemisphere and vertex)."""
    return all(name in voxels for name in _ON_SURFACE) and bool(voxels["vertex"].notna().all())


def has_volume(voxels: pd.DataFrame) -> bool:
    """Return whether every voxel has a grid index (i, j, k) and coordinates in mm (x, y, z)."""
    return all(name in voxels and voxels[name].notna().all() for name in _IN_VOLUME)


def on_surface(
    voxels: pd.DataFrame, values: NDArray[np.float64], *, categories: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Return the mean, or most frequent category, of the voxels of each vertex, by hemisphere.

    Vertices without voxels are NaN. Of equally frequent categories, the first is used.
    """
    result = {}
    for hemisphere in HEMISPHERES:
        size = len(_mesh("sphere", hemisphere)[0])
        inside = (voxels["hemisphere"] == hemisphere).to_numpy() & np.isfinite(values)
        vertex = voxels["vertex"].to_numpy()[inside].astype(np.int64)
        if categories:
            number = values[inside].astype(np.int64)
            votes = np.zeros((size, number.max(initial=0) + 1))
            np.add.at(votes, (vertex, number), 1)
            result[hemisphere] = np.where(votes.any(1), votes.argmax(1), np.nan)
            continue
        count = np.bincount(vertex, minlength=size)
        total = np.bincount(vertex, weights=values[inside], minlength=size)
        result[hemisphere] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result


def region_outlines(voxels: pd.DataFrame) -> Outlines:
    """Return outlines of the regions in the columns ``roi:NAME`` of a table of voxels."""
    names = [str(name) for name in voxels if str(name).startswith("roi:")]
    rois = {name.removeprefix("roi:"): voxels[name].to_numpy(dtype=bool) for name in names}
    return outlines_of(voxels, rois, {side: _mesh("sphere", side) for side in HEMISPHERES})


def save_surface(
    folder: Path,
    name: str,
    voxels: pd.DataFrame,
    values: NDArray[Any],
    *,
    categories: bool = False,
) -> list[Path]:
    """Write one GIFTI file for each hemisphere, float32; vertices without voxels are NaN.

    Parameters
    ----------
    folder
        Created if it does not exist.
    name
        Prefix of the file names ``NAME-left.func.gii`` and ``NAME-right.func.gii``.
    voxels, values
        Table with one row for each voxel, see `has_surface`, and one value for each voxel.
    categories
        Whether values are category numbers, which are not averaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pandas as pd
    >>> from calcarine.reporting import save_surface
    >>> voxels = pd.DataFrame({"hemisphere": ["left", "right"], "vertex": [10, 20]})
    >>> [path.name for path in save_surface(Path("maps"), "accuracy", voxels, np.array([0.3, 0.4]))]
    ['accuracy-left.func.gii', 'accuracy-right.func.gii']
    """
    import nibabel as nib

    files = []
    placed = on_surface(voxels, np.asarray(values, np.float64), categories=categories)
    for hemisphere, drawn in placed.items():
        side = "CortexLeft" if hemisphere == "left" else "CortexRight"
        array = nib.gifti.GiftiDataArray(
            drawn.astype(np.float32),
            intent="NIFTI_INTENT_NONE",
            meta={"Name": name, "AnatomicalStructurePrimary": side},
        )
        path = folder / f"{name}-{hemisphere}.func.gii"
        with atomic_write(path) as temporary:
            temporary.write_bytes(nib.gifti.GiftiImage(darrays=[array]).to_bytes())
        files.append(path)
    return files


def save_volume(folder: Path, name: str, voxels: pd.DataFrame, values: NDArray[Any]) -> Path:
    """Write a NIfTI file, float32; grid points without voxels are NaN.

    Parameters
    ----------
    folder, name
        The file is ``NAME.nii.gz``.
    voxels, values
        Table with one row for each voxel, see `has_volume`, and one value for each voxel. The
        affine is computed from i, j, k and x, y, z.

    Raises
    ------
    CalcarineError
        If no affine maps i, j, k to x, y, z.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pandas as pd
    >>> from calcarine.reporting import save_volume
    >>> grid = np.argwhere(np.ones((3, 4, 5), bool))
    >>> voxels = pd.DataFrame(np.hstack([grid, 2.0 * grid]), columns=["i", "j", "k", "x", "y", "z"])
    >>> save_volume(Path("maps"), "accuracy", voxels, np.linspace(0, 1, 60)).name
    'accuracy.nii.gz'
    """
    import nibabel as nib

    grid = voxels[["i", "j", "k"]].to_numpy(dtype=np.int64)
    place = voxels[["x", "y", "z"]].to_numpy(dtype=np.float64)
    known = np.column_stack([grid, np.ones(len(grid))])
    solved = np.linalg.lstsq(known, place, rcond=None)[0]
    if np.abs(known @ solved - place).max() > 0.05:
        raise CalcarineError(
            "No affine maps the grid indices of the voxels (i, j, k) to their coordinates "
            "(x, y, z); check both."
        )
    affine = np.vstack([solved.T, [0, 0, 0, 1]])
    volume = np.full(grid.max(0) + 1, np.nan, dtype=np.float32)
    volume[tuple(grid.T)] = np.asarray(values, dtype=np.float32)
    path = folder / f"{name}.nii.gz"
    with atomic_write(path) as temporary:
        # nibabel derives the format from the name, and the temporary name has another ending.
        image = nib.Nifti1Image(volume, affine)
        temporary.write_bytes(_gzipped(image.to_bytes()))
    return path


def save_interactive(
    path: Path,
    voxels: pd.DataFrame,
    maps: Mapping[str, NDArray[Any]],
    title: str,
    limits: tuple[float, float] | None = None,
    label: str = "",
) -> Path:
    """Write a page that works offline with a rotatable inflated brain.

    Parameters
    ----------
    path
        Path of the HTML file.
    voxels
        Table with one row for each voxel; see `has_surface`.
    maps
        Maps by name, with one value for each voxel or NaN; the page has a menu of maps.
    title
        Title of the page.
    limits
        Limits of the colour scale, which all maps share; by default those of `common_limits`.
    label
        What the colours show, with its unit.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pandas as pd
    >>> from calcarine.reporting import save_interactive
    >>> voxels = pd.DataFrame({"hemisphere": ["left", "right"], "vertex": [10, 20]})
    >>> maps = {"z": np.array([0.3, 0.4]), "c": np.array([0.1, 0.5])}
    >>> save_interactive(Path("map.html"), voxels, maps, "Prediction accuracy", label="r").name
    'map.html'
    """
    need_extra("maps", "plotly")
    import plotly.graph_objects as go

    points, faces = zip(*(_mesh("infl", side) for side in HEMISPHERES), strict=True)
    # Inflated hemispheres overlap in their original coordinates; the gap has no meaning.
    apart = [
        part + np.array([sign * 55.0, 0, 0]) for part, sign in zip(points, (-1, 1), strict=True)
    ]
    x, y, z = np.concatenate(apart).T
    i, j, k = np.concatenate([faces[0], faces[1] + len(points[0])]).T
    coloured = {}
    limits = limits or common_limits(maps.values())
    scale, _ = _scale(limits)
    for name, values in maps.items():
        drawn = on_surface(voxels, np.asarray(values, np.float64))
        both = np.concatenate([_vertex_colours(side, drawn[side], scale) for side in HEMISPHERES])
        coloured[name] = [_hex(colour) for colour in (both[:, :3] * 255).round().astype(int)]
    mesh = go.Mesh3d(
        x=x,
        y=y,
        z=z,
        i=i,
        j=j,
        k=k,
        vertexcolor=next(iter(coloured.values())),
        hoverinfo="skip",
        flatshading=False,
        lighting={"ambient": 0.7, "diffuse": 0.5, "specular": 0.05},
    )
    buttons = [
        {"label": name, "method": "restyle", "args": [{"vertexcolor": [colours]}, [0]]}
        for name, colours in coloured.items()
    ]
    hidden = {"visible": False}
    figure = go.Figure([mesh, _colour_bar(limits, label)])
    figure.update_layout(
        title=title,
        margin={"l": 0, "r": 0, "b": 0},
        updatemenus=[{"buttons": buttons, "x": 0.2}],
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "camera": {"eye": {"x": 0, "y": -1.8, "z": 0.3}},
        },
    )
    write_text(path, figure.to_html(include_plotlyjs=True, full_html=True))
    return path


def _colour_bar(limits: tuple[float, float], label: str) -> Any:
    """Return an invisible point with the colour bar, which colours of vertices do not have."""
    import plotly.graph_objects as go

    marker = {
        "size": 0.1,
        "opacity": 0.0,
        "color": list(limits),
        "cmin": limits[0],
        "cmax": limits[1],
        "colorscale": "Inferno",
        "showscale": True,
        "colorbar": {"title": {"text": label, "side": "right"}, "len": 0.7},
    }
    places = [0.0, 0.0]
    return go.Scatter3d(
        x=places, y=places, z=places, mode="markers", marker=marker, hoverinfo="skip"
    )


def _hex(colour: NDArray[np.int64]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _gzipped(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, compresslevel=6, mtime=0)


def surface_figure(
    voxels: pd.DataFrame,
    values: NDArray[Any],
    title: str,
    simulated: bool,
    limits: tuple[float, float] | None = None,
    names: tuple[str, ...] = (),
    label: str = "",
    outlines: Outlines | None = None,
) -> Figure:
    """Draw values on fsaverage5: inflated surfaces in medial and ventral view, and flat maps.

    Parameters
    ----------
    voxels, values
        Table with one row for each voxel, see `has_surface`, and one value for each voxel or NaN.
    title
        Title of the figure.
    simulated
        Whether to mark the figure as simulated.
    limits
        Limits of the colour scale; by default those of `common_limits`.
    names
        For category numbers: the names of the categories, each with its own colour.
    label
        What the colours show, with its unit.
    outlines
        Regions to outline; the flat maps name them.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from calcarine.reporting import surface_figure
    >>> voxels = pd.DataFrame({"hemisphere": ["left", "right"], "vertex": [10, 20]})
    >>> r = np.array([0.3, 0.4])
    >>> figure = surface_figure(voxels, r, "Prediction accuracy", simulated=False, label="r")
    >>> figure.savefig("map.png")  # doctest: +SKIP
    """
    values = np.asarray(values, np.float64)
    drawn = on_surface(voxels, values, categories=bool(names))
    limits = limits or common_limits([values])
    scale, ticks = _scale(limits, names)
    figure = Figure(figsize=(10.4, 5.4), layout="constrained")
    panels = figure.subplots(2, 3, width_ratios=[1, 1, 1.3])
    for row, hemisphere in enumerate(HEMISPHERES):
        for axes, (surface, view) in zip(panels[row], _VIEWS, strict=True):
            _paint(axes, hemisphere, surface, view, drawn[hemisphere], scale, outlines)
            axes.set_title(f"{hemisphere}, {view or surface}", fontsize=8, color="#55606c")
    over = not names and bool((values > limits[1]).any())
    extend = "max" if over else "neither"
    bar = figure.colorbar(scale, ax=panels, shrink=0.75, ticks=ticks, extend=extend)
    bar.set_label(label, fontsize=9)
    if names:
        bar.ax.set_yticklabels(names, fontsize=8)
    figure.suptitle(title + (" (SIMULATED brain)" if simulated else ""), fontsize=11)
    return figure


def common_limits(maps: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return limits for the colours of maps that are compared: 0 and a high percentile of all."""
    finite = [values[np.isfinite(values)] for values in map(np.asarray, maps)]
    tops = [float(np.percentile(values, 99)) for values in finite if values.size]
    return 0.0, max([*tops, 1e-6]) if tops else 1.0


def _scale(limits: tuple[float, float], names: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Return the colour scale, and the ticks of its bar."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    if names:
        colours = ListedColormap(_SERIES[: len(names)])
        return ScalarMappable(Normalize(-0.5, len(names) - 0.5), colours), range(len(names))
    return ScalarMappable(Normalize(*limits), colormaps["inferno"]), None


def _vertex_colours(
    hemisphere: str, values: NDArray[np.float64], scale: Any
) -> NDArray[np.float64]:
    """Return RGBA colours of the vertices; those without a value are grey by curvature."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_data

    sulci = np.asarray(load_surf_data(fetch_surf_fsaverage("fsaverage5")[f"sulc_{hemisphere}"]))
    colours = np.repeat(np.where(sulci > 0, 0.62, 0.8)[:, None], 4, axis=1)
    colours[:, 3] = 1.0
    shown = np.isfinite(values)
    colours[shown] = scale.to_rgba(values[shown])
    return colours


_SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7A5195", "#8A8A00")
_VIEWS = (("infl", "medial"), ("infl", "ventral"), ("flat", ""))


@functools.cache
def _mesh(kind: str, hemisphere: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return coordinates and faces; nilearn contains fsaverage5, so nothing is downloaded."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    mesh = load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"{kind}_{hemisphere}"])
    return np.asarray(mesh.coordinates, np.float64), np.asarray(mesh.faces, np.int64)


def _paint(
    axes: Any,
    hemisphere: str,
    surface: str,
    view: str,
    values: NDArray[np.float64],
    scale: Any,
    outlines: Outlines | None,
) -> None:
    """Paint the faces from back to front; those without a value are grey by curvature."""
    from matplotlib.collections import PolyCollection

    points, faces = _mesh(surface, hemisphere)
    flat, depth = _projected(points, hemisphere, view)
    if surface == "flat":
        # Vertices that were cut off are at the origin of the flat map.
        faces = faces[(np.abs(points[faces]).sum(2) > 0).all(1)]
    colour, shown = _vertex_colours(hemisphere, values, scale), np.isfinite(values)
    # A face has the colour of those of its vertices that have a value.
    weight = np.where(shown, 1.0, 1e-6)[faces]
    face_colour = (colour[faces] * weight[..., None]).sum(1) / weight.sum(1, keepdims=True)
    order = np.argsort(depth[faces].mean(1))
    if surface != "flat":
        first = flat[faces[:, 1]] - flat[faces[:, 0]]
        second = flat[faces[:, 2]] - flat[faces[:, 0]]
        side = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
        order = order[side[order] > 0]
    painted: Any = PolyCollection(
        list(flat[faces[order]]),
        facecolors=face_colour[order],
        edgecolors=face_colour[order],
        linewidths=0.2,
        rasterized=True,
    )
    axes.add_collection(painted)
    if outlines is not None:
        _outline(axes, outlines, hemisphere, flat, faces[order], named=surface == "flat")
    used = flat[np.unique(faces)]
    axes.set_xlim(used[:, 0].min() - 3, used[:, 0].max() + 3)
    axes.set_ylim(used[:, 1].min() - 3, used[:, 1].max() + 3)
    axes.set_aspect("equal")
    axes.axis("off")


def _outline(
    axes: Any,
    outlines: Outlines,
    hemisphere: str,
    flat: NDArray[np.float64],
    faces: NDArray[np.int64],
    named: bool,
) -> None:
    """Draw the outlines of regions, with their names where nothing lies behind another."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.2, foreground="white")]
    for name, lines in outlines.segments(hemisphere, flat, faces).items():
        segments = list(lines)
        for width, colour in ((2.0, "white"), (0.9, "#1c2733")):
            axes.add_collection(
                LineCollection(segments, linewidths=width, colors=colour, capstyle="round")
            )
        middle = outlines.middle(name, hemisphere, flat)
        if named and middle is not None:
            axes.annotate(
                name, middle, ha="center", va="center", fontsize=8, path_effects=halo, zorder=5
            )


def _projected(
    points: NDArray[np.float64], hemisphere: str, view: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return projected coordinates, (vertex, 2), and the depth of each vertex."""
    x, y, z = points.T
    if view == "medial":
        toward = 1.0 if hemisphere == "left" else -1.0
        return np.column_stack([toward * y, z]), toward * x
    if view == "ventral":
        return np.column_stack([-x, y]), -z
    return np.column_stack([x, y]), np.zeros(len(x))
