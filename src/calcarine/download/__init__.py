"""Downloading the files of a data set."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.download.archives import extract
    from calcarine.download.command import download_dataset
    from calcarine.download.parallel import fetch_all
    from calcarine.download.transfer import FetchedFile, RetryPolicy, fetch

__all__ = [
    "FetchedFile",
    "RetryPolicy",
    "download_dataset",
    "extract",
    "fetch",
    "fetch_all",
]

_MODULES = {
    "extract": "archives",
    "download_dataset": "command",
    "fetch_all": "parallel",
    "FetchedFile": "transfer",
    "RetryPolicy": "transfer",
    "fetch": "transfer",
}


def __getattr__(name: str) -> Any:
    # Modules are imported when they are first used, so that importing the package is fast.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
