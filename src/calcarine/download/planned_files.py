"""Planning a download: the size of each file, and which files exist already."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import requests

from calcarine.brain.assets import Asset
from calcarine.download.download_record import DownloadRecord
from calcarine.download.http_requests import (
    NETWORK_ERRORS,
    RemoteFileInfo,
    http_address,
    looks_like_page,
    new_session,
    remote_file_info,
    send_request,
)
from calcarine.download.partial_files import digest, partial_size
from calcarine.download.progress import DownloadProgress
from calcarine.errors import CalcarineError

__all__ = ["PlannedFile", "SizeReply", "find_damaged", "plan_files", "request_sizes"]

_QUICK = (5.0, 10.0)

State = Literal["there", "to unpack", "partial", "missing", "in the way"]


@dataclass(frozen=True)
class SizeReply:
    """What a server says about the size of a file, or why it does not."""

    size: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class PlannedFile:
    """One file of a download.

    Attributes
    ----------
    asset : Asset
        Name, for the error.
    size : int, optional
        Bytes, None where neither the server nor the data set's module says.
    sure : bool
        Whether the size is exact or the server's; an estimate otherwise.
    state : State
        ``"there"``; ``"to unpack"`` (the archive is there, its members are
        not); ``"partial"`` (a part that can be continued); ``"missing"``;
        ``"in the way"`` (another file has the name).
    have : int
        Bytes that need not be fetched.
    note : str
        Further remarks, in a few words.
    """

    asset: Asset
    size: int | None
    sure: bool
    state: State
    have: int = 0
    note: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the file must be downloaded, continued or unpacked."""
        return self.state not in ("there", "in the way")

    @property
    def need(self) -> int:
        """Number of bytes to download, as far as known."""
        return max(0, (self.size or 0) - self.have) if self.state in ("partial", "missing") else 0


def request_sizes(
    assets: Sequence[Asset], record: DownloadRecord, workers: int = 8
) -> dict[str, SizeReply]:
    """Request the sizes of the files whose size is not known.

    Parameters
    ----------
    assets : sequence of Asset
        Files; those of exactly known size, and those recorded as fetched, are
        not requested.
    record : DownloadRecord
        The record of the data set's folder.
    workers : int
        Questions at the same time.

    Returns
    -------
    dict
        Response by address.  An unreachable server is contacted once.
    """
    silent: set[str] = set()
    lock = threading.Lock()
    local = threading.local()

    def one(asset: Asset) -> SizeReply:
        host = urlsplit(http_address(asset.url)).netloc
        with lock:
            if host in silent:
                return SizeReply()
        if not hasattr(local, "session"):
            local.session = new_session()
        try:
            return _size_of(local.session, asset)
        except NETWORK_ERRORS:
            with lock:
                silent.add(host)
            return SizeReply()
        except CalcarineError as error:
            return SizeReply(problem=str(error))

    todo = [a for a in assets if not a.exact and record.entry(a.path, a.url) is None]
    with ThreadPoolExecutor(workers) as pool:
        return {asset.url: answer for asset, answer in zip(todo, pool.map(one, todo), strict=True)}


def _size_of(session: requests.Session, asset: Asset) -> SizeReply:
    status, facts = _question(session, "HEAD", asset)
    if status in (400, 403, 405, 501) or (status == 200 and facts.size is None):
        # Some servers sign addresses for GET alone; the response for one byte has the size, too.
        status, facts = _question(session, "GET", asset)
    if status not in (200, 206):
        problem = "" if status >= 500 or status == 429 else f"the server says HTTP {status}"
        return SizeReply(problem=problem)
    if looks_like_page(asset.path, facts.kind):
        return SizeReply(problem="the server sends a web page")
    return SizeReply(facts.size)


def _question(session: requests.Session, method: str, asset: Asset) -> tuple[int, RemoteFileInfo]:
    headers = {"Range": "bytes=0-0"} if method == "GET" else {}
    with send_request(session, method, asset.url, headers, _QUICK) as response:
        return response.status_code, remote_file_info(response, asset)


