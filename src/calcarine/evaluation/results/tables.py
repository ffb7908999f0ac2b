"""Scores as tables for reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from calcarine.evaluation.networks.judge_names import judges_of
from calcarine.evaluation.statistics.significance import ALPHA, required_size

__all__ = [
    "HEADINGS",
    "cells",
    "conclusion",
    "number",
    "p_text",
    "sample_size_note",
    "tables",
    "verdict",
]

Record = dict[str, Any]
HEADINGS = ("metric", "score", "95 % over images", "chance", "shuffled", "n", "pool", "verdict")


def number(value: float | None, digits: int = 3) -> str:
    """Format a number; a missing one is a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def p_text(p: float) -> str:
    """Format a p-value."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def verdict(record: Record) -> str:
    """Return in words whether a score is better than that of a shuffled brain.

    Parameters
    ----------
    record : dict
        From the records of an `Evaluation`.

    Returns
    -------
    str
    """
    p = record.get("p_holm")
    if p is None:
        if record["ci_low"] is None:
            return "not tested (one value for the whole set)"
        return "not tested"
    if p <= ALPHA:
        return f"better than a shuffled brain, {p_text(p)}"
    if _cannot_be_significant(record):
        return f"inconclusive: perfect reconstructions would get p = {record['p_holm_min']:.2g}"
    return f"not significantly better than a shuffled brain, {p_text(p)}"


def cells(record: Record) -> tuple[str, ...]:
    """Return one table row under `HEADINGS`."""
    low, high = record["ci_low"], record["ci_high"]
    better = "" if record["higher_is_better"] else " (lower is better)"
    pool = "–" if record["pool"] is None else str(record["pool"])
    return (
        record["metric"] + better,
        number(record["value"]),
        "–" if low is None else f"{number(low)} to {number(high)}",
        number(record["chance"]),
        number(record["null_mean"]),
        str(record["n"]),
        pool,
        verdict(record),
    )


def conclusion(records: Iterable[Record]) -> str | None:
    """Return a sentence if no score of a method is better than a shuffled brain, else None.

    If not even perfect reconstructions could have been significant, the sentence says so;
    `sample_size_note` gives the numbers.
    """
    tested = [record for record in records if record.get("p_holm") is not None]
    if not tested or any(record["p_holm"] <= ALPHA for record in tested):
        return None
    method = tested[0]["method"]
    if all(_cannot_be_significant(record) for record in tested):
        return (
            f"{method}: inconclusive; even perfect reconstructions could not be significantly "
            "better than a shuffled brain."
        )
    return (
        f"{method}: no score is significantly better than a shuffled brain; these reconstructions "
        "are no evidence of decoding."
    )


def sample_size_note(records: Iterable[Record]) -> str | None:
    """Return a sentence on the required sample size if no reconstructions could be significant.

    Parameters
    ----------
    records : iterable of dict
        Records of one method under one protocol.

    Returns
    -------
    str or None
        None if some metric can reach significance.
    """
    tested = [record for record in records if record.get("p_holm") is not None]
    if not tested or not all(_cannot_be_significant(record) for record in tested):
        return None
    n, shuffles = tested[0]["n"], tested[0]["n_permutations"]
    images, draws = required_size(n, shuffles, len(tested), ALPHA)
    required = []
    if images > n:
        required.append(f"at least {images} images")
    if draws > shuffles:
        required.append(f"at least {draws} shuffles")
    least = min(record["p_holm_min"] for record in tested)
    return (
        f"{tested[0]['protocol']} is inconclusive: with {n} images, {shuffles} shuffles and a "
        f"correction for {len(tested)} metrics, even perfect reconstructions get p = {least:.2g}, "
        f"above {ALPHA:g}; use {' and '.join(required)}."
    )


def _cannot_be_significant(record: Record) -> bool:
    least = record.get("p_holm_min")
    return least is not None and least > ALPHA


def tables(
    records: Sequence[Record],
) -> list[tuple[str, list[tuple[str, ...]], str | None]]:
    """Return title, rows and conclusion for every protocol and method.

    Parameters
    ----------
    records : sequence of dict
        Shuffled brains are left out, because they are a column of the table.

    Returns
    -------
    list of (str, rows, str or None)
    """
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if not record["method"].startswith("shuffled brain"):
            key = (record["protocol"], record["method"], record["role"])
            groups.setdefault(key, []).append(record)
    result = []
    for (protocol, method, role), rows in groups.items():
        kind = "" if role == "method" else f", a {role}"
        samples = max((row["samples"] or 1) for row in rows)
        several = f", mean of {samples} samples" if samples > 1 else ""
        judges = judges_of(rows)
        judge = f", judge: {' and '.join(judges)}" if judges else ""
        title = f"protocol {protocol}: {method}{kind}{several}{judge}"
        closing = conclusion(rows) if role == "method" else None
        result.append((title, [cells(row) for row in rows], closing))
    return result
