"""Numeric arrays in MATLAB files of version 5 to 7.2.

SciPy's reader crashes the whole process on some damaged files with structs; this one reads what is
needed here (numbers in structs and cells) and raises for damage.  The format is that of
"MAT-File Format", The MathWorks, chapter 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_v5"]

_MATRIX, _COMPRESSED = 14, 15
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CELL, _STRUCT, _OBJECT = 1, 2, 3
_NUMBERS = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_DEPTH, _CELLS = 5, 64


def read_v5(path: str | Path) -> tuple[dict[str, NDArray[Any]], bool]:
    """Return the arrays of a file by name, for example ``results.modelmd``.

    Returns
    -------
    arrays
        In MATLAB's order of axes; texts, sparse and complex arrays are left
        out.
    by_matlab
        Whether MATLAB (or Octave) wrote the file, not SciPy.

    Raises
    ------
    ValueError, OverflowError, zlib.error
        If it is another kind of file or damaged.
    """
    path = Path(path)
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if len(content) < 128 or order is None or not content.startswith(b"MATLAB"):
        raise ValueError("it is not a MATLAB file of version 5 to 7.3")
    results: dict[str, NDArray[Any]] = {}
    for kind, data in _elements(content[128:], order):
        if kind == _COMPRESSED:
            inner = next(_elements(zlib.decompress(data), order), None)
            kind, data = inner if inner is not None else (0, b"")
        if kind == _MATRIX:
            results.update(_matrix(data, order, None, _DEPTH))
    return results, not content.startswith(b"MATLAB 5.0 MAT-file Platform")


@dataclass
class _Head:
    """The header of an array."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the bytes of each element."""
    place = 0
    while place + 8 <= len(data):
        first, size = (int(n) for n in np.frombuffer(data, f"{order}u4", 2, place))
        if first >> 16:  # a small element: size, type and up to four bytes in eight
            kind, size, start, step = first & 0xFFFF, first >> 16, place + 4, 8
        else:
            kind, start = first, place + 8
            step = 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if (start == place + 4 and size > 4) or start + size > len(data):
            raise ValueError("an array is longer than the file")
        yield kind, data[start : start + size]
        place += step


def _matrix(
    data: bytes, order: str, name: str | None, depth: int
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the numeric arrays in one variable, cell or field."""
    if not data:
        return
    parts = list(_elements(data, order))
    if len(parts) < 3:
        raise ValueError("a variable has no dimensions or no name")
    head = _head(parts, order)
    own = head.name if name is None else name
    if not depth or (name is None and not own):
        return
    if head.kind == _CELL:
        for number, (_, cell) in enumerate(parts[3 : 3 + _CELLS], 1):
            yield from _matrix(cell, order, f"{own}{{{number}}}", depth - 1)
    elif head.kind in (_STRUCT, _OBJECT):
        yield from _struct(parts[3 + (head.kind == _OBJECT) :], order, own, depth)
    elif head.kind in _NUMBERS and not head.flags & _COMPLEX and 0 not in head.shape:
        yield own, _numbers(parts[3], head, order)


def _head(parts: list[tuple[int, bytes]], order: str) -> _Head:
    flags = int(np.frombuffer(parts[0][1], f"{order}u4", 1)[0])
    shape = tuple(int(size) for size in np.frombuffer(parts[1][1], f"{order}i4"))
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"an array has the dimensions {shape}")
    return _Head(flags & 0xFF, flags, shape, parts[2][1].decode("latin-1").rstrip("\0"))


def _struct(
    parts: list[tuple[int, bytes]], order: str, own: str, depth: int
) -> Iterator[tuple[str, NDArray[Any]]]:
    if len(parts) < 2:
        raise ValueError(f"the struct {own} has no fields")
    width = int(np.frombuffer(parts[0][1], f"{order}i4", 1)[0])
    if width < 1:
        raise ValueError(f"the struct {own} has field names of {width} bytes")
    text = parts[1][1]
    names = [
        text[start : start + width].split(b"\0")[0].decode("latin-1")
        for start in range(0, len(text), width)
    ]
    values = parts[2:]
    if not names:
        return
    count = len(values) // len(names)
    for row in range(min(count, _CELLS)):
        whole = own if count == 1 else f"{own}({row + 1})"
        for place, field in enumerate(names):
            inner = values[row * len(names) + place][1]
            yield from _matrix(inner, order, f"{whole}.{field}", depth - 1)


def _numbers(part: tuple[int, bytes], head: _Head, order: str) -> NDArray[Any]:
    """Return numbers, which MATLAB may store in a smaller type than that of their class."""
    kind, data = part
    if kind not in _STORED:
        raise ValueError(f"numbers of type {kind} are not known")
    stored = np.frombuffer(data, np.dtype(order + _STORED[kind]))
    count = 1
    for size in head.shape:
        count *= size
    if len(stored) != count:
        raise ValueError(f"{head.name or 'an array'} has {len(stored)} numbers of {head.shape}")
    logical = bool(head.flags & _LOGICAL)
    with np.errstate(invalid="ignore", over="ignore"):
        values = stored.astype(np.bool_ if logical else _NUMBERS[head.kind])
    return values.reshape(head.shape, order="F")
