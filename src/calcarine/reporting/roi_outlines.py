"""Outlines of regions of interest on the surface of the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Outlines", "outlines_of"]

# Rings of vertices over which gaps between the voxels of a region are closed.
_CLOSED = 2
_SMOOTHED = 3
# Scattered voxels have no outline: a part of a region needs so many vertices with voxels, and so
# large a share of its vertices.
_LEAST_VERTICES, _LEAST_SHARE = 8, 0.3

Fields = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Outlines:
    """Regions on the surface.

    Attributes
    ----------
    regions : dict of str to dict of str to array
        By region and hemisphere: a smooth value of each vertex, above 0.5 inside of the region.
    """

    regions: dict[str, Fields]

    def segments(
        self,
        hemisphere: str,
        flat: NDArray[np.float64],
        faces: NDArray[np.int64],
    ) -> dict[str, NDArray[np.float64]]:
        """Return the outline of each region as line segments, shape (n, 2, 2).

        Parameters
        ----------
        hemisphere : {"left", "right"}
        flat : float array of shape (n_vertices, 2)
            Projected coordinates of the vertices.
        faces : int array of shape (n_faces, 3)
            Faces that are drawn.
        """
        found = {
            name: _contour(fields[hemisphere], flat, faces)
            for name, fields in self.regions.items()
            if hemisphere in fields
        }
        return {name: lines for name, lines in found.items() if len(lines)}

    def middle(
        self, name: str, hemisphere: str, flat: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Return the place of a region's label, or None if the hemisphere has none of it."""
        field = self.regions[name].get(hemisphere)
        if field is None or not (field > 0.5).any():
            return None
        return np.asarray(np.median(flat[field > 0.5], axis=0))


def outlines_of(
    voxels: pd.DataFrame,
    rois: Mapping[str, NDArray[np.bool_]],
    meshes: Mapping[str, tuple[NDArray[np.float64], NDArray[np.int64]]],
) -> Outlines:
    """Return the outlines of regions.

    Parameters
    ----------
    voxels : DataFrame
        One row for each voxel, with the columns hemisphere and vertex.
    rois : mapping of str to bool array of shape (n_voxels,)
        Masks of regions.
    meshes : mapping of str to (array, array)
        Coordinates and faces by hemisphere.

    Returns
    -------
    Outlines
        Without regions whose voxels are scattered.
    """
    regions: dict[str, Fields] = {}
    for hemisphere, (points, faces) in meshes.items():
        neighbours = _neighbours(len(points), faces)
        for name, mask in rois.items():
            own = mask & (voxels["hemisphere"] == hemisphere).to_numpy()
            inside = np.zeros(len(points), dtype=bool)
            inside[voxels["vertex"].to_numpy()[own].astype(np.int64)] = True
            inside = _compact(inside, _closed(inside, neighbours), neighbours)
            if inside.any():
                regions.setdefault(name, {})[hemisphere] = _smooth(inside, neighbours)
    return Outlines(regions)


def _neighbours(n: int, faces: NDArray[np.int64]) -> Any:
    """Return the matrix of neighbouring vertices."""
    from scipy.sparse import coo_array

    rows = faces[:, [0, 1, 1, 2, 2, 0]].ravel()
    columns = faces[:, [1, 0, 2, 1, 0, 2]].ravel()
    pairs = coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n)).tocsr()
    pairs.data[:] = 1.0  # both faces of an edge name it
    return pairs


def _closed(inside: NDArray[np.bool_], neighbours: Any) -> NDArray[np.bool_]:
    """Close the gaps between voxels: dilate, then erode."""
    for _ in range(_CLOSED):
        inside = inside | (neighbours @ inside.astype(float) > 0)
    for _ in range(_CLOSED):
        inside = inside & ~(neighbours @ (~inside).astype(float) > 0)
    return inside


def _compact(
    sampled: NDArray[np.bool_], inside: NDArray[np.bool_], neighbours: Any
) -> NDArray[np.bool_]:
    """Return the vertices in connected parts that voxels sample well."""
    from scipy.sparse.csgraph import connected_components

    where = np.flatnonzero(inside)
    _, part = connected_components(neighbours[where][:, where], directed=False)
    known = np.bincount(part, weights=sampled[where])
    well = (known >= _LEAST_VERTICES) & (known >= _LEAST_SHARE * np.bincount(part))
    result = np.zeros_like(inside)
    result[where] = well[part]
    return result


def _smooth(inside: NDArray[np.bool_], neighbours: Any) -> NDArray[np.float64]:
    value = inside.astype(np.float64)
    count = np.maximum(neighbours.sum(axis=1), 1.0)
    for _ in range(_SMOOTHED):
        value = 0.5 * value + 0.5 * (neighbours @ value) / count
    return value


def _contour(
    value: NDArray[np.float64], flat: NDArray[np.float64], faces: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return where the value passes 0.5: one segment in each face that it crosses."""
    above = value[faces] > 0.5
    crossed = above.any(axis=1) & ~above.all(axis=1)
    faces, above = faces[crossed], above[crossed]
    # The vertex that is alone on its side of the outline comes first.
    alone = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), (~above).argmax(axis=1))
    turned = (alone[:, None] + np.arange(3)) % 3
    first, second, third = np.take_along_axis(faces, turned, axis=1).T
    return np.stack([_between(value, flat, first, one) for one in (second, third)], axis=1)


def _between(
    value: NDArray[np.float64],
    flat: NDArray[np.float64],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
) -> NDArray[np.float64]:
    share = ((0.5 - value[a]) / (value[b] - value[a]))[:, None]
    return np.asarray(flat[a] + share * (flat[b] - flat[a]))
