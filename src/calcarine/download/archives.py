"""Unpacking zip and tar archives from other people safely.

Nothing is written outside the folder, no link and no device is made, no size is
believed beyond what the archive declares and the disk holds, and files appear
under their names only when all of them are whole.
"""

from __future__ import annotations

import errno
import filecmp
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from rich import filesize

from calcarine.errors import CalcarineError, DamagedFileError

__all__ = ["MOST_MEMBERS", "extract", "member_is_inside"]

MOST_MEMBERS = 200_000
"""Files that one archive may hold; data sets have fewer, bombs have more."""

_BLOCK = 1 << 20
_LINKS = 40
_RATIO = 1000
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    UnicodeError,
    ValueError,
    OverflowError,
    KeyError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its path, its declared size, and how to read it."""

    place: str
    size: int
    open: Callable[[], IO[bytes]]


def member_is_inside(name: str) -> bool:
    """Return whether a member's name stays in its folder, on every operating system."""
    parts = re.split(r"[/\\]", name)
    absolute = name.startswith(("/", "\\")) or bool(PureWindowsPath(name).drive)
    odd = any(ord(letter) < 32 or letter == "\x7f" for letter in name)
    # On Windows a colon names a drive or a hidden stream; "\\" is a letter elsewhere.
    odd |= ":" in name or "\\" in name
    return bool(name.strip("/. ")) and not absolute and not odd and ".." not in parts


def extract(
    archive: str | Path,
    folder: str | Path,
    members: Sequence[str] = (),
    own: Collection[Path] = (),
    most_bytes: int | None = None,
) -> list[Path]:
    """Unpack files of an archive, all of them or none.

    Parameters
    ----------
    archive : str or Path
        Zip or tar, the latter plain or compressed by gzip, bzip2 or xz.
    folder : str or Path
        Folder of the files, which keep their names in the archive.
    members : sequence of str
        Which; a folder's name stands for all below it.  Empty for all.
    own : collection of Path
        Files that came out of this archive before and may be replaced.
    most_bytes : int, optional
        How large all of them may be together; the free space of the disk if
        left out.

    Returns
    -------
    list of Path
        Paths of the files, in the order of the archive.

    Raises
    ------
    CalcarineError
        If the archive is damaged, lacks a member, holds one that would leave
        the folder or is no file, is too large, or if another file is in the way.

    Examples
    --------
    >>> import zipfile
    >>> from pathlib import Path
    >>> from calcarine.download import extract
    >>> with zipfile.ZipFile("pictures.zip", "w") as archive:
    ...     archive.writestr("test/img1.txt", "one")
    ...     archive.writestr("train/img2.txt", "two")
    >>> [path.as_posix() for path in extract("pictures.zip", "data", ["test"])]
    ['data/test/img1.txt']
    """
    archive = Path(archive)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free if most_bytes is None else most_bytes
        with closing(_opened(archive)) as source:
            result = _wanted(archive, _members(archive, source, room), members)
            _check(archive, result, room)
            with _temporary_folder(folder / f".{archive.name}.unpacking") as temporary:
                for member in result:
                    _write(archive, member, temporary / member.place)
                return _put(archive, result, temporary, folder, own)
    except CalcarineError:
        raise
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is None:  # gzip's own way to say that its file is damaged
            raise _damaged(archive, error) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CalcarineError(
                f"The disk is full while {archive} is unpacked to {folder}, where "
                f"{filesize.decimal(shutil.disk_usage(folder).free)} are free; make room there, "
                "and the same command resumes."
            ) from error
        raise


