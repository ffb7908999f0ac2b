"""Positions of simulated voxels on the fsaverage5 cortex."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["PICTURE_DEGREES", "place_voxels"]

PICTURE_DEGREES = 8.4
"""Width of the pictures in degrees of visual angle, as in the Natural Scenes Dataset."""

# Landmarks of the left hemisphere in millimetres (right: x mirrored).  Calcarine
# sulcus from the occipital pole forwards; mid-fusiform gyrus from back to front.
_CALCARINE = np.array([[-9.0, -101.0, -2.0], [-14.0, -64.0, 5.0]])
_FUSIFORM = np.array([[-30.0, -76.0, -15.0], [-40.0, -42.0, -22.0]])
_PATCH = 480
_LARGEST_ECCENTRICITY = 4.8
_SIZE_AT_CENTRE = {"V1": 0.30, "V2": 0.40, "V3": 0.55}
_SIZE_SLOPE = {"V1": 0.12, "V2": 0.16, "V3": 0.22}


def place_voxels(
    rng: np.random.Generator, n_early: int, n_ventral: int, n_other: int
) -> pd.DataFrame:
    """Put voxels on cortical vertices and give the early ones receptive fields.

    Early voxels lie around the calcarine sulcus.  Eccentricity grows from the
    occipital pole forwards; the polar angle runs from the horizontal meridian
    in the sulcus to the vertical one at the border of V1, and back and forth
    in V2 and V3; the upper bank sees the lower visual field and each
    hemisphere the opposite side (Wandell et al. 2007).

    Parameters
    ----------
    rng : Generator
        Chooses among the vertices of each region.
    n_early, n_ventral, n_other : int
        Numbers of voxels, half of them (rounded up) on the left.

    Returns
    -------
    DataFrame
        One row a voxel, early ones first, then ventral, then other.  Columns
        x, y, z (millimetres, pial surface), hemisphere, vertex (of fsaverage5),
        region (early, ventral or other), area, rf_x and rf_y (degrees right of
        and above the centre), rf_size (SD in degrees); receptive fields are
        NaN except for early voxels.
    """
    parts: dict[str, list[pd.DataFrame]] = {"early": [], "ventral": [], "other": []}
    counts = {"early": n_early, "ventral": n_ventral, "other": n_other}
    for hemisphere in ("left", "right"):
        patches = _patches(hemisphere)
        for region, total in counts.items():
            count = (total + 1) // 2 if hemisphere == "left" else total // 2
            vertices = _choose(rng, patches[region], count)
            parts[region].append(_table(rng, hemisphere, region, vertices))
    return pd.concat([part for region in parts.values() for part in region], ignore_index=True)


@functools.cache
def _pial(hemisphere: str) -> NDArray[np.float64]:
    """Return the coordinates of fsaverage5 vertices; nilearn ships the mesh."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    mesh = load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"pial_{hemisphere}"])
    return np.asarray(mesh.coordinates, dtype=np.float64)


def _patches(hemisphere: str) -> dict[str, NDArray[np.intp]]:
    """Return the vertices of each region, without overlap."""
    points = _mirrored(_pial(hemisphere), hemisphere)
    calcarine = _distance(points, _CALCARINE)
    fusiform = _distance(points, _FUSIFORM)
    early = np.argsort(calcarine, kind="stable")[:_PATCH]
    free = np.ones(len(points), dtype=np.bool_)
    free[early] = False
    by_fusiform = np.argsort(np.where(free, fusiform, np.inf), kind="stable")
    ventral = by_fusiform[:_PATCH]
    free[ventral] = False
    # Superior parietal and frontal cortex, away from the medial wall.
    elsewhere = free & (points[:, 2] > 35.0) & (points[:, 0] < -15.0)
    return {"early": early, "ventral": ventral, "other": np.flatnonzero(elsewhere)}


def _mirrored(points: NDArray[np.float64], hemisphere: str) -> NDArray[np.float64]:
    """Return points mirrored to the left hemisphere."""
    return np.asarray(points * np.array([1.0 if hemisphere == "left" else -1.0, 1.0, 1.0]))


def _distance(points: NDArray[np.float64], line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of points from a line segment."""
    along = line[1] - line[0]
    part = np.clip((points - line[0]) @ along / (along @ along), 0.0, 1.0)
    gap = points - (line[0] + part[:, None] * along)
    return np.asarray(np.linalg.norm(gap, axis=1))


def _choose(rng: np.random.Generator, patch: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Choose vertices for voxels; they share vertices only if there are too few."""
    rounds = [rng.permutation(patch) for _ in range(-(-count // len(patch)))]
    return np.sort(np.concatenate([*rounds, patch[:0]])[:count])


def _table(
    rng: np.random.Generator, hemisphere: str, region: str, vertices: NDArray[np.intp]
) -> pd.DataFrame:
    points = _pial(hemisphere)[vertices]
    table = pd.DataFrame(points, columns=["x", "y", "z"])
    table["hemisphere"] = hemisphere
    table["vertex"] = vertices
    table["region"] = region
    if region == "early":
        return table.join(_receptive_fields(rng, _mirrored(points, hemisphere), hemisphere))
    parietal = np.where(points[:, 1] < -20.0, "parietal", "frontal")
    table["area"] = parietal if region == "other" else "ventral"
    return table.assign(rf_x=np.nan, rf_y=np.nan, rf_size=np.nan)


def _receptive_fields(
    rng: np.random.Generator, points: NDArray[np.float64], hemisphere: str
) -> pd.DataFrame:
    """Return a retinotopic map of one hemisphere from positions on the surface."""
    (_, back, low), (_, front, high) = _CALCARINE
    sulcus = low + (points[:, 1] - back) / (front - back) * (high - low)
    above = points[:, 2] - sulcus
    forward, outward = _ranks(points[:, 1]), _ranks(np.abs(above))
    # Cortical magnification: the centre of gaze has most of the cortex.
    eccentricity = 0.15 + (_LARGEST_ECCENTRICITY - 0.15) * np.expm1(1.6 * forward) / np.expm1(1.6)
    areas = np.array(["V1", "V2", "V3"])[np.digitize(outward, [0.5, 0.8])]
    # Degrees from the horizontal meridian, mirrored at each border between areas.
    angle = np.interp(outward, [0.0, 0.5, 0.8, 1.0], [0.0, 90.0, 0.0, 90.0])
    angle = np.deg2rad(np.clip(angle + rng.normal(0.0, 6.0, len(angle)), -5.0, 95.0))
    side = 1.0 if hemisphere == "left" else -1.0
    size = np.array([_SIZE_AT_CENTRE[area] for area in areas])
    size += np.array([_SIZE_SLOPE[area] for area in areas]) * eccentricity
    return pd.DataFrame(
        {
            "area": areas,
            "rf_x": side * eccentricity * np.cos(angle),
            "rf_y": -np.sign(above) * eccentricity * np.sin(angle),
            "rf_size": size * np.exp(rng.normal(0.0, 0.15, len(size))),
        }
    )


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks between 0 and 1."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray((order + 0.5) / max(len(values), 1))
