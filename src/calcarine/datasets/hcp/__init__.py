"""Human Connectome Project: visual cortex at rest, to pretrain encoders on (Vis-Dec)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from calcarine.brain.assets import Asset
from calcarine.datasets.hcp._check import check
from calcarine.datasets.hcp._fake import fake
from calcarine.datasets.hcp._files import INFO, RUN, WHO
from calcarine.datasets.hcp._prepare import (
    PreparedVectors,
    SubjectVectors,
    prepare_vectors,
    vectors,
    window_means,
)
from calcarine.errors import SettingError

__all__ = [
    "INFO",
    "PreparedVectors",
    "SubjectVectors",
    "assets",
    "check",
    "fake",
    "load",
    "prepare",
    "prepare_vectors",
    "vectors",
    "window_means",
]


def load(data: str | Path | None = None, subject: str | None = None) -> NoReturn:
    """Raise: there are no stimuli to decode in this data set.

    Raises
    ------
    CalcarineError
        Always: no pictures were shown.

    Examples
    --------
    >>> from calcarine.datasets import hcp
    >>> hcp.load("hcp")
    Traceback (most recent call last):
        ...
    calcarine.errors.SettingError: Data set hcp is the brain at rest: ...
    """
    raise SettingError(
        f"{WHO} is the brain at rest: no pictures were shown, so it serves to pretrain encoders "
        "and not to decode; calcarine.datasets.hcp.vectors(data) gives its voxel vectors, and "
        "'calcarine datasets prepare hcp --data DIR' writes them to disk."
    )


def prepare(
    data: str | Path,
    subject: str | None = None,
    folder: str | Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    *,
    atlas: str | None = None,
    run: str = RUN,
    ending: str | None = None,
) -> PreparedVectors:
    """Write the visual cortex of one or all subjects to disk; see `prepare_vectors`.

    Examples
    --------
    >>> from calcarine.datasets import hcp, write_fake_dataset
    >>> write_fake_dataset("hcp", "hcp-prepare", people=2, grayordinates=400, frames=40)
    >>> hcp.prepare("hcp-prepare").subjects
    ('100206', '100307')
    """
    chosen = None if subject is None else [subject]
    return prepare_vectors(
        data,
        folder,
        chosen,
        atlas=atlas,
        run=run,
        ending=ending,
        workers=workers,
        progress=progress,
    )


def assets(subjects: Sequence[str] | None = None) -> list[Asset]:
    """Return nothing: the files need an account; ``INFO.access`` says how to get them.

    Examples
    --------
    >>> from calcarine.datasets import hcp
    >>> hcp.assets()
    []
    """
    return []
