"""Vehicles and man-made objects, and the table of all object kinds.

Every painter draws inside the local square [-1, 1] x [-1, 1] (y down) and
gets the main colour and three shape numbers in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from calcarine.stimuli import _living as living
from calcarine.stimuli._drawing import Color, ShapePainter, shade

__all__ = ["CATALOG", "DARK", "GLASS", "RGB", "WHITE", "WOOD", "ObjectKind", "Painter", "Shape"]

Shape: TypeAlias = tuple[float, float, float]
Painter: TypeAlias = Callable[[ShapePainter, Color, Shape], None]

DARK: Color = (40.0, 40.0, 46.0)
WHITE: Color = (250.0, 250.0, 248.0)
GLASS: Color = (176.0, 220.0, 245.0)
WOOD: Color = (128.0, 82.0, 46.0)

RGB: dict[str, Color] = {
    "red": (214, 42, 40),
    "blue": (44, 96, 210),
    "green": (52, 160, 62),
    "yellow": (248, 210, 46),
    "orange": (244, 134, 32),
    "white": (244, 244, 240),
    "brown": (138, 86, 46),
    "grey": (142, 146, 152),
    "black": (52, 52, 58),
    "pink": (244, 134, 176),
    "purple": (136, 64, 176),
}
"""Typical value of each colour name, 0..255."""


@dataclass(frozen=True)
class ObjectKind:
    """An object kind: its painter, its supercategory and its colours."""

    painter: Painter
    supercategory: str
    colors: tuple[tuple[str, Color], ...]
    flies: bool = False
    mirrors: bool = True
    tilt: float = 8.0


def _pick(options: tuple[Color, ...], value: float) -> Color:
    return options[min(int(value * len(options)), len(options) - 1)]


def _house(pen: ShapePainter, color: Color, shape: Shape) -> None:
    eaves = -0.02 - 0.15 * shape[0]
    roof = _pick(((150, 52, 40), (84, 88, 100), (120, 74, 44)), shape[1])
    pen.box(0.48, -0.55, 0.12, 0.35, shade(roof, 0.75))
    pen.box(0.0, 0.45, 0.76, 0.53, color)
    pen.polygon([(-1.0, eaves), (0.0, -0.98), (1.0, eaves)], roof)
    door = -0.34 if shape[2] < 0.5 else 0.0
    pen.box(door, 0.66, 0.17, 0.32, (92, 54, 32), inner=True)
    for x in (0.34,) if door else (-0.48, 0.48):
        pen.box(x, 0.46, 0.2, 0.2, WHITE, inner=True)
        pen.box(x, 0.46, 0.14, 0.14, (90, 150, 205), inner=True)


def _car(pen: ShapePainter, color: Color, shape: Shape) -> None:
    top = -0.36 - 0.16 * shape[0]
    back = -0.62 + 0.14 * shape[1]
    pen.polygon([(back - 0.12, 0.05), (back + 0.14, top), (0.28, top), (0.62, 0.05)], color)
    pen.box(0.0, 0.22, 0.97, 0.25, color, radius=0.14)
    pen.polygon(
        [(back + 0.03, 0.02), (back + 0.2, top + 0.1), (-0.12, top + 0.1), (-0.12, 0.02)],
        GLASS,
        True,
    )
    pen.polygon([(0.0, 0.02), (0.0, top + 0.1), (0.24, top + 0.1), (0.46, 0.02)], GLASS, True)
    pen.disk(0.88, 0.16, 0.08, (255, 244, 170), inner=True)
    pen.box(0.0, 0.36, 0.95, 0.045, shade(color, 0.65), inner=True)
    for x in (-0.54, 0.54):
        pen.disk(x, 0.44, 0.24, DARK)
        pen.disk(x, 0.44, 0.11, (205, 208, 212), inner=True)


def _bus(pen: ShapePainter, color: Color, shape: Shape) -> None:
    count = 3 + int(shape[0] * 3)
    pen.box(0.0, -0.08, 0.98, 0.6, color, radius=0.1)
    width = 1.44 / count
    for k in range(count):
        pen.box(-0.88 + width * (k + 0.5), -0.32, width * 0.4, 0.2, GLASS, inner=True)
    pen.box(0.8, -0.04, 0.12, 0.48, GLASS, inner=True)
    stripe = WHITE if shape[1] < 0.5 else shade(color, 0.55)
    pen.box(-0.17, 0.1, 0.79, 0.06, stripe, inner=True)
    for x in (-0.56, 0.46):
        pen.disk(x, 0.52, 0.22, DARK)
        pen.disk(x, 0.52, 0.1, (205, 208, 212), inner=True)


def _boat(pen: ShapePainter, color: Color, shape: Shape) -> None:
    top = -0.98 + 0.22 * shape[0]
    cloth = _pick((WHITE, (255, 236, 190), (250, 214, 214)), shape[1])
    pen.line((0.0, top), (0.0, 0.5), 0.05, WOOD)
    pen.polygon([(0.09, top + 0.06), (0.09, 0.3), (0.78, 0.3)], cloth)
    pen.polygon([(-0.1, top + 0.2), (-0.1, 0.3), (-0.6 - 0.15 * shape[2], 0.3)], shade(cloth, 0.88))
    pen.polygon([(-0.98, 0.42), (0.98, 0.42), (0.64, 0.95), (-0.64, 0.95)], color)
    pen.box(0.0, 0.52, 0.86, 0.05, shade(color, 1.55), inner=True)


def _airplane(pen: ShapePainter, color: Color, shape: Shape) -> None:
    reach = 0.62 + 0.16 * shape[0]
    dark = shade(color, 0.72)
    pen.polygon([(0.24, -0.1), (-0.2, -0.1), (-0.5, -reach), (-0.24, -reach)], dark)
    pen.polygon([(-0.98, -0.58), (-0.74, -0.58), (-0.4, -0.08), (-0.86, -0.05)], dark)
    pen.line((-0.72, 0.02), (0.72, 0.02), 0.2, color)
    pen.ellipse(0.7, 0.02, 0.29, 0.2, color)
    pen.polygon([(0.68, -0.1), (0.9, -0.07), (0.92, 0.02), (0.68, 0.02)], (70, 130, 190), True)
    for x in (-0.45, -0.22, 0.01, 0.24, 0.47):
        pen.disk(x, -0.03, 0.06, (70, 130, 190), inner=True)
    pen.polygon(
        [(0.26, 0.08), (-0.2, 0.08), (-0.56, reach + 0.06), (-0.26, reach + 0.06)], dark, rim=True
    )


def _rocket(pen: ShapePainter, color: Color, shape: Shape) -> None:
    trim = _pick(((214, 42, 40), (250, 190, 40), (40, 80, 180)), shape[0])
    if max(abs(a - b) for a, b in zip(trim, color, strict=True)) < 80:
        trim = WHITE
    width = 0.27 + 0.07 * shape[1]
    pen.polygon([(-0.2, 0.5), (0.2, 0.5), (0.0, 0.98)], (255, 150, 30))
    pen.polygon([(-0.1, 0.5), (0.1, 0.5), (0.0, 0.8)], (255, 235, 110), inner=True)
    for side in (-1.0, 1.0):
        pen.polygon([(side * 0.2, 0.05), (side * 0.66, 0.6), (side * 0.2, 0.52)], trim)
    pen.dome(0.0, -0.3, width, 0.68, trim)
    pen.box(0.0, 0.12, width, 0.44, color, radius=0.04)
    pen.disk(0.0, -0.05, 0.17, shade(color, 0.5), inner=True)
    pen.disk(0.0, -0.05, 0.12, GLASS, inner=True)


def _cup(pen: ShapePainter, color: Color, shape: Shape) -> None:
    taper = 0.04 + 0.14 * shape[0]
    top = -0.4 - 0.12 * shape[1]
    pen.ring(0.56, 0.2, 0.3, 0.085, color)
    pen.polygon([(-0.8, top), (0.56, top), (0.56 - taper, 0.88), (-0.8 + taper, 0.88)], color)
    pen.ellipse(-0.12, top, 0.68, 0.16, shade(color, 1.5))
    pen.ellipse(-0.12, top + 0.01, 0.56, 0.1, (92, 52, 28), inner=True)
    if shape[2] < 0.5:
        pen.box(-0.12, 0.3, 0.63, 0.09, shade(color, 0.6), inner=True)
    else:
        pen.disk(-0.12, 0.3, 0.2, shade(color, 1.6), inner=True)


def _umbrella(pen: ShapePainter, color: Color, shape: Shape) -> None:
    height = 0.75 + 0.12 * shape[0]
    edge = -0.05
    pen.line((0.0, -0.95), (0.0, 0.74), 0.055, (88, 60, 40))
    for k in range(5):
        a = math.pi * k / 5
        pen.line(
            (0.13 - 0.13 * math.cos(a), 0.76 + 0.15 * math.sin(a)),
            (0.13 - 0.13 * math.cos(a + 0.63), 0.76 + 0.15 * math.sin(a + 0.63)),
            0.055,
            (88, 60, 40),
        )
    pen.dome(0.0, edge, 0.98, height, color)
    second = shade(color, 0.62) if shape[1] < 0.5 else shade(color, 1.7)
    pen.polygon([(0.0, edge - height), (-0.32, edge), (0.32, edge)], second, inner=True)
    for x in (-0.65, 0.0, 0.65):
        pen.ellipse(x, edge, 0.325, 0.09, second if x == 0.0 else color)


def _balloon(pen: ShapePainter, color: Color, shape: Shape) -> None:
    width = 0.52 + 0.1 * shape[0]
    bend = 0.12 if shape[1] < 0.5 else -0.12
    pen.line((0.0, 0.36), (bend, 0.64), 0.032, (235, 235, 235))
    pen.line((bend, 0.64), (-0.3 * bend, 0.96), 0.032, (235, 235, 235))
    pen.polygon([(0.0, 0.2), (0.13, 0.42), (-0.13, 0.42)], shade(color, 0.7))
    pen.ellipse(0.0, -0.32, width, 0.64, color)
    pen.ellipse(-0.2, -0.55, 0.1, 0.2, shade(color, 1.6), angle=25, inner=True)


def _clock(pen: ShapePainter, color: Color, shape: Shape) -> None:
    if shape[2] < 0.6:
        for side in (-1.0, 1.0):
            pen.ellipse(side * 0.52, -0.74, 0.3, 0.2, shade(color, 0.7), angle=side * 35)
            pen.line((side * 0.4, 0.6), (side * 0.6, 0.92), 0.08, shade(color, 0.6))
    pen.disk(0.0, 0.02, 0.84, color)
    pen.disk(0.0, 0.02, 0.62, (252, 250, 240), inner=True)
    for k in range(12):
        a = math.pi * k / 6
        pen.disk(
            0.5 * math.sin(a), 0.02 - 0.5 * math.cos(a), 0.04 if k % 3 else 0.07, DARK, inner=True
        )
    for turn, length, width in ((shape[0], 0.3, 0.07), (shape[1], 0.44, 0.05)):
        a = 2 * math.pi * turn
        pen.line(
            (0.0, 0.02),
            (length * math.sin(a), 0.02 - length * math.cos(a)),
            width,
            DARK,
            inner=True,
        )


def _lamp(pen: ShapePainter, color: Color, shape: Shape) -> None:
    foot = _pick(((70, 60, 56), (190, 150, 70), (150, 156, 164)), shape[0])
    top = 0.26 + 0.18 * shape[1]
    pen.disk(0.0, 0.02, 0.16, (255, 250, 190))
    pen.line((0.0, 0.0), (0.0, 0.85), 0.07, foot)
    if shape[2] < 0.5:
        pen.disk(0.0, 0.5, 0.17, foot)
    pen.dome(0.0, 0.96, 0.46, 0.2, foot)
    pen.polygon([(-top, -0.95), (top, -0.95), (0.72, 0.0), (-0.72, 0.0)], color)
    pen.polygon(
        [(-0.7, -0.1), (0.7, -0.1), (0.74, 0.0), (-0.74, 0.0)], shade(color, 1.55), inner=True
    )


def _chair(pen: ShapePainter, color: Color, shape: Shape) -> None:
    dark = shade(color, 0.62)
    for x, foot in ((-0.34, -0.26), (0.66, 0.76)):
        pen.line((x, 0.1), (foot - 0.02, 0.72), 0.07, dark)
    pen.line((-0.56, -0.9), (-0.46, 0.2), 0.1, color)
    pen.line((-0.46, 0.2), (-0.6, 0.9), 0.09, color)
    pen.line((0.44, 0.2), (0.54, 0.9), 0.09, color)
    pen.box(0.06, 0.14, 0.62, 0.11, color, radius=0.05)
    if shape[0] < 0.5:
        pen.box(0.06, 0.0, 0.52, 0.09, shade(color, 1.5), radius=0.08)


def _snowman(pen: ShapePainter, color: Color, shape: Shape) -> None:
    scarf = _pick(((214, 42, 40), (44, 96, 210), (52, 160, 62), (136, 64, 176)), shape[0])
    for side in (-1.0, 1.0):
        pen.line((side * 0.3, 0.05), (side * 0.86, -0.2 - 0.2 * shape[1]), 0.04, (96, 62, 36))
    pen.disk(0.0, 0.5, 0.48, color)
    pen.disk(0.0, -0.02, 0.36, color, rim=True)
    pen.disk(0.0, -0.42, 0.29, color, rim=True)
    pen.box(0.0, -0.2, 0.27, 0.075, scarf, radius=0.05, inner=True)
    pen.box(0.17, -0.03, 0.07, 0.16, scarf, inner=True)
    if shape[2] < 0.7:
        pen.box(0.0, -0.66, 0.36, 0.05, DARK)
        pen.box(0.0, -0.82, 0.21, 0.16, DARK)
    else:
        pen.dome(0.0, -0.56, 0.29, 0.4, scarf)
    for x in (-0.1, 0.1):
        pen.disk(x, -0.48, 0.05, DARK, inner=True)
    pen.polygon([(0.0, -0.44), (0.0, -0.34), (0.26, -0.37)], (244, 120, 20), inner=True)
    for y in (0.08, 0.4, 0.62):
        pen.disk(0.0, y, 0.055, DARK, inner=True)


def _colors(names: str, **special: Color) -> tuple[tuple[str, Color], ...]:
    return tuple((name, special.get(name, RGB[name])) for name in names.split())


CATALOG: dict[str, ObjectKind] = {
    "house": ObjectKind(
        _house,
        "building",
        _colors("white yellow red blue", red=(196, 88, 70), blue=(110, 160, 220)),
        tilt=3,
    ),
    "tree": ObjectKind(living.tree, "plant", _colors("green orange yellow red"), tilt=5),
    "car": ObjectKind(_car, "vehicle", _colors("red blue yellow green white")),
    "bus": ObjectKind(_bus, "vehicle", _colors("red yellow blue green orange")),
    "boat": ObjectKind(_boat, "vehicle", _colors("red blue brown green white")),
    "airplane": ObjectKind(_airplane, "vehicle", _colors("white grey blue red"), True, tilt=15),
    "rocket": ObjectKind(_rocket, "vehicle", _colors("white red grey blue"), True, tilt=15),
    "cat": ObjectKind(living.cat, "animal", _colors("orange grey black white"), tilt=5),
    "dog": ObjectKind(
        living.dog, "animal", _colors("brown white black yellow", yellow=(226, 186, 110)), tilt=5
    ),
    "fish": ObjectKind(living.fish, "animal", _colors("orange blue red yellow purple"), tilt=15),
    "bird": ObjectKind(
        living.bird, "animal", _colors("blue red yellow green white"), True, tilt=10
    ),
    "butterfly": ObjectKind(
        living.butterfly, "animal", _colors("orange blue purple yellow pink"), True, tilt=15
    ),
    "flower": ObjectKind(living.flower, "plant", _colors("red yellow pink purple white"), tilt=8),
    "mushroom": ObjectKind(living.mushroom, "plant", _colors("red brown orange purple"), tilt=8),
    "cactus": ObjectKind(
        living.cactus,
        "plant",
        _colors("green yellow blue", yellow=(178, 190, 62), blue=(70, 150, 150)),
        tilt=4,
    ),
    "apple": ObjectKind(
        living.apple, "food", _colors("red green yellow", green=(122, 190, 52)), tilt=15
    ),
    "banana": ObjectKind(
        living.banana,
        "food",
        _colors("yellow green brown", green=(150, 200, 60), brown=(176, 122, 58)),
        tilt=15,
    ),
    "cup": ObjectKind(_cup, "thing", _colors("white red blue green yellow"), tilt=5),
    "umbrella": ObjectKind(_umbrella, "thing", _colors("red blue purple yellow pink"), tilt=15),
    "balloon": ObjectKind(_balloon, "thing", _colors("red blue yellow green pink"), True),
    "clock": ObjectKind(_clock, "furniture", _colors("red blue brown black green"), mirrors=False),
    "lamp": ObjectKind(_lamp, "furniture", _colors("yellow red green blue orange"), tilt=4),
    "chair": ObjectKind(_chair, "furniture", _colors("brown red blue white"), tilt=5),
    "snowman": ObjectKind(
        _snowman,
        "thing",
        _colors("white grey blue", grey=(204, 208, 214), blue=(190, 218, 248)),
        tilt=5,
    ),
}
"""All object kinds in the order of their class indices."""
