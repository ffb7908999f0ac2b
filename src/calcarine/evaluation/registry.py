"""Registries: classes by name, from this package and from other installed packages."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["register_class"]

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
        raise ValueError(f"There are two {kind} with the name {name}.")
