"""Integer labels of masks and atlases, also if a file stores them with rounding errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import DamagedFileError

__all__ = ["scaling_of", "whole_numbers"]

TOLERANCE = 1e-3
"""How far from a whole number a label may be."""


def scaling_of(image: Any) -> tuple[float, float] | None:
    """Return slope and intercept of an image that is stored as integers; None without them.

    Parameters
    ----------
    image : object
        An image of nibabel.
    """
    proxy = image.dataobj
    slope, inter = float(getattr(proxy, "slope", 1.0)), float(getattr(proxy, "inter", 0.0))
    if np.dtype(image.get_data_dtype()).kind not in "ui" or (slope, inter) == (1.0, 0.0):
        return None
    return slope, inter


def whole_numbers(
    values: NDArray[Any], path: Path, what: str, scaling: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Return labels rounded to whole numbers.

    A label image that was read as fractions and saved as integers again (nibabel then chooses a
    slope) holds 1.00003 for 1, and may hold 0.00001 for 0.

    Parameters
    ----------
    values : array
        Labels, of any shape, finite.
    path, what
        The file and its purpose, for the error.
    scaling : (float, float), optional
        Slope and intercept of the file; see `scaling_of`.

    Returns
    -------
    float64 array of the same shape
        Rounded where a value is within 0.001 of a whole number, or within
        half a step of the file's own scaling if that step is below 0.1.

    Raises
    ------
    CalcarineError
        If a value is no whole number.
    """
    numbers = np.asarray(values, dtype=np.float64)
    step = abs(scaling[0]) if scaling is not None else 0.0
    allowed = max(TOLERANCE, 0.51 * step) if step < 0.1 else TOLERANCE
    whole = np.rint(numbers)
    # A value that is not finite is no whole number either.
    with np.errstate(invalid="ignore"):
        off = np.abs(numbers - whole)
        wrong = ~(off <= allowed)
    if wrong.any():
        first = np.unravel_index(int(np.argmax(np.where(wrong, off, -1))), numbers.shape)
        place = ", ".join(str(int(index)) for index in first)
        kept = (
            f" (the file keeps integers with scl_slope {scaling[0]:g} and scl_inter {scaling[1]:g})"
            if scaling is not None
            else ""
        )
        raise DamagedFileError(
            f"The {what} {path} holds {numbers[first]:.6g} at ({place}), which is not a whole "
            f"number{kept}; {int(wrong.sum())} of {numbers.size} values are not: threshold a "
            "map of fractions to 0 and 1, and resample labels by nearest neighbour."
        )
    return whole
