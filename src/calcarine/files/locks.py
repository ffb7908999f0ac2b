"""Locks of folders: one process at a time works in a folder."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from calcarine.errors import FolderInUseError
from calcarine.files.local_files import read_json

__all__ = ["LOCK_NAME", "folder_lock", "is_locked"]

LOCK_NAME = ".calcarine.lock"
_LONGEST_COMMAND = 200
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

_guard = threading.Lock()
_held: dict[Path, list[int]] = {}  # path to the thread that holds it and how often


@contextmanager
def folder_lock(folder: str | Path, *, wait: bool = False, writes: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder while a block runs.

    The operating system holds the lock, so it ends with the process, killed or not;
    the file ``.calcarine.lock`` says who works there. A thread that holds a lock may take it
    again.

    Parameters
    ----------
    folder : Path
        Made when missing.
    wait : bool
        Wait for another process instead of raising.
    writes : bool
        False where nothing is written into the folder: one that cannot be written to is then
        used without a lock.

    Yields
    ------
    bool
        Whether the lock was taken now; False where this thread holds it already, or there is none.

    Raises
    ------
    FolderInUseError
        If another process, or another thread of this one, works in the folder.

    Warns
    -----
    UserWarning
        If the file system has no locks.
    """
    folder = Path(folder)
    path = folder.resolve() / LOCK_NAME
    while not _enter(path):
        if not wait:
            raise FolderInUseError(_who(folder, path))
        time.sleep(0.05)
    lock: FileLock | None = None
    try:
        if _held[path][1] == 1:
            lock = _take(folder, path, wait, writes)
        yield lock is not None
    finally:
        if lock is not None:
            _release(path, lock)
        _leave(path)


def is_locked(folder: str | Path) -> bool:
    """Return whether another process works in a folder.

    The lock is tried only where its file exists: to hold it, even for a moment, would keep it
    from others.
    """
    if not (Path(folder) / LOCK_NAME).exists():
        return False
    try:
        with folder_lock(folder, writes=False):
            return False
    except FolderInUseError:
        return True


def _enter(path: Path) -> bool:
    """Count this thread in; False if another thread of this process holds the lock."""
    me = threading.get_ident()
    with _guard:
        owner, count = _held.get(path, [me, 0])
        if owner != me:
            return False
        _held[path] = [me, count + 1]
        return True


def _leave(path: Path) -> None:
    with _guard:
        _held[path][1] -= 1
        if not _held[path][1]:
            del _held[path]


def _take(folder: Path, path: Path, wait: bool, writes: bool) -> FileLock | None:
    """Open and lock the file; return None if there can be no lock."""
    # A lock without the operating system would outlive a process that was killed.
    lock = FileLock(path, blocking=wait, fallback_to_soft=False, on_acquired=_write)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderInUseError(_who(folder, path)) from None
    except OSError as error:
        if error.errno in _READ_ONLY and not writes:
            return None
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"The file system of {folder} has no locks ({error.strerror}); let no second "
            "calcarine work in this folder.",
            stacklevel=4,
        )
        return None
    return lock


def _write(handle: int) -> None:
    """Write which process holds the lock."""
    command = shlex.join(["calcarine", *sys.argv[1:]])
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": command[:_LONGEST_COMMAND],
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.lseek(handle, 0, os.SEEK_SET)
    os.ftruncate(handle, 0)
    os.write(handle, (json.dumps(about) + "\n").encode())


def _release(path: Path, lock: FileLock) -> None:
    with suppress(OSError):  # Windows deletes no file that is open; it stays, and locks nothing
        path.unlink()
    lock.release()


def _who(folder: Path, path: Path) -> str:
    """Describe in one sentence which process works in a folder."""
    about = _read(path)
    command = f": {about['command']}" if about.get("command") else ""
    return (
        f"Another calcarine (pid {about.get('pid', 'unknown')}, host "
        f"{about.get('host', 'unknown')}) works in this folder, {folder}, since "
        f"{about.get('since', 'a moment ago')}{command}; wait for it, or give another folder."
    )


def _read(path: Path) -> dict[str, Any]:
    """Read the content of a lock; empty if it cannot be read."""
    for _ in range(20):  # its maker may be between locking and writing it
        try:
            content = read_json(path)
            return content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            time.sleep(0.01)
    return {}
