"""How much signal responses have: reliability, noise ceilings and identification."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.quality.check_results import CheckResult
    from calcarine.quality.identification import RepeatIdentification, identify_repeats
    from calcarine.quality.reliability import Reliability, estimate_reliability, noise_ceiling
    from calcarine.quality.signal import SignalReport, describe_signal

__all__ = [
    "CheckResult",
    "Reliability",
    "RepeatIdentification",
    "SignalReport",
    "describe_signal",
    "estimate_reliability",
    "identify_repeats",
    "noise_ceiling",
]

_MODULES = {
    "CheckResult": "check_results",
    "RepeatIdentification": "identification",
    "identify_repeats": "identification",
    "Reliability": "reliability",
    "estimate_reliability": "reliability",
    "noise_ceiling": "reliability",
    "SignalReport": "signal",
    "describe_signal": "signal",
}


def __getattr__(name: str) -> Any:
    # Modules are imported when they are first used, so that importing the package is fast.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
