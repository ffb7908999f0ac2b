"""Memory of this process and of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PeakMemory", "machine_memory", "measured_memory", "used_memory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


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
    for number in _used_gpus():
        torch.cuda.reset_peak_memory_stats(number)
    memory = PeakMemory(before=used_memory())
    try:
        yield memory
    finally:
        memory.peak = max(_status("VmHWM") or _largest_so_far(), memory.before)
        memory.gpu = max(map(torch.cuda.max_memory_reserved, _used_gpus()), default=0)


def _used_gpus() -> range:
    """Return the numbers of CUDA GPUs, if this process uses any: looking at one would occupy it."""
    import torch

    initialized: Any = torch.cuda.is_initialized  # without types
    used = torch.cuda.is_available() and initialized()
    return range(torch.cuda.device_count() if used else 0)


def used_memory() -> int:
    """Return the bytes of memory that this process holds."""
    return _status("VmRSS") or _largest_so_far()


def machine_memory() -> int | None:
    """Return the bytes that a process may take: of the machine, or of its container or job."""
    found = []
    with suppress(ValueError, OSError, AttributeError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in _limits():
        with suppress(OSError, ValueError):  # "max" is no limit
            found.append(int(file.read_text()))
    return min(found, default=None)


def _limits() -> Iterator[Path]:
    """Yield the files with memory limits of the control groups that this process is in."""
    lines = []
    with suppress(OSError):
        lines = _OWN_GROUPS.read_text().splitlines()
    for line in ["0::/", ":memory:/", *lines]:
        _, kinds, place = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root, name = (
            (_GROUPS / "memory", "memory.limit_in_bytes") if kinds else (_GROUPS, "memory.max")
        )
        inner = root / place.lstrip("/")
        yield from (
            folder / name for folder in (inner, *inner.parents) if folder.is_relative_to(root)
        )


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
