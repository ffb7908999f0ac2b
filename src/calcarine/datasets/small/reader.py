"""The reader of a small measured data set: loading, checking, downloading, simulated files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calcarine.brain.assets import Asset
from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo, pick_subject
from calcarine.datasets._check_results import simulated_result
from calcarine.datasets._data_files import find_file
from calcarine.datasets.small.table import SmallDataset
from calcarine.errors import CalcarineError
from calcarine.quality.check_results import CheckResult

__all__ = ["SmallReader"]


@dataclass(frozen=True)
class SmallReader:
    """A reader of a data set that is small enough to be loaded at once.

    Attributes
    ----------
    table : SmallDataset
        The row of the table.
    INFO : DatasetInfo
        What is known before loading.
    load : callable
        ``load(data, subject, **options)``.
    write : callable
        ``write(folder, seed)`` writes files in the official layout with simulated content.
    """

    table: SmallDataset
    INFO: DatasetInfo
    load: Callable[..., BrainDataset]
    write: Callable[[Path, int], None]

    def fake(self, folder: str | Path, *, full_size: bool = False, seed: int = 0) -> None:
        """Write files with the official names and shapes, and simulated content.

        Parameters
        ----------
        folder : str or Path
            An existing folder.
        full_size : bool
            Not used: the true size is small.
        seed : int
            Seed of the content.
        """
        self.write(Path(folder), seed)

    def assets(self, subjects: Sequence[str] | None = None) -> list[Asset]:
        """Return the file to download; empty if ``INFO.access`` says how to get the files."""
        for subject in subjects or ():
            pick_subject(self.INFO, subject)
        return self.table.assets()

    def check(self, data: str | Path, subject: str | None = None) -> list[CheckResult]:
        """Check whether the files are in a folder and hold what is known of them."""
        results = [self._check_file(data, name, size) for name, size in self.table.files.items()]
        if any(row.status == "missing" for row in results):
            return results
        results += simulated_result(find_file(self.INFO, data, self.table.file))
        try:
            dataset = self.load(data, subject)
        except CalcarineError as error:
            advice = f"Get the files again from {self.INFO.source}."
            return [*results, CheckResult("content", "wrong", str(error), "", advice)]
        counts = _counts(dataset)
        for what, known in self.table.expected().items():
            same = counts[what] == known
            results.append(CheckResult(what, "ok" if same else "note", counts[what], known))
        low, high = float(dataset.responses.min()), float(dataset.responses.max())
        results.append(CheckResult("responses", "ok", f"{low:.4g} to {high:.4g}"))
        return results

    def _check_file(self, data: str | Path, name: str, size: int) -> CheckResult:
        try:
            path = find_file(self.INFO, data, name)
        except CalcarineError:
            advice = f"It is from {self.INFO.source}."
            return CheckResult(name, "missing", "", f"{size:,} bytes", advice)
        own = path.stat().st_size
        # Files that were saved again have another size and may still be right.
        return CheckResult(
            name, "ok" if own == size else "note", f"{own:,} bytes", f"{size:,} bytes"
        )


def _counts(dataset: BrainDataset) -> dict[str, str]:
    first = dict(zip(dataset.stimuli.ids, dataset.stimuli.categories(), strict=True))
    shown = Counter(first[key][0] for key in dataset.trial_stimuli)
    return {
        "trials": str(dataset.n_trials),
        "voxels": str(dataset.n_voxels),
        "stimuli": str(len(dataset.stimuli)),
        "sessions": str(len(np.unique(dataset.sessions))),
        "categories": ", ".join(f"{name} {shown[name]}" for name in sorted(shown)),
    }
