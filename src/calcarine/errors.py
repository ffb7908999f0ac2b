"""Errors that you can fix: each message says what is wrong, where, and how to fix it.

All of them are a `CalcarineError`.  An error about a value is also a `ValueError`, and an error
about a missing file is also a `FileNotFoundError`, so you can catch the kind that you expect.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Literal

__all__ = [
    "CalcarineError",
    "DamagedFileError",
    "FolderInUseError",
    "LeakageError",
    "MissingExtraError",
    "MissingFileError",
    "MissingWeightsError",
    "SettingError",
    "ShapeError",
    "did_you_mean",
    "need_extra",
    "one_line",
    "out_of_memory",
]

_OF_GPU = ("ALLOC_FAILED", "OUT OF MEMORY", "OUT_OF_MEMORY", "OUTOFMEMORYERROR")
_OF_CPU = ("DEFAULTCPUALLOCATOR", "CAN'T ALLOCATE MEMORY", "CANNOT ALLOCATE MEMORY")


class CalcarineError(Exception):
    """Base class of every error that you can fix: its message says what, where and how.

    The command line prints the message without a traceback and exits with code 2.
    """


class SettingError(CalcarineError, ValueError):
    """An argument, an option or a name has a value that does not exist or does not fit."""


class ShapeError(CalcarineError, ValueError):
    """An array has the wrong shape, the wrong type or the wrong number of rows."""


class MissingFileError(CalcarineError, FileNotFoundError):
    """A file or folder that is needed does not exist."""


class MissingWeightsError(MissingFileError):
    """The weights of a network are in none of the folders that were searched."""


class MissingExtraError(CalcarineError, ImportError):
    """A package that only some functions need is not installed."""


class DamagedFileError(CalcarineError):
    """A file is incomplete, unsafe to read, or does not hold what it should."""


class FolderInUseError(CalcarineError):
    """Another process works in the folder."""


class LeakageError(CalcarineError):
    """Test data was about to reach a fit."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return a question that suggests the most similar known name.

    Parameters
    ----------
    name : object
        The name that does not exist.
    known : iterable of object
        The names that do.

    Returns
    -------
    str
        Begins with a space, to follow a sentence; empty if no name is similar.

    Examples
    --------
    >>> did_you_mean("v1", ["V1", "V2"])
    ' Did you mean V1?'
    """
    names = {str(each).lower(): str(each) for each in known}
    close = get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    return f" Did you mean {names[close[0]]}?" if close else ""


def one_line(error: BaseException) -> str:
    """Return the message of any error without line breaks, or its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def need_extra(extra: str, *modules: str) -> None:
    """Raise one sentence if packages of an optional extra are not installed.

    Parameters
    ----------
    extra : str
        Name of the extra in calcarine's package metadata.
    *modules : str
        Modules that are about to be imported.

    Raises
    ------
    MissingExtraError
        If a module cannot be found.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"This needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed; run: pip install 'calcarine[{extra}]'"
        )


def out_of_memory(error: BaseException) -> Literal["GPU", "machine"] | None:
    """Return which memory ran out, if the error reports that a memory ran out.

    Parameters
    ----------
    error : BaseException
        The error; its causes are searched too.

    Returns
    -------
    {"GPU", "machine"} or None
        "GPU" for torch's OutOfMemoryError, the same of other accelerators (MPS) and allocations
        that fail in CUDA's libraries; "machine" for the computer's own memory.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        # torch.OutOfMemoryError and those of CUDA's libraries are RuntimeErrors.
        text = f"{type(cause).__name__}: {cause}".upper() * isinstance(cause, RuntimeError)
        if isinstance(cause, MemoryError) or any(sign in text for sign in _OF_CPU):
            return "machine"
        if any(sign in text for sign in _OF_GPU):
            return "GPU"
        cause = cause.__cause__ or cause.__context__
    return None
