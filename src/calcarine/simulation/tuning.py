"""Tuning of simulated voxels: Gabor energy, light and colour, and meaning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.simulation.cortex import PICTURE_DEGREES
from calcarine.stimuli._objects import CATALOG
from calcarine.stimuli.images import resize_images
from calcarine.stimuli.scenes import BACKGROUNDS, KINDS, SUPERCATEGORY, Scene

__all__ = [
    "early_features",
    "early_signal",
    "gabor_energy",
    "semantic_features",
    "semantic_signal",
]

Array = NDArray[np.float32]

_SIDE = 32
_ORIENTATIONS = 6
# Cycles per picture -> positions per side.
_GRIDS: dict[float, int] = {2.0: 6, 4.0: 10, 8.0: 14}
_POWER = 0.5
# Mean shares of signal variance: contrast energy, luminance, colour.  V1 carries
# all three; the shares are a choice of this simulation and vary between voxels.
_SHARES = (0.5, 0.25, 0.25)
_CONCENTRATION = 6.0
# Weight of each group of semantic features after equating their spread.
_GROUP_WEIGHTS = {"kind": 1.0, "supercategory": 1.0, "background": 0.6, "color": 0.5}
# How many features of each group a ventral voxel is tuned to.
_TUNED_TO = {"kind": 4, "supercategory": 2, "background": 2, "color": 2}
_SUPERCATEGORIES = tuple(dict.fromkeys(SUPERCATEGORY.values()))
# Of every object there can be, so that tuning does not depend on what is shown.
_COLORS = tuple(sorted({name for entry in CATALOG.values() for name, _ in entry.colors}))


def _filter_table() -> tuple[Array, Array, Array, Array]:
    """Return column, row (picture widths), frequency and orientation of each filter."""
    theta = np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS
    parts = []
    for frequency, count in _GRIDS.items():
        places = (np.arange(count) + 0.5) / count
        grid = np.meshgrid(places, places, frequency, theta, indexing="xy")
        parts.append(np.stack([axis.ravel() for axis in grid]))
    x, y, frequencies, angles = np.concatenate(parts, axis=1).astype(np.float32)
    return x, y, frequencies, angles


def _pixel_places() -> tuple[Array, Array]:
    """Return the column and row of each pixel, in picture widths, shape (pixel, 1)."""
    line = ((np.arange(_SIDE) + 0.5) / _SIDE).astype(np.float32)
    rows, columns = np.meshgrid(line, line, indexing="ij")
    return columns.reshape(-1, 1), rows.reshape(-1, 1)


def _filters() -> tuple[Array, Array]:
    """Return even and odd filters of unit length, each of shape (pixel, filter)."""
    x, y, frequency, theta = _filter_table()
    columns, rows = _pixel_places()
    dx, dy = columns - x, rows - y
    envelope = np.exp(-(dx**2 + dy**2) * (2.0 * frequency**2))  # SD of half a cycle
    phase = 2.0 * np.pi * frequency * (dx * np.cos(theta) + dy * np.sin(theta))
    even, odd = envelope * np.cos(phase), envelope * np.sin(phase)
    for part in (even, odd):
        part -= envelope * (part.sum(0) / envelope.sum(0))  # blind to uniform light
        part /= np.linalg.norm(part, axis=0)
    return even, odd


def _small(images: NDArray[np.uint8]) -> Array:
    """Return pictures as (n, pixel, 3) between 0 and 1."""
    small = resize_images(images, _SIDE)
    return (small.reshape(len(small), -1, 3) / np.float32(255.0)).astype(np.float32)


def _luminance(small: Array) -> Array:
    return np.asarray(small @ np.array([0.299, 0.587, 0.114], dtype=np.float32))


def _opponents(small: Array) -> tuple[Array, Array]:
    """Return red against green and blue against yellow, each (n, pixel)."""
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    return red - green, blue - np.float32(0.5) * (red + green)


def gabor_energy(images: NDArray[np.uint8]) -> Array:
    """Return the energy of quadrature pairs of Gabor filters on luminance.

    Three spatial frequencies (2, 4 and 8 cycles per picture), six
    orientations, and a grid of positions for each frequency (Adelson &
    Bergen 1985; Kay et al. 2008).

    Parameters
    ----------
    images : uint8 array
        uint8, shape (n, height, width, 3).

    Returns
    -------
    float32 array of shape (n, 1992)
        Multiplied by the squared frequency, so that all frequencies matter
        in pictures whose power falls with frequency.
    """
    return _energy(_small(images))


def _energy(small: Array) -> Array:
    even, odd = _filters()
    light = _luminance(small)
    light = light - light.mean(1, keepdims=True)
    gain = _filter_table()[2] ** 2
    return np.asarray(((light @ even) ** 2 + (light @ odd) ** 2) * gain, dtype=np.float32)


def early_features(images: NDArray[np.uint8]) -> Array:
    """Return the features that early voxels are built from.

    Parameters
    ----------
    images : uint8 array
        uint8, shape (n, height, width, 3).

    Returns
    -------
    float32 array of shape (n, 2184)
        Square root of the Gabor energy; luminance and both colour contrasts
        on an 8 x 8 grid.
    """
    small = _small(images)
    channels = np.stack([_luminance(small), *_opponents(small)], axis=-1)
    step = _SIDE // 8
    coarse = channels.reshape(len(small), 8, step, 8, step, 3).mean((2, 4))
    return np.hstack([_energy(small) ** np.float32(_POWER), coarse.reshape(len(small), -1)])


def _field_weights(
    voxels: pd.DataFrame, columns: Array, rows: Array, least: Array | float
) -> Array:
    """Return Gaussian receptive fields over positions, (position, voxel), each summing to one."""
    x = (voxels["rf_x"].to_numpy() / PICTURE_DEGREES + 0.5).astype(np.float32)
    y = (0.5 - voxels["rf_y"].to_numpy() / PICTURE_DEGREES).astype(np.float32)
    spread = np.maximum((voxels["rf_size"].to_numpy() / PICTURE_DEGREES).astype(np.float32), least)
    distance = (columns - x) ** 2 + (rows - y) ** 2
    exponent = -distance / (2.0 * spread**2)
    weights = np.exp(exponent - exponent.max(0))
    return np.asarray(weights / weights.sum(0), dtype=np.float32)


def _energy_weights(voxels: pd.DataFrame, rng: np.random.Generator) -> Array:
    """Return the pooling of filters by position, orientation and frequency: (filter, voxel)."""
    x, y, frequency, theta = (part[:, None] for part in _filter_table())
    count = len(voxels)
    place = _field_weights(voxels, x, y, 0.35 / frequency / 2.0)
    preferred = rng.uniform(0.0, np.pi, count).astype(np.float32)
    orientation = 0.3 + np.exp(1.5 * (np.cos(2.0 * (theta - preferred)) - 1.0))
    # Smaller receptive fields prefer finer gratings.
    best = 4.0 * (0.8 / voxels["rf_size"].to_numpy()) ** 0.7 * np.exp(rng.normal(0, 0.3, count))
    scale = 0.15 + np.exp(-0.5 * np.log2(frequency / best.astype(np.float32)) ** 2)
    return np.asarray(place * orientation * scale, dtype=np.float32)


def _scaled(values: Array, train: NDArray[np.bool_]) -> Array:
    """Scale to mean 0 and SD 1 over the training stimuli."""
    spread = values[train].std(0)
    return np.asarray((values - values[train].mean(0)) / np.where(spread > 1e-8, spread, 1.0))


def early_signal(
    images: NDArray[np.uint8],
    voxels: pd.DataFrame,
    train: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Array:
    """Return the noise-free responses of retinotopic voxels.

    Parameters
    ----------
    images : uint8 array
        uint8, shape (n, height, width, 3).
    voxels : DataFrame
        Early rows of `calcarine.simulation.cortex.place_voxels`.
    train : bool array
        bool, shape (n,): which stimuli set the scale.
    rng : Generator
        Draws what each voxel prefers.

    Returns
    -------
    float32 array of shape (n, voxel)
        Variance 1 over the training stimuli.  Each response is the square
        root of pooled Gabor energy, plus luminance, plus a colour contrast
        in the receptive field, with shares of variance around 50, 25 and 25
        percent (a choice of this simulation).
    """
    small = _small(images)
    count = len(voxels)
    pooled = (_energy(small) @ _energy_weights(voxels, rng)) ** np.float32(_POWER)
    field = _field_weights(voxels, *_pixel_places(), 0.5 / _SIDE)
    sign = rng.choice(np.array([-1.0, 1.0], np.float32), count)
    hue = rng.uniform(0.0, 2.0 * np.pi, count).astype(np.float32)
    red_green, blue_yellow = _opponents(small)
    color = (red_green @ field) * np.cos(hue) + (blue_yellow @ field) * np.sin(hue)
    shares = rng.dirichlet(_CONCENTRATION * np.array(_SHARES), count).astype(np.float32).T
    parts = (pooled, (_luminance(small) @ field) * sign, color)
    total = sum(np.sqrt(s) * _scaled(p, train) for s, p in zip(shares, parts, strict=True))
    return _scaled(np.asarray(total, dtype=np.float32), train)


def _windows(size: int) -> NDArray[np.float64]:
    """Return four soft quarters of the picture that add up to one: (4, pixel)."""
    line = (np.arange(size) + 0.5) / size
    rise = line**2 * (3.0 - 2.0 * line)
    sides = np.stack([1.0 - rise, rise])
    return np.stack([np.outer(a, b).ravel() for a in sides for b in sides])


def semantic_features(
    semantic_maps: NDArray[np.uint8], scenes: Sequence[Scene], by_quarter: bool = False
) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """Return the features that ventral voxels are built from.

    Parameters
    ----------
    semantic_maps : uint8 array
        uint8, shape (n, size, size).
    scenes : sequence of Scene
        Descriptions of the same pictures.
    by_quarter : bool
        Whether to keep the four soft quarters of the picture apart.

    Returns
    -------
    values
        float32, shape (n, feature), or (n, 4, feature) by quarter: square
        root of the visible area of each kind, supercategory, background and
        colour word.
    names, groups
        Name and group of each feature.
    """
    windows = _windows(semantic_maps.shape[1])
    if not by_quarter:
        windows = windows.sum(0, keepdims=True)
    pixels = semantic_maps.shape[1] * semantic_maps.shape[2]
    classes = len(BACKGROUNDS) + len(KINDS)
    areas = np.array(
        [[np.bincount(m.ravel(), w, classes) for w in windows] for m in semantic_maps]
    ).reshape(len(semantic_maps), len(windows), classes)
    grounds, kinds = areas[..., : len(BACKGROUNDS)], areas[..., len(BACKGROUNDS) :]
    member = np.array([[SUPERCATEGORY[k] == s for s in _SUPERCATEGORIES] for k in KINDS], float)
    words = _COLORS
    colors = np.zeros((*kinds.shape[:2], len(words)))
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            colors[row, :, words.index(item.color_name)] += kinds[row, :, KINDS.index(item.kind)]
    values = np.sqrt(np.concatenate([kinds, kinds @ member, grounds, colors], -1) / pixels)
    named = {
        "kind": KINDS,
        "supercategory": _SUPERCATEGORIES,
        "background": BACKGROUNDS,
        "color": words,
    }
    names = tuple(name for part in named.values() for name in part)
    groups = tuple(group for group, part in named.items() for _ in part)
    return (values if by_quarter else values[:, 0]).astype(np.float32), names, groups


def semantic_signal(
    semantic_maps: NDArray[np.uint8],
    scenes: Sequence[Scene],
    count: int,
    train: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Array:
    """Return the noise-free responses of voxels that are tuned to meaning.

    Parameters
    ----------
    semantic_maps, scenes
        See `semantic_features`.
    count : int
        Number of voxels.
    train : bool array
        bool, shape (n,): which stimuli set the scale.
    rng : Generator
        Draws what each voxel prefers.

    Returns
    -------
    float32 array of shape (n, count)
        Variance 1 over the training stimuli.  Each voxel has random weights
        for a few kinds, supercategories, backgrounds and colour words, and
        weighs the quarters of the picture a little differently.
    """
    values, names, groups = semantic_features(semantic_maps, scenes, by_quarter=True)
    labels = np.array(groups)
    tuning = np.zeros((len(names), count), dtype=np.float32)
    for group, number in _TUNED_TO.items():
        members = np.flatnonzero(labels == group)
        spread = float(values[train][..., members].sum(1).std(0).mean())
        ranks = rng.random((len(members), count)).argsort(0)
        weights = rng.normal(0.3, 1.0, (len(members), count)) * (ranks < number)
        tuning[members] = weights * _GROUP_WEIGHTS[group] / max(spread, 1e-8)
    quarter = np.clip(1.0 + 0.3 * rng.normal(size=(4, count)), 0.2, 1.8).astype(np.float32)
    parts = [(values[:, q] @ tuning) * quarter[q] for q in range(4)]
    return _scaled(np.asarray(sum(parts), dtype=np.float32), train)
