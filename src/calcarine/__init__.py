"""Reconstruct seen pictures from fMRI with latent diffusion models.

``import calcarine as ca`` imports nothing heavy: each name below is loaded when you first use it,
and so is each sub-package, as in ``ca.stimuli``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# The module of each public name. Strings, because `calcarine` lies below every sub-package;
# `__init__.pyi` repeats them for editors and type checkers.
_SOURCES = {
    "BandedRidgeCV": "calcarine.linear",
    "BrainDataset": "calcarine.brain",
    "EmbeddingRegression": "calcarine.decoding",
    "LatentDiffusion": "calcarine.diffusion",
    "LatentRegression": "calcarine.decoding",
    "PixelRegression": "calcarine.decoding",
    "Reconstructor": "calcarine.decoding",
    "RidgeCV": "calcarine.linear",
    "Split": "calcarine.brain",
    "StimulusSet": "calcarine.stimuli",
    "VisDec": "calcarine.visdec",
    "encode": "calcarine.encoding",
    "load_dataset": "calcarine.datasets",
    "retrieve": "calcarine.decoding",
    "run_experiment": "calcarine.experiment",
    "score": "calcarine._front",
    "show": "calcarine.reporting.picture_grid",
}

__all__ = [
    "BandedRidgeCV",
    "BrainDataset",
    "EmbeddingRegression",
    "LatentDiffusion",
    "LatentRegression",
    "PixelRegression",
    "Reconstructor",
    "RidgeCV",
    "Split",
    "StimulusSet",
    "VisDec",
    "__version__",
    "audit",
    "encode",
    "load_dataset",
    "retrieve",
    "run_experiment",
    "score",
    "show",
]


def __getattr__(name: str) -> Any:
    if name in _SOURCES:
        value = getattr(import_module(_SOURCES[name]), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _CallableAudit(ModuleType):
    """The sub-package `calcarine.audit`, which is also the function `calcarine.audit`."""

    @property
    def __signature__(self) -> Any:
        from inspect import signature

        return signature(import_module("calcarine._front").audit)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("calcarine._front").audit(*args, **kwargs)


class _Package(ModuleType):
    """The class of `calcarine` itself: makes the sub-package ``audit`` callable once imported.

    Python sets the attribute ``calcarine.audit`` to the sub-package when anybody imports it. A
    function of that name would be replaced without notice; one object that is both is not.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "audit" and isinstance(value, ModuleType):
            value.__class__ = _CallableAudit
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
