"""Anti-aliased drawing of simple shapes from signed distances.

Array arithmetic is restricted to operations that IEEE 754 defines exactly
(no vectorised trigonometry), so that pictures agree between machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Bounds",
    "Color",
    "Point",
    "Pose",
    "ShapePainter",
    "Window",
    "mix",
    "pose_bounds",
    "shade",
]

Color: TypeAlias = tuple[float, float, float]
Point: TypeAlias = tuple[float, float]
Array: TypeAlias = NDArray[np.float32]
Window: TypeAlias = tuple[slice, slice]


def shade(color: Color, factor: float) -> Color:
    """Darken (factor < 1) or lighten (factor > 1) an RGB colour.

    Parameters
    ----------
    color : Color
        Red, green and blue in 0..255.
    factor : float
        Multiplier below one; above one, ``factor - 1`` is the share of white.
    """
    if factor <= 1.0:
        return (color[0] * factor, color[1] * factor, color[2] * factor)
    return mix(color, (255.0, 255.0, 255.0), factor - 1.0)


def mix(first: Color, second: Color, share: float) -> Color:
    """Blend two RGB colours; `share` (0 to 1) is the weight of the second."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


@dataclass(frozen=True)
class Pose:
    """Placement of a local frame in the picture.

    Attributes
    ----------
    x, y : float
        Position of the local origin, in picture widths from the top left.
    size : float
        Extent of the local square [-1, 1] x [-1, 1], in picture widths.
    mirror : bool
        Whether left and right are swapped.
    rotation : float
        Clockwise rotation in degrees.
    """

    x: float
    y: float
    size: float
    mirror: bool = False
    rotation: float = 0.0


@dataclass(frozen=True)
class Bounds:
    """Half-open pixel rectangle."""

    top: int
    bottom: int
    left: int
    right: int

    def clipped(self, pixels: int) -> Bounds:
        """Return the part of the rectangle inside a picture of `pixels` x `pixels`."""
        return Bounds(
            max(self.top, 0),
            max(min(self.bottom, pixels), 0),
            max(self.left, 0),
            max(min(self.right, pixels), 0),
        )


def pose_bounds(pose: Pose, pixels: int, outline: float) -> Bounds:
    """Return the pixel rectangle around everything drawn in a pose.

    Parameters
    ----------
    pose : Pose
        Placement of the object.
    pixels : int
        Side of the picture in pixels.
    outline : float
        Width of the outline in picture widths.
    """
    angle = math.radians(abs(pose.rotation))
    reach = pose.size / 2 * (math.cos(angle) + math.sin(angle)) + outline
    return Bounds(
        math.floor((pose.y - reach) * pixels) - 1,
        math.ceil((pose.y + reach) * pixels) + 1,
        math.floor((pose.x - reach) * pixels) - 1,
        math.ceil((pose.x + reach) * pixels) + 1,
    )


