"""Published scores, each with its protocol, its test set and how well it is attested."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from calcarine.errors import CalcarineError

Record = dict[str, Any]
# How a number came here: told by another paper's or project's table; not compared with the
# paper; or the same and doubtful.
CONFIDENCE = {
    "secondary": "from the table of another paper or project",
    "unchecked": "not compared with the paper: do not quote",
    "low": "not compared with the paper, and doubtful: do not quote",
}
_FILE = Path(__file__).with_name("published.json")


@cache
def _systems() -> dict[str, dict[str, Any]]:
    return {entry["system"]: entry for entry in json.loads(_FILE.read_text(encoding="utf-8"))}


def published_systems() -> list[str]:
    """Names of the systems with published scores."""
    return list(_systems())


def published_records(system: str) -> list[Record]:
    """Published scores as records.

    Parameters
    ----------
    system : str
        One of `published_systems`; upper and lower case are the same.

    Returns
    -------
    list of dict
        With method, role "method", metric, protocol (None where it is not known), value, n, pool,
        test_set, source (the data), confidence (a key of `CONFIDENCE`) and note; no interval and
        no p was published.

    Raises
    ------
    CalcarineError
        If there is no such system.
    """
    by_name = {name.lower(): entry for name, entry in _systems().items()}
    entry = by_name.get(system.lower())
    if entry is None:
        raise CalcarineError(
            f"there are no published scores of {system!r}: choose among "
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
            "higher_is_better": not score["metric"].endswith("distance"),
            "test_set": entry["test_set"],
            "data": None,
            "source": entry["data"],
            "confidence": score["confidence"],
            "note": entry["note"],
        }
        for score in entry["scores"]
    ]