def plan_files(
    assets: Sequence[Asset],
    folder: Path,
    record: DownloadRecord,
    answers: Mapping[str, SizeReply],
    damaged: Collection[str] = (),
) -> list[PlannedFile]:
    """Return the state of each file on disk; contacts no server and reads no content.

    Parameters
    ----------
    assets, folder, record
        Files, the data set's folder and its record.
    answers : mapping of str to SizeReply
        From `request_sizes`.
    damaged : collection of str
        Paths of files with wrong content.
    """
    return [
        _row(each, folder, record, answers.get(each.url, SizeReply()), damaged) for each in assets
    ]


def _row(
    asset: Asset, folder: Path, record: DownloadRecord, answer: SizeReply, damaged: Collection[str]
) -> PlannedFile:
    entry = record.entry(asset.path, asset.url) or {}
    known = asset.size if asset.exact else entry.get("size", answer.size)
    size, sure = (asset.size, False) if known is None else (known, True)
    target = folder / asset.path
    bad = asset.path in damaged
    if asset.members is not None and _is_unpacked(asset, folder, record) and not bad:
        return PlannedFile(asset, size, sure, "there", size or 0, "unpacked")
    if target.is_file() and not bad:
        here = target.stat().st_size
        if not sure or here == size:
            state: State = "there" if asset.members is None else "to unpack"
            return PlannedFile(
                asset, here, True, state, here, "" if sure else "its size is not checked"
            )
    note = ""
    if target.exists():
        if not entry:
            result = "damaged" if bad else f"{target.stat().st_size} bytes"
            note = f"another file has this name ({result}); move it away"
            return PlannedFile(asset, size, sure, "in the way", 0, note)
        note = "damaged, is fetched again"
    part = partial_size(asset, folder)
    return PlannedFile(
        asset, size, sure, "partial" if part else "missing", part, answer.problem or note
    )


def _is_unpacked(asset: Asset, folder: Path, record: DownloadRecord) -> bool:
    members = asset.members or ()
    entry = record.entry(asset.path, asset.url)
    if entry is not None and entry.get("members") == list(members):
        taken = record.taken_from(asset.path, asset.url)
        return bool(taken) and all(
            (folder / path).is_file() and (folder / path).stat().st_size == each.get("size")
            for path, each in taken.items()
        )
    place = (folder / asset.path).parent
    return entry is None and bool(members) and all((place / name).exists() for name in members)


def find_damaged(
    rows: Sequence[PlannedFile], folder: Path, record: DownloadRecord, watcher: DownloadProgress
) -> tuple[set[str], int, int]:
    """Read the existing files and compare their hashes.

    Returns
    -------
    damaged : set of str
        Paths of files that differ from what was published or recorded.
    checked, unknown : int
        How many files were compared, and of how many no hash is known.
    """
    damaged: set[str] = set()
    checked = unknown = 0
    for row in rows:
        if row.state != "there":
            continue
        known = False
        for path, wanted in _hashes(row.asset, record).items():
            for name, value in wanted.items():
                known = True
                if digest(folder / path, name) != (value.lower(),):
                    damaged.add(row.asset.path)
                    watcher.say(f"{path}: its {name} is not the one that it should have.")
        checked, unknown = checked + known, unknown + (not known)
    return damaged, checked, unknown


def _hashes(asset: Asset, record: DownloadRecord) -> dict[str, dict[str, str]]:
    if asset.members is not None:
        taken = record.taken_from(asset.path, asset.url)
        return {path: {"sha256": e["sha256"]} for path, e in taken.items() if e.get("sha256")}
    entry = record.entry(asset.path, asset.url) or {}
    sha256 = asset.sha256 or entry.get("sha256")
    if sha256:
        return {asset.path: {"sha256": sha256}}
    return {asset.path: {"md5": asset.md5}} if asset.md5 else {}
