"""Names of the bundled judges, for modules that load no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["JUDGE_NAMES", "JUDGE_PICTURES", "judges_of", "without_judge"]

JUDGE_PICTURES = {"scenes": "the package's procedural scenes", "digits": "handwritten digits"}
"""What each bundled judge was trained on."""

JUDGE_NAMES = tuple(JUDGE_PICTURES)


def judges_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the judges that scores used, without duplicates.

    Parameters
    ----------
    records : iterable of mapping
        From the records of an `Evaluation`.

    Returns
    -------
    list of str
        Empty if no score used a judge, or none says which.
    """
    return list(dict.fromkeys(str(row["judge"]) for row in records if row.get("judge")))


def without_judge() -> str:
    """Return why metrics of a judge are left out, and how to ask for them."""
    options = ", ".join(f"--judge {name} for {what}" for name, what in JUDGE_PICTURES.items())
    return (
        "no judge is named: a judge is a classifier of one kind of picture; calcarine score takes "
        f"{options}, and --judge DIR for a network of your own (in Python judge=...)"
    )
