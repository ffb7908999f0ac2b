"""A prepared subject on disk: z-scored responses in chunks, and how they were made.

NAME-SUBJECT-KEY/
  manifest.json               what it was made from, and with which settings
  trials.parquet              stimulus and session of each trial, in order of presentation
  voxels.parquet              one row per voxel
  rois.parquet                a boolean column a region
  splits/NAME.json            sessions are scaled for the first
  sessions/NN.zarr            betas (trial, voxel); mean and scale (voxel,)

The manifest holds the digests of the tables and of itself, and arrays carry checksums (see
`calcarine.files.zarr_files`); what earlier versions wrote without them is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.responses import with_trials
from calcarine.brain.scaling import SessionScaling, ZScore
from calcarine.brain.split import Split
from calcarine.datasets._numpy_files import reason
from calcarine.errors import CalcarineError, DamagedFileError
from calcarine.files import atomic_write, digest_file, read_json, write_text
from calcarine.files.parquet import read_parquet
from calcarine.files.zarr_files import StoredArray, create_array, open_array, problem, seal
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["PreparedSubject"]

_FORMAT, _VERSION = "calcarine-prepared", 1
_CHUNK = (256, 2048)


@dataclass(frozen=True, eq=False)
class PreparedSubject:
    """A folder of one prepared subject, complete or with sessions missing.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : mapping
        What the subject was made from; see `create`.
    trials, voxels : DataFrame
        One row per trial with columns ``stimulus`` and ``session``; one row per voxel.
    rois : dict of str to bool array
        Boolean masks of shape (voxel,).
    splits : tuple of Split
        At least one.
    """

    path: Path
    manifest: Mapping[str, Any]
    trials: pd.DataFrame
    voxels: pd.DataFrame
    rois: dict[str, NDArray[np.bool_]]
    splits: tuple[Split, ...]

    @classmethod
    def create(
        cls,
        path: str | Path,
        manifest: Mapping[str, Any],
        trials: pd.DataFrame,
        voxels: pd.DataFrame,
        rois: Mapping[str, NDArray[np.bool_]],
        splits: tuple[Split, ...],
    ) -> PreparedSubject:
        """Create a subject, or open it if it was begun with the same manifest.

        Parameters
        ----------
        path : str or Path
            Folder; made when missing.
        manifest : mapping
            JSON-like: dataset, subject, source, licence, key, and what else
            made the responses what they are.
        trials, voxels, rois, splits
            See the attributes.
        """
        path = Path(path)
        if (path / "manifest.json").is_file():
            return cls.open(path)
        path.mkdir(parents=True, exist_ok=True)
        tables = {
            "trials": trials,
            "voxels": voxels,
            "rois": pd.DataFrame(dict(rois), index=range(len(voxels)), dtype=bool),
        }
        for name, table in tables.items():
            with atomic_write(path / f"{name}.parquet") as temporary:
                table.to_parquet(temporary)
        for split in splits:
            split.save(path / "splits" / f"{split.name}.json")
        names = [split.name for split in splits]
        files = [*(f"{name}.parquet" for name in tables), *(f"splits/{n}.json" for n in names)]
        digests = {name: digest_file(path / name) for name in files}
        head = {"format": _FORMAT, "version": _VERSION, "splits": names, "digests": digests}
        whole = {**manifest, **head}
        # The manifest comes last: with it the folder counts as begun.
        write_text(
            path / "manifest.json", json.dumps({**whole, "digest": _digest(whole)}, indent=1)
        )
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> PreparedSubject:
        """Read what `create` wrote.

        Raises
        ------
        CalcarineError
            If the folder is no prepared subject or a part of it is damaged.
        """
        path = Path(path)
        try:
            manifest = read_json(path / "manifest.json")
            if manifest["format"] != _FORMAT or manifest["version"] != _VERSION:
                raise ValueError(f"its format is {manifest['format']} {manifest['version']}")
            _check_digests(path, manifest)
            trials = read_parquet(path / "trials.parquet")
            voxels = read_parquet(path / "voxels.parquet")
            masks = read_parquet(path / "rois.parquet")
            splits = tuple(Split.read(path / "splits" / f"{n}.json") for n in manifest["splits"])
            trials["stimulus"], trials["session"]
        except Exception as error:  # damaged tables raise errors of many kinds
            raise DamagedFileError(
                f"{path} is not a whole prepared subject ({reason(error)}); delete it and prepare "
                "again, with 'calcarine datasets prepare' or the command that you gave."
            ) from error
        rois = {str(name): masks[name].to_numpy(dtype=bool) for name in masks.columns}
        return cls(path, manifest, trials, voxels, rois, splits)

    @property
    def sessions(self) -> tuple[int, ...]:
        """Session numbers, in order of presentation."""
        return tuple(int(number) for number in pd.unique(self.trials["session"]))

    def session_path(self, session: int) -> Path:
        """Return the path of a session."""
        return self.path / "sessions" / f"{session:02d}.zarr"

    def missing(self) -> tuple[int, ...]:
        """Return the sessions that are not prepared, or damaged."""
        return tuple(number for number in self.sessions if not self._whole(number))

    def _whole(self, session: int) -> bool:
        """Return whether a session is complete, without reading all of it."""
        path = self.session_path(session)
        return path.is_dir() and problem(path) is None

    def write_session(
        self,
        session: int,
        betas: NDArray[np.float32],
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
    ) -> None:
        """Add one session atomically.

        Parameters
        ----------
        session : int
            Its number.
        betas : float32 array
            Scaled responses, shape (trials of the session, voxel).
        mean, scale : float64 array
            Subtracted mean, shape (voxel,).
        """
        wanted = (int((self.trials["session"] == session).sum()), len(self.voxels))
        if betas.shape != wanted:
            raise DamagedFileError(
                f"Session {session} of {self.path} has responses of shape {betas.shape} and should "
                f"have {wanted}; its files do not fit the table of trials."
            )
        final = self.session_path(session)
        temporary = final.with_name(f"{final.name}.{os.getpid()}-{threading.get_ident()}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            group = zarr.open_group(str(temporary), mode="w")
            chunks = (min(_CHUNK[0], wanted[0]), min(_CHUNK[1], wanted[1]))
            whole = create_array(group, wanted, chunks, "float32", name="betas")
            whole[:] = betas
            for name, values in (("mean", mean), ("scale", scale)):
                one = create_array(group, values.shape, values.shape, "float64", name=name)
                one[:] = np.asarray(values, np.float64)
            seal(temporary)
            if not self._whole(session):
                shutil.rmtree(final, ignore_errors=True)  # a damaged one
                os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def clean(self) -> None:
        """Remove what an interrupted preparation left."""
        for part in (self.path / "sessions").glob("*.part"):
            shutil.rmtree(part, ignore_errors=True)

    def responses(self) -> xr.DataArray:
        """Return all trials, read when they are used.

        Raises
        ------
        CalcarineError
            If a session is missing.
        """
        missing = self.missing()
        if missing:
            raise CalcarineError(
                f"{self.path} lacks {len(missing)} of {len(self.sessions)} sessions, the first "
                f"{missing[0]}; the same prepare command resumes it."
            )
        parts = [self._array(number, "betas") for number in self.sessions]
        lazy = indexing.LazilyIndexedArray(_Sessions(parts, len(self.voxels)))
        return with_trials(
            xr.Variable(("trial", "voxel"), lazy),
            self.trials["stimulus"].astype(str).tolist(),
            self.trials["session"].to_numpy(dtype=np.int64),
        )

    def scaling(self) -> SessionScaling | None:
        """Return the scaling of the sessions."""
        method: ZScore = self.manifest.get("zscore", "none")
        if method == "none":
            return None
        mean, scale = (
            np.stack([np.asarray(self._array(number, name)[:]) for number in self.sessions])
            for name in ("mean", "scale")
        )
        numbers = np.array(self.sessions, dtype=np.int64)
        used = self.trials["stimulus"] if method == "session-all" else self.splits[0].train
        return SessionScaling(numbers, mean, scale, frozenset(used), method)

    def _array(self, session: int, name: str) -> StoredArray:
        return open_array(
            self.session_path(session),
            name,
            "the same command again, or 'calcarine datasets prepare "
            f"{self.manifest['dataset']}', prepares this session again",
        )

    def dataset(self, stimuli: StimulusSet, simulated: bool = False) -> BrainDataset:
        """Join responses and stimuli."""
        return BrainDataset(
            name=str(self.manifest["dataset"]),
            subject=str(self.manifest["subject"]),
            responses=self.responses(),
            voxels=self.voxels,
            rois=self.rois,
            stimuli=stimuli,
            splits=self.splits,
            simulated=simulated,
            source=str(self.manifest["source"]),
            licence=str(self.manifest["licence"]),
            scaling=self.scaling(),
        )


def _digest(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check_digests(path: Path, manifest: Mapping[str, Any]) -> None:
    """Compare the manifest and the tables with what was written."""
    if "digests" not in manifest and "digest" not in manifest:
        return  # of an earlier version
    if manifest.get("digest") != _digest(manifest):
        raise ValueError("manifest.json was changed")
    for name, digest in manifest["digests"].items():
        if digest_file(path / name) != digest:
            raise ValueError(f"{name} was changed")


class _Sessions(BackendArray):
    """Consecutive sessions as one array that is read when it is used."""

    def __init__(self, parts: list[Any], n_voxels: int) -> None:
        self._parts = parts
        ends = np.cumsum([part.shape[0] for part in parts])
        self._starts = np.concatenate([[0], ends[:-1]])
        self._ends = ends
        self.shape = (int(ends[-1]), n_voxels)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        rows, columns = (
            np.atleast_1d(np.arange(size)[part]) for part, size in zip(key, self.shape, strict=True)
        )
        result = np.empty((len(rows), len(columns)), dtype=np.float32)
        every = len(columns) == self.shape[1] and bool((columns == np.arange(len(columns))).all())
        for part, start, end in zip(self._parts, self._starts, self._ends, strict=True):
            inside = np.flatnonzero((rows >= start) & (rows < end))
            if not len(inside):
                continue
            own = rows[inside] - start
            if every:
                result[inside] = part[:][own]
            elif len(columns):
                # Chunks between the first and the last column, a session at a time.
                low, high = int(columns.min()), int(columns.max()) + 1
                result[inside] = part[:, low:high][np.ix_(own, columns - low)]
        dropped = tuple(axis for axis, part in enumerate(key) if isinstance(part, int | np.integer))
        return result.squeeze(axis=dropped) if dropped else result
