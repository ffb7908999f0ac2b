"""Reading some grayordinates of a CIFTI time series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.datasets._numpy_files import reason
from calcarine.datasets.hcp._files import INFO, WHO
from calcarine.errors import DamagedFileError

__all__ = ["CiftiRecording", "normalised"]

# Grayordinates between two wanted ones are read along where skipping would cost more.
_GAP = 32


@dataclass(frozen=True, eq=False)
class CiftiRecording:
    """A dense time series (``.dtseries.nii``) that stays on disk.

    Attributes
    ----------
    path : Path
        The file.
    frames : int
        How many frames.
    tr : float
        Seconds between them, as the file says.
    brain : object
        nibabel's BrainModelAxis: what each grayordinate is.
    data : object
        nibabel's array proxy, shape (frame, grayordinate).
    """

    path: Path
    frames: int
    tr: float
    brain: Any
    data: Any

    @classmethod
    def open(cls, path: Path) -> CiftiRecording:
        """Read the header.

        Raises
        ------
        CalcarineError
            If the file is damaged or not a dense time series.
        """
        import nibabel

        try:
            image: Any = nibabel.load(path)
            series, brain = image.header.get_axis(0), image.header.get_axis(1)
            if not hasattr(series, "step") or not hasattr(brain, "vertex"):
                raise ValueError("its axes are not time and grayordinates")
            frames, count = (int(size) for size in image.shape)
            if (frames, count) != (len(series), len(brain)):
                raise ValueError(f"its header says {len(series)} x {len(brain)} of {image.shape}")
            tr = float(series.step)
            wanted = frames * count * int(np.dtype(image.get_data_dtype()).itemsize)
            wanted += int(image.dataobj.offset)
            if path.stat().st_size < wanted:
                raise ValueError(f"it has {path.stat().st_size} bytes of at least {wanted}")
        except Exception as error:  # nibabel and its XML parser meet damage with many kinds
            raise DamagedFileError(
                f"{WHO}: {path} is damaged or not a dense time series ({reason(error)}); get it "
                f"again from {INFO.source}."
            ) from error
        return cls(path, frames, tr, brain, image.dataobj)

    def read(self, columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read some grayordinates, in ascending order.

        Returns
        -------
        float32 array of shape (frame, chosen grayordinate)
        """
        result = np.empty((self.frames, len(columns)), dtype=np.float32)
        edges = np.flatnonzero(np.diff(columns) > _GAP) + 1
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                for part in np.split(np.arange(len(columns)), edges):
                    own = columns[part]
                    block = np.asarray(self.data[:, int(own[0]) : int(own[-1]) + 1])
                    result[:, part] = block[:, own - own[0]]
        except Exception as error:  # as in open
            raise DamagedFileError(
                f"{WHO}: {self.path} cannot be read to its end ({reason(error)}); get it again "
                f"from {INFO.source}."
            ) from error
        if not np.isfinite(result).all():
            raise DamagedFileError(
                f"{WHO}: {self.path} holds NaN or infinity in visual cortex; get it again from "
                f"{INFO.source}."
            )
        return result


def normalised(series: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each column with mean 0 and SD 1 over time; a constant one becomes 0.

    Parameters
    ----------
    series : float32 array
        Shape (frame, grayordinate).

    Returns
    -------
    float32 array of the same shape
    """
    mean = series.mean(0, dtype=np.float64)
    spread = series.std(0, dtype=np.float64)
    # Rounding leaves a constant column a spread just above zero.
    spread[spread <= 1e-7 * np.abs(mean)] = np.inf
    spread[spread == 0] = np.inf
    return np.asarray(((series - mean) / spread).astype(np.float32))
