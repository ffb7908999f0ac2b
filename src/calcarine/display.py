"""How objects print themselves: a few lines of text, and a small table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

__all__ = ["html_table", "listed", "size_text", "text_table", "time_text"]

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


def time_text(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Examples
    --------
    >>> time_text(7.25), time_text(600), time_text(9000)
    ('7.2 s', '10.0 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def size_text(size: float) -> str:
    """Return a number of bytes in the unit that suits it.

    Examples
    --------
    >>> size_text(2.5e6), size_text(3e9)
    ('2 MB', '3.0 GB')
    """
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
