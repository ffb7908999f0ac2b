"""Fetching one file so that it arrives whole, however often the way to it breaks.

Bytes go to ``NAME.part``; ``NAME.part.json`` beside it says of which file they
are.  The next try asks for the rest, on condition that the file on the server
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

from calcarine.brain.assets import Asset
from calcarine.download.parts import (
    BLOCK,
    StoppedError,
    digest,
    part_of,
    read_sidecar,
    sidecar_of,
    write_block,
    write_sidecar,
)
from calcarine.download.progress import Silent, Watcher, human
from calcarine.download.web import (
    NETWORK_ERRORS,
    Facts,
    ask,
    facts_of,
    looks_like_page,
    new_session,
    reason,
    retry_after,
)
from calcarine.errors import CalcarineError

__all__ = ["DiskFullError", "Fetched", "Retries", "fetch"]

_BUSY = (408, 425, 429)


class DiskFullError(CalcarineError):
    """There is no room for the rest of a file; what is there stays for the next try."""


class _BrokenError(Exception):
    """A try that broke in a way that may pass."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _MismatchError(Exception):
    """What arrived is not the file that it should be."""


@dataclass(frozen=True)
class Retries:
    """How patient a transfer is.

    Attributes
    ----------
    tries
        How often in a row a try may bring no new byte before it is given up.
    first, longest
        Seconds to wait before the first repetition, and at most; each wait
        is about twice the one before.
    obey
        Seconds of a server's ``Retry-After`` that are obeyed at most.
    """

    tries: int = 6
    first: float = 1.0
    longest: float = 60.0
    obey: float = 300.0

    def pause(self, failures: int, wait: float | None, stop: threading.Event) -> None:
        """Wait before the next try; ends early when asked to stop."""
        if wait is None:
            # Spread out, so that clients which failed together do not come back together.
            wait = min(self.longest, self.first * 2.0**failures) * random.uniform(0.5, 1.0)
        stop.wait(min(wait, self.obey))


@dataclass(frozen=True)
class Fetched:
    """A file that is whole: its size in bytes, hash, and what the server called it."""

    size: int
    sha256: str
    etag: str | None
    modified: str | None


def fetch(
    asset: Asset,
    folder: Path,
    watcher: Watcher | None = None,
    retries: Retries | None = None,
    stop: threading.Event | None = None,
) -> Fetched:
    """Fetch a file to ``folder / asset.path``, continuing where an earlier call ended.

    Parameters
    ----------
    asset
        What to fetch; its size (if exact) and hashes are checked.
    folder
        The data set's folder; a file of that name in it is replaced.
    watcher
        Is told of each block.
    retries
        How patient to be.
    stop
        Set from another thread, it ends the transfer within a block.

    Raises
    ------
    DiskFullError
        If there is no room; the partial file stays.
    StoppedError
        If ``stop`` was set; the partial file stays.
    CalcarineError
        If the server refuses, keeps breaking off, or sends another file.
    """
    with new_session() as session:
        transfer = _Transfer(asset, folder, session, watcher or Silent(), stop or threading.Event())
        return transfer.run(retries or Retries())


class _Transfer:
    def __init__(
        self,
        asset: Asset,
        folder: Path,
        session: requests.Session,
        watcher: Watcher,
        stop: threading.Event,
    ) -> None:
        self.asset, self.session, self.watcher, self.stop = asset, session, watcher, stop
        self.target = folder / asset.path
        self.part = part_of(self.target)
        self.facts = Facts()

    def run(self, retries: Retries) -> Fetched:
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
        """Ask for what is missing, and append it."""
        offset, told = self.have(), read_sidecar(self.target)
        usable = told is not None and told[0] == self.asset.url
        self.facts = told[1] if told is not None and usable else Facts()
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
            with ask(self.session, "GET", self.asset.url, headers) as response:
                self.take(response, offset)
        except NETWORK_ERRORS as error:
            raise _BrokenError(reason(error)) from error

    def take(self, response: requests.Response, offset: int) -> None:
        status, new = response.status_code, facts_of(response, self.asset)
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
            raise _BrokenError("the file on the server changed on the way", 0.0)
        if status == 200:
            offset = 0
            self.begin(new)
        self.check_size(self.facts.size)
        self.append(response, offset)

    def continues(self, response: requests.Response, offset: int, new: Facts) -> bool:
        """Whether a part (206) is the wanted part of the same file as before."""
        start = response.headers.get("Content-Range", "").removeprefix("bytes").partition("-")[0]
        same = self.facts.validator == new.validator
        fits = self.facts.size is None or new.size in (None, self.facts.size)
        return bool(offset) and start.strip() == str(offset) and same and fits

    def begin(self, new: Facts) -> None:
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

    def finish(self) -> Fetched:
        size = self.part.stat().st_size
        self.check_size(size)
        if self.facts.size is not None and size != self.facts.size:
            raise _MismatchError(f"has {size} bytes and the server announced {self.facts.size}")
        wanted = {
            "sha256": self.asset.sha256,
            "md5": self.asset.md5 or self.facts.md5,
        }
        names = [name for name, value in wanted.items() if value or name == "sha256"]
        found = dict(zip(names, digest(self.part, *names, stop=self.stop), strict=True))
        for name, value in wanted.items():
            if value and value.lower() != found[name]:
                raise _MismatchError(
                    f"was damaged on the way (its {name} is {found[name]}, not {value})"
                )
        os.replace(self.part, self.target)
        sidecar_of(self.target).unlink(missing_ok=True)
        return Fetched(size, found["sha256"], self.facts.etag, self.facts.modified)

    def have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        sidecar_of(self.target).unlink(missing_ok=True)

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
            f"The disk is full: {self.asset.path} needs {human(need)} more and {human(free)} is "
            f"free in {self.target.parent}; make room there, and the same command continues."
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
                f"login is asked for, and put the file at {self.target}"
            )
        return self.about(f"cannot be had (HTTP {status}): {advice}")

    def page(self) -> str:
        return self.about(
            "came as a web page and not as data; open the address in a browser, see whether a "
            f"form or a login is asked for, and put the file at {self.target}"
        )

    def given_up(self, failures: int, why: str) -> str:
        reached = f"{human(self.have())} are kept, and " if self.have() else ""
        return self.about(
            f"was tried {failures} times without getting further ({why}); {reached}the same "
            "command continues"
        )


def _blocks(response: requests.Response, encoded: bool) -> Iterator[bytes]:
    """Pieces of the body as they come, so that a break loses none of those before it."""
    raw = response.raw
    if encoded or not hasattr(raw, "read1"):
        yield from raw.stream(1 << 16, decode_content=encoded)
        return
    while block := raw.read1(BLOCK, decode_content=False):
        yield block
