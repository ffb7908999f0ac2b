"""Only one process at a time downloads to a folder."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from calcarine.errors import CalcarineError

__all__ = ["LOCK_NAME", "folder_lock"]

LOCK_NAME = ".calcarine-download.lock"
_ours: set[Path] = set()


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file while a block runs.

    A lock that a killed process of this machine left is taken away; of another
    machine's process nothing can be known, and the error says what to do.

    Raises
    ------
    CalcarineError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / LOCK_NAME
    while not _create(path):
        seen = _read(path)
        if seen is None:
            continue
        if not _is_stale(path, seen):
            raise CalcarineError(
                f"Another download to {folder} is running (process {seen.get('pid', '?')} on "
                f"{seen.get('host', '?')} since {seen.get('since', '?')}); wait for it, or delete "
                f"{path} if there is no such process."
            )
        _take_away(path, seen)
    _ours.add(path)
    try:
        yield
    finally:
        _ours.discard(path)
        path.unlink(missing_ok=True)


def _create(path: Path) -> bool:
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "id": uuid4().hex,
    }
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(about, file)
    return True


def _read(path: Path) -> dict[str, object] | None:
    """Content of a lock, None when it is gone; what cannot be read is an empty one."""
    for _ in range(20):  # its maker may be between creating and writing it
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(0.05)
    return {}


def _is_stale(path: Path, seen: dict[str, object]) -> bool:
    pid = seen.get("pid")
    if not isinstance(pid, int) or seen.get("host") != socket.gethostname():
        return not seen
    if pid == os.getpid():  # a number used again, as in containers, or a lock of our own
        return path not in _ours
    return not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there os.kill would end the process
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # type: ignore[attr-defined]
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined]
        return bool(handle)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _take_away(path: Path, seen: dict[str, object]) -> None:
    # Two processes may find the same stale lock; the second must not remove the first one's new.
    aside = path.with_name(f"{LOCK_NAME}.{uuid4().hex}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if _read(aside) == seen:
            aside.unlink()
        else:
            os.rename(aside, path)
