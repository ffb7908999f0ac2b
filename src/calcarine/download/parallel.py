"""Parallel downloads: a failed file stops no other, a full disk stops all."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Sequence
from pathlib import Path

from calcarine.brain.assets import Asset
from calcarine.download.archives import extract
from calcarine.download.download_record import DownloadRecord
from calcarine.download.partial_files import StoppedError, digest
from calcarine.download.planned_files import PlannedFile
from calcarine.download.progress import DownloadProgress
from calcarine.download.transfer import DiskFullError, RetryPolicy, fetch
from calcarine.errors import CalcarineError

__all__ = ["fetch_all"]

_GRACE = 2.0


def fetch_all(
    rows: Sequence[PlannedFile],
    folder: str | Path,
    record: DownloadRecord,
    watcher: DownloadProgress,
    workers: int = 4,
    retries: RetryPolicy | None = None,
) -> dict[str, str]:
    """Download files, unpack archives and record complete files.

    Parameters
    ----------
    rows
        What is to be done.
    folder, record
        The data set's folder and its record.
    watcher
        Receives progress and failures.
    workers
        Files at the same time.
    retries
        How patient to be with each.

    Returns
    -------
    dict
        Of each file that failed, why.

    Raises
    ------
    DiskFullError
        After all threads have stopped; every part stays for the next call.
    KeyboardInterrupt
        Passed on; every part stays for the next call.
    """
    folder = Path(folder)
    team = _Team(folder, record, watcher, retries)
    for row in rows:
        team.todo.put(row)
    # Threads of a daemon kind, so that a silent server cannot hold up the end of the program.
    threads = [
        threading.Thread(target=team.work, daemon=True) for _ in range(min(workers, len(rows)))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    except KeyboardInterrupt:
        team.stop.set()
        for thread in threads:
            thread.join(_GRACE)
        raise
    if team.fatal:
        raise team.fatal[0]
    failed = team.failures
    return {row.asset.path: failed[row.asset.path] for row in rows if row.asset.path in failed}


class _Team:
    def __init__(
        self,
        folder: Path,
        record: DownloadRecord,
        watcher: DownloadProgress,
        retries: RetryPolicy | None,
    ) -> None:
        self.folder, self.record, self.watcher, self.retries = folder, record, watcher, retries
        self.todo: queue.SimpleQueue[PlannedFile] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.failures: dict[str, str] = {}
        self.fatal: list[BaseException] = []

    def work(self) -> None:
        while not self.stop.is_set():
            try:
                row = self.todo.get_nowait()
            except queue.Empty:
                return
            try:
                self.bring(row)
            except StoppedError:
                return
            except DiskFullError as error:
                self.end(error)
            except CalcarineError as error:
                self.fail(row, str(error))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    self.end(
                        DiskFullError(
                            f"The disk of {self.folder} is full; make room there, and the same "
                            "command continues."
                        )
                    )
                else:
                    place = error.filename or row.asset.path
                    self.fail(row, f"{place}: {error.strerror or error}.")
            except BaseException as error:  # a fault of the program must not end unseen in a thread
                self.end(error)

    def end(self, error: BaseException) -> None:
        self.fatal.append(error)
        self.stop.set()

    def fail(self, row: PlannedFile, why: str) -> None:
        self.failures[row.asset.path] = why
        self.watcher.say(why)

    def bring(self, row: PlannedFile) -> None:
        asset, path = row.asset, row.asset.path
        if row.state != "to unpack":
            got = fetch(asset, self.folder, self.watcher, self.retries, self.stop)
            self.record.put(path, asset.url, **vars(got))
        if asset.members is not None:
            self.unpack(asset)
        self.watcher.whole(path)

    def unpack(self, asset: Asset) -> None:
        archive = self.folder / asset.path
        own = [self.folder / each for each in self.record.taken_from(asset.path, asset.url)]
        files = extract(archive, archive.parent, asset.members or (), own)
        taken = {
            file.relative_to(self.folder).as_posix(): {
                "url": asset.url,
                "size": file.stat().st_size,
                "sha256": digest(file, "sha256", stop=self.stop)[0],
                "archive": asset.path,
            }
            for file in files
        }
        entry = self.record.entry(asset.path, asset.url)
        size = archive.stat().st_size
        about = {
            **(entry or {"url": asset.url, "size": size}),
            "members": list(asset.members or ()),
        }
        self.record.put_all({**taken, asset.path: about}, "fetched" if entry else "found")
        if entry is not None:  # what the user put there is his
            archive.unlink()
