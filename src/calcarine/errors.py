"""Errors that are the user's to mend: one sentence each, what, where and how."""

from __future__ import annotations

from typing import Literal

_OF_GPU = ("ALLOC_FAILED", "OUT OF MEMORY", "OUT_OF_MEMORY", "OUTOFMEMORYERROR")
_OF_CPU = ("DEFAULTCPUALLOCATOR", "CAN'T ALLOCATE MEMORY", "CANNOT ALLOCATE MEMORY")


class CalcarineError(Exception):
    """A mistake in the input, told in one sentence; the command line exits with 2."""


class LeakageError(CalcarineError):
    """Test data was about to reach a fit."""


def out_of_memory(error: BaseException) -> Literal["GPU", "machine"] | None:
    """Whose memory ran out, if that is what an error says.

    Parameters
    ----------
    error : BaseException
        Also one that wraps the cause in another error.

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
