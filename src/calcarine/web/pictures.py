"""Pictures of a run, looked up quickly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calcarine.reporting.records import RunRecord


class RunPictures:
    """Files of a run's pictures.

    Parameters
    ----------
    record : RunRecord
        Its index is cut by stimulus once, since searching it whole for each picture is slow.
    """

    def __init__(self, record: RunRecord) -> None:
        self._own = {
            str(stimulus): replace(record, index=rows)
            for stimulus, rows in record.index.groupby("id", sort=False)
        }

    def truth(self, stimulus: str) -> Path:
        """Return the file of the picture that was seen."""
        return self._own[stimulus].truth(stimulus)

    def samples(self, stimulus: str, method: str) -> list[int]:
        """Return the sample numbers of a reconstruction, ascending."""
        return self._own[stimulus].samples(stimulus, method)

    def picture(self, stimulus: str, method: str, sample: int) -> Path | None:
        """Return the file of one sample, or None."""
        return self._own[stimulus].picture(stimulus, method, sample)
