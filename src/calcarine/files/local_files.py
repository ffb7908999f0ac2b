"""Atomic writes, JSON, digests, and what git-annex and full disks need."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "atomic_write",
    "content_missing",
    "digest_file",
    "disk_full_error",
    "explain_full_disk",
    "free_space",
    "is_annexed",
    "is_disk_full",
    "is_inside",
    "is_partial_file",
    "parse_json",
    "read_json",
    "remove_partial_files",
    "write_bytes",
    "write_text",
]

_PART = re.compile(r"\.[0-9a-f]{8}\.part$")
# Zarr writes a chunk to a part file of its own, which a killed process leaves behind.
_ZARR_PART = re.compile(r"\.[0-9a-f]{32}\.partial$")
# A name may have 255 bytes, and the part's own ending takes 14 of them.
_LONGEST = 240
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to ``path`` when the block succeeds.

    Parameters
    ----------
    path : Path
        Its folder is made when missing.

    Yields
    ------
    Path
        A name that no other process has; removed again if the writing fails, and ``path`` then
        stays as it was.

    Raises
    ------
    OSError
        If the disk is full it names ``path`` and what is free there.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import atomic_write
    >>> with atomic_write("table.csv") as temporary:
    ...     _ = temporary.write_text("id,value")
    >>> Path("table.csv").read_text()
    'id,value'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name[:_LONGEST]}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        temporary.unlink(missing_ok=True)  # before the free space is measured
        if is_disk_full(error):
            raise disk_full_error(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(place: str | Path) -> Iterator[None]:
    """Add ``place`` and its free space to a full-disk error that names no file.

    Examples
    --------
    >>> import errno
    >>> from calcarine.files import explain_full_disk
    >>> try:
    ...     with explain_full_disk("features"):
    ...         raise OSError(errno.ENOSPC, "No space left on device")
    ... except OSError as error:
    ...     print(error.filename)
    features
    """
    place = Path(place)
    try:
        yield
    except Exception as error:
        if is_disk_full(error) and not getattr(error, "filename", None):
            raise disk_full_error(place) from error
        raise


def is_disk_full(error: Exception) -> bool:
    """Return whether an error says that a disk or a quota is full.

    Examples
    --------
    >>> import errno
    >>> from calcarine.files import is_disk_full
    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    >>> is_disk_full(ValueError("too large"))
    False
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    # Libraries that write by themselves (safetensors, HDF5) have errors of their own.
    return re.search(r"No space left|os error 28|errno = 28|code: 28", str(error)) is not None


def disk_full_error(path: str | Path) -> OSError:
    """Return a full-disk error that names the file and the free space.

    Examples
    --------
    >>> from calcarine.files import disk_full_error, is_disk_full
    >>> is_disk_full(disk_full_error("features/z.zarr"))
    True
    """
    path = Path(path)
    reason = f"No space left on device; {free_space(path)}. Make room, then repeat the command"
    return OSError(errno.ENOSPC, reason, str(path))


