"""The files of a run's encoding analyses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from calcarine.errors import CalcarineError, DamagedFileError, out_of_memory
from calcarine.files import is_disk_full, read_json
from calcarine.files.parquet import read_parquet

__all__ = ["EncodingRecord", "encoding_files", "read_encoding"]


@dataclass(frozen=True, eq=False)
class EncodingRecord:
    """Contents of the folder ``encoding`` of a run.

    Attributes
    ----------
    folder
        The run directory.
    summary
        Data set, settings and numbers of voxels.
    voxels, regions, unique, winners
        See `calcarine.encoding.Analysis`.
    """

    folder: Path
    summary: dict[str, Any]
    voxels: pd.DataFrame
    regions: pd.DataFrame
    unique: pd.DataFrame
    winners: pd.DataFrame

    @property
    def simulated(self) -> bool:
        """Whether the brain was simulated."""
        return bool(self.summary["simulated"])


def read_encoding(run: Path) -> EncodingRecord:
    """Read the encoding analyses of a run.

    Parameters
    ----------
    run : Path

    Returns
    -------
    EncodingRecord

    Raises
    ------
    CalcarineError
        If there are none, or a file is damaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import read_encoding
    >>> record = read_encoding(Path("runs/takagi"))  # doctest: +SKIP
    """
    folder = run / "encoding"
    with encoding_files(run):
        summary = read_json(folder / "summary.json")
        names = ("voxels", "regions", "unique", "winners")
        tables = {name: read_parquet(folder / f"{name}.parquet") for name in names}
        summary["simulated"], summary["facts"]["rate"]
    return EncodingRecord(run, summary, **tables)


@contextmanager
def encoding_files(run: Path) -> Iterator[None]:
    """Report any error in the contents of an analysis as a damaged analysis."""
    try:
        yield
    except CalcarineError:
        raise
    except Exception as error:  # tables and mappings of any shape
        if out_of_memory(error) or is_disk_full(error):
            raise
        raise DamagedFileError(
            f"The encoding analysis of {run} is incomplete or damaged ({type(error).__name__}); "
            f"delete {run / '.stages' / 'encode.json'} if it exists, and run 'calcarine encode "
            f"{run}'."
        ) from error
