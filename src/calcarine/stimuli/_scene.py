"""The description of a scene, from which it is drawn and captioned."""

from __future__ import annotations

from dataclasses import dataclass

from calcarine.stimuli._drawing import Color

__all__ = ["Scene", "SceneObject"]


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    color : Color
        Main colour, RGB in 0..255.
    color_name : str
        Name of the main colour.
    x, y : float
        Centre, in picture widths from the top left corner.
    size : float
        Longer side, in picture widths.
    mirror : bool
        Whether left and right are swapped.
    rotation : float
        Clockwise rotation in degrees.
    shape : (float, float, float)
        Three numbers in [0, 1) whose meaning depends on the kind.
    depth : int
        0 for the rearmost object; objects are drawn in this order.
    """

    kind: str
    color: Color
    color_name: str
    x: float
    y: float
    size: float
    mirror: bool
    rotation: float
    shape: tuple[float, float, float]
    depth: int


@dataclass(frozen=True)
class Scene:
    """Complete description of a picture.

    Attributes
    ----------
    seed, index : int
        Name of the picture.
    background : str
        One of `BACKGROUNDS`.
    params : tuple of float
        Numbers in [0, 1) that decide about the details of the background.
    objects : tuple of SceneObject
        From the rearmost to the frontmost.
    """

    seed: int
    index: int
    background: str
    params: tuple[float, ...]
    objects: tuple[SceneObject, ...]
