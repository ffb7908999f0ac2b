"""Writing reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def escaped(text: str) -> str:
    """Return plain text as reStructuredText that shows it unchanged."""
    return re.sub(r"([\\*`_|])", r"\\\1", " ".join(text.split()))


def literal(text: object) -> str:
    """Return text in the font of code."""
    shown = str(text)
    return f"``{shown}``" if shown.strip() == shown and shown else "``''``"


def heading(text: str, mark: str) -> str:
    """Return a heading; marks from the highest level: ``=``, ``-``, ``~``."""
    return f"{text}\n{mark * len(text)}\n"


def indented(text: str, by: int = 3) -> str:
    """Return text with every line moved to the right."""
    return "\n".join(" " * by + line if line else line for line in text.splitlines())


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int] | str = "auto"
) -> str:
    """Return a table; cells are reStructuredText."""
    wide = widths if isinstance(widths, str) else " ".join(map(str, widths))
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {wide}", ""]
    for row in (headings, *rows):
        for place, cell in enumerate(row):
            first, *rest = cell.splitlines() or [""]
            lines.append(f"   {'* -' if place == 0 else '  -'} {first}".rstrip())
            lines += [f"       {line}".rstrip() for line in rest]
    return "\n".join([*lines, "", ""])


class Folder:
    """A folder of generated files: unchanged ones keep their time, old ones are removed.

    Folders in ``kept`` belong to another program.
    """

    def __init__(self, path: Path, kept: Iterable[Path] = ()) -> None:
        self.path = path
        self.kept = set(kept)
        self.written: set[Path] = set()

    def write(self, name: str, text: str) -> None:
        """Write a file, unless it has this content already."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
        self.written.add(file)

    def remove_others(self) -> None:
        """Remove files that were not written this time."""
        for file in self.path.rglob("*"):
            if file.is_file() and file not in self.written and self.kept.isdisjoint(file.parents):
                file.unlink()
