"""Preparing a subject session by session: mask, scale and store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.brain.scaling import (
    SessionMoments,
    Source,
    ZScore,
    mean_and_scale,
    moments,
    pooled_moments,
    scaling_plan,
    trials_of_source,
)
from calcarine.brain.split import Split
from calcarine.datasets.prepare.store import PreparedSubject
from calcarine.errors import CalcarineError, DamagedFileError, SettingError
from calcarine.files.locks import folder_lock

__all__ = ["Recording", "prepare"]

_ROWS = 8
"""Trials scaled at a time: few enough for the processor's cache."""

ReadSession = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Recording:
    """One subject in the files of a data set: what to read, and how.

    Attributes
    ----------
    dataset, subject, source, licence
        Where it is from.
    trials
        Columns ``stimulus`` (text) and ``session`` (whole number), others as
        they come; in order of presentation, a session's trials together.
    voxels
        One row a voxel that is kept, with columns ``x``, ``y`` and ``z``.
    rois
        Boolean masks of shape (voxel,).
    splits
        Sessions are scaled for the first, and scaled again if another is read.
    read
        Session number to its responses: float32, shape (trials of the
        session, voxel), in percent signal change where the files allow it.
        Called from several threads.
    provenance
        JSON-like: files with sizes, masks and options.  Decides, with trials
        and splits, whether what is on disk is still right.
    zscore
        See `calcarine.brain.scaling.ZScore`; ``"none"`` for responses that
        are scaled already.
    """

    dataset: str
    subject: str
    source: str
    licence: str
    trials: pd.DataFrame
    voxels: pd.DataFrame
    rois: Mapping[str, NDArray[np.bool_]]
    splits: tuple[Split, ...]
    read: ReadSession
    provenance: Mapping[str, Any] = field(default_factory=dict)
    zscore: ZScore = "session"

    @property
    def who(self) -> str:
        """Data set and subject, for errors."""
        return f"Data set {self.dataset}, subject {self.subject}"

    def train_trials(self, split: Split) -> NDArray[np.bool_]:
        """Return which trials are training, shape (trial,)."""
        return self.trials["stimulus"].isin(split.train).to_numpy()

    def scaling_plan(self, split: Split | None = None) -> dict[int, Source]:
        """Return which trials scale each session for a split; by default the first.

        Raises
        ------
        CalcarineError
            If there are too few.
        """
        train = self.train_trials(split or self.splits[0])
        return scaling_plan(self.trials["session"].to_numpy(), train, self.zscore, self.who)

    def check(self) -> None:
        """Raise if the subject cannot be prepared, without reading responses.

        Raises
        ------
        CalcarineError
            If a table is empty, the trials of a session do not stand
            together, or there are too few trials to scale by.
        """
        if self.trials.empty or self.voxels.empty:
            what = "trials" if self.trials.empty else "voxels"
            raise CalcarineError(
                f"{self.who} has no {what} to prepare; check its tables and masks."
            )
        if not self.splits:
            raise SettingError(f"{self.who} has no split; give at least one.")
        sessions = self.trials["session"].to_numpy()
        changes = 1 + int((sessions[1:] != sessions[:-1]).sum())
        if changes != len(np.unique(sessions)):
            raise CalcarineError(
                f"{self.who}: the trials of a session are not consecutive; sort them."
            )
        for split in self.splits:
            self.scaling_plan(split)

    def key(self) -> str:
        """Return the hash of everything that determines the prepared responses."""
        text = json.dumps(
            [self.dataset, self.subject, self.zscore, dict(self.provenance)],
            sort_keys=True,
            default=str,
        )
        total = hashlib.sha256(text.encode())
        total.update(self.trials[["stimulus", "session"]].to_csv(index=False).encode())
        total.update(self.voxels.to_csv(index=False).encode())
        for name in sorted(self.rois):
            total.update(name.encode() + np.packbits(self.rois[name]).tobytes())
        total.update("".join(split.digest() for split in self.splits).encode())
        return total.hexdigest()[:16]