@contextmanager
def _temporary_folder(place: Path) -> Iterator[Path]:
    """Return an empty folder to unpack to, also if a killed process left one."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> CalcarineError:
    why = " ".join(str(error).split()) or type(error).__name__
    return DamagedFileError(
        f"{archive} is damaged or not a zip or tar archive ({why[:200]}); delete it and download "
        "it again."
    )


def _opened(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    with open(archive, "rb") as file:
        start = file.read(4)
    # By its first bytes: a tar archive that ends with a zip file would pass for a zip.
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return zipfile.ZipFile(archive)
    return tarfile.open(archive, "r:*")


def _members(archive: Path, source: zipfile.ZipFile | tarfile.TarFile, room: int) -> list[_Member]:
    listed = _from_zip(archive, source) if isinstance(source, zipfile.ZipFile) else None
    if listed is None:
        assert isinstance(source, tarfile.TarFile)
        listed = _from_tar(archive, source, room)
    results: dict[str, _Member] = {}
    for member in listed:
        if len(results) >= MOST_MEMBERS:
            raise DamagedFileError(
                f"{archive} holds more than {MOST_MEMBERS} files, which no data set here has; it "
                "was not unpacked."
            )
        if member.place in results:
            raise _refusal(archive, member.place, "is there twice")
        results[member.place] = member
    for place in results:
        for above in PurePosixPath(place).parents:
            if str(above) in results:
                raise _refusal(archive, place, f"lies in {above}, which is a file")
    return list(results.values())


def _refusal(archive: Path, name: str, why: str) -> CalcarineError:
    shown = name if name.isprintable() else repr(name)
    return DamagedFileError(
        f"Member {shown[:200]} of {archive} {why}; nothing of the archive was unpacked."
    )


def _place(archive: Path, name: str) -> str:
    if not member_is_inside(name):
        raise _refusal(archive, name, "would be written outside the folder or has no usable name")
    return str(PurePosixPath(name))


def _from_zip(archive: Path, source: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in source.infolist():
        # zipfile cuts the name at a zero byte and hides it; the name as stored is the honest one.
        place = _place(archive, entry.orig_filename)
        mode = entry.external_attr >> 16 if entry.create_system == 3 else 0
        kind = stat.S_IFMT(mode)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "no file"
            raise _refusal(archive, place, f"is {what} and not a file with data")
        if entry.is_dir():
            continue
        yield _Member(place, entry.file_size, lambda entry=entry: source.open(entry))  # type: ignore[misc]


def _from_tar(archive: Path, source: tarfile.TarFile, room: int) -> Iterator[_Member]:
    entries: dict[str, tarfile.TarInfo] = {}
    order: list[tuple[str, tarfile.TarInfo]] = []
    total, limit = 0, max(room, _RATIO * archive.stat().st_size)
    for entry in source:
        place = _place(archive, entry.name) if entry.name.strip("./") else "."
        if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
            raise _refusal(archive, place, "is a device or pipe and not a file")
        # Before reading the next header: in a compressed archive that means reading this one.
        total += entry.size
        if total > limit:
            raise _too_large(archive, total, room)
        if entry.isdir():
            continue
        if place in entries:
            raise _refusal(archive, place, "is there twice")
        entries[place] = entry
        order.append((place, entry))
        if len(order) > MOST_MEMBERS:
            break
    else:
        _check_end(archive, source, room, limit)
    for place, entry in order:
        real = _linked(archive, place, entry, entries)
        yield _Member(place, real.size, lambda real=real: _data(source, real))  # type: ignore[misc]


def _check_end(archive: Path, source: tarfile.TarFile, room: int, limit: int) -> None:
    """Find the end marker, and read to the checksum of a compressed archive."""
    file = source.fileobj
    assert file is not None
    file.seek(source.offset)
    if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("without its end mark")
    rest = 0
    while block := file.read(_BLOCK):
        rest += len(block)
        if rest > limit:
            raise _too_large(archive, rest, room)


def _data(source: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = source.extractfile(entry)
    if file is None:
        raise tarfile.ReadError(f"{entry.name} has no data")
    return file


def _linked(
    archive: Path, place: str, entry: tarfile.TarInfo, entries: dict[str, tarfile.TarInfo]
) -> tarfile.TarInfo:
    """Return the file that a link points to: links become copies, so none is created."""
    here = place
    for _ in range(_LINKS):
        if entry.isfile():
            return entry
        base = PurePosixPath(here).parent if entry.issym() else PurePosixPath()
        target = os.path.normpath(str(base / entry.linkname)).replace(os.sep, "/")
        if entry.linkname.startswith("/") or not member_is_inside(target):
            raise _refusal(archive, place, "is a link that leaves the folder")
        if target not in entries:
            raise _refusal(archive, place, f"is a link to {target}, which is not a file in it")
        here, entry = target, entries[target]
    raise _refusal(archive, place, "is a link that leads nowhere")


def _too_large(archive: Path, size: int, room: int) -> CalcarineError:
    return CalcarineError(
        f"{archive} would be {filesize.decimal(size)} unpacked or more, and "
        f"{filesize.decimal(max(room, 0))} may be used on this disk; make room, and the same "
        "command continues."
    )


def _check(archive: Path, members: Sequence[_Member], room: int) -> None:
    total = sum(member.size for member in members)
    if total > room:
        raise _too_large(archive, total, room)


def _wanted(archive: Path, found: Sequence[_Member], names: Sequence[str]) -> list[_Member]:
    if not names:
        return list(found)
    wanted = [str(PurePosixPath(name)) for name in names]
    for name in wanted:
        if not any(_stands_for(name, member) for member in found):
            some = ", ".join(m.place for m in found[:5]) or "nothing"
            raise DamagedFileError(f"{archive} has no member {name}; it holds {some}.")
    return [member for member in found if any(_stands_for(name, member) for name in wanted)]


def _stands_for(name: str, member: _Member) -> bool:
    return member.place == name or member.place.startswith(name + "/")


def _write(archive: Path, member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    if target.exists():  # on a disk that ignores case
        raise _refusal(archive, member.place, "differs from another one only by its case")
    with member.open() as source, open(target, "xb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > member.size:
                raise _refusal(archive, member.place, "is larger than it declares")
            file.write(block)
    if written != member.size:
        raise EOFError(f"{member.place} ends early")


def _put(
    archive: Path, members: Sequence[_Member], temporary: Path, folder: Path, own: Collection[Path]
) -> list[Path]:
    moves = []
    mine = {path.resolve() for path in own}
    root = folder.resolve()
    for member in members:
        target = folder / member.place
        if not target.resolve().is_relative_to(root):
            raise _refusal(archive, member.place, "would go through a link out of the folder")
        if os.path.lexists(target) and target.resolve() not in mine:
            same = target.is_file() and filecmp.cmp(target, temporary / member.place, shallow=False)
            if not same:
                raise CalcarineError(
                    f"{target} exists and is not {member.place} of {archive}; move it away "
                    "to have it unpacked."
                )
        moves.append((temporary / member.place, target))
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    return [target for _, target in moves]
