"""Pictures of a test set, from arrays or files, read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.stimuli.pictures import read_picture

Picture = NDArray[Any]


class Pictures:
    """n pictures with the same number of samples each.

    Parameters
    ----------
    n, samples : int
    read : callable
        Called with (image, sample); gives a uint8 or float (in [0, 1]) array of shape
        (height, width, 3).
    """

    def __init__(self, n: int, samples: int, read: Callable[[int, int], Picture]) -> None:
        self.n, self.samples, self.read = n, samples, read

    def __len__(self) -> int:
        return self.n

    def digest(self) -> str:
        """SHA-256 of all pictures, whatever their order: the identity of a test set."""
        each = []
        for i in range(self.n):
            picture = np.ascontiguousarray(self.read(i, 0))
            head = f"{picture.dtype} {picture.shape}".encode()
            each.append(hashlib.sha256(head + picture.tobytes()).digest())
        return hashlib.sha256(b"".join(sorted(each))).hexdigest()


def from_array(images: NDArray[Any], what: str) -> Pictures:
    """Pictures of an array.

    Parameters
    ----------
    images : uint8 or float array of shape (n, height, width, 3) or (n, samples, height, width, 3)
        Floats lie in [0, 1].
    what : str
        Name for errors, such as "ground truths".

    Returns
    -------
    Pictures

    Raises
    ------
    CalcarineError
        If the array has another shape or type, or values outside [0, 1].
    """
    images = np.asarray(images)
    if images.ndim == 4:
        images = images[:, None]
    if images.ndim != 5 or images.shape[-1] != 3 or not images.size:
        raise CalcarineError(
            f"the {what} have shape {images.shape}: give (n, height, width, 3), or "
            "(n, samples, height, width, 3)."
        )
    if images.dtype != np.uint8:
        inside = images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1
        if not inside:
            raise CalcarineError(
                f"the {what} are {images.dtype} with values outside [0, 1] or of a wrong type: "
                "give uint8, or floats in [0, 1]."
            )
    return Pictures(len(images), images.shape[1], lambda i, s: images[i, s])


def from_files(files: Sequence[Sequence[Path]]) -> Pictures:
    """Pictures of files, one list of samples each; a file is opened when it is needed."""
    return Pictures(len(files), len(files[0]), lambda i, s: read_picture(files[i][s]))
