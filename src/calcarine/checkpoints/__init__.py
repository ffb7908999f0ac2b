"""Reading other people's weights safely: safetensors, pickles of weights only, single files."""

from __future__ import annotations

from calcarine.checkpoints.formats import (
    WeightsFormat,
    check_loaded,
    check_safetensors,
    file_format,
    load_safetensors,
    weights_format,
)

__all__ = [
    "WeightsFormat",
    "check_loaded",
    "check_safetensors",
    "file_format",
    "load_safetensors",
    "weights_format",
]
