"""Fits of an encoding analysis on disk, so that an interrupted one resumes at the fit it was at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.encoding.mean_responses import MeanResponses
from calcarine.encoding.models import EncodingScores, UniqueVariance
from calcarine.files import atomic_write

__all__ = ["KeptFits"]

_SPOTS = 16


class KeptFits:
    """Results of one split in a folder, each in files that are named by what it depends on.

    What depends on the number of test stimuli or on the number of all stimuli is mapped from disk
    instead of read into memory.

    Parameters
    ----------
    folder : Path
    responses : MeanResponses
    settings : mapping of str to object
        Everything else that decides a result, as plain JSON.
    """

    def __init__(
        self, folder: Path, responses: MeanResponses, settings: Mapping[str, object]
    ) -> None:
        self._folder = folder
        digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
        for ids in (responses.train_ids, responses.test_ids):
            digest.update(json.dumps(ids).encode())
        for array in (responses.train, responses.test, responses.weights):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        self._common = digest.hexdigest()

    def name_of(self, space: str, values: Any) -> str:
        """Return a name for a feature space: its own, its shape and some of its rows, hashed."""
        digest = hashlib.sha256(f"{self._common} {space} {tuple(values.shape)}".encode())
        for row in np.unique(np.linspace(0, len(values) - 1, _SPOTS).astype(int)):
            digest.update(np.ascontiguousarray(values[row : row + 1], dtype=np.float32).data)
        return digest.hexdigest()[:32]

    def components(self, name: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return principal components, made only if they are not there."""
        file = self._folder / f"{name}.components.npy"
        if not file.exists():
            _save(file, make())
        return _mapped(file)

    def scores(self, name: str, make: Callable[[], EncodingScores]) -> EncodingScores:
        """Return the scores of a feature space, fitted only if they are not there."""
        small, large = self._files(name)
        if not small.exists():
            made = make()
            _save(large, made.predicted)
            _save_small(small, r=made.r, r2=made.r2, cv_r2=made.cv_r2, alpha=made.alpha)
        with np.load(small) as found:
            return EncodingScores(**found, predicted=_mapped(large))

    def unique(
        self,
        names: Mapping[str, str],
        without: Mapping[str, NDArray[np.float32]],
        make: Callable[[], UniqueVariance],
    ) -> UniqueVariance:
        """Return the unique variance of two spaces, fitted only if it is not there.

        Parameters
        ----------
        names : mapping of str to str
            Name of each space, by `name_of`.
        without : mapping of str to array
            By space, what the other one predicts, which is not stored twice.
        make : callable
        """
        joined = hashlib.sha256(" ".join(names.values()).encode()).hexdigest()[:32]
        small, large = self._files(joined)
        if not small.exists():
            made = make()
            _save(large, made.predicted)
            _save_small(small, r2=made.r2, **_numbered(names, made.unique))
        with np.load(small) as found:
            unique = {name: found[f"unique_{i}"] for i, name in enumerate(names)}
            return UniqueVariance(found["r2"], unique, _mapped(large), dict(without))

    def _files(self, name: str) -> tuple[Path, Path]:
        return self._folder / f"{name}.npz", self._folder / f"{name}.predicted.npy"


def _numbered(
    names: Sequence[str] | Mapping[str, str], values: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    return {f"unique_{i}": values[name] for i, name in enumerate(names)}


def _save(file: Path, values: NDArray[np.float32]) -> None:
    with atomic_write(file) as partial, open(partial, "wb") as stream:
        np.save(stream, values)


def _save_small(file: Path, **values: NDArray[np.float64]) -> None:
    # Written last: where it exists, the large file is whole.
    with atomic_write(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, allow_pickle=False, **values)


def _mapped(file: Path) -> NDArray[np.float32]:
    mapped: NDArray[np.float32] = np.load(file, mmap_mode="r")
    return mapped
