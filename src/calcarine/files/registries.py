"""Registries: objects by name, from this package and from other installed packages."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from calcarine.errors import SettingError, did_you_mean

__all__ = ["find_entry", "load_entry_points", "register_entry"]

_T = TypeVar("_T")


def register_entry(registry: dict[str, Any], kind: str, name: str, entry: object) -> None:
    """Add an object to a registry.

    Parameters
    ----------
    registry : dict of str to object
    kind : str
        What the entries are, for example "metrics".
    name : str
    entry : object
        Registering the same object again changes nothing.

    Raises
    ------
    SettingError
        If another object has this name.
    """
    if registry.setdefault(name, entry) is not entry:
        raise SettingError(f"There are two {kind} with the name {name}.")


def find_entry(registry: Mapping[str, _T], kind: str, name: str) -> _T:
    """Return the object of a name.

    Raises
    ------
    SettingError
        If there is none; the message lists the names and suggests the most similar one.
    """
    if name not in registry:
        known = ", ".join(sorted(registry))
        raise SettingError(
            f"There is no {kind} {name!r}; choose one of {known}.{did_you_mean(name, registry)}"
        )
    return registry[name]


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
