"""Reading Parquet tables so that damage raises at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_parquet"]


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Read a Parquet table completely.

    Arrow decodes texts only when they are used, and then raises errors of its own; here they are
    decoded at once.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    DataFrame

    Raises
    ------
    OSError
        If the file is missing or may not be read.
    ValueError
        If it is damaged or not a Parquet file.
    """
    import pandas as pd

    Path(path).stat()  # Arrow's error of a missing file names none
    try:
        table = pd.read_parquet(path)
        for name in range(table.shape[1]):
            table.iloc[:, name].to_numpy()
        table.index.to_numpy()
    except Exception as error:  # Arrow and pandas have errors of many families
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"it is damaged or not a Parquet file: {reason}") from error
    return table
