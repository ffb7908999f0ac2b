"""Fits of an encoding analysis on disk, so that an interrupted one resumes at the fit it was at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.encoding.mean_responses import MeanResponses
from calcarine.encoding.models import EncodingScores, UniqueVariance
from calcarine.files import atomic_write
from calcarine.files.zarr_files import StoredArray

__all__ = ["KeptFits"]

_ROWS = 256


class KeptFits:
    """Results of one split in a folder, each in files that are named by all that decides them.

    Predictions are mapped from disk instead of read into memory.

    Parameters
    ----------
    folder : Path or None
        None keeps nothing.
    responses : MeanResponses
    features : mapping of str to array
        Feature spaces by name.
    settings : mapping of str to object
        Everything else that decides a result, as plain JSON.
    """

    def __init__(
        self,
        folder: Path | None,
        responses: MeanResponses,
        features: Mapping[str, Any],
        settings: Mapping[str, object],
    ) -> None:
        self._folder, self._features = folder, features
        self._digests: dict[str, str] = {}
        if folder is None:
            return
        ids = [responses.train_ids, responses.test_ids]
        self._common = hashlib.sha256(json.dumps([dict(settings), ids]).encode())
        for array in (responses.train, responses.test, responses.weights):
            if array is not None:
                self._common.update(np.ascontiguousarray(array).data)

    def digest(self, space: str) -> str:
        """Return the hash of a feature space; computed once."""
        if space not in self._digests:
            self._digests[space] = _digest(self._features[space])
        return self._digests[space]

    def scores(self, space: str, make: Callable[[], EncodingScores]) -> EncodingScores:
        """Return the scores of a space, fitted only if they are not there."""
        if self._folder is None:
            return make()
        file = self._folder / f"{self.name(space)}.npz"
        if not file.exists():
            made = make()
            _save_with(
                file, made.predicted, r=made.r, r2=made.r2, cv_r2=made.cv_r2, alpha=made.alpha
            )
        numbers, predicted = _load(file)
        return EncodingScores(**numbers, predicted=predicted)

    def unique(
        self,
        without: Mapping[str, NDArray[np.float32]],
        make: Callable[[], UniqueVariance],
    ) -> UniqueVariance:
        """Return the unique variance of spaces, fitted only if it is not there.

        Parameters
        ----------
        without : mapping of str to array
            By space, what the others predict, which is not stored twice.
        make : callable
        """
        if self._folder is None:
            return make()
        names = " ".join(self.name(space) for space in without)
        file = self._folder / f"{hashlib.sha256(names.encode()).hexdigest()[:32]}.npz"
        if not file.exists():
            made = make()
            _save_with(
                file,
                made.predicted,
                r2=made.r2,
                unique=np.stack([made.unique[space] for space in without]),
            )
        numbers, predicted = _load(file)
        unique = dict(zip(without, numbers["unique"], strict=True))
        return UniqueVariance(numbers["r2"], unique, predicted, without)

    def name(self, space: str) -> str:
        """Return the hash of a space with everything else that decides its results."""
        name = self._common.copy()
        name.update(f"{space} {self.digest(space)}".encode())
        return name.hexdigest()[:32]


def _digest(values: Any) -> str:
    """Return the hash of an array; of one on disk, by its checksums."""
    known = values.digest() if isinstance(values, StoredArray) else None
    if known is not None:
        return known
    digest = hashlib.sha256(f"{tuple(values.shape)} {values.dtype}".encode())
    for start in range(0, len(values), _ROWS):
        digest.update(np.ascontiguousarray(values[start : start + _ROWS]).data)
    return digest.hexdigest()


def _predictions(file: Path) -> Path:
    return file.with_suffix(".predicted.npy")


def _save_with(file: Path, predicted: NDArray[np.float32], **numbers: Any) -> None:
    """Save predictions and, last, the file whose existence says that both are there."""
    predictions = _predictions(file)
    with atomic_write(predictions) as partial, open(partial, "wb") as stream:
        np.save(stream, predicted)
    with atomic_write(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, **numbers)


def _load(file: Path) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float32]]:
    with np.load(file) as found:
        numbers = dict(found)
    return numbers, np.asarray(np.load(_predictions(file), mmap_mode="r"))