class ShapePainter:
    """Collects filled shapes given in local coordinates (x right, y down).

    Parameters
    ----------
    pose : Pose
        Placement of the local frame.
    pixels : int
        Side of the picture in pixels.
    outline : float
        Width of the outline in picture widths.
    bounds : Bounds
        Pixels to evaluate; everything else is left out.
    rim : Color
        Colour of the outline.
    silhouette : bool
        Collect the outer contour only; inner details are skipped.
    """

    def __init__(
        self,
        pose: Pose,
        pixels: int,
        outline: float,
        bounds: Bounds,
        rim: Color = (0.0, 0.0, 0.0),
        silhouette: bool = False,
    ) -> None:
        angle = math.radians(pose.rotation)
        self._cos, self._sin = math.cos(angle), math.sin(angle)
        self._flip = -1.0 if pose.mirror else 1.0
        self._scale = pose.size / 2 * pixels
        self._origin = (pose.x * pixels - bounds.left, pose.y * pixels - bounds.top)
        self._edge = outline * pixels / self._scale
        self._rim = rim
        self._silhouette = silhouette
        self._layers: list[tuple[Window, Array, Color]] = []
        self.bounds = bounds
        height = max(bounds.bottom - bounds.top, 0)
        width = max(bounds.right - bounds.left, 0)
        self._shape = (height, width)
        dx = (np.arange(width, dtype=np.float32) + np.float32(0.5 - self._origin[0]))[None, :]
        dy = (np.arange(height, dtype=np.float32) + np.float32(0.5 - self._origin[1]))[:, None]
        inverse = 1.0 / self._scale
        self._u = dx * np.float32(self._cos * inverse * self._flip) + dy * np.float32(
            self._sin * inverse * self._flip
        )
        self._v = dy * np.float32(self._cos * inverse) - dx * np.float32(self._sin * inverse)
        self._union = np.full(self._shape, 1e3, dtype=np.float32)

    def _window(self, x: float, y: float, reach: float) -> Window | None:
        """Return the part of the patch within `reach` of a local point, if any."""
        side = x * self._flip
        column = self._origin[0] + (side * self._cos - y * self._sin) * self._scale
        row = self._origin[1] + (side * self._sin + y * self._cos) * self._scale
        margin = (reach + self._edge) * self._scale + 1.0
        top, bottom = max(int(row - margin), 0), min(int(row + margin) + 1, self._shape[0])
        left, right = max(int(column - margin), 0), min(int(column + margin) + 1, self._shape[1])
        if top >= bottom or left >= right:
            return None
        return slice(top, bottom), slice(left, right)

    def _add(self, window: Window, distance: Array, color: Color, inner: bool, rim: bool) -> None:
        if not inner:
            union = self._union[window]
            np.minimum(union, distance, out=union)
        if self._silhouette:
            return
        if rim:
            self._layers.append((window, distance - np.float32(self._edge * 0.8), self._rim))
        self._layers.append((window, distance, color))

    def _start(
        self, x: float, y: float, reach: float, inner: bool
    ) -> tuple[Window, Array, Array] | None:
        """Return window and coordinates relative to (x, y); None if nothing is visible."""
        if inner and self._silhouette:
            return None
        window = self._window(x, y, reach)
        if window is None:
            return None
        return window, self._u[window] - np.float32(x), self._v[window] - np.float32(y)

    def disk(
        self, x: float, y: float, r: float, color: Color, inner: bool = False, rim: bool = False
    ) -> None:
        """Add a disk with centre (x, y) and radius `r`."""
        start = self._start(x, y, r, inner)
        if start is not None:
            window, u, v = start
            self._add(window, np.sqrt(u * u + v * v) - np.float32(r), color, inner, rim)

    def dome(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """Add the upper half of an ellipse whose flat side is at height `y`."""
        start = self._start(x, y, max(rx, ry), False)
        if start is not None:
            window, u, v = start
            self._add(window, np.maximum(_ellipse(u, v, rx, ry), v), color, False, False)

    def ring(self, x: float, y: float, r: float, width: float, color: Color) -> None:
        """Add a circle line of half width `width`."""
        start = self._start(x, y, r + width, False)
        if start is not None:
            window, u, v = start
            distance = np.abs(np.sqrt(u * u + v * v) - np.float32(r)) - np.float32(width)
            self._add(window, distance, color, False, False)

    def crescent(
        self, outer: tuple[float, float, float], cut: tuple[float, float, float], color: Color
    ) -> None:
        """Add a disk `outer` (x, y, radius) without the disk `cut`."""
        start = self._start(*outer, False)
        if start is not None:
            window, u, v = start
            distance = np.sqrt(u * u + v * v) - np.float32(outer[2])
            u, v = u - np.float32(cut[0] - outer[0]), v - np.float32(cut[1] - outer[1])
            hole = np.float32(cut[2]) - np.sqrt(u * u + v * v)
            self._add(window, np.maximum(distance, hole), color, False, False)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        color: Color,
        angle: float = 0.0,
        inner: bool = False,
        rim: bool = False,
    ) -> None:
        """Add an ellipse with half axes `rx`, `ry`, turned clockwise by `angle` degrees."""
        start = self._start(x, y, max(rx, ry), inner)
        if start is not None:
            window, u, v = start
            u, v = _turn(u, v, angle)
            self._add(window, _ellipse(u, v, rx, ry), color, inner, rim)

    def box(
        self,
        x: float,
        y: float,
        half_width: float,
        half_height: float,
        color: Color,
        radius: float = 0.0,
        angle: float = 0.0,
        inner: bool = False,
        rim: bool = False,
    ) -> None:
        """Add a rectangle with corners rounded by `radius`, turned by `angle` degrees."""
        start = self._start(x, y, math.hypot(half_width, half_height), inner)
        if start is None:
            return
        window, u, v = start
        u, v = _turn(u, v, angle)
        u = np.maximum(u, -u) - np.float32(half_width - radius)
        v = np.maximum(v, -v) - np.float32(half_height - radius)
        distance = np.maximum(u, v)
        if radius > 0.0:
            zero = np.float32(0.0)
            a, b = np.maximum(u, zero), np.maximum(v, zero)
            distance = np.minimum(distance, zero) + np.sqrt(a * a + b * b) - np.float32(radius)
        self._add(window, distance, color, inner, rim)

    def line(
        self,
        start_point: Point,
        end_point: Point,
        r: float,
        color: Color,
        inner: bool = False,
        rim: bool = False,
    ) -> None:
        """Add a straight stroke with round ends and half width `r`."""
        (x0, y0), (x1, y1) = start_point, end_point
        dx, dy = (x1 - x0) / 2, (y1 - y0) / 2
        length2 = max(dx * dx + dy * dy, 1e-9)
        start = self._start(x0 + dx, y0 + dy, math.sqrt(length2) + r, inner)
        if start is None:
            return
        window, u, v = start
        along: Array = u * np.float32(dx / length2) + v * np.float32(dy / length2)
        np.maximum(along, np.float32(-1.0), out=along)
        np.minimum(along, np.float32(1.0), out=along)
        u = u - along * np.float32(dx)
        v = v - along * np.float32(dy)
        self._add(window, np.sqrt(u * u + v * v) - np.float32(r), color, inner, rim)

    def polygon(
        self, points: Sequence[Point], color: Color, inner: bool = False, rim: bool = False
    ) -> None:
        """Add a convex polygon; its corners may be in either orientation."""
        x = sum(p[0] for p in points) / len(points)
        y = sum(p[1] for p in points) / len(points)
        reach = max(math.hypot(px - x, py - y) for px, py in points)
        start = self._start(x, y, reach, inner)
        if start is None:
            return
        window, u, v = start
        distance: Array | None = None
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            nx, ny = y1 - y0, x0 - x1
            length = math.hypot(nx, ny)
            offset = ((x0 - x) * nx + (y0 - y) * ny) / length
            sign = 1.0 if offset >= 0 else -1.0
            plane = u * np.float32(sign * nx / length) + v * np.float32(sign * ny / length)
            plane -= np.float32(abs(offset))
            distance = plane if distance is None else np.maximum(distance, plane)
        assert distance is not None
        self._add(window, distance, color, inner, rim)

    def mask(self) -> NDArray[np.bool_]:
        """Return the pixels of the patch inside the outlined silhouette."""
        return np.asarray(self._union < np.float32(self._edge))

    def paint(self, image: Array) -> None:
        """Paint the collected shapes, outline first, over a float RGB image.

        Parameters
        ----------
        image : array
            Whole picture, shape (pixels, pixels, 3), 0..255; changed in place.
        """
        b = self.bounds
        patch = image[b.top : b.bottom, b.left : b.right]
        if self._edge > 0.0:
            self._blend(patch, self._union - np.float32(self._edge), self._rim)
        for window, distance, color in self._layers:
            self._blend(patch[window], distance, color)

    def _blend(self, target: Array, distance: Array, color: Color) -> None:
        cover = distance * np.float32(-self._scale)
        cover += np.float32(0.5)
        np.maximum(cover, np.float32(0.0), out=cover)
        np.minimum(cover, np.float32(1.0), out=cover)
        step = np.asarray(color, dtype=np.float32) - target
        step *= cover[:, :, None]
        target += step


def _turn(u: Array, v: Array, angle: float) -> tuple[Array, Array]:
    if angle == 0.0:
        return u, v
    radians = math.radians(angle)
    c, s = np.float32(math.cos(radians)), np.float32(math.sin(radians))
    return u * c + v * s, v * c - u * s


def _ellipse(u: Array, v: Array, rx: float, ry: float) -> Array:
    """Return the first-order distance to an ellipse, exact enough within some pixels."""
    u, v = u * np.float32(1.0 / rx), v * np.float32(1.0 / ry)
    level = np.sqrt(u * u + v * v)
    u, v = u * np.float32(1.0 / rx), v * np.float32(1.0 / ry)
    slope = np.sqrt(u * u + v * v) + np.float32(1e-6)
    distance: Array = level * (level - np.float32(1.0)) / slope
    # The quotient vanishes at the centre, which is well inside.
    return np.where(level < np.float32(0.3), np.float32(-0.3 * min(rx, ry)), distance)
