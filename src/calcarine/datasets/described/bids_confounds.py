"""Columns of fMRIPrep's confounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets._numpy_files import reason
from calcarine.datasets.prepare.events import Drift
from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    SettingError,
    ShapeError,
)

__all__ = ["GROUPS", "read_confounds"]

_MOTION = r"(trans|rot)_[xyz]"
GROUPS = {
    "motion": rf"^{_MOTION}$",
    "motion24": rf"^{_MOTION}(_derivative1)?(_power2)?$",
    "cosine": r"^cosine[0-9]+$",
    "wm_csf": r"^(white_matter|csf)$",
    "global_signal": r"^global_signal$",
    "acompcor": r"^a_comp_cor_0[0-5]$",
}
"""Names for several columns; other names are columns."""


def read_confounds(
    path: Path | None, wanted: Sequence[str], run: str, count: int
) -> tuple[NDArray[np.float64], Drift]:
    """Return the confounds of one run, and the drift to model with them.

    Parameters
    ----------
    path
        The table; None where there is none.
    wanted
        Names in `GROUPS`, or of columns.
    run, count
        Label and number of volumes.

    Returns
    -------
    values : array of shape (count, confound)
        Missing values (of a first volume's derivative) are 0.
    drift
        ``"none"`` where the table's own cosines are taken, ``"cosine"``
        where they are wanted and not there, else ``"polynomial"``.

    Raises
    ------
    CalcarineError
        If a wanted column is not there or lengths differ.
    """
    drift: Drift = "cosine" if "cosine" in wanted else "polynomial"
    names = [name for name in wanted if name != "cosine"]
    if path is None:
        if names:
            raise MissingFileError(
                f"There are no confounds of {run}, and {', '.join(names)} are wanted; leave them "
                "out with confounds: [cosine]."
            )
        return np.empty((count, 0)), drift
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"])
        chosen: list[str] = []
        for name in wanted:
            chosen += _columns(table, name, path)
        values = table[list(dict.fromkeys(chosen))].to_numpy(dtype=np.float64)
    except CalcarineError:
        raise
    except Exception as error:  # pandas meets bad tables with errors of many kinds
        raise DamagedFileError(f"The confounds {path} cannot be read ({reason(error)}).") from error
    if len(values) != count:
        raise ShapeError(
            f"The confounds {path.name} have {len(values)} rows and the run {count} volumes."
        )
    if any(re.search(GROUPS["cosine"], name) for name in chosen):
        drift = "none"
    return np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf), drift


def _columns(table: pd.DataFrame, name: str, path: Path) -> list[str]:
    pattern = GROUPS.get(name)
    if pattern is None:
        results = [name] if name in table.columns else []
    else:
        results = [str(column) for column in table.columns if re.search(pattern, str(column))]
    if not results and name != "cosine":
        raise SettingError(
            f"The confounds {path.name} have no {name}; there are the groups {', '.join(GROUPS)} "
            "and the columns of the table."
        )
    return results
