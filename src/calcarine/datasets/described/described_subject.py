"""From a description to a recording and to a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.info import DatasetInfo
from calcarine.brain.responses import with_trials
from calcarine.datasets._data_files import is_simulated
from calcarine.datasets.described.beta_source import betas_source
from calcarine.datasets.described.description import Description
from calcarine.datasets.described.description_arrays import stamp
from calcarine.datasets.described.description_splits import make_splits
from calcarine.datasets.described.pictures import stimulus_set
from calcarine.datasets.described.regions import read_rois, voxel_table
from calcarine.datasets.described.subject_trials import SubjectTrials
from calcarine.datasets.prepare.preparation import Recording, prepare
from calcarine.errors import SettingError
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["DescribedSubject", "open_subject"]


@dataclass(frozen=True, eq=False)
class DescribedSubject:
    """A description with the metadata of its files; pictures and responses are not yet read.

    Attributes
    ----------
    description, root
        The description, and the folder of its paths.
    recording : Recording
        Responses, to be prepared.
    notes : tuple of str
        Sentences about what was left out.
    """

    description: Description
    root: Path
    recording: Recording
    notes: tuple[str, ...] = ()

    def stimuli(self, size: int | None = None) -> StimulusSet:
        """Return pictures and captions of the stimuli that were shown."""
        return _stimuli(self.description, self.root, self.recording.trials, size)

    def without_responses(self) -> BrainDataset:
        """Return what `load` returns, with zeros instead of responses, which are not read.

        Raises
        ------
        CalcarineError
            If `load` would refuse anything but the responses themselves.
        """
        about = self.recording
        about.check()
        count = (len(about.trials), len(about.voxels))
        lazy = indexing.LazilyIndexedArray(_ZeroResponses(count))
        trials = with_trials(
            xr.Variable(("trial", "voxel"), lazy),
            about.trials["stimulus"].tolist(),
            about.trials["session"].to_numpy(dtype=np.int64),
        )
        return BrainDataset(
            about.dataset,
            about.subject,
            trials,
            about.voxels,
            dict(about.rois),
            self.stimuli(),
            about.splits,
            self._simulated(),
            about.source,
            about.licence,
        )

    def load(self, size: int | None, prepared: str | Path | None) -> BrainDataset:
        """Prepare what is not prepared yet, and join it with the stimuli.

        Raises
        ------
        CalcarineError
            If a file is wrong, or the folder of prepared subjects cannot be
            written.
        """
        stimuli = self.stimuli(size)
        place = Path(prepared) if prepared is not None else self.root / "prepared"
        try:
            store = prepare(self.recording, place)
        except OSError as error:
            raise SettingError(
                f"The prepared subject cannot be written to {place} ({error.strerror or error}); "
                "say another folder with the option prepared."
            ) from error
        return store.dataset(stimuli, simulated=self._simulated())

    def _simulated(self) -> bool:
        about = self.description.bids
        places = [self.root, *([self.root / about.derivatives] if about else [])]
        return any(is_simulated(place) for place in places)


class _ZeroResponses(BackendArray):
    """Zeros instead of responses."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key,
            self.shape,
            indexing.IndexingSupport.BASIC,
            lambda part: np.broadcast_to(np.float32(0), self.shape)[part],
        )


def _stimuli(
    about: Description, root: Path, trials: pd.DataFrame, size: int | None = None
) -> StimulusSet:
    """Return pictures and captions of the stimuli, by first presentation."""
    shown = tuple(dict.fromkeys(trials["stimulus"]))
    return stimulus_set(root, about.images, about.captions, shown, size, about.first_image)


def open_subject(info: DatasetInfo, description: Description, root: Path) -> DescribedSubject:
    """Read the tables, masks and headers of a description.

    Parameters
    ----------
    info : DatasetInfo
        Name of the loaded data set.
    description, root
        The description, and the folder of its paths.

    Raises
    ------
    CalcarineError
        With one sentence for the first thing that does not fit.
    """
    source = _source(description, root)
    rois, files = read_rois(root, description.rois, source.grid, description.voxel_order)

    def categories() -> dict[str, tuple[str, ...]]:
        stimuli = _stimuli(description, root, source.trials)
        return dict(zip(stimuli.ids, stimuli.categories(), strict=True))

    splits = make_splits(root, description.test, source.trials, categories)
    provenance = {**source.provenance, "regions": [stamp(path) for path in files]}
    recording = Recording(
        dataset=info.name,
        subject=description.subject,
        source=f"{description.name}: recorded by the user",
        licence=info.licence,
        trials=source.trials,
        voxels=voxel_table(source.grid),
        rois=rois,
        splits=splits,
        read=source.read,
        provenance=provenance,
        zscore=description.zscore,
    )
    return DescribedSubject(description, root, recording, source.notes)


def _source(description: Description, root: Path) -> SubjectTrials:
    if description.bids is None:
        return betas_source(description, root)
    from calcarine.datasets.described.bids_source import bids_source

    return bids_source(description, root)
