"""Animals, plants and fruit, drawn with the conventions of `_objects`."""

from __future__ import annotations

import math

from calcarine.stimuli._drawing import Color, ShapePainter, shade

__all__ = [
    "apple",
    "banana",
    "bird",
    "butterfly",
    "cactus",
    "cat",
    "dog",
    "fish",
    "flower",
    "mushroom",
    "tree",
]

_DARK: Color = (34.0, 32.0, 38.0)
_WHITE: Color = (250.0, 250.0, 248.0)
_TRUNK: Color = (112.0, 72.0, 40.0)
_LEAF: Color = (58.0, 140.0, 52.0)


def tree(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Round-headed tree or fir."""
    pen.box(0.0, 0.66, 0.12, 0.32, _TRUNK)
    if shape[0] < 0.55:
        pen.disk(-0.36, 0.08, 0.38, shade(color, 0.85))
        pen.disk(0.36, 0.08, 0.38, shade(color, 0.85))
        pen.disk(0.0, -0.42 - 0.06 * shape[1], 0.48, color)
        pen.disk(0.0, 0.0, 0.4, color)
        if shape[2] < 0.4:
            for x, y in ((-0.3, 0.05), (0.1, -0.4), (0.34, 0.1), (-0.12, -0.65)):
                pen.disk(
                    x, y, 0.08, (214, 42, 40) if color[0] < 150 else (255, 236, 120), inner=True
                )
    else:
        wide = 0.6 + 0.18 * shape[1]
        for k, y in enumerate((0.5, 0.08, -0.34)):
            w = wide * (1.0 - 0.2 * k)
            pen.polygon([(-w, y), (w, y), (0.0, y - 0.64)], shade(color, 0.78 + 0.11 * k), rim=True)


def cat(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Sitting cat seen from the front, tail to one side."""
    dark = shade(color, 0.66) if sum(color) > 260 else shade(color, 1.25)
    pen.line((0.36, 0.84), (0.74, 0.66), 0.1, dark)
    pen.line((0.74, 0.66), (0.78, 0.22 - 0.2 * shape[0]), 0.1, dark)
    pen.ellipse(0.0, 0.5, 0.46, 0.48, color)
    ear = -0.92 - 0.06 * shape[1]
    for side in (-1.0, 1.0):
        pen.polygon([(side * 0.5, -0.36), (side * 0.46, ear), (side * 0.06, -0.6)], color)
        pen.polygon(
            [(side * 0.43, -0.46), (side * 0.41, ear + 0.18), (side * 0.18, -0.6)],
            (240, 160, 160),
            True,
        )
    pen.ellipse(0.0, -0.3, 0.54, 0.44, color, rim=True)
    if shape[2] < 0.5:
        for x in (-0.16, 0.0, 0.16):
            pen.line((x, -0.7), (x, -0.56), 0.04, dark, inner=True)
    else:
        pen.ellipse(0.0, 0.5, 0.22, 0.3, shade(color, 1.5), inner=True)
    for side in (-1.0, 1.0):
        pen.ellipse(side * 0.22, -0.34, 0.12, 0.11, (190, 226, 90), inner=True)
        pen.ellipse(side * 0.22, -0.34, 0.045, 0.1, _DARK, inner=True)
        pen.ellipse(side * 0.2, 0.88, 0.18, 0.1, shade(color, 1.3), inner=True)
    pen.polygon([(-0.08, -0.2), (0.08, -0.2), (0.0, -0.1)], (230, 100, 120), inner=True)


def dog(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Standing dog seen from the side, looking right."""
    dark = shade(color, 0.6) if sum(color) > 260 else shade(color, 1.3)
    pen.line((-0.66, 0.06), (-0.9, -0.4 - 0.15 * shape[0]), 0.08, color)
    for x in (-0.46, 0.38):
        pen.line((x, 0.3), (x, 0.84), 0.08, dark)
    for x in (-0.66, 0.18):
        pen.line((x, 0.3), (x, 0.88), 0.085, color)
    pen.box(-0.2, 0.16, 0.58, 0.27, color, radius=0.24)
    pen.line((0.22, 0.1), (0.42, -0.36), 0.2, color)
    pen.disk(0.46, -0.46, 0.3, color)
    pen.box(0.72, -0.36, 0.26, 0.15, color, radius=0.12)
    if shape[2] < 0.5:
        pen.ellipse(-0.3, 0.06, 0.22, 0.16, dark, inner=True)
    pen.ellipse(0.28, -0.32, 0.13, 0.28 + 0.08 * shape[1], dark, angle=10, rim=True)
    pen.disk(0.94, -0.44, 0.085, _DARK)
    pen.disk(0.58, -0.54, 0.065, _DARK if sum(color) > 260 else _WHITE, inner=True)
    pen.line((0.2, -0.04), (0.5, 0.02), 0.06, (214, 42, 40), inner=True)


def fish(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Fish swimming to the right."""
    fat = 0.42 + 0.12 * shape[0]
    fin = shade(color, 0.7)
    tail = 0.4 + 0.14 * shape[1]
    pen.polygon([(-0.42, 0.0), (-0.96, -tail), (-0.8, 0.0)], fin)
    pen.polygon([(-0.42, 0.0), (-0.96, tail), (-0.8, 0.0)], fin)
    pen.polygon([(-0.3, -fat * 0.6), (0.0, -fat - 0.24), (0.4, -fat * 0.75)], fin)
    pen.polygon([(-0.1, fat * 0.7), (0.05, fat + 0.18), (0.25, fat * 0.7)], fin)
    pen.ellipse(0.2, 0.0, 0.76, fat, color)
    if shape[2] < 0.65:
        for x in (-0.15, 0.2):
            pen.ellipse(x, 0.0, 0.075, fat * 0.86, shade(color, 1.75), inner=True)
    pen.ellipse(0.1, 0.14, 0.16, 0.09, fin, angle=20, inner=True)
    pen.disk(0.6, -0.12, 0.13, _WHITE, inner=True)
    pen.disk(0.63, -0.12, 0.07, _DARK, inner=True)


def bird(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Perching bird with a raised wing, looking right."""
    dark = shade(color, 0.62)
    for x in (-0.08, 0.16):
        pen.line((x, 0.5), (x + 0.04, 0.9), 0.05, (236, 140, 40))
    pen.polygon(
        [(-0.4, 0.1), (-0.98, 0.28 - 0.3 * shape[0]), (-0.94, 0.52 - 0.3 * shape[0]), (-0.3, 0.44)],
        dark,
    )
    pen.polygon([(0.74, -0.46), (0.74, -0.16), (0.99, -0.28)], (248, 160, 30))
    pen.ellipse(0.0, 0.2, 0.56, 0.42, color, angle=-18)
    pen.disk(0.48, -0.32, 0.34, color)
    pen.ellipse(0.2, 0.38, 0.3, 0.2, shade(color, 1.6), angle=-20, inner=True)
    raised = -10 + 40 * shape[1]
    pen.ellipse(-0.2, 0.02, 0.46, 0.2, dark, angle=raised, rim=True)
    if shape[2] < 0.4:
        pen.polygon([(0.3, -0.6), (0.5, -0.6), (0.24, -0.9)], dark)
    pen.disk(0.56, -0.4, 0.085, _WHITE, inner=True)
    pen.disk(0.58, -0.4, 0.055, _DARK, inner=True)


def butterfly(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Butterfly with spread wings seen from above."""
    upper = 0.38 + 0.08 * shape[0]
    lower = shade(color, 0.7) if shape[1] < 0.5 else shade(color, 1.4)
    for side in (-1.0, 1.0):
        pen.line((0.0, -0.5), (side * 0.22, -0.88), 0.035, _DARK)
        pen.ellipse(side * 0.4, 0.45, 0.32, 0.42, lower, angle=-side * 35, rim=True)
        pen.ellipse(side * 0.5, -0.24, 0.54, upper, color, angle=-side * 35, rim=True)
        pen.disk(side * 0.6, -0.32, 0.16, shade(color, 1.75), inner=True)
        pen.disk(side * 0.44, 0.52, 0.11 + 0.05 * shape[2], shade(color, 0.4), inner=True)
    pen.line((0.0, -0.45), (0.0, 0.55), 0.09, _DARK)


def flower(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Flower with five to eight petals on a stem."""
    petals = 5 + int(shape[0] * 4)
    pen.line((0.0, -0.2), (0.0, 0.94), 0.06, _LEAF)
    pen.ellipse(0.26, 0.6, 0.28, 0.12, _LEAF, angle=-35)
    if shape[1] < 0.7:
        pen.ellipse(-0.26, 0.72, 0.28, 0.12, _LEAF, angle=35)
    long, wide = 0.3, 1.15 / petals + 0.02
    for k in range(petals):
        a = 2 * math.pi * (k + shape[2]) / petals
        x, y = 0.33 * math.sin(a), -0.36 - 0.33 * math.cos(a)
        pen.ellipse(x, y, wide, long, color, angle=math.degrees(a), rim=True)
    center = (250, 200, 40) if color[2] > 90 or color[1] < 120 else (130, 74, 30)
    pen.disk(0.0, -0.36, 0.2, center, inner=True)


def mushroom(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Toadstool with a dotted cap."""
    stem = 0.2 + 0.08 * shape[0]
    height = 0.78 + 0.16 * shape[1]
    pen.polygon(
        [(-stem, 0.0), (stem, 0.0), (stem + 0.1, 0.92), (-stem - 0.1, 0.92)], (246, 234, 210)
    )
    pen.ellipse(0.0, 0.08, 0.62, 0.13, (222, 200, 168))
    pen.dome(0.0, 0.1, 0.94, height, color)
    spots = ((-0.5, -0.12, 0.13), (0.05, -0.4, 0.17), (0.55, -0.1, 0.12), (-0.02, -0.02, 0.09))
    for x, y, r in spots if shape[2] < 0.8 else spots[:3]:
        pen.disk(x, y, r, _WHITE, inner=True)


def cactus(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Column cactus with two arms."""
    rib = shade(color, 0.66)
    left, right = 0.3 - 0.35 * shape[0], 0.1 - 0.35 * shape[1]
    for side, y in ((-1.0, left), (1.0, right)):
        pen.line((0.0, y + 0.2), (side * 0.6, y + 0.2), 0.14, color)
        pen.line((side * 0.6, y + 0.2), (side * 0.6, y - 0.25), 0.14, color)
    pen.line((0.0, -0.7), (0.0, 0.74), 0.25, color)
    pen.box(0.0, 0.86, 0.25, 0.12, color)
    for x in (-0.11, 0.11):
        pen.line((x, -0.66), (x, 0.9), 0.03, rib, inner=True)
    if shape[2] < 0.4:
        pen.disk(0.0, -0.9, 0.12, (246, 90, 150))


def apple(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Apple with stalk and leaf."""
    wide = 0.5 + 0.06 * shape[0]
    pen.line((0.0, -0.4), (0.08, -0.86), 0.06, _TRUNK)
    pen.ellipse(0.38, -0.74, 0.28, 0.13, _LEAF, angle=-20 - 20 * shape[1])
    pen.ellipse(-0.3, 0.18, wide, 0.66, color, angle=6)
    pen.ellipse(0.3, 0.18, wide, 0.66, color, angle=-6)
    pen.ellipse(-0.42, -0.02, 0.13, 0.24, shade(color, 1.55), angle=20, inner=True)


def banana(pen: ShapePainter, color: Color, shape: tuple[float, float, float]) -> None:
    """Single curved banana."""
    spread = 58.0 + 10.0 * shape[0]
    thick = 0.21 + 0.06 * shape[1]
    arc = []
    for k in range(7):
        a = math.radians((k - 3) * spread / 3)
        arc.append((0.8 * math.sin(a), -0.42 + 0.8 * math.cos(a)))
    for k in range(6):
        taper = thick * (1.0, 0.93, 0.74)[abs(2 * k - 5) // 2]
        pen.line(arc[k], arc[k + 1], taper, color)
    for k in range(1, 5):
        pen.line(arc[k], arc[k + 1], 0.03, shade(color, 0.72), inner=True)
    x, y = arc[6]
    pen.line((x + 0.04, y - 0.1), (x + 0.07, y - 0.3), 0.09, (110, 80, 34))
    pen.disk(arc[0][0] - 0.02, arc[0][1] - 0.1, 0.09, (90, 64, 30))
