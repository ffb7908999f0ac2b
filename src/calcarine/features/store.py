"""Feature arrays on disk, keyed by what they were made from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Extract = Callable[[slice], NDArray[np.float32]]


class FeatureStore:
    """Zarr arrays in one folder; a key names space, model, stimuli and settings.

    Parameters
    ----------
    folder : Path
        Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def key(self, space: str, provenance: Mapping[str, Any]) -> str:
        """Name of the array that ``provenance`` leads to."""
        text = json.dumps(dict(provenance), sort_keys=True, default=str)
        return f"{space}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def get(
        self,
        space: str,
        provenance: Mapping[str, Any],
        count: int,
        shape: tuple[int, ...],
        extract: Extract,
        chunk: int = 64,
    ) -> NDArray[np.float32]:
        """The array, extracted chunk by chunk where it is not yet there.

        Parameters
        ----------
        space : str
            Name of the feature space.
        provenance : mapping
            All that the values depend on; stored beside them.
        count : int
            Number of stimuli n.
        shape : tuple of int
            Shape of one stimulus's features.
        extract : callable
            Slice of stimuli to float32 array ``(rows, *shape)``.

        Returns
        -------
        float32 array of shape (n, *shape)

        Notes
        -----
        An interrupted extraction continues at the chunk where it stopped; the array gets its
        final name only when it is whole.
        """
        import zarr

        name = self.key(space, provenance)
        final, part = self.folder / f"{name}.zarr", self.folder / f"{name}.part.zarr"
        if final.exists():
            return np.asarray(zarr.open_array(final, mode="r")[:], np.float32)
        self.folder.mkdir(parents=True, exist_ok=True)
        array = None
        if part.exists():
            try:
                array = zarr.open_array(part, mode="r+")
            except (FileNotFoundError, ValueError, KeyError):
                shutil.rmtree(part)
        if array is None:
            array = zarr.create_array(
                store=part,
                shape=(count, *shape),
                chunks=(min(chunk, max(count, 1)), *shape),
                dtype="float32",
                attributes={"provenance": json.loads(json.dumps(dict(provenance), default=str))},
            )
            array.attrs["done"] = 0
        done = int(str(array.attrs.get("done", 0)))
        for start in range(done, count, chunk):
            rows = slice(start, min(start + chunk, count))
            array[rows] = extract(rows)
            array.attrs["done"] = rows.stop
        values = np.asarray(array[:], np.float32)
        part.rename(final)
        return values
