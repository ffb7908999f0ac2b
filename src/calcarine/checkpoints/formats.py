"""Weight files: which format they have, and whether they are complete and fit the network.

No function here unpickles anything.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from calcarine.errors import DamagedFileError
from calcarine.files import parse_json

__all__ = [
    "WeightsFormat",
    "check_loaded",
    "check_safetensors",
    "file_format",
    "is_zip",
    "load_safetensors",
    "weights_format",
]

WeightsFormat = Literal["safetensors", "zip", "pickle", "unknown"]
"""``zip`` is what ``torch.save`` writes around a pickle, ``pickle`` one without that archive."""

HEAD = 9
"""Bytes at the start of a file that identify its format."""

_LARGEST_HEADER = 100_000_000
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# Tables of fixed positions, which older versions of transformers stored with the weights.
_BUFFERS = ("position_ids",)
_NAMED = 3


def weights_format(head: bytes) -> WeightsFormat:
    """Return the format of weights from the first nine bytes of their file.

    Parameters
    ----------
    head : bytes
        The start of the file, nine bytes or more (less of a shorter file).

    Returns
    -------
    {"safetensors", "zip", "pickle", "unknown"}
        "safetensors" says what the file means to be, not that it is whole.

    Notes
    -----
    A safetensors file begins with the length of its header as eight bytes, least significant
    first, and the header is JSON. Such a length may begin with the byte 0x80 of a pickle (one
    file in 32) or with the letters of a zip archive, so the brace that follows decides. A pickle
    that was made to look so is no whole safetensors file, and is refused when it is read.

    Examples
    --------
    >>> weights_format((128).to_bytes(8, "little") + b"{")
    'safetensors'
    """
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= _LARGEST_HEADER:
        return "safetensors"
    if head[:4] in _ZIP:
        return "zip"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return "unknown"


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive with its directory at the end."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a directory that says what no archive here says
        return False


def file_format(path: str | Path) -> WeightsFormat:
    """Return the format of a file of weights; see `weights_format`.

    Examples
    --------
    >>> import torch
    >>> from calcarine.checkpoints import file_format
    >>> torch.save({"weight": torch.zeros(2)}, "model.pth")
    >>> file_format("model.pth")
    'zip'
    """
    path = Path(path)
    with path.open("rb") as file:
        return weights_format(file.read(HEAD))


def check_safetensors(path: str | Path) -> None:
    """Raise unless ``path`` is a complete safetensors file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    CalcarineError
        If it is a pickle, truncated, too long or of another format.

    Examples
    --------
    >>> import torch
    >>> from safetensors.torch import save_file
    >>> from calcarine.checkpoints import check_safetensors
    >>> save_file({"weight": torch.zeros(2)}, "checked.safetensors")
    >>> check_safetensors("checked.safetensors")  # no error: the file is whole
    """
    path = Path(path)
    size, kind = path.stat().st_size, file_format(path)
    if kind in ("pickle", "zip"):
        raise DamagedFileError(
            f"{path} is a pickle under another name, which can run code when opened, and is "
            "refused; weights must be safetensors."
        )
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if kind != "safetensors" or length > size - 8:
            raise DamagedFileError(f"{path} is not a whole safetensors file; copy it again.")
        try:
            header: dict[str, Any] = parse_json(file.read(length))
            ends = [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{path} is not a safetensors file; copy it again.") from error
    expected = 8 + length + max(ends, default=0)
    if expected > size:
        raise DamagedFileError(
            f"{path} is truncated ({size} bytes, {expected} expected); copy it again."
        )
    if expected < size:
        raise DamagedFileError(
            f"{path} has {size} bytes but its header says {expected}; copy it again."
        )


def load_safetensors(path: str | Path) -> dict[str, Any]:
    """Return the tensors of a safetensors file by their names, on the CPU.

    Raises
    ------
    CalcarineError
        As `check_safetensors`, or if the file cannot be read.

    Examples
    --------
    >>> import torch
    >>> from safetensors.torch import save_file
    >>> from calcarine.checkpoints import load_safetensors
    >>> save_file({"weight": torch.zeros(2)}, "model.safetensors")
    >>> load_safetensors("model.safetensors")
    {'weight': tensor([0., 0.])}
    """
    path = Path(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_safetensors(path)
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); copy it again.") from error


def check_loaded(info: Mapping[str, Any], where: str | Path, unused: Iterable[str] = ()) -> None:
    """Raise unless a network got all of its weights from its files.

    Without this check diffusers and transformers fill missing weights with random numbers and
    only log a warning.

    Parameters
    ----------
    info : mapping
        What ``from_pretrained(..., output_loading_info=True)`` returns with the network, or
        any mapping with "missing_keys", "unexpected_keys" and "mismatched_keys".
    where : str or Path
        The folder or file, for the sentence.
    unused : iterable of str
        Beginnings of names that a file may hold beyond those of the network, because they belong
        to a larger network and change nothing here.

    Raises
    ------
    CalcarineError
        If weights are missing, unknown or of another shape; the sentence names up to three.

    Examples
    --------
    >>> from calcarine.checkpoints import check_loaded
    >>> check_loaded({"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}, "model")
    >>> check_loaded({"missing_keys": ["conv.weight"]}, "model")
    Traceback (most recent call last):
        ...
    calcarine.errors.DamagedFileError: ... they lack conv.weight; ...
    """
    beginnings = tuple(unused)
    missing = _weights(info.get("missing_keys") or ())
    strange = [
        key for key in _weights(info.get("unexpected_keys") or ()) if not key.startswith(beginnings)
    ]
    shapes = _weights(
        row if isinstance(row, str) else row[0] for row in info.get("mismatched_keys") or ()
    )
    problems = [
        f"{words} {_few(keys)}"
        for words, keys in (
            ("lack", missing),
            ("hold the unknown", strange),
            ("have another shape for", shapes),
        )
        if keys
    ]
    if problems:
        raise DamagedFileError(
            f"The weights in {where} do not fit the network that its config.json describes: they "
            f"{' and '.join(problems)}; copy weights and config.json again, from one model."
        )


def _weights(keys: Iterable[Any]) -> list[str]:
    return sorted(str(key) for key in keys if not str(key).endswith(_BUFFERS))


def _few(keys: list[str]) -> str:
    rest = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
