"""Choosing voxels by the names of regions, also of several regions joined by ``+``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError, did_you_mean

__all__ = ["region_mask", "region_names", "unknown_region"]


def region_names(text: str) -> list[str]:
    """Split ``"early+ventral"`` into the names of its regions.

    Examples
    --------
    >>> region_names("early + ventral")
    ['early', 'ventral']
    """
    return [part.strip() for part in str(text).split("+")]


def region_mask(
    text: str, rois: Mapping[str, NDArray[np.bool_]], n_voxels: int, who: str
) -> NDArray[np.bool_]:
    """Return the voxels of a region.

    Parameters
    ----------
    text : str
        A region, ``"all"``, or several joined by ``+``.
    rois : mapping of str to bool array of shape (voxel,)
        The regions.
    n_voxels : int
        Number of voxels.
    who : str
        Begins the message of an error.

    Returns
    -------
    bool array of shape (voxel,)
        A new array.

    Raises
    ------
    SettingError
        If a region does not exist or has no voxels.
    """
    mask = np.zeros(n_voxels, dtype=np.bool_)
    for name in region_names(text):
        if name in rois:
            mask |= rois[name]
        elif name == "all":
            mask[:] = True
        else:
            raise unknown_region(name, ["all", *rois], who, "region")
    if not mask.any():
        raise SettingError(f"{who}: region {text} has no voxels; choose another.")
    return mask


def unknown_region(name: str, known: Iterable[str], who: str, what: str) -> SettingError:
    """Return the error for a region that does not exist.

    Parameters
    ----------
    name : str
        As it was given.
    known : iterable of str
        The regions that exist.
    who, what : str
        Whose regions, and what they are called there: region or mask.
    """
    names = list(dict.fromkeys(known))
    single = [each for each in names if each != "all"]
    joined = f" (join several with +, as {'+'.join(single[:2])})" if len(single) > 1 else ""
    return SettingError(
        f"{who} has no {what} {name or 'of an empty name'}; it has {', '.join(names)}{joined}."
        + did_you_mean(name, names)
    )
