"""Five captions of a scene in different words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from calcarine.stimuli._scene import Scene, SceneObject

__all__ = ["MAX_WORDS", "SYNONYMS", "captions"]

MAX_WORDS = 20
"""Largest number of words in a caption."""

SYNONYMS: dict[str, str] = {
    "airplane": "plane",
    "boat": "ship",
    "cup": "mug",
    "rocket": "spaceship",
}
"""Other names of a few kinds."""

_PLACES: dict[str, tuple[str, str]] = {
    "meadow": ("on a meadow", "in a green field"),
    "beach": ("at the beach", "on the sand by the water"),
    "sea": ("on the sea", "above the blue water"),
    "desert": ("in the desert", "in the hot desert"),
    "snow": ("in the snow", "in front of snowy mountains"),
    "night": ("at night", "under the stars"),
    "room": ("in a room", "inside a room with a window"),
    "sunset": ("at sunset", "in front of the setting sun"),
}
_SETTINGS: dict[str, tuple[str, str]] = {
    "meadow": ("a meadow with", "a green field with"),
    "beach": ("a beach with", "a beach scene with"),
    "sea": ("the sea with", "a sea scene with"),
    "desert": ("a desert with", "a desert scene with"),
    "snow": ("a snowy scene with", "a winter scene with"),
    "night": ("a night scene with", "a dark night sky with"),
    "room": ("a room with", "a view of a room with"),
    "sunset": ("a sunset with", "an evening scene with"),
}
_MEDIA = ("a picture of", "a drawing of", "an image of")


def captions(scene: Scene) -> tuple[str, ...]:
    """Write five captions; see `calcarine.stimuli.scenes.captions`."""
    rng = np.random.default_rng(np.random.SeedSequence([scene.seed, scene.index, 5]))
    by_size = sorted(scene.objects, key=lambda item: -item.size)
    by_column = sorted(scene.objects, key=lambda item: item.x)
    return (
        _colored(by_size, scene.background, rng),
        _there_is(by_size[::-1], scene.background, rng),
        _picture_of(by_size, scene.background, rng),
        _positions(by_column, scene.background, rng),
        _setting(by_column[::-1], scene.background, rng),
    )


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _name(item: SceneObject, rng: np.random.Generator) -> str:
    return SYNONYMS[item.kind] if item.kind in SYNONYMS and rng.random() < 0.4 else item.kind


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _size_word(item: SceneObject) -> str:
    if item.size < 0.36:
        return "small "
    return "big " if item.size > 0.5 else ""


def _noun(item: SceneObject, rng: np.random.Generator, color: bool, size: bool) -> str:
    words = _size_word(item) if size else ""
    words += f"{item.color_name} " if color else ""
    return _with_article(words + _name(item, rng))


def _fit(core: str, *endings: str) -> str:
    """Append the first ending that keeps the caption short enough."""
    for ending in endings:
        if len(core.split()) + len(ending.split()) <= MAX_WORDS:
            return f"{core} {ending}"
    return core


def _place(background: str, rng: np.random.Generator) -> tuple[str, str]:
    short, long = _PLACES[background]
    return (long, short) if rng.random() < 0.5 else (short, short)


def _colored(items: list[SceneObject], background: str, rng: np.random.Generator) -> str:
    colored = len(items) if len(items) < 4 else 2
    nouns = [_noun(item, rng, k < colored, False) for k, item in enumerate(items)]
    return _fit(" and ".join(nouns), *_place(background, rng))


def _there_is(items: list[SceneObject], background: str, rng: np.random.Generator) -> str:
    nouns = [_noun(item, rng, False, len(items) < 3) for item in items]
    joint = _pick(rng, (" next to ", " and ", " with ")) if len(items) > 1 else ""
    text = nouns[0] + joint + " and ".join(nouns[1:])
    return _fit(f"there is {text}", *_place(background, rng))


def _picture_of(items: list[SceneObject], background: str, rng: np.random.Generator) -> str:
    rich = len(items) < 3
    nouns = [_noun(item, rng, rich, rich) for item in items]
    text = f"{_pick(rng, _MEDIA)} {' and '.join(nouns)}"
    return _fit(text, *_place(background, rng)) if rng.random() < 0.5 else text


def _where(item: SceneObject) -> str:
    if item.x < 0.4:
        return "on the left"
    if item.x > 0.6:
        return "on the right"
    if item.y < 0.36:
        return "at the top"
    return "at the bottom" if item.y > 0.64 else "in the middle"


def _positions(items: list[SceneObject], background: str, rng: np.random.Generator) -> str:
    located = len(items) if len(items) < 4 else 2
    color = len(items) == 1
    parts = []
    for k, item in enumerate(items):
        noun = _noun(item, rng, color, False)
        parts.append(f"{noun} {_where(item)}" if k < located else noun)
    text = " and ".join(parts)
    return _fit(text, _PLACES[background][0]) if len(items) < 3 else text


def _setting(items: list[SceneObject], background: str, rng: np.random.Generator) -> str:
    color = len(items) < 3 and rng.random() < 0.6
    nouns = [_noun(item, rng, color, False) for item in items]
    return f"{_pick(rng, _SETTINGS[background])} {' and '.join(nouns)}"
