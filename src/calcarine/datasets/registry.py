"""Every data set by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calcarine.datasets import digits69, miyawaki_vbcca, simulated
from calcarine.datasets._files import DatasetInfo
from calcarine.datasets.core import BrainDataset
from calcarine.errors import CalcarineError

__all__ = ["LOADERS", "DatasetInfo", "available", "info", "load"]

_MODULES = (simulated, digits69, miyawaki_vbcca)
_INFOS: dict[str, DatasetInfo] = {module.INFO.name: module.INFO for module in _MODULES}

LOADERS: dict[str, Callable[..., BrainDataset]] = {
    module.INFO.name: module.load for module in _MODULES
}
"""Loading functions; all take `data` and `subject` and their own options."""


def available() -> tuple[DatasetInfo, ...]:
    """All data sets, simulated ones first."""
    return tuple(_INFOS.values())


def info(name: str) -> DatasetInfo:
    """Tell what is known about a data set.

    Raises
    ------
    CalcarineError
        If there is none of that name, listing those there are.
    """
    if name not in _INFOS:
        raise CalcarineError(f"There is no data set {name}; there are {', '.join(_INFOS)}.")
    return _INFOS[name]


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
    info(name)
    loader = LOADERS[name]
    known = [key for key in inspect.signature(loader).parameters if key not in ("data", "subject")]
    for key in options:
        if key not in known:
            raise CalcarineError(
                f"Data set {name} has no option {key}; it has {', '.join(known) or 'none'}."
            )
    try:
        return loader(data=data, subject=subject, **options)
    except CalcarineError:
        raise
    except (TypeError, ValueError) as error:
        raise CalcarineError(f"An option of data set {name} is wrong: {error}.") from error
