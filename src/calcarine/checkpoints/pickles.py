"""Checkpoints of other programs, read without running any code in them.

Pickles are read by torch's restricted reader. For every class that it does not know an empty
stand-in answers, so a file that holds more than weights can be read for its weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from calcarine.checkpoints.formats import file_format, is_zip, load_safetensors
from calcarine.errors import DamagedFileError, MissingFileError, out_of_memory

__all__ = ["read_checkpoint"]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the tensors, numbers and texts of a checkpoint; no code of it is run.

    Parameters
    ----------
    path : Path
        Safetensors by its suffix or content, else what ``torch.save`` wrote (version 1.6 or newer).

    Returns
    -------
    dict
        Tensors are mapped from disk where that can be. Objects of classes that torch does not
        know to be harmless are empty lists.

    Raises
    ------
    CalcarineError
        If the file is missing, truncated or of an older format, if it names a module such as
        ``os`` or ``sys``, which torch always refuses, or if it holds no mapping.

    Examples
    --------
    >>> import torch
    >>> from calcarine.checkpoints import read_checkpoint
    >>> torch.save({"model": {"weight": torch.zeros(2)}, "epoch": 7}, "checkpoint.pth")
    >>> read_checkpoint("checkpoint.pth")["epoch"]
    7
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"There is no file {path}; give a checkpoint.")
    try:
        kind = file_format(path)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); copy it again.") from error
    if path.suffix == ".safetensors" or kind == "safetensors":
        return load_safetensors(path)
    if not is_zip(path):
        if kind == "pickle":
            raise DamagedFileError(
                f"{path} is in the format that torch wrote before version 1.6, which is not read; "
                "save it again with a newer torch, or as safetensors."
            )
        raise DamagedFileError(f"{path} is truncated or not a checkpoint; copy it again.")
    content = _load(path)
    if not isinstance(content, Mapping):
        raise DamagedFileError(
            f"{path} holds no weights by name, so it is not a checkpoint of a model."
        )
    return dict(content)


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), _stand_ins(path):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        if out_of_memory(error):
            raise
        if any(sign in str(error) for sign in ("weights_only", "Weights only", "Unsupported")):
            raise DamagedFileError(
                f"{path} needs code that weights do not need, so it is refused and nothing of "
                "it was run; get the weights as safetensors."
            ) from error
        raise DamagedFileError(f"{path} is damaged or not a checkpoint; copy it again.") from error


class _StandIn(list):  # type: ignore[type-arg]
    """Replaces any class or function that a file names: accepts everything, keeps nothing.

    A list, for torch's reader lets a file append to lists alone.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    __hash__ = object.__hash__  # type: ignore[assignment]


@contextmanager
def _stand_ins(path: Path) -> Iterator[None]:
    """Replace all names of the file that torch does not know to be harmless by a stand-in."""
    find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    names = find(path) if find else []  # before torch 2.6 files that name any are refused
    if not names:
        yield
        return
    with torch.serialization.safe_globals([(_StandIn, name) for name in names]):
        yield
