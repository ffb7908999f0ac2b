"""Reading other people's weights safely: safetensors, pickles of weights only, single files."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.checkpoints.formats import (
        WeightsFormat,
        check_loaded,
        check_safetensors,
        file_format,
        load_safetensors,
        weights_format,
    )
    from calcarine.checkpoints.network_weights import WeightsFile, WeightsStore
    from calcarine.checkpoints.pickles import read_checkpoint

__all__ = [
    "WeightsFile",
    "WeightsFormat",
    "WeightsStore",
    "check_loaded",
    "check_safetensors",
    "file_format",
    "load_safetensors",
    "read_checkpoint",
    "weights_format",
]

_MODULES = {
    "WeightsFormat": "formats",
    "check_loaded": "formats",
    "check_safetensors": "formats",
    "file_format": "formats",
    "load_safetensors": "formats",
    "weights_format": "formats",
    "WeightsFile": "network_weights",
    "WeightsStore": "network_weights",
    "read_checkpoint": "pickles",
}


def __getattr__(name: str) -> Any:
    # Modules are imported when they are first used, so that importing the package is fast.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
