"""Slices for work in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["blocks"]


def blocks(n: int, step: int) -> Iterator[slice]:
    """Yield slices of at most ``step`` rows (at least one) that cover n rows in order."""
    step = max(1, step)
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))
