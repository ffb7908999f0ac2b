"""Registers: classes that are known under a name."""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T")


def enter(register: dict[str, type[_T]], kind: str, name: str, entry: type[_T]) -> None:
    """Make a class known under its name.

    Parameters
    ----------
    register : dict of str to class
    kind : str
        What the entries are, such as "metrics".
    name : str
    entry : class
        Entering the same one again changes nothing.

    Raises
    ------
    ValueError
        If another entry has the name.
    """
    if register.setdefault(name, entry) is not entry:
        raise ValueError(f"there are two {kind} of the name {name}")
