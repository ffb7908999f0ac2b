"""Damage to files: bytes to bytes, every choice drawn from one generator."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import yaml

Mutation = Callable[[bytes, Random], bytes]

ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    0.5,
    1e308,
    10**40,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x",
    "1",
    "é\u200b",
    "a" * 3000,
    [],
    [1],
    ["x"],
    [[1]],
    [None],
    {},
    {"x": 1},
    "../x",
    "/etc/passwd",
    "\0",
)
ODD_NUMBERS = (
    b"0",
    b"-1",
    b"-0.5",
    b"1e999",
    b"nan",
    b"inf",
    b"-inf",
    b"99999999999999999999",
    b"",
    b"x",
    b"1,5",
    b"0x10",
    b"1e-320",
    b"2147483648",
    b"+",
    b"\xd9\xa3",
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig", "cp037", "shift-jis")
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


ODD_YAML = (
    b"2026-13-45",
    b"0x",
    b"0b2",
    b"1:99:99",
    b"!!python/object:os.system",
    b"&a [*a]",
    b"*b",
    b"{? [a]: b}",
    b"{? {a: b}: c}",
    b"<<",
    b"!!binary x",
    b"!!int x",
    b"!!float",
    b"| ",
    b"{",
    b"]",
    b"!!set {a, b}",
    b"!!timestamp x",
    b"~",
    b".inf",
    b".nan",
    b"0o9",
    b"1_0",
    b"- - -",
    b'"\\x',
)


# Any bytes.


def truncate(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def empty(data: bytes, rng: Random) -> bytes:
    return b""


def flip_bits(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64)) if data else 0):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, rng: Random) -> bytes:
    """Single bytes or a number of four or eight bytes, mostly of the head of a file."""
    changed = bytearray(data)
    place, width = _place(data, rng), rng.choice((1, 2, 4, 8))
    value = rng.choice((b"\0" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x7f", rng.randbytes(8)))
    changed[place : place + width] = value[:width]
    return bytes(changed)


def zero_range(data: bytes, rng: Random) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def delete_block(data: bytes, rng: Random) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + data[end:]


def insert_block(data: bytes, rng: Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + rng.randbytes(rng.choice((1, 7, 100, 5000))) + data[place:]


def duplicate_block(data: bytes, rng: Random) -> bytes:
    start, end = _range(data, rng)
    return data[:end] + data[start:end] + data[end:]


def swap_blocks(data: bytes, rng: Random) -> bytes:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    one, two, three = cuts
    return data[:one] + data[two:three] + data[one:two] + data[three:]


# Text.


def replace_number(data: bytes, rng: Random) -> bytes:
    numbers = list(_NUMBER.finditer(data))
    for number in sorted(
        rng.sample(numbers, min(len(numbers), rng.choice((1, 1, 1, 5)))),
        key=lambda found: -found.start(),
    ):
        data = data[: number.start()] + rng.choice(ODD_NUMBERS) + data[number.end() :]
    return data


def drop_line(data: bytes, rng: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines:
        start = rng.randrange(len(lines))
        del lines[start : start + rng.choice((1, 1, 5, len(lines)))]
    return b"".join(lines)


def duplicate_line(data: bytes, rng: Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return b"".join(lines)


def change_separator(data: bytes, rng: Random) -> bytes:
    old, new = rng.sample((b",", b"\t", b";", b" ", b"\n", b"\r\n", b'"', b"|", b":"), 2)
    return data.replace(old, new, rng.choice((-1, 1, 3)))


def change_word(data: bytes, rng: Random) -> bytes:
    words = list(re.finditer(rb"[A-Za-z_]+", data))
    if not words:
        return data
    word = rng.choice(words)
    new = rng.choice(
        (
            b"",
            b"nan",
            b"null",
            b"\xff\xfe",
            b'"',
            b"=1+1",
            word[0] * 2,
            word[0][:-1],
            word[0].swapcase(),
            rng.choice(words)[0],
        )
    )
    return data[: word.start()] + new + data[word.end() :]


def change_encoding(data: bytes, rng: Random) -> bytes:
    return data.decode("latin-1").encode(rng.choice(ENCODINGS), "replace")


# JSON and YAML.


def change_json(data: bytes, rng: Random) -> bytes:
    return _changed_tree(data, rng, json.loads, lambda tree: json.dumps(tree).encode())


def change_yaml(data: bytes, rng: Random) -> bytes:
    return _changed_tree(data, rng, yaml.safe_load, lambda tree: yaml.safe_dump(tree).encode())


def odd_yaml(data: bytes, rng: Random) -> bytes:
    values = list(re.finditer(rb"(?<=: )[^\n]+|(?<==)[^\n]+", data))
    if not values:
        return rng.choice(ODD_YAML)
    value = rng.choice(values)
    return data[: value.start()] + rng.choice(ODD_YAML) + data[value.end() :]


def deep_json(data: bytes, rng: Random) -> bytes:
    depth = rng.choice((50, 900, 100_000))
    return rng.choice((b"[", b'{"a":')) * depth


BYTES: tuple[Mutation, ...] = (
    truncate,
    empty,
    flip_bits,
    flip_bits,
    set_bytes,
    set_bytes,
    zero_range,
    delete_block,
    insert_block,
    duplicate_block,
    swap_blocks,
)
TEXT: tuple[Mutation, ...] = (
    replace_number,
    replace_number,
    drop_line,
    duplicate_line,
    change_separator,
    change_word,
    change_encoding,
)
JSON: tuple[Mutation, ...] = (change_json,) * 12 + (deep_json,)
YAML: tuple[Mutation, ...] = (change_yaml,) * 12 + (odd_yaml,) * 4 + (deep_json,)


def mutate(path: Path, rng: Random) -> str:
    """Damage one file in one way, and return the name of that way."""
    if rng.random() < 0.02:
        path.unlink()
        return "delete"
    data = path.read_bytes()
    kinds = [BYTES]
    if _is_text(data):
        kinds = [BYTES, TEXT, TEXT]
        if path.suffix in (".yaml", ".yml", ".words"):
            kinds += [YAML] * 3
        if path.suffix in (".json", ".jsonl"):
            kinds += [JSON] * 4
    mutation = rng.choice(rng.choice(kinds))
    path.write_bytes(mutation(data, rng))
    return mutation.__name__


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data[:100_000].decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False


def _place(data: bytes, rng: Random) -> int:
    """Anywhere, or in the head or the tail, where the structure of most formats is."""
    if not data:
        return 0
    span = min(len(data), rng.choice((16, 256, 4096, len(data))))
    place = rng.randrange(span)
    return place if rng.random() < 0.75 else len(data) - 1 - place


def _range(data: bytes, rng: Random) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(len(data), start + rng.choice((1, 4, 16, 512, 1 + len(data) // 3)))


def _changed_tree(
    data: bytes,
    rng: Random,
    read: Callable[[bytes], Any],
    write: Callable[[Any], bytes],
) -> bytes:
    """Replace, delete or retype nodes of a tree; other text is damaged as text."""
    try:
        holder = [read(data)]
    except (ValueError, yaml.YAMLError):
        return replace_number(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2))):
        parent, key = rng.choice(_nodes(holder))
        action = rng.randrange(5)
        if action == 0 and parent is not holder:
            del parent[key]
        elif action == 1:
            parent[key] = _retyped(parent[key], rng)
        elif action == 2 and isinstance(parent, dict):
            parent[rng.choice(("x", "", "__class__", "1"))] = parent.pop(key)
        elif action == 2 and isinstance(parent, list) and parent is not holder:
            parent.insert(key, deepcopy(parent[key]))
        else:
            parent[key] = rng.choice(ODD)
    try:
        return write(holder[0])
    except (RecursionError, yaml.YAMLError):
        return drop_line(data, rng)


def _nodes(holder: list[Any]) -> list[tuple[Any, Any]]:
    """Each node as its parent and its key; nodes near the root come first in a long list."""
    found: list[tuple[Any, Any]] = [(holder, 0)]
    for parent, key in found:  # grows while it is walked
        node = parent[key]
        if len(found) < 20_000 and isinstance(node, dict | list):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            found.extend((node, inner) for inner in keys)
    return found


def _retyped(value: Any, rng: Random) -> Any:
    if isinstance(value, dict):
        return rng.choice((list(value), list(value.values()), str(value), list(value.items())))
    if isinstance(value, list):
        return rng.choice(
            (dict(enumerate(map(str, value))), str(value), value[:1], value[::-1], [value])
        )
    return rng.choice(([value], {"x": value}, str(value), None, f" {value}", {str(value): value}))
