"""Trees of tensors and plain values as safetensors and JSON. Reading runs no code."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors

from calcarine.errors import CalcarineError
from calcarine.files import atomic_write, free_space, parse_json, write_bytes

__all__ = ["FORMAT", "cannot_write", "load_tree", "save_tree", "write_tensors"]

FORMAT = "calcarine-tree-1"
"""Name and version of the format, stored in the JSON."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_tree(tree: Any, path: Path) -> None:
    """Write a tree to ``path`` (``.json``), and its tensors to a ``.safetensors`` file next to it.

    The JSON is written last and holds a hash of both, so an interrupted write is detected.

    Parameters
    ----------
    tree : dict, list, tuple, tensor, number, string or None, nested
        Tensors on any device. Tensors that share memory are stored once and share memory again
        when they are read.
    path : Path
        Ends in ``.json``.

    Raises
    ------
    CalcarineError
        If the folder cannot be written or is full; an old file at ``path`` remains.
    """
    tensors: dict[str, torch.Tensor] = {}
    content = _encode(tree, tensors, {})
    weights = path.with_suffix(".safetensors")
    try:
        digest = write_tensors(tensors, weights)
        about = {"format": FORMAT, "sha256": _digest(content, digest), "tree": content}
        write_bytes(path, json.dumps(about).encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CalcarineError:
    """Return the error for a file of a training that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = f"the disk is full; {free_space(path)}" if full else error.strerror or str(error)
    return CalcarineError(
        f"Could not write {path.name} to {path.parent} ({reason}); the last complete checkpoint "
        "is kept, and the same command resumes from it."
    )


def load_tree(path: Path) -> Any:
    """Read a tree that `save_tree` wrote; its tensors are on the CPU.

    Raises
    ------
    CalcarineError
        When a file is missing, truncated or changed.
    """
    try:
        content = path.with_suffix(".safetensors").read_bytes()
        about = parse_json(path.read_bytes())
        if about["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        if about["sha256"] != _digest(about["tree"], hashlib.sha256(content).hexdigest()):
            raise ValueError("its content is not what was written")
        return _decode(about["tree"], parse_safetensors(content))
    except OSError as error:
        raise CalcarineError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = str(error) if type(error) is ValueError else "it is not a whole file"
        raise CalcarineError(f"{path} is damaged ({reason}).") from error


def _digest(content: Any, tensors: str) -> str:
    text = json.dumps([content, tensors], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _encode(tree: Any, tensors: dict[str, torch.Tensor], seen: dict[Any, str]) -> Any:
    """JSON of a tree, in which ``{"$": kind, ...}`` stands for what JSON does not know."""

    def again(part: Any) -> Any:
        return _encode(part, tensors, seen)

    if isinstance(tree, torch.Tensor):
        return {"$": "tensor", "name": _name(tree.detach(), tensors, seen)}
    if isinstance(tree, dict):
        if all(type(key) is str and key != "$" for key in tree):
            return {key: again(part) for key, part in tree.items()}
        return {"$": "dict", "items": [[again(key), again(part)] for key, part in tree.items()]}
    if isinstance(tree, tuple):
        return {"$": "tuple", "items": [again(part) for part in tree]}
    if isinstance(tree, list):
        return [again(part) for part in tree]
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    raise CalcarineError(
        f"A {type(tree).__name__} cannot be stored in a checkpoint; "
        "store tensors, numbers, strings, lists and dicts."
    )


def _name(tensor: torch.Tensor, tensors: dict[str, torch.Tensor], seen: dict[Any, str]) -> str:
    memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
    key = memory if tensor.numel() else len(seen)
    if key not in seen:
        seen[key] = str(len(seen))
        tensors[seen[key]] = tensor
    return seen[key]


def _decode(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, list):
        return [_decode(part, tensors) for part in tree]
    if not isinstance(tree, dict):
        return tree
    kind = tree.get("$")
    if kind == "tensor":
        return tensors[tree["name"]]
    if kind == "tuple":
        return tuple(_decode(part, tensors) for part in tree["items"])
    if kind == "dict":
        return {_decode(key, tensors): _decode(part, tensors) for key, part in tree["items"]}
    return {key: _decode(part, tensors) for key, part in tree.items()}


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> str:
    """Write tensors one after the other as safetensors, and return the SHA-256 of the file."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise CalcarineError(f"Tensors of {tensor.dtype} cannot be stored in a checkpoint.")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        about = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = about | {"data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with atomic_write(path) as part, open(part, "wb") as file:
        for piece in (len(text).to_bytes(8, "little"), text):
            digest.update(piece)
            file.write(piece)
        for tensor in tensors.values():
            memory = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            digest.update(memory)
            file.write(memory)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
