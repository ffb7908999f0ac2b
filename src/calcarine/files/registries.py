"""Registries: objects by name, from this package and from other installed packages."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from calcarine.errors import SettingError, did_you_mean

__all__ = ["find_entry", "is_redefined", "load_entry_points", "register_entry"]

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
        It takes the place of an earlier definition of itself; see `is_redefined`.

    Raises
    ------
    SettingError
        If another object has this name.
    """
    if name in registry and not is_redefined(registry[name], entry):
        raise SettingError(f"There are two {kind} with the name {name}.")
    registry[name] = entry


def is_redefined(known: object, entry: object) -> bool:
    """Return whether two objects are one, or one class or function that was defined again.

    A cell of a notebook that is run again defines its classes and functions anew, as reloading a
    module does.
    """
    return known is entry or _definition(known) == _definition(entry) is not None


def _definition(entry: object) -> tuple[str, str] | None:
    """Return where a class or function is defined; None for what has no name of its own."""
    module, name = getattr(entry, "__module__", None), getattr(entry, "__qualname__", None)
    return None if module is None or name is None or "<lambda>" in name else (module, name)


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
