"""Comparisons as tables and as JSON."""

from __future__ import annotations

from typing import Any

from calcarine.evaluation.comparison.compare import ScoreComparison
from calcarine.evaluation.networks.judge_names import judges_of
from calcarine.evaluation.results.tables import number, p_text

__all__ = ["comparison_content", "comparison_table"]


def comparison_table(
    result: ScoreComparison,
) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]:
    """Format a comparison as a table.

    Parameters
    ----------
    result : ScoreComparison

    Returns
    -------
    headings : tuple of str
    rows : list of tuple of str
        A question mark follows numbers that were not verified in the paper. A letter follows
        numbers that are not comparable with the first column.
    footnotes : list of str
        The meaning of the letters, notes and tests.
    """
    marks: dict[str, str] = {}
    rows = []
    doubtful = False
    for metric, by_column in result.rows:
        judges = judges_of(cell.record for cell in by_column.values())
        texts = [f"{metric}, judge {' or '.join(judges)}" if judges else metric]
        for name in result.columns:
            cell = by_column.get(name)
            if cell is None:
                texts.append("–")
                continue
            record = cell.record
            text = number(record["value"])
            if record["ci_low"] is not None:
                text += f" [{number(record['ci_low'])}, {number(record['ci_high'])}]"
            if record.get("confidence") in ("unchecked", "low"):
                text, doubtful = text + "?", True
            if cell.marks:
                letter = marks.setdefault("; ".join(cell.marks), _letter(len(marks)))
                text += f" ({letter})"
            texts.append(text)
        rows.append(tuple(texts))
    footnotes = [f"({letter}) not comparable: {what}." for what, letter in marks.items()]
    if doubtful:
        footnotes.append("? not verified in the paper: do not cite.")
    footnotes += result.notes
    footnotes += [
        f"{t['metric']} ({t['protocol']}): {t['a']} less {t['b']} is {t['difference']:+.3f} "
        f"[{t['ci_low']:+.3f}, {t['ci_high']:+.3f}], {p_text(t['p_holm'])} after Holm "
        f"(signed ranks: {p_text(t['p_signed_rank_holm'])}), "
        f"{t['n']} images."
        for t in result.tests
    ]
    return ("metric", *result.columns), rows, footnotes


def comparison_content(result: ScoreComparison) -> dict[str, Any]:
    """Return a comparison as data for JSON."""
    rows = [
        {
            "metric": metric,
            "cells": {
                name: cell.record | {"not_comparable": list(cell.marks)}
                for name, cell in by_column.items()
            },
        }
        for metric, by_column in result.rows
    ]
    return {"columns": result.columns, "rows": rows, "tests": result.tests, "notes": result.notes}


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) * (1 + index // 26)
