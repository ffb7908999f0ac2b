"""Partial files of interrupted downloads: their paths, notes and content."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from calcarine.brain.assets import Asset
from calcarine.download.http_requests import RemoteFileInfo
from calcarine.files import read_json, write_text

__all__ = [
    "BLOCK",
    "StoppedError",
    "digest",
    "partial_path",
    "partial_size",
    "read_sidecar",
    "sidecar_path",
    "write_block",
    "write_sidecar",
]

BLOCK = 1 << 20
"""Bytes that are read and written at once."""


class StoppedError(Exception):
    """The download was stopped; partial files stay for the next try."""


def partial_size(asset: Asset, folder: Path) -> int:
    """Return the size of a partial file that can be continued."""
    part, note = partial_path(folder / asset.path), read_sidecar(folder / asset.path)
    return part.stat().st_size if note and note[0] == asset.url and part.is_file() else 0


def digest(path: Path, *names: str, stop: threading.Event | None = None) -> tuple[str, ...]:
    """Return hexadecimal hashes (``"sha256"``, ``"md5"``) of a file, read once in blocks."""
    hashes = [hashlib.new(name, usedforsecurity=False) for name in names]
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            if stop is not None and stop.is_set():
                raise StoppedError
            for each in hashes:
                each.update(block)
    return tuple(each.hexdigest() for each in hashes)


def write_block(file: BinaryIO, block: bytes) -> None:
    """Write a complete block to an unbuffered file."""
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def partial_path(target: Path) -> Path:
    """Return the path of the partial file."""
    return target.with_name(target.name + ".part")


def sidecar_path(target: Path) -> Path:
    """Return the path of the note that says which file the partial file belongs to."""
    return target.with_name(target.name + ".part.json")


def write_sidecar(target: Path, url: str, facts: RemoteFileInfo) -> None:
    """Write the address and the server's description, before the first byte is written."""
    write_text(sidecar_path(target), json.dumps({"url": url, **asdict(facts)}))


def read_sidecar(target: Path) -> tuple[str, RemoteFileInfo] | None:
    """Return address and description from the note; None if it cannot be read."""
    try:
        note = read_json(sidecar_path(target))
        url, facts = note.pop("url"), RemoteFileInfo(**note)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # without it nothing is known of the part, which is as good as none
    return (url, facts) if facts.size is None or isinstance(facts.size, int) else None
