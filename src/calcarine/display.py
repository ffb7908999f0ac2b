"""How objects print themselves: a few lines of text, and a small table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

__all__ = ["html_table", "listed", "text_table"]

_MOST = 6


def listed(names: Iterable[object], most: int = _MOST) -> str:
    """Join names with commas; the names after the first few are only counted.

    Examples
    --------
    >>> listed(["V1", "V2", "V3"], most=2)
    'V1, V2 and 1 more'
    """
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def text_table(title: str, rows: Mapping[str, object]) -> str:
    """Return a title and one indented line for each row."""
    return "\n".join([title, *(f"  {name}: {value}" for name, value in rows.items())])


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """Return an HTML table with a caption and one row for each entry, all text escaped."""
    body = "".join(
        f'<tr><th style="text-align: left">{escape(str(name))}</th>'
        f'<td style="text-align: left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return (
        f'<table><caption style="text-align: left; font-weight: bold">{escape(title)}</caption>'
        f"<tbody>{body}</tbody></table>"
    )
