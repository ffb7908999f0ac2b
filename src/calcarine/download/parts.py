"""The part of a file that has arrived: its place, the note beside it, its content."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from calcarine.brain.assets import Asset
from calcarine.download.web import Facts
from calcarine.files import read_json, write_text

__all__ = [
    "BLOCK",
    "StoppedError",
    "digest",
    "part_of",
    "partial_size",
    "read_sidecar",
    "sidecar_of",
    "write_block",
    "write_sidecar",
]

BLOCK = 1 << 20
"""Bytes that are read and written at once."""


class StoppedError(Exception):
    """Somebody asked to stop; what is there stays for the next try."""


def partial_size(asset: Asset, folder: Path) -> int:
    """Bytes of a file that an earlier call left and that can be continued."""
    part, told = part_of(folder / asset.path), read_sidecar(folder / asset.path)
    return part.stat().st_size if told and told[0] == asset.url and part.is_file() else 0


def digest(path: Path, *names: str, stop: threading.Event | None = None) -> tuple[str, ...]:
    """Hexadecimal hashes (``"sha256"``, ``"md5"``) of a file, read once in blocks."""
    hashes = [hashlib.new(name, usedforsecurity=False) for name in names]
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            if stop is not None and stop.is_set():
                raise StoppedError
            for each in hashes:
                each.update(block)
    return tuple(each.hexdigest() for each in hashes)


def write_block(file: BinaryIO, block: bytes) -> None:
    """Write all of a block to an unbuffered file."""
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def part_of(target: Path) -> Path:
    """Place of the partial file."""
    return target.with_name(target.name + ".part")


def sidecar_of(target: Path) -> Path:
    """Place of the note that says of which file the part is."""
    return target.with_name(target.name + ".part.json")


def write_sidecar(target: Path, url: str, facts: Facts) -> None:
    """Note the address and what the server said, before the first byte is written."""
    write_text(sidecar_of(target), json.dumps({"url": url, **asdict(facts)}))


def read_sidecar(target: Path) -> tuple[str, Facts] | None:
    """Address and facts from the note, None where there is none that can be read."""
    try:
        told = read_json(sidecar_of(target))
        url, facts = told.pop("url"), Facts(**told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # without it nothing is known of the part, which is as good as none
    return (url, facts) if facts.size is None or isinstance(facts.size, int) else None
