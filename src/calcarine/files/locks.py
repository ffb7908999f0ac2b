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

from calcarine.errors import CalcarineError
from calcarine.files.local_files import read_json

__all__ = ["LOCK_NAME", "folder_lock"]

LOCK_NAME = ".calcarine.lock"
_LONGEST_COMMAND = 200
# Windows locks bytes, and nobody may read them meanwhile: one far behind the text.
_WINDOWS_BYTE = 1 << 30
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

_guard = threading.Lock()
_held: dict[Path, list[int]] = {}  # path to the thread that holds it and how often


@contextmanager
def folder_lock(folder: Path, *, wait: bool = False, writes: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder while a block runs.

    The operating system holds the lock (``flock``), so it ends with the process, killed or not;
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
    CalcarineError
        If another process, or another thread of this one, works in the folder.

    Warns
    -----
    UserWarning
        If the file system has no locks.
    """
    path = Path(folder).resolve() / LOCK_NAME
    while not _enter(path):
        if not wait:
            raise CalcarineError(_who(folder, path))
        time.sleep(0.05)
    handle: int | None = None
    try:
        if _held[path][1] == 1:
            handle = _take(Path(folder), path, wait, writes)
        yield handle is not None
    finally:
        if handle is not None:
            _release(path, handle)
        _leave(path)


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


def _take(folder: Path, path: Path, wait: bool, writes: bool) -> int | None:
    """Open and lock the file; return None if there can be no lock."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            if error.errno in _READ_ONLY and not writes:
                return None
            raise
        try:
            if _lock(handle, wait):
                # The one before may have deleted the file between our opening and locking it.
                if not _is_at(path, handle):
                    os.close(handle)
                    continue
                _write(handle)
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"The file system of {folder} has no locks ({error.strerror}); let no second "
                "calcarine work in this folder.",
                stacklevel=4,
            )
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        raise CalcarineError(_who(folder, path))


def _lock(handle: int, wait: bool) -> bool:
    """Lock an open file; return False if another process holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            os.lseek(handle, _WINDOWS_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
                time.sleep(0.05)
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


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


def _release(path: Path, handle: int) -> None:
    with suppress(OSError):  # Windows deletes no file that is open; it stays, and locks nothing
        path.unlink()
    os.close(handle)


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
