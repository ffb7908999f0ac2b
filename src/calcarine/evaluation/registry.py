"""Registries: classes by name, from this package and from other installed packages."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from calcarine.errors import CalcarineError

__all__ = ["load_entry_points", "register_class"]

_T = TypeVar("_T")


def register_class(registry: dict[str, type[_T]], kind: str, name: str, entry: type[_T]) -> None:
    """Add a class to a registry.

    Parameters
    ----------
    registry : dict of str to class
    kind : str
        What the entries are, for example "metrics".
    name : str
    entry : class
        Registering the same class again changes nothing.

    Raises
    ------
    ValueError
        If another class has this name.
    """
    if registry.setdefault(name, entry) is not entry:
        raise ValueError(f"there are two {kind} of the name {name}")


@cache
def load_entry_points(group: str) -> tuple[str, ...]:
    """Import what other packages add to a registry.

    Parameters
    ----------
    group : str
        "calcarine.metrics", "calcarine.protocols" or "calcarine.audit_checks". Each entry point
        names a class that is registered when its module is imported.

    Returns
    -------
    tuple of str
        Names of the entry points.

    Raises
    ------
    CalcarineError
        If an entry point cannot be imported.
    """
    names = []
    for point in entry_points(group=group):
        try:
            point.load()
        except Exception as error:  # modules of other packages may raise anything
            raise CalcarineError(
                f"The entry point {point.name!r} ({point.value}) of the group {group} cannot be "
                f"imported ({type(error).__name__}: {error}); update or uninstall its package."
            ) from error
        names.append(point.name)
    return tuple(names)
