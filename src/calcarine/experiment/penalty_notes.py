"""Notes on penalties that lie at an end of their grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["penalty_notes"]

_ENDS = (("edge_low", "lowest", "smaller"), ("edge_high", "highest", "larger"))
_Folds = Mapping[str, Mapping[str, Any]]


def penalty_notes(decoder: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the warnings of fits about the ends of the penalties, as few sentences as possible.

    Targets that warn in the same folds share a sentence.

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
    shared: dict[str, dict[str, _Folds]] = {}
    others = []
    for target, folds in sorted(warned.items()):
        where = _named(list(folds), len(decoder))
        if _at_ends(folds):
            shared.setdefault(where, {})[target] = folds
        else:  # a decoder with other warnings
            others.append(f"{target}, in {where}: {next(iter(folds.values()))['warning']}")
    return [_note(where, targets) for where, targets in shared.items()] + others


def _note(where: str, targets: Mapping[str, _Folds]) -> str:
    parts, remedies = [], []
    for target, folds in targets.items():
        ends = _at_ends(folds)
        chosen = " and ".join(f"{share} the {end}" for end, share in ends.items())
        parts.append(f"of {target} {chosen}")
        remedies += [values for _, end, values in _ENDS if end in ends and values not in remedies]
    return (
        f"Many predictable targets chose an end of the penalties in {where}: {'; '.join(parts)}. "
        f"Widen the penalties (ridge.alpha_min, ridge.alpha_max): add {' and '.join(remedies)} "
        "values."
    )


def _at_ends(folds: _Folds) -> dict[str, str]:
    """Return the share of targets at the lowest and at the highest penalty, where there are any."""
    shares = {end: [fold.get(name, 0.0) for fold in folds.values()] for name, end, _ in _ENDS}
    return {end: _range(values) for end, values in shares.items() if max(values) > 0}


def _range(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.1%}", f"{max(shares):.1%}"
    return low if low == high else f"{low} to {high}"


def _named(folds: list[str], count: int) -> str:
    if count == 1:
        return f"the split {folds[0]}"
    if len(folds) == count:
        return f"all {count} folds ({folds[0]} to {folds[-1]})"
    return f"{len(folds)} of {count} folds ({', '.join(folds)})"
