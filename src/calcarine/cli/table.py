"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def print_table(title: str, headings: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table that is neither cut nor wrapped to 80 columns in a file or a pipe.

    Parameters
    ----------
    title : str
        "" for none.
    headings : iterable of str
    rows : iterable of sequence of str
        A cell for each heading.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    Console(width=None if console.is_terminal else 200).print(table)
