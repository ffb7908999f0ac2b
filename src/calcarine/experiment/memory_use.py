"""Memory of this process and of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PeakMemory", "machine_memory", "measured_memory", "used_memory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass
class PeakMemory:
    """Memory that a block of code took.

    Attributes
    ----------
    before : int
        Bytes of this process before the block.
    peak : int
        Most bytes during the block; 0 while it runs.
    gpu : int
        Most bytes that PyTorch reserved on the GPU; 0 without a GPU.
    """

    before: int = 0
    peak: int = 0
    gpu: int = 0


@contextmanager
def measured_memory() -> Iterator[PeakMemory]:
    """Measure the most memory of this process while a block runs.

    Where the system cannot forget earlier peaks (it can on Linux), the peak is the largest since
    the process began.

    Yields
    ------
    PeakMemory
        Complete after the block.
    """
    import torch

    with suppress(OSError):
        _RESET.write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    memory = PeakMemory(before=used_memory())
    try:
        yield memory
    finally:
        memory.peak = max(_status("VmHWM") or _largest_so_far(), memory.before)
        if torch.cuda.is_available():
            memory.gpu = int(torch.cuda.max_memory_reserved())


def used_memory() -> int:
    """Return the bytes of memory that this process holds."""
    return _status("VmRSS") or _largest_so_far()


def machine_memory() -> int | None:
    """Return the bytes that a process may take: of the machine, or of its container or job."""
    found = []
    with suppress(ValueError, OSError, AttributeError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is no limit
            found.append(int(file.read_text()))
    return min(found, default=None)


def _status(name: str) -> int | None:
    """Return an entry of the status of this process in bytes; None if the system has none."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None


def _largest_so_far() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else 1024 * most)
