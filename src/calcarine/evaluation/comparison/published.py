"""Published scores with their protocol, test set and source."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from calcarine.errors import SettingError

__all__ = ["CONFIDENCE", "published_records", "published_systems"]

Record = dict[str, Any]
# How well a number is verified.
CONFIDENCE = {
    "secondary": "from the table of another paper or project",
    "unchecked": "not verified in the paper: do not cite",
    "low": "not verified in the paper, and doubtful: do not cite",
}
_FILE = Path(__file__).with_name("published.json")


@cache
def _systems() -> dict[str, dict[str, Any]]:
    return {entry["system"]: entry for entry in json.loads(_FILE.read_text(encoding="utf-8"))}


def published_systems() -> list[str]:
    """Return the names of the systems with published scores.

    Examples
    --------
    >>> from calcarine.evaluation import published_systems
    >>> [name for name in published_systems() if name.startswith("MindEye1")]
    ['MindEye1', 'MindEye1 (re-scored by MindEye2)']
    """
    return list(_systems())


def published_records(system: str) -> list[Record]:
    """Return the published scores of a system as records.

    Parameters
    ----------
    system : str
        One of `published_systems`; the case is ignored.

    Returns
    -------
    list of dict
        With method, role "method", metric, protocol (None if unknown), value, n, pool, test_set,
        source (the data), confidence (a key of `CONFIDENCE`) and note. Intervals and p are None.

    Raises
    ------
    CalcarineError
        If no system has this name.

    Examples
    --------
    >>> from calcarine.evaluation import published_records
    >>> record = published_records("MindEye1")[0]
    >>> record["metric"], record["value"], record["protocol"], record["test_set"]
    ('pixel correlation', 0.309, 'mindeye', 'nsd-982')
    """
    by_name = {name.lower(): entry for name, entry in _systems().items()}
    entry = by_name.get(system.lower())
    if entry is None:
        raise SettingError(
            f"There are no published scores of {system!r}; choose among "
            f"{'; '.join(published_systems())}."
        )
    sizes = {"nsd-982": 982, "nsd-1000": 1000, "god-50": 50}
    return [
        {
            "method": entry["system"],
            "role": "method",
            "metric": score["metric"],
            "protocol": entry["protocol"],
            "value": score["value"],
            "ci_low": None,
            "ci_high": None,
            "n": sizes.get(entry["test_set"]),
            "pool": score["pool"],
            "chance": None,
            "p": None,
            "null_mean": None,
            "null_sd": None,
            "higher_is_better": score.get("higher_is_better", True),
            "test_set": entry["test_set"],
            "data": None,
            "source": entry["data"],
            "confidence": score["confidence"],
            "note": entry["note"],
        }
        for score in entry["scores"]
    ]
