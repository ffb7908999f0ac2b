"""Fast access to the pictures of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calcarine.errors import DamagedFileError
from calcarine.reporting.run_records import RunRecord

__all__ = ["RunPictures"]


class RunPictures:
    """Files of a run's pictures.

    Parameters
    ----------
    record : RunRecord
        Its index is converted to a mapping, because searching the table for each picture is slow.
    """

    def __init__(self, record: RunRecord) -> None:
        index = record.index
        self._root = record.folder.resolve()
        self._files: dict[tuple[str, str], dict[int, str]] = {}
        columns = (index[name].tolist() for name in ("id", "method", "sample", "file"))
        for stimulus, method, sample, file in zip(*columns, strict=True):
            self._files.setdefault((stimulus, method), {}).setdefault(int(sample), str(file))
        self._own = {
            str(stimulus): replace(record, index=rows)
            for stimulus, rows in index.groupby("id", sort=False)
        }

    def truth(self, stimulus: str) -> Path:
        """Return the file of the stimulus."""
        return self._own[stimulus].truth(stimulus)

    def samples(self, stimulus: str, method: str) -> list[int]:
        """Return the sample numbers of a reconstruction, ascending."""
        return sorted(self._files.get((stimulus, method), ()))

    def picture(self, stimulus: str, method: str, sample: int) -> Path | None:
        """Return the file of one sample, or None.

        Raises
        ------
        CalcarineError
            If the index lists a file that is missing or outside of the run.
        """
        file = self._files.get((stimulus, method), {}).get(sample)
        if file is None:
            return None
        path = (self._root / file).resolve()
        if not path.is_relative_to(self._root) or not path.is_file():
            raise DamagedFileError(
                f"{self._root}/reconstructions/index.parquet lists {file!r}, which is missing or "
                "outside of the run; reconstruct again."
            )
        return path
