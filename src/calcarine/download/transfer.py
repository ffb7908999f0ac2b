"""Downloading one file completely, however often the connection breaks.

Bytes go to ``NAME.part``; ``NAME.part.json`` says which file they belong
to.  The next try requests the rest, on condition that the file on the server
is still that one, and only a whole and checked file gets its name.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from rich import filesize

from calcarine.brain.assets import Asset
from calcarine.download.http_requests import (
    NETWORK_ERRORS,
    RemoteFileInfo,
    connection_reason,
    looks_like_page,
    new_session,
    remote_file_info,
    retry_after,
    send_request,
)
from calcarine.download.partial_files import (
    BLOCK,
    StoppedError,
    digest,
    partial_path,
    read_sidecar,
    sidecar_path,
    write_block,
    write_sidecar,
)
from calcarine.download.progress import DownloadProgress, NoProgress
from calcarine.errors import CalcarineError

__all__ = ["DiskFullError", "FetchedFile", "RetryPolicy", "fetch"]

_BUSY = (408, 425, 429)


class DiskFullError(CalcarineError):
    """The disk is full; the partial file stays for the next try."""


class _BrokenError(Exception):
    """A failure that may pass, for example a lost connection."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _MismatchError(Exception):
    """The received file is not the expected one."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a transfer waits and tries again.

    Attributes
    ----------
    tries : int
        How often in a row a try may bring no new byte before it is given up.
    first, longest : float
        Seconds to wait before the first repetition, and at most; each wait
        is about twice the one before.
    obey : float
        Seconds of a server's ``Retry-After`` that are obeyed at most.

    Examples
    --------
    >>> from calcarine.download import RetryPolicy
    >>> patient = RetryPolicy(tries=20, longest=300)
    >>> patient.first, patient.longest  # seconds
    (1.0, 300)
    """

    tries: int = 6
    first: float = 1.0
    longest: float = 60.0
    obey: float = 300.0

    def pause(self, failures: int, wait: float | None, stop: threading.Event) -> None:
        """Wait before the next try; end early if the download is stopped."""
        if wait is None:
            # Spread out, so that clients which failed together do not come back together.
            wait = min(self.longest, self.first * 2.0**failures) * random.uniform(0.5, 1.0)
        stop.wait(min(wait, self.obey))


@dataclass(frozen=True)
class FetchedFile:
    """A complete file: its size in bytes, its hash, and its name on the server.

    Examples
    --------
    >>> from calcarine.brain.assets import Asset
    >>> from calcarine.download import fetch
    >>> asset = Asset("S1/betas.npy", "https://example.org/S1/betas.npy")
    >>> fetched = fetch(asset, "data")  # doctest: +SKIP
    >>> fetched.size, fetched.sha256  # doctest: +SKIP
    """

    size: int
    sha256: str
    etag: str | None
    modified: str | None


def fetch(
    asset: Asset,
    folder: str | Path,
    watcher: DownloadProgress | None = None,
    retries: RetryPolicy | None = None,
    stop: threading.Event | None = None,
) -> FetchedFile:
    """Download a file to ``folder / asset.path``, continuing an interrupted download.

    Parameters
    ----------
    asset : Asset
        The file; its size (if exact) and hashes are checked.
    folder : str or Path
        The data set's folder; a file of that name in it is replaced.
    watcher : DownloadProgress, optional
        Receives the progress of each block.
    retries : RetryPolicy, optional
        How patient to be.
    stop : Event, optional
        Set from another thread, it ends the transfer within a block.

    Raises
    ------
    DiskFullError
        If there is no room; the partial file stays.
    StoppedError
        If ``stop`` was set; the partial file stays.
    CalcarineError
        If the server refuses, keeps breaking off, or sends another file.

    Examples
    --------
    >>> from calcarine.brain.assets import Asset
    >>> from calcarine.download import fetch
    >>> asset = Asset("S1/betas.npy", "https://example.org/S1/betas.npy")
    >>> fetched = fetch(asset, "data")  # doctest: +SKIP
    """
    folder = Path(folder)
    with new_session() as session:
        transfer = _Transfer(
            asset, folder, session, watcher or NoProgress(), stop or threading.Event()
        )
        return transfer.run(retries or RetryPolicy())


