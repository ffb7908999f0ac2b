"""The trials of a subject, common to betas and time series."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.described.regions import VoxelGrid

__all__ = ["SubjectTrials"]


@dataclass(frozen=True, eq=False)
class SubjectTrials:
    """Trials of one subject, and how their responses are read.

    Attributes
    ----------
    trials : DataFrame
        ``stimulus`` and ``session``, in order of presentation.
    grid : VoxelGrid
        Voxels that are kept.
    read : callable
        Session to float32 of shape (trials of the session, voxel).
    provenance : mapping
        Files and settings that decide the responses.
    notes : tuple of str
        Sentences about what was left out.
    """

    trials: pd.DataFrame
    grid: VoxelGrid
    read: Callable[[int], NDArray[np.float32]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