def prepare(
    recording: Recording,
    folder: str | Path,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedSubject:
    """Read, mask and scale a subject's sessions, and write them in chunks.

    A session is on disk whole or not at all; the same call resumes an
    earlier one.  A session is read once, or twice where all training trials
    scale some session.  Of several processes that prepare the same subject
    one works and the others wait for it.

    Parameters
    ----------
    recording
        What to read.
    folder
        Where the prepared subject's own folder is made.
    workers
        Sessions that are read at the same time; memory is so many times one
        session's voxels as float32.
    progress
        Called with the number of sessions done and of all.

    Returns
    -------
    PreparedSubject

    Raises
    ------
    CalcarineError
        If a file is missing or does not fit the table of trials, or there are
        fewer than two trials to scale by.
    """
    if workers < 1:
        raise SettingError(f"Preparing needs at least one worker, not {workers}.")
    recording.check()
    report = progress or (lambda done, total: None)
    key = recording.key()
    path = Path(folder) / f"{recording.dataset}-{recording.subject}-{key}"
    if (path / "manifest.json").is_file():
        store = PreparedSubject.open(path)
        if not store.missing():
            report(len(store.sessions), len(store.sessions))
            return store
    manifest = {
        "dataset": recording.dataset,
        "subject": recording.subject,
        "source": recording.source,
        "licence": recording.licence,
        "zscore": recording.zscore,
        "key": key,
        "provenance": dict(recording.provenance),
    }
    with folder_lock(path, wait=True):
        store = PreparedSubject.create(
            path,
            json.loads(json.dumps(manifest, default=str)),
            recording.trials.reset_index(drop=True),
            recording.voxels.reset_index(drop=True),
            recording.rois,
            recording.splits,
        )
        store.clean()
        _run(recording, store, workers, report)
    return store


def _run(
    recording: Recording,
    store: PreparedSubject,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    missing, total = list(store.missing()), len(store.sessions)
    train = recording.train_trials(recording.splits[0])
    sessions = recording.trials["session"].to_numpy()
    plan = recording.scaling_plan()
    done = total - len(missing)
    progress(done, total)
    whole = None
    if any(plan.get(session) == "training" for session in missing):
        whole = _of_training(recording, train, sessions, workers)

    def one(session: int) -> None:
        betas = _read(recording, session)
        mean, scale = np.zeros(betas.shape[1]), np.ones(betas.shape[1])
        source = plan.get(session)
        if source is not None:
            used = whole
            if source != "training":
                inside = sessions == session
                used = moments(betas[trials_of_source(source, inside, train)[inside]])
            assert used is not None
            mean, scale = mean_and_scale(used)
            betas = _scaled(betas, mean, scale)
        store.write_session(session, betas, mean, scale)

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(one, session) for session in missing]
        try:
            for future in as_completed(waiting):
                future.result()
                done += 1
                progress(done, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read(recording: Recording, session: int) -> NDArray[np.float32]:
    """Return the responses of a session, one row for each trial."""
    betas = np.asarray(recording.read(session), dtype=np.float32)
    wanted = int((recording.trials["session"] == session).sum())
    if betas.ndim != 2 or len(betas) != wanted:
        raise DamagedFileError(
            f"{recording.who}: session {session} has {len(betas)} trials in its files and "
            f"{wanted} in the table of trials."
        )
    return betas


def _of_training(
    recording: Recording, train: NDArray[np.bool_], sessions: NDArray[np.int64], workers: int
) -> SessionMoments:
    """Return mean and SD of all training trials, with one session per worker in memory."""

    def one(session: int) -> SessionMoments:
        return moments(_read(recording, session)[train[sessions == session]])

    # In the order of sessions, so that the number of workers changes no digit.
    with ThreadPoolExecutor(workers) as pool:
        return pooled_moments(pool.map(one, [int(key) for key in np.unique(sessions[train])]))


def _scaled(
    betas: NDArray[np.float32], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Compute ``(betas - mean) / scale`` in place, rounded once."""
    for start in range(0, len(betas), _ROWS):
        rows = slice(start, start + _ROWS)
        betas[rows] = (betas[rows] - mean) / scale
    return betas