class _Transfer:
    def __init__(
        self,
        asset: Asset,
        folder: Path,
        session: requests.Session,
        watcher: DownloadProgress,
        stop: threading.Event,
    ) -> None:
        self.asset, self.session, self.watcher, self.stop = asset, session, watcher, stop
        self.target = folder / asset.path
        self.part = partial_path(self.target)
        self.facts = RemoteFileInfo()

    def run(self, retries: RetryPolicy) -> FetchedFile:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error
        best, failures, again = self.have(), 0, False
        while True:
            self.check_stop()
            try:
                self.receive()
                return self.finish()
            except _MismatchError as error:
                self.discard()
                if again:
                    raise CalcarineError(self.about(f"{error}, twice; nothing was kept")) from None
                again = True
                self.watcher.say(self.about(f"{error}; it is fetched once more from the start"))
            except _BrokenError as error:
                reached = self.have()
                failures = 0 if reached > best else failures + 1
                best = max(best, reached)
                if failures > retries.tries:
                    raise CalcarineError(self.given_up(failures, str(error))) from None
                if failures > 1:
                    self.watcher.say(f"{self.asset.path}: {error}; it is tried again.")
                retries.pause(failures, error.wait, self.stop)
            except OSError as error:
                raise self.unwritable(error) from error

    def receive(self) -> None:
        """Request the missing bytes and append them."""
        offset, note = self.have(), read_sidecar(self.target)
        usable = note is not None and note[0] == self.asset.url
        self.facts = note[1] if note is not None and usable else RemoteFileInfo()
        size = self.facts.size
        if offset and size is not None and offset == size:
            return
        if offset and (not usable or not self.facts.validator or (size or offset) < offset):
            self.discard()
            offset = 0
        headers = {}
        if offset:
            headers = {"Range": f"bytes={offset}-", "If-Range": self.facts.validator or ""}
        try:
            with send_request(self.session, "GET", self.asset.url, headers) as response:
                self.take(response, offset)
        except NETWORK_ERRORS as error:
            raise _BrokenError(connection_reason(error)) from error

    def take(self, response: requests.Response, offset: int) -> None:
        status, new = response.status_code, remote_file_info(response, self.asset)
        if status == 416:
            if offset and new.size == offset:
                return
            self.discard()
            raise _BrokenError("the server has no such range of bytes (HTTP 416)", 0.0)
        if status >= 500 or status in _BUSY:
            raise _BrokenError(
                f"the server is busy or broken (HTTP {status})", retry_after(response)
            )
        if status not in (200, 206):
            raise CalcarineError(self.refused(status))
        if looks_like_page(self.asset.path, new.kind):
            raise CalcarineError(self.page())
        if status == 206 and not self.continues(response, offset, new):
            self.discard()
            raise _BrokenError("the file on the server changed during the transfer", 0.0)
        if status == 200:
            offset = 0
            self.begin(new)
        self.check_size(self.facts.size)
        self.append(response, offset)

    def continues(self, response: requests.Response, offset: int, new: RemoteFileInfo) -> bool:
        """Return whether a partial response (206) continues the same file."""
        start = response.headers.get("Content-Range", "").removeprefix("bytes").partition("-")[0]
        same = self.facts.validator == new.validator
        fits = self.facts.size is None or new.size in (None, self.facts.size)
        return bool(offset) and start.strip() == str(offset) and same and fits

    def begin(self, new: RemoteFileInfo) -> None:
        # The sidecar must never speak of a part that an older file left.
        self.discard()
        self.facts = new
        if not new.encoded:
            write_sidecar(self.target, self.asset.url, new)

    def append(self, response: requests.Response, offset: int) -> None:
        size = self.facts.size
        if size is None and self.asset.exact and not self.facts.encoded:
            size = self.asset.size
        self.check_room(size - offset if size is not None else 0)
        with open(self.part, "ab", buffering=0) as file:
            for block in _blocks(response, self.facts.encoded):
                self.check_stop()
                if not offset and looks_like_page(self.asset.path, start=block):
                    self.discard()
                    raise CalcarineError(self.page())
                write_block(file, block)
                offset += len(block)
                self.watcher.at(self.asset.path, offset, size)
            os.fsync(file.fileno())
        if size is not None and offset < size:
            raise _BrokenError("the connection ended early")

    def finish(self) -> FetchedFile:
        size = self.part.stat().st_size
        self.check_size(size)
        if self.facts.size is not None and size != self.facts.size:
            raise _MismatchError(f"has {size} bytes and the server announced {self.facts.size}")
        wanted = {
            "sha256": self.asset.sha256,
            "md5": self.asset.md5 or self.facts.md5,
        }
        names = [name for name, value in wanted.items() if value or name == "sha256"]
        result = dict(zip(names, digest(self.part, *names, stop=self.stop), strict=True))
        for name, value in wanted.items():
            if value and value.lower() != result[name]:
                raise _MismatchError(
                    f"was damaged during the transfer (its {name} is {result[name]}, not {value})"
                )
        os.replace(self.part, self.target)
        sidecar_path(self.target).unlink(missing_ok=True)
        return FetchedFile(size, result["sha256"], self.facts.etag, self.facts.modified)

    def have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        sidecar_path(self.target).unlink(missing_ok=True)

    def check_stop(self) -> None:
        if self.stop.is_set():
            raise StoppedError

    def check_size(self, size: int | None) -> None:
        wanted = self.asset.size
        if self.asset.exact and size is not None and size != wanted:
            raise _MismatchError(f"has {size} bytes and should have {wanted}")

    def check_room(self, need: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if need > free:
            raise self.full(need, free)

    def full(self, need: int, free: int) -> DiskFullError:
        return DiskFullError(
            f"The disk is full: {self.asset.path} needs {filesize.decimal(need)} more and "
            f"{filesize.decimal(free)} is free in {self.target.parent}; make room there, and "
            "the same command resumes."
        )

    def unwritable(self, error: OSError) -> CalcarineError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(self.target.parent).free
            return self.full(max(0, (self.facts.size or self.have()) - self.have()), free)
        return CalcarineError(f"{self.part} cannot be written: {error.strerror or error}.")

    def about(self, text: str) -> str:
        return f"{self.asset.path} from {self.asset.url} {text}."

    def refused(self, status: int) -> str:
        if status in (404, 410):
            advice = (
                "there is nothing at this address now; look for the file at the data set's home "
                f"page and put it at {self.target}"
            )
        else:
            advice = (
                "the server refuses it; open the address in a browser, see whether a form or a "
                f"login is required, and put the file at {self.target}"
            )
        return self.about(f"cannot be had (HTTP {status}): {advice}")

    def page(self) -> str:
        return self.about(
            "came as a web page and not as data; open the address in a browser, see whether a "
            f"form or a login is required, and put the file at {self.target}"
        )

    def given_up(self, failures: int, why: str) -> str:
        reached = f"{filesize.decimal(self.have())} are kept, and " if self.have() else ""
        return self.about(
            f"was tried {failures} times without getting further ({why}); {reached}the same "
            "command continues"
        )


def _blocks(response: requests.Response, encoded: bool) -> Iterator[bytes]:
    """Yield blocks of the body as they arrive, so that a break loses none."""
    raw = response.raw
    if encoded or not hasattr(raw, "read1"):
        yield from raw.stream(1 << 16, decode_content=encoded)
        return
    while block := raw.read1(BLOCK, decode_content=False):
        yield block
