"""The eight backgrounds of the procedural scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from calcarine.stimuli._drawing import Array, Bounds, Color, Pose, ShapePainter, mix

__all__ = ["PAINTERS", "PARAMETER_COUNT", "WHITE", "Params", "draw_background"]

Params = Sequence[float]

PARAMETER_COUNT = 24
"""Number of uniform random numbers that describe a background."""

WHITE: Color = (255.0, 255.0, 255.0)


def draw_background(name: str, params: Params, pixels: int) -> Array:
    """Draw a background.

    Parameters
    ----------
    name : str
        One of the keys of `PAINTERS`.
    params : Params
        `PARAMETER_COUNT` numbers in [0, 1) that decide about the details.
    pixels : int
        Side of the picture.

    Returns
    -------
    ndarray of float32, shape (pixels, pixels, 3)
        Colours in 0..255.
    """
    return PAINTERS[name](params, pixels)


def _pen(pixels: int) -> ShapePainter:
    """Return a painter whose local coordinates are picture widths from the top left."""
    return ShapePainter(Pose(0.0, 0.0, 2.0), pixels, 0.0, Bounds(0, pixels, 0, pixels))


def _bands(pixels: int, bands: Sequence[tuple[float, Color, Color]]) -> Array:
    """Draw horizontal bands with vertical gradients.

    Each band is (top edge, colour at its top, colour at its bottom).
    """
    y = (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) / np.float32(pixels)
    column = np.zeros((pixels, 3), dtype=np.float32)
    for index, (top, first, last) in enumerate(bands):
        bottom = bands[index + 1][0] if index + 1 < len(bands) else 1.0
        share = (y - np.float32(top)) / np.float32(bottom - top)
        share = np.minimum(np.maximum(share, np.float32(0)), np.float32(1))[:, None]
        start = np.asarray(first, dtype=np.float32)
        fill = start + share * (np.asarray(last, dtype=np.float32) - start)
        cover = (y - np.float32(top)) * np.float32(pixels) + np.float32(0.5)
        if index == 0:
            column[:] = fill
        else:
            cover = np.minimum(np.maximum(cover, np.float32(0)), np.float32(1))[:, None]
            column += cover * (fill - column)
    return np.repeat(column[:, None, :], pixels, axis=1)


def _span(value: float, low: float, high: float) -> float:
    return low + (high - low) * value


def _clouds(pen: ShapePainter, params: Params, color: Color, top: float, bottom: float) -> None:
    for first in range(2 if params[0] < 0.6 else 1):
        x = _span(params[1 + 3 * first], 0.1, 0.9)
        y = _span(params[2 + 3 * first], top, bottom)
        r = _span(params[3 + 3 * first], 0.035, 0.06)
        pen.ellipse(x, y, 2.6 * r, 0.9 * r, color)
        pen.disk(x + 0.5 * r, y - 0.7 * r, r, color)


def _meadow(params: Params, pixels: int) -> Array:
    horizon = _span(params[0], 0.42, 0.62)
    sky = mix((96, 170, 240), (135, 196, 246), params[1])
    grass = mix((92, 176, 62), (120, 190, 70), params[2])
    image = _bands(pixels, [(0.0, sky, mix(sky, WHITE, 0.55)), (horizon, grass, (66, 140, 48))])
    pen = _pen(pixels)
    hill = mix(grass, (60, 130, 70), 0.45)
    pen.ellipse(params[3], horizon + 0.1, _span(params[4], 0.4, 0.7), 0.17, hill)
    pen.box(0.5, 1.0, 0.6, 0.94 - horizon, grass)
    _clouds(pen, params[5:12], (250, 252, 255), 0.06, horizon - 0.2)
    blooms: tuple[Color, ...] = ((255, 240, 120), (255, 255, 255), (245, 130, 160))
    for k in range(6):
        x, y = params[12 + 2 * k], _span(params[13 + 2 * k], horizon + 0.14, 0.98)
        pen.disk(x, y, 0.011, blooms[k % 3])
        pen.line((x + 0.08, y + 0.01), (x + 0.09, y - 0.03), 0.006, (50, 115, 40))
    pen.paint(image)
    return image


def _beach(params: Params, pixels: int) -> Array:
    horizon = _span(params[0], 0.26, 0.36)
    shore = horizon + _span(params[1], 0.14, 0.22)
    sky = mix((130, 208, 244), (160, 220, 245), params[2])
    sand = mix((240, 214, 150), (246, 222, 170), params[3])
    image = _bands(
        pixels,
        [
            (0.0, sky, mix(sky, WHITE, 0.6)),
            (horizon, (34, 140, 190), (70, 196, 208)),
            (shore, sand, mix(sand, (214, 176, 110), 0.6)),
        ],
    )
    pen = _pen(pixels)
    pen.disk(_span(params[4], 0.1, 0.9), 0.1, 0.065, (255, 236, 120))
    x = params[5]
    pen.ellipse(x, shore + 0.005, 0.4, 0.035, (70, 196, 208))
    for center in (x - 0.55, x, x + 0.55):
        pen.ellipse(center, shore + 0.04, 0.33, 0.013, (250, 252, 250))
    for k in range(5):
        y = _span(params[7 + 2 * k], shore + 0.12, 0.97)
        pen.ellipse(params[6 + 2 * k], y, 0.018, 0.01, (205, 165, 105))
    pen.paint(image)
    return image


def _sea(params: Params, pixels: int) -> Array:
    horizon = _span(params[0], 0.2, 0.32)
    water = mix((26, 96, 170), (30, 118, 180), params[1])
    sky = mix((190, 222, 240), (205, 230, 240), params[2])
    image = _bands(
        pixels, [(0.0, sky, (232, 242, 246)), (horizon, water, mix(water, (8, 48, 110), 0.7))]
    )
    pen = _pen(pixels)
    crest = mix(water, WHITE, 0.5)
    for k in range(9):
        y = horizon + 0.06 + (0.94 - horizon) * k / 9
        x = _span(params[3 + k], 0.0, 1.0)
        w = 0.05 + 0.06 * k / 9
        pen.line((x - w, y), (x, y + 0.018), 0.008, crest)
        pen.line((x, y + 0.018), (x + w, y), 0.008, crest)
    pen.paint(image)
    return image


def _desert(params: Params, pixels: int) -> Array:
    horizon = _span(params[0], 0.42, 0.56)
    sand = mix((226, 156, 76), (232, 170, 92), params[1])
    sky = mix((246, 222, 160), (250, 230, 180), params[2])
    image = _bands(pixels, [(0.0, sky, (253, 243, 214)), (horizon, sand, (200, 122, 56))])
    pen = _pen(pixels)
    pen.disk(_span(params[3], 0.1, 0.9), _span(params[4], 0.1, 0.2), 0.08, (255, 252, 225))
    pen.ellipse(params[5], horizon + 0.04, 0.42, _span(params[6], 0.09, 0.16), (212, 138, 66))
    pen.ellipse(params[7], horizon + 0.22, 0.8, 0.19, sand)
    pen.ellipse(params[8], 1.02, 0.75, _span(params[9], 0.16, 0.3), (190, 112, 50))
    pen.ellipse(params[8] + 0.1, 1.08, 0.78, _span(params[9], 0.2, 0.33), (218, 146, 72))
    pen.paint(image)
    return image


def _snow(params: Params, pixels: int) -> Array:
    horizon = _span(params[0], 0.45, 0.6)
    sky = mix((150, 172, 198), (172, 190, 210), params[1])
    image = _bands(
        pixels, [(0.0, sky, (206, 216, 228)), (horizon, (236, 242, 250), (218, 230, 246))]
    )
    pen = _pen(pixels)
    peak = _span(params[2], 0.1, 0.9)
    top = horizon - _span(params[3], 0.16, 0.28)
    for x, y in ((peak + 0.45, top + 0.08), (peak - 0.4, top + 0.06), (peak, top)):
        pen.polygon(
            [(x - 0.32, horizon + 0.02), (x, y), (x + 0.32, horizon + 0.02)], (128, 148, 178)
        )
        pen.polygon([(x - 0.085, y + 0.065), (x, y), (x + 0.085, y + 0.065)], (246, 250, 255))
    pen.ellipse(params[4], horizon + 0.09, 0.7, 0.11, (240, 245, 252))
    pen.box(0.5, 1.0, 0.6, 0.93 - horizon, (238, 243, 251))
    pen.ellipse(params[5], 1.0, 0.5, 0.12, (212, 225, 243))
    for k in range(8):
        pen.disk(params[6 + 2 * k], _span(params[7 + 2 * k], 0.03, horizon), 0.013, (255, 255, 255))
    pen.paint(image)
    return image


def _night(params: Params, pixels: int) -> Array:
    horizon = _span(params[0], 0.68, 0.8)
    sky = mix((10, 14, 46), (20, 18, 60), params[1])
    image = _bands(
        pixels, [(0.0, sky, mix(sky, (50, 60, 120), 0.7)), (horizon, (20, 34, 44), (10, 18, 26))]
    )
    pen = _pen(pixels)
    x, y = _span(params[2], 0.1, 0.9), _span(params[3], 0.1, 0.22)
    if params[4] < 0.6:
        pen.crescent((x, y, 0.075), (x + 0.04, y - 0.02, 0.065), (250, 244, 205))
    for k in range(9):
        r = 0.012 if k % 3 else 0.017
        pen.disk(params[5 + 2 * k], _span(params[6 + 2 * k], 0.03, 0.62), r, (252, 250, 225))
    pen.ellipse(params[5], horizon + 0.06, 0.6, 0.13, (17, 28, 40))
    pen.paint(image)
    return image


def _room(params: Params, pixels: int) -> Array:
    floor = _span(params[0], 0.6, 0.74)
    walls: tuple[Color, ...] = ((206, 176, 190), (196, 204, 172), (226, 204, 170), (178, 194, 202))
    wall = walls[min(int(params[1] * 4), 3)]
    wood = mix((140, 88, 52), (168, 112, 68), params[2])
    image = _bands(
        pixels,
        [(0.0, wall, wall), (floor - 0.035, (245, 240, 232), (235, 228, 218)), (floor, wood, wood)],
    )
    pen = _pen(pixels)
    if params[3] < 0.5:
        for k in range(7):
            x = (k + params[4]) / 7
            pen.box(x, (floor - 0.035) / 2, 0.025, (floor - 0.035) / 2, mix(wall, WHITE, 0.35))
    x, y = _span(params[5], 0.2, 0.8), floor / 2 - 0.05
    pen.box(x, y, 0.15, 0.17, (250, 248, 242))
    pen.box(x, y, 0.125, 0.145, (160, 208, 240))
    pen.box(x, y, 0.012, 0.15, (250, 248, 242))
    pen.box(x, y, 0.13, 0.012, (250, 248, 242))
    for k in range(1, 4):
        pen.box(0.5, floor + k * (1 - floor) / 4, 0.55, 0.006, mix(wood, (60, 30, 15), 0.5))
    pen.paint(image)
    return image


def _sunset(params: Params, pixels: int) -> Array:
    horizon = _span(params[0], 0.55, 0.7)
    top = mix((92, 44, 124), (130, 52, 120), params[1])
    image = _bands(
        pixels,
        [
            (0.0, top, (226, 84, 96)),
            (horizon * 0.5, (226, 84, 96), (255, 176, 80)),
            (horizon, (118, 50, 84), (52, 24, 62)),
        ],
    )
    pen = _pen(pixels)
    x, r = _span(params[2], 0.15, 0.85), _span(params[3], 0.12, 0.17)
    pen.disk(x, horizon - 0.02, r, (255, 230, 110))
    pen.box(0.5, 1.0, 0.6, 1.0 - horizon, (104, 44, 82))
    for k in range(4):
        y = horizon + 0.04 + 0.07 * k
        pen.box(x + 0.03 * (params[6 + k] - 0.5), y, r * (1.0 - 0.2 * k), 0.01, (250, 160, 90))
    for k in range(2):
        y = _span(params[10 + k], 0.1, 0.4)
        pen.ellipse(params[4 + k], y, 0.24, 0.02, (246, 140, 120))
    pen.paint(image)
    return image


PAINTERS: dict[str, Callable[[Params, int], Array]] = {
    "meadow": _meadow,
    "beach": _beach,
    "sea": _sea,
    "desert": _desert,
    "snow": _snow,
    "night": _night,
    "room": _room,
    "sunset": _sunset,
}
