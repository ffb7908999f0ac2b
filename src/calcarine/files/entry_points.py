"""Loading what other installed packages register under an entry-point group."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

__all__ = ["load_entry_points"]


@cache
def load_entry_points(group: str) -> dict[str, Any]:
    """Load the objects that other packages register under a group.

    A package registers an object in its ``pyproject.toml``::

        [project.entry-points."calcarine.datasets"]
        mylab = "mylab_data.reader"

    Parameters
    ----------
    group : str
        For example ``"calcarine.datasets"``.

    Returns
    -------
    dict of str to object
        The loaded objects by the names of their entry points, sorted by name. A group is loaded
        once a process; call ``load_entry_points.cache_clear()`` after installing a package.

    Warns
    -----
    UserWarning
        If an entry point cannot be loaded, or two have the same name. The others are loaded all
        the same.
    """
    loaded: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        if point.name in loaded:
            warnings.warn(
                f"{_origin(point)} registers {point.name!r} under {group}, and another package "
                "registers the same name, which is used; uninstall one of them.",
                UserWarning,
                stacklevel=2,
            )
            continue
        try:
            loaded[point.name] = point.load()
        except Exception as error:  # another package may fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(
                f"{_origin(point)} registers {point.name!r} under {group}, and it cannot be loaded "
                f"({type(error).__name__}: {reason}); update or uninstall that package.",
                UserWarning,
                stacklevel=2,
            )
    return loaded


def _origin(point: EntryPoint) -> str:
    """Return the package of an entry point, for messages."""
    package = point.dist.name if point.dist is not None else "an unknown package"
    return f"The package {package}"