def existing_folder(path: str | Path) -> Path:
    """Return a folder, or the nearest one above it that exists.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import existing_folder
    >>> Path("data").mkdir()
    >>> existing_folder("data/S1/session1").name
    'data'
    """
    folder = Path(path).absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_space(path: str | Path) -> str:
    """Describe how much space is free on the disk of ``path``.

    Examples
    --------
    >>> from calcarine.files import free_space
    >>> free_space(".")
    '... free ...'
    """
    folder = existing_folder(path)
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free in {folder}"
    except OSError:
        return f"how much is free in {folder} cannot be measured"


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Return whether ``path`` lies in a folder; both are resolved first.

    Examples
    --------
    >>> from calcarine.files import is_inside
    >>> is_inside("data/S1/betas.npy", "data"), is_inside("data/../betas.npy", "data")
    (True, False)
    """
    path = Path(path)
    folder = Path(folder)
    return path.resolve().is_relative_to(folder.resolve())


def is_partial_file(path: str | Path) -> bool:
    """Return whether a file is the temporary file of an unfinished :func:`atomic_write`.

    Examples
    --------
    >>> from calcarine.files import atomic_write, is_partial_file
    >>> with atomic_write("scores.csv") as temporary:
    ...     is_partial_file(temporary), is_partial_file("scores.csv")
    ...     _ = temporary.write_text("id,value")
    (True, False)
    """
    path = Path(path)
    return _PART.search(path.name) is not None


def remove_partial_files(folder: str | Path, age: float = 0.0) -> None:
    """Delete the temporary files that killed processes left below ``folder``.

    Parameters
    ----------
    folder : Path
    age : float
        Seconds that a file must have been left alone. Above 0 where other processes may write
        there; see :func:`calcarine.files.locks.folder_lock`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import atomic_write, remove_partial_files
    >>> with atomic_write("stopped/z.npy") as temporary:
    ...     left = temporary.name  # as a killed process leaves it
    ...     _ = temporary.write_bytes(b"")
    >>> _ = Path("stopped", left).write_bytes(b"")
    >>> remove_partial_files("stopped")
    >>> [path.name for path in Path("stopped").iterdir()]
    ['z.npy']
    """
    folder, now = Path(folder), time.time()
    for root, _, names in os.walk(folder):
        for name in names:
            if _PART.search(name) or _ZARR_PART.search(name):
                file = Path(root, name)
                with suppress(FileNotFoundError):
                    if not age or now - file.stat().st_mtime > age:
                        file.unlink()


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically, and flush it to the disk.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import write_bytes
    >>> write_bytes("data.bin", b"abc")  # whole or not at all
    >>> Path("data.bin").stat().st_size
    3
    """
    path = Path(path)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8 atomically, and flush it to the disk.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import write_text
    >>> write_text("notes/today.txt", "scanned")  # whole or not at all
    >>> Path("notes/today.txt").read_text()
    'scanned'
    """
    path = Path(path)
    write_bytes(path, text.encode("utf-8"))


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """Return the content of JSON text.

    Parameters
    ----------
    text : str or bytes
    finite : bool
        Refuse numbers that are not finite: NaN, Infinity, and those beyond double precision.

    Raises
    ------
    ValueError
        If it is not JSON, also where it is nested too deeply, or has a number that is refused.

    Examples
    --------
    >>> from calcarine.files import parse_json
    >>> parse_json('{"value": 0.5}')
    {'value': 0.5}
    >>> parse_json("NaN", finite=True)
    Traceback (most recent call last):
        ...
    ValueError: ...
    """
    refuse: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite}
    try:
        return json.loads(text, **(refuse if finite else {}))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it has the number {text}, which is not finite")
    return number


def read_json(path: str | Path, *, finite: bool = False) -> Any:
    """Return the content of a JSON file.

    Parameters
    ----------
    path : Path
        Text in UTF-8.
    finite : bool
        As in `parse_json`.

    Returns
    -------
    object
        Of any type that JSON has: what a damaged file holds is not known.

    Raises
    ------
    OSError
        If the file is missing or may not be read.
    ValueError
        As in `parse_json`.

    Examples
    --------
    >>> from calcarine.files import read_json, write_text
    >>> write_text("settings.json", '{"steps": 50}')
    >>> read_json("settings.json")
    {'steps': 50}
    """
    return parse_json(Path(path).read_text(encoding="utf-8"), finite=finite)


_ANNEX = re.compile(r"^(?P<root>.*)/\.git/(?:modules/.+/)?annex/objects/.+$")


def is_annexed(path: str | Path) -> bool:
    """Return whether a file is a link of git-annex (DataLad) into its own data set.

    Parameters
    ----------
    path : Path
        The content may be missing.

    Returns
    -------
    bool
        True for a link into ``.git/annex/objects`` of a folder above it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import is_annexed
    >>> Path("bids/.git").mkdir(parents=True)
    >>> Path("bids/bold.nii.gz").symlink_to(".git/annex/objects/MD5E-s1--d41d8cd9.nii.gz")
    >>> is_annexed("bids/bold.nii.gz")
    True
    """
    path = Path(path)
    if not path.is_symlink():
        return False
    match = _ANNEX.match(path.resolve().as_posix())
    return match is not None and path.parent.resolve().is_relative_to(match["root"])


def content_missing(path: str | Path) -> str | None:
    """Return what to do if git-annex has not fetched the content of a link; None otherwise.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import content_missing
    >>> Path("raw/.git").mkdir(parents=True)
    >>> Path("raw/T1w.nii.gz").symlink_to(".git/annex/objects/MD5E-s1--d41d8cd9.nii.gz")
    >>> content_missing("raw/T1w.nii.gz")
    "the content of raw/T1w.nii.gz is not on this machine; run 'datalad get raw/T1w.nii.gz'"
    """
    path = Path(path)
    if path.exists() or not is_annexed(path):
        return None
    return f"the content of {path} is not on this machine; run 'datalad get {path}'"


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 (hexadecimal) of a file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.files import digest_file
    >>> _ = Path("a.txt").write_text("betas")
    >>> digest_file("a.txt")[:8]
    'fff80358'
    """
    path = Path(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
