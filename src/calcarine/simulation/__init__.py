"""Simulated brains with a known ground truth: a visual cortex, rest, and tuned voxels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.simulation.rest import rest_vectors
    from calcarine.simulation.voxels import simulate_voxels

__all__ = [
    "rest_vectors",
    "simulate_voxels",
]

_MODULES = {
    "rest_vectors": "rest",
    "simulate_voxels": "voxels",
}


def __getattr__(name: str) -> Any:
    # Modules are imported when they are first used, so that importing the package is fast.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
