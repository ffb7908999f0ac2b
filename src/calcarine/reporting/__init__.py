"""Figures, brain maps and HTML pages of a finished run.

`build_report` writes the report of a run, `build_gallery` a page to browse all reconstructions,
`build_encoding_report` the encoding maps, and `build_audit_page` the page of an audit.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.reporting.audit_page import (
        build_audit_page,
    )
    from calcarine.reporting.brain_maps import (
        save_interactive,
        save_surface,
        save_volume,
        surface_figure,
    )
    from calcarine.reporting.encoding_record import read_encoding
    from calcarine.reporting.encoding_report import build_encoding_report
    from calcarine.reporting.gallery import (
        build_gallery,
    )
    from calcarine.reporting.report import (
        build_report,
        headline_scores,
    )
    from calcarine.reporting.run_records import (
        RunRecord,
        read_run,
        read_run_scores,
    )

# Where each public name is defined: a name is imported when it is first used, so that
# importing one module of this package imports nothing heavy.
_SOURCES = {
    "RunRecord": "run_records",
    "build_audit_page": "audit_page",
    "build_encoding_report": "encoding_report",
    "build_gallery": "gallery",
    "build_report": "report",
    "headline_scores": "report",
    "read_encoding": "encoding_record",
    "read_run": "run_records",
    "read_run_scores": "run_records",
    "save_interactive": "brain_maps",
    "save_surface": "brain_maps",
    "save_volume": "brain_maps",
    "surface_figure": "brain_maps",
}

__all__ = [
    "RunRecord",
    "build_audit_page",
    "build_encoding_report",
    "build_gallery",
    "build_report",
    "headline_scores",
    "read_encoding",
    "read_run",
    "read_run_scores",
    "save_interactive",
    "save_surface",
    "save_volume",
    "surface_figure",
]


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
