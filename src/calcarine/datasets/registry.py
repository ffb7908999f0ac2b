"""Every data set by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo
from calcarine.datasets import (
    bids,
    bold5000,
    digits69,
    god,
    haxby_slice,
    hcp,
    miyawaki_vbcca,
    ncc_s2,
    nsd,
    own,
)
from calcarine.datasets.prepare.engine import prepare as run_preparation
from calcarine.errors import CalcarineError, MissingFileError, SettingError
from calcarine.quality.findings import CheckResult
from calcarine.simulation import subject as simulated

__all__ = [
    "MODULES",
    "assets",
    "available",
    "check",
    "fake",
    "info",
    "load",
    "prepare",
    "recognise",
]

MODULES: dict[str, ModuleType] = {
    module.INFO.name: module
    for module in (
        simulated,
        digits69,
        miyawaki_vbcca,
        ncc_s2,
        haxby_slice,
        nsd,
        god,
        bold5000,
        hcp,
        own,
        bids,
    )
}
"""The module of each data set; see `calcarine.brain.info`."""


def available() -> tuple[DatasetInfo, ...]:
    """All data sets, simulated ones first."""
    return tuple(module.INFO for module in MODULES.values())


def info(name: str) -> DatasetInfo:
    """Tell what is known about a data set.

    Raises
    ------
    CalcarineError
        If there is none of that name, listing those there are.
    """
    if name not in MODULES:
        raise SettingError(f"There is no data set {name}; there are {', '.join(MODULES)}.")
    found: DatasetInfo = MODULES[name].INFO
    return found


def load(
    name: str,
    data: str | Path | None = None,
    subject: str | None = None,
    **options: Any,
) -> BrainDataset:
    """Load a data set.

    Parameters
    ----------
    name
        One of `available`.
    data
        Folder with its files, or the folder above; simulated data needs none.
    subject
        The first if left out.
    options
        See the loader of the data set.

    Returns
    -------
    BrainDataset

    Raises
    ------
    CalcarineError
        If the name, the subject, an option or a file is wrong.
    """
    found: BrainDataset = _call(name, "load", options, data=data, subject=subject)
    return found


def prepare(
    name: str,
    data: str | Path,
    subject: str | None = None,
    folder: str | Path | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Any:
    """Mask, scale and store a subject's responses, so that `load` is quick.

    Parameters
    ----------
    name, data, subject
        See `load`.
    folder
        Where the prepared subject goes; ``prepared`` in the data folder if
        left out, which is where `load` looks.
    workers, progress
        See `calcarine.datasets.prepare.engine.prepare`.
    options
        See the loader of the data set.

    Returns
    -------
    PreparedSubject
        Or, of a data set that prepares in a way of its own (``hcp``), an
        object with ``path`` and ``summary``.

    Raises
    ------
    CalcarineError
        If there is nothing to prepare in this data set, or a file is wrong.
    """
    if callable(getattr(MODULES.get(name), "prepare", None)):
        given = {"data": data, "subject": subject, "folder": folder}
        return _call(name, "prepare", options, **given, workers=workers, progress=progress)
    recording = _call(name, "recording", options, data=data, subject=subject)
    place = Path(data)
    root = place if place.is_dir() else place.parent
    return run_preparation(recording, folder or root / "prepared", workers, progress)


def fake(
    name: str, folder: str | Path, *, full_size: bool = False, seed: int = 0, **options: Any
) -> None:
    """Write files in a data set's official layout with simulated content.

    Parameters
    ----------
    name
        A measured data set.
    folder
        Made when missing; must be empty, so that no measured file is harmed.
    full_size
        True sizes for a rehearsal, not small ones for a test.
    seed
        Of the content.
    options
        See the function ``fake`` of the data set.

    Raises
    ------
    CalcarineError
        If the folder holds something or the data set is simulated anyway.
    """
    root = Path(folder)
    _check_options(name, "fake", options)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SettingError(f"{root} is not empty; give a new folder for simulated files.")
    root.mkdir(parents=True, exist_ok=True)
    (root / "SIMULATED.txt").write_text(
        f"These files have the layout of {info(name).title}.\nTheir content was made by a "
        "program: nothing in them was measured.\n"
    )
    _call(name, "fake", options, folder=root, full_size=full_size, seed=seed)


def check(name: str, data: str | Path, subject: str | None = None) -> list[CheckResult]:
    """Say what of a data set is in a folder and whether it is as it should be.

    Raises
    ------
    CalcarineError
        If there is no data set of that name or nothing to check in it.
    """
    _check_options(name, "check", {})
    try:
        found: list[CheckResult] = _call(name, "check", {}, data=data, subject=subject)
    except CalcarineError as error:
        return [CheckResult("files", "missing", "nothing that can be checked", advice=str(error))]
    return found


def recognise(folder: str | Path) -> tuple[str, ...]:
    """Names of the data sets whose first file, or the folder of it, is in a folder."""
    root = Path(folder)
    if not root.exists():
        raise MissingFileError(f"{root} does not exist; give the folder of a data set.")
    return tuple(
        about.name
        for about in available()
        if about.files
        and any(
            any(place.glob(pattern))
            for place in (root, root / about.name)
            for pattern in about.files[0].split("|")
        )
    )


def assets(name: str, subjects: Sequence[str] | None = None, **options: Any) -> list[Asset]:
    """Files that a download of some subjects needs."""
    found: list[Asset] = _call(name, "assets", options, subjects=subjects)
    return found


def _call(name: str, function: str, options: dict[str, Any], **arguments: Any) -> Any:
    _check_options(name, function, options)
    try:
        return getattr(MODULES[name], function)(**arguments, **options)
    except CalcarineError:
        raise
    except (TypeError, ValueError) as error:
        raise SettingError(f"An option of data set {name} is wrong: {error}.") from error


def _check_options(name: str, function: str, options: dict[str, Any]) -> None:
    about = info(name)
    called = getattr(MODULES[name], function, None)
    if called is None:
        why = "it is simulated" if about.simulated else "its files are small and read as they are"
        what = {"recording": "prepare", "assets": "download"}.get(function, function)
        raise SettingError(f"Data set {name} has nothing to {what}: {why}.")
    parameters = inspect.signature(called).parameters
    fixed = (
        ("data", "subject", "subjects", "folder", "full_size", "seed", "workers", "progress")
        if (function != "load")
        else ("data", "subject")
    )
    known = [key for key in parameters if key not in fixed]
    for key in options:
        if key not in known:
            raise SettingError(
                f"Data set {name} has no option {key}; it has {', '.join(known) or 'none'}."
            )
