"""Betas on disk, session by session, to a prepared subject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets.prepare.store import PreparedSubject
from calcarine.datasets.scaling import session_scaling
from calcarine.datasets.splits.split import Split
from calcarine.errors import CalcarineError
from calcarine.locks import folder_lock

__all__ = ["Recording", "prepare"]

_ROWS = 8
"""Trials scaled at a time: few enough for the processor's cache."""

ReadSession = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Recording:
    """One subject as a data set's own files have it: what to read, and how.

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
        The first scales the sessions.
    read
        Session number to its responses: float32, shape (trials of the
        session, voxel), in percent signal change where the files allow it.
        Called from several threads.
    provenance
        JSON-like: files with sizes, masks and options.  Decides, with trials
        and splits, whether what is on disk is still right.
    zscore
        ``"session"``, or ``"none"`` for responses that are scaled already.
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
    zscore: Literal["session", "none"] = "session"

    def key(self) -> str:
        """Hash of everything that decides the prepared responses."""
        text = json.dumps([self.dataset, self.subject, self.zscore, dict(self.provenance)],
                          sort_keys=True, default=str)  # fmt: skip
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
    """Read, mask and scale a subject's sessions and write them in chunks.

    A session is read once, and is on disk whole or not at all; the same call
    goes on where an earlier one stopped.  Of several processes that prepare
    the same subject one works and the others wait for it.

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
        If a file is missing or does not fit the table of trials, or a session
        has fewer than two training trials.
    """
    if workers < 1:
        raise CalcarineError(f"Preparing needs at least one worker, not {workers}.")
    _check(recording)
    told = progress or (lambda done, total: None)
    key = recording.key()
    path = Path(folder) / f"{recording.dataset}-{recording.subject}-{key}"
    if (path / "manifest.json").is_file():
        store = PreparedSubject.open(path)
        if not store.missing():
            told(len(store.sessions), len(store.sessions))
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
        _run(recording, store, workers, told)
    return store


def _check(recording: Recording) -> None:
    who = f"Data set {recording.dataset}, subject {recording.subject}"
    if recording.trials.empty or recording.voxels.empty:
        what = "trials" if recording.trials.empty else "voxels"
        raise CalcarineError(f"{who} has no {what} to prepare; check its tables and masks.")
    if not recording.splits:
        raise CalcarineError(f"{who} has no split; give at least one.")
    sessions = recording.trials["session"].to_numpy()
    changes = 1 + int((sessions[1:] != sessions[:-1]).sum())
    if changes != len(np.unique(sessions)):
        raise CalcarineError(f"{who}: the trials of a session do not stand together; sort them.")


def _run(
    recording: Recording,
    store: PreparedSubject,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    missing, total = list(store.missing()), len(store.sessions)
    train = recording.trials["stimulus"].isin(recording.splits[0].train).to_numpy()
    sessions = recording.trials["session"].to_numpy()
    done = total - len(missing)
    progress(done, total)

    def one(session: int) -> None:
        betas = np.asarray(recording.read(session), dtype=np.float32)
        own = train[sessions == session]
        if betas.ndim != 2 or len(betas) != len(own):
            raise CalcarineError(
                f"Data set {recording.dataset}, subject {recording.subject}: session {session} has "
                f"{len(betas)} trials in its files and {len(own)} in the table of trials."
            )
        mean, scale = np.zeros(betas.shape[1]), np.ones(betas.shape[1])
        if recording.zscore == "session":
            who = f"Session {session} of subject {recording.subject}"
            mean, scale = session_scaling(betas[own], who)
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


def _scaled(
    betas: NDArray[np.float32], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float32]:
    """``(betas - mean) / scale`` in place, rounded once."""
    for start in range(0, len(betas), _ROWS):
        rows = slice(start, start + _ROWS)
        betas[rows] = (betas[rows] - mean) / scale
    return betas
