"""Notes on penalties that lie at an end of their grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["penalty_notes"]

_ENDS = (("edge_low", "lowest", "smaller"), ("edge_high", "highest", "larger"))


def penalty_notes(decoder: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each target whose fits warn of the ends of the penalties.

    Parameters
    ----------
    decoder : mapping of str to mapping
        By split, the summary of each target as `calcarine.decoding.TargetSummary` has it.

    Returns
    -------
    list of str
    """
    warned: dict[str, dict[str, Mapping[str, Any]]] = {}
    for fold, targets in decoder.items():
        for target, summary in targets.items():
            if summary["warning"]:
                warned.setdefault(target, {})[fold] = summary
    return [_note(target, folds, len(decoder)) for target, folds in sorted(warned.items())]


def _note(target: str, folds: Mapping[str, Mapping[str, Any]], count: int) -> str:
    first = next(iter(folds.values()))
    if count == 1:
        return f"{target}: {first['warning']}"
    where, ends, remedies = f"{target}, in {_named(list(folds), count)}", [], []
    for name, end, values in _ENDS:
        shares = [summary.get(name, 0.0) for summary in folds.values()]
        if max(shares) > 0:
            ends.append(f"{_range(shares)} chose the {end} penalty")
            remedies.append(values)
    if not ends:  # a decoder with other warnings
        return f"{where}: {first['warning']}"
    return (
        f"{where}: of the predictable targets, {' and '.join(ends)}; widen the penalties "
        f"(ridge.alpha_min, ridge.alpha_max): add {' and '.join(remedies)} values."
    )


def _range(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.1%}", f"{max(shares):.1%}"
    return low if low == high else f"{low} to {high}"


def _named(folds: list[str], count: int) -> str:
    if len(folds) == count:
        return f"all {count} folds ({folds[0]} to {folds[-1]})"
    return f"{len(folds)} of {count} folds ({', '.join(folds)})"
