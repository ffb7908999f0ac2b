"""Rating study: human raters choose which of two pictures is more similar to the original.

The design is a two-alternative forced choice, as in Takagi & Nishimoto (2023):
blinded, counterbalanced, with practice and catch trials. A study is one folder: ``study.json``
(settings and provenance), ``study.sqlite`` (questions, raters, answers) and ``images/``.
`make_study` makes a study, `serve` serves it to raters, and `analyse` analyses their answers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calcarine.study.analysis import (
        ComparisonResult,
        RaterResult,
        StudyAnalysis,
        analyse,
    )
    from calcarine.study.analysis_page import (
        write_analysis,
    )
    from calcarine.study.answers import (
        AnswerRow,
        export_answers,
        read_answers,
    )
    from calcarine.study.make import (
        make_study,
    )
    from calcarine.study.server import (
        serve,
    )
    from calcarine.study.settings import (
        MethodPair,
        StudySettings,
    )
    from calcarine.study.sources import (
        StudyImages,
        from_folders,
        from_runs,
    )
    from calcarine.study.store import (
        Study,
        StudyDatabaseError,
    )

# Where each public name is defined: a name is imported when it is first used, so that
# importing one module of this package imports nothing heavy.
_SOURCES = {
    "AnswerRow": "answers",
    "ComparisonResult": "analysis",
    "MethodPair": "settings",
    "RaterResult": "analysis",
    "Study": "store",
    "StudyAnalysis": "analysis",
    "StudyDatabaseError": "store",
    "StudyImages": "sources",
    "StudySettings": "settings",
    "analyse": "analysis",
    "export_answers": "answers",
    "from_folders": "sources",
    "from_runs": "sources",
    "make_study": "make",
    "read_answers": "answers",
    "serve": "server",
    "write_analysis": "analysis_page",
}

__all__ = [
    "AnswerRow",
    "ComparisonResult",
    "MethodPair",
    "RaterResult",
    "Study",
    "StudyAnalysis",
    "StudyDatabaseError",
    "StudyImages",
    "StudySettings",
    "analyse",
    "export_answers",
    "from_folders",
    "from_runs",
    "make_study",
    "read_answers",
    "serve",
    "write_analysis",
]


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
