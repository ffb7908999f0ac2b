"""Find protocols by name, among those of this package and of other installed packages."""

from __future__ import annotations

import calcarine.evaluation.protocols.definitions  # noqa: F401 (registers the protocols)
from calcarine.evaluation.protocols.protocol import PROTOCOLS, Protocol
from calcarine.files.registries import find_entry, load_entry_points

__all__ = ["ENTRY_POINTS", "find_protocol", "list_protocols"]

ENTRY_POINTS = "calcarine.protocols"
"""Group under which other packages register protocols."""


def list_protocols() -> list[str]:
    """Return the names of all protocols, sorted, with those of other installed packages.

    Examples
    --------
    >>> from calcarine.evaluation import list_protocols
    >>> list_protocols()[:3]
    ['brain-diffuser', 'calcarine', 'mind-vis']
    """
    load_entry_points(ENTRY_POINTS)
    return sorted(PROTOCOLS)


def find_protocol(name: str) -> type[Protocol]:
    """Return the protocol of a name.

    Parameters
    ----------
    name : str
        One of `list_protocols`.

    Returns
    -------
    type of Protocol

    Raises
    ------
    SettingError
        If no protocol has this name.

    Examples
    --------
    >>> find_protocol("mindeye").title
    'MindEye and MindEye2 (Scotti et al. 2023, 2024)'
    """
    load_entry_points(ENTRY_POINTS)
    return find_entry(PROTOCOLS, "protocol", name)
