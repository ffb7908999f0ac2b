"""Stacks of pictures from arrays or files, read on access, and test sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError, ShapeError
from calcarine.evaluation.inputs.array_files import as_array
from calcarine.stimuli.image_files import read_picture

__all__ = ["ImageStack", "TestSet", "as_uint8", "from_array", "from_files"]

Picture = NDArray[Any]
_CHANNELS = (1, 3)


class ImageStack:
    """A stack of n pictures with the same number of samples each.

    Parameters
    ----------
    n, samples : int
        Number of pictures, and of samples of each picture.
    read : callable
        Called with (image, sample); returns a uint8 or float (in [0, 1]) array of shape
        (height, width, 3).

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import ImageStack
    >>> pictures = np.zeros((4, 2, 8, 8, 3), np.uint8)  # two samples of four pictures
    >>> stack = ImageStack(4, 2, lambda i, sample: pictures[i, sample])
    >>> len(stack), stack.samples, stack.read(3, 1).shape
    (4, 2, (8, 8, 3))
    """

    def __init__(self, n: int, samples: int, read: Callable[[int, int], Picture]) -> None:
        self.n, self.samples, self.read = n, samples, read

    def __len__(self) -> int:
        return self.n

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each picture (first sample) as 8-bit RGB, independent of the file format."""
        return tuple(self._digest(i) for i in range(self.n))

    def _digest(self, i: int) -> str:
        picture = np.ascontiguousarray(as_uint8(self.read(i, 0)))
        head = f"{picture.dtype} {picture.shape}".encode()
        return hashlib.sha256(head + picture.tobytes()).hexdigest()

    def digest(self) -> str:
        """Return the SHA-256 of all pictures in any order, which identifies a test set."""
        each = sorted(bytes.fromhex(digest) for digest in self.digests)
        return hashlib.sha256(b"".join(each)).hexdigest()


def from_array(images: Any, what: str) -> ImageStack:
    """Make a stack from an array or tensor.

    Parameters
    ----------
    images : array of shape (n, height, width, 3), (n, 3, height, width) or (n, height, width)
        uint8, uint16, or floats in [0, 1]. Grey pictures can have 1 instead of 3 channels. With
        samples, the shape is (n, samples, height, width, 3) or (n, samples, 3, height, width).
    what : str
        Description for error messages, such as "ground truths".

    Returns
    -------
    ImageStack

    Raises
    ------
    CalcarineError
        If the array has another shape or type or values outside [0, 1], or if it is ambiguous
        which axis is the channel.
    """
    array = as_array(images, what)
    first = _channels_first(array.shape, what)
    _check_values(array, what)
    samples = array.shape[1] if array.ndim == 5 else 1

    def read(i: int, s: int) -> Picture:
        picture = array[i, s] if array.ndim == 5 else array[i]
        if picture.ndim == 2:
            picture = picture[..., None]
        elif first:
            picture = np.moveaxis(picture, 0, -1)
        picture = _levels(picture)
        return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture

    return ImageStack(len(array), samples, read)


def from_files(files: Sequence[Sequence[Path]]) -> ImageStack:
    """Make a stack from files: a list of samples for each picture, read on access."""
    return ImageStack(len(files), len(files[0]), lambda i, s: read_picture(files[i][s]))


def _channels_first(shape: tuple[int, ...], what: str) -> bool:
    """Return whether the channel axis comes before height and width."""
    if len(shape) == 3 and 0 not in shape:
        return False
    first = len(shape) in (4, 5) and shape[-3] in _CHANNELS
    last = len(shape) in (4, 5) and shape[-1] in _CHANNELS
    if (not first and not last) or 0 in shape:
        raise ShapeError(
            f"The {what} have shape {shape}; give (n, height, width, 3) or (n, 3, height, width), "
            "or with several samples (n, samples, height, width, 3) or "
            "(n, samples, 3, height, width)."
        )
    if first and last:
        raise ShapeError(
            f"The {what} have shape {shape}, so the channel axis can be that of {shape[-3]} "
            f"before the pixels or that of {shape[-1]} after them; save them as a folder of "
            "picture files."
        )
    return first


def _check_values(array: NDArray[Any], what: str) -> None:
    if array.dtype in (np.uint8, np.bool_):
        return
    low, high = _range(array, what) if array.dtype.kind in "uif" else (np.nan, np.nan)
    # 16-bit values up to 255 are most likely 8-bit values.
    if array.dtype == np.uint16 and (high > 255 or high == 0):
        return
    if array.dtype.kind != "f" or low < 0 or high > 1:
        between = f" from {low:g} to {high:g}" if low <= high else ""
        raise SettingError(
            f"The {what} are {array.dtype}{between}; give uint8, or floats in [0, 1]."
        )


def _range(array: NDArray[Any], what: str) -> tuple[float, float]:
    """Return the smallest and largest value, reading one picture at a time to save memory."""
    low, high = np.inf, -np.inf
    for picture in array:
        least, most = float(np.min(picture)), float(np.max(picture))
        if not np.isfinite([least, most]).all():
            raise ShapeError(
                f"The {what} have values that are not finite; give finite values only."
            )
        low, high = min(low, least), max(high, most)
    return low, high


def _levels(picture: Picture) -> Picture:
    """Convert to uint8 or at least float32, with the same scaling as picture files."""
    if picture.dtype == np.uint16:
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype == np.bool_:
        return picture.astype(np.uint8) * 255
    if picture.dtype == np.float16:
        return picture.astype(np.float32)
    return np.asarray(picture)


def as_uint8(picture: Picture) -> NDArray[np.uint8]:
    """Convert a picture to uint8; floats in [0, 1] are scaled and rounded."""
    if picture.dtype == np.uint8:
        return picture
    if not np.isfinite(picture).all():  # they would become black
        raise ShapeError(
            "A picture has values that are not finite; compute it again, in float32 if it was "
            "computed in float16."
        )
    return np.asarray(np.rint(np.clip(picture, 0, 1) * 255), np.uint8)


@dataclass(frozen=True)
class TestSet:
    """The ground truths of a test set with their ids.

    Parameters
    ----------
    truth : ImageStack
    ids : sequence of str
    name : str, optional
        Name of the test set, for example "nsd-982".

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.evaluation import ImageStack, TestSet
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(3))
    >>> stack = ImageStack(3, 1, lambda i, sample: seen.image(seen.ids[i]))
    >>> test = TestSet(stack, seen.ids, name="three scenes")
    >>> len(test.truth), test.name
    (3, 'three scenes')
    """

    __test__ = False

    truth: ImageStack
    ids: Sequence[str]
    name: str | None = None
