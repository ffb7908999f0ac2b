"""Writing files so that a half-written one is never taken for a whole one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a place beside ``path`` to write to, and rename it to ``path`` when all went well.

    Parameters
    ----------
    path : Path
        Its folder is made when missing.

    Yields
    ------
    Path
        Removed again if the writing fails; ``path`` then stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all, and to the disk itself."""
    with written_aside(path) as aside, open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


_ANNEX = re.compile(r"^(?P<root>.*)/\.git/(?:modules/.+/)?annex/objects/.+$")


def is_annexed(path: Path) -> bool:
    """Whether a file is a link of git-annex (DataLad) into its own data set.

    Parameters
    ----------
    path : Path
        The content may be missing.

    Returns
    -------
    bool
        True for a link into ``.git/annex/objects`` of a folder above it.
    """
    if not path.is_symlink():
        return False
    match = _ANNEX.match(path.resolve().as_posix())
    return match is not None and path.parent.resolve().is_relative_to(match["root"])


def content_missing(path: Path) -> str | None:
    """What to do where a link of git-annex leads to content that is not here; None elsewhere."""
    if path.exists() or not is_annexed(path):
        return None
    return f"the content of {path} is not on this machine; run 'datalad get {path}'"


def digest_file(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
