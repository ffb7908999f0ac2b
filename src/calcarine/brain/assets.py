"""Files to download, and the conditions of their owners."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from calcarine.errors import SettingError

__all__ = ["Asset", "UsageTerms"]


@dataclass(frozen=True)
class UsageTerms:
    """Conditions that the owners of a data set ask you to accept.

    Attributes
    ----------
    title
        Such as ``"NSD Data Access Agreement"``.
    url
        Where the whole text is.
    summary
        What the owners require, in one or two sentences.
    """

    title: str
    url: str
    summary: str


@dataclass(frozen=True)
class Asset:
    """One file of a data set.

    Attributes
    ----------
    path
        Where it goes, relative to the data set's folder, with ``/``: the
        official layout.
    url
        ``https://``, ``http://`` or ``s3://bucket/key`` (read anonymously).
    size
        Bytes, None where unknown.
    exact
        Whether the size is known and not estimated; a file of another size
        is then damaged.
    sha256, md5
        Hexadecimal hashes of the whole file, where the owners publish them.
    members
        For an archive (zip, tar, tar.gz): the members to take out of it, a
        folder in it standing for all below; empty for every member, None for
        no archive.  They go next to ``path``, and the archive is then removed.

    Raises
    ------
    CalcarineError
        If a path leaves the folder, or the address is of another kind.
    """

    path: str
    url: str
    size: int | None = None
    exact: bool = False
    sha256: str | None = None
    md5: str | None = None
    members: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for place in (self.path, *(self.members or ())):
            parts = PurePosixPath(place)
            odd = parts.is_absolute() or ".." in parts.parts or not parts.parts
            if odd or "\\" in place or PureWindowsPath(place).drive:
                raise SettingError(f"The asset path {place!r} leaves the data set's folder.")
        if not self.url.startswith(("https://", "http://", "s3://")):
            raise SettingError(
                f"The address {self.url!r} of {self.path} is no https, http or s3 address."
            )
