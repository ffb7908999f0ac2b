"""Requests to a server: addresses, redirects, and what the response says about a file."""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import requests
import urllib3

from calcarine.brain.assets import Asset
from calcarine.errors import CalcarineError, SettingError

__all__ = [
    "NETWORK_ERRORS",
    "RemoteFileInfo",
    "connection_reason",
    "http_address",
    "looks_like_page",
    "new_session",
    "remote_file_info",
    "retry_after",
    "send_request",
]

TIMEOUT = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""

NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
)

_REDIRECTS = 10


@dataclass(frozen=True)
class RemoteFileInfo:
    """What a server says about a file.

    Attributes
    ----------
    size : int, optional
        Bytes of the whole file, None where it does not say.
    etag, modified : str, optional
        Headers ``ETag`` and ``Last-Modified``.
    md5 : str, optional
        Where the ETag is the plain MD5 of the content (S3, sent in one part).
    kind : str
        Media type, without parameters.
    encoded : bool
        Whether what is sent is a compressed form of the file.
    """

    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    md5: str | None = None
    kind: str = ""
    encoded: bool = False

    @property
    def validator(self) -> str | None:
        """Return the value of ``If-Range``; a weak ETag is not allowed there."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


def http_address(url: str) -> str:
    """Return the HTTP(S) address; ``s3://bucket/key`` is read without signing.

    Parameters
    ----------
    url : str
        ``https://``, ``http://`` or ``s3://bucket/key``.  The environment
        variable ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` names another
        server than Amazon's; keys in the environment are never read.
    """
    if not url.startswith("s3://"):
        return url
    bucket, _, key = url.removeprefix("s3://").partition("/")
    key = quote(key, safe="/~")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}/{key}"
    if "." in bucket:  # a dot in the host name would not fit Amazon's certificate
        return f"https://s3.amazonaws.com/{bucket}/{key}"
    return f"https://{bucket}.s3.amazonaws.com/{key}"


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def new_session() -> requests.Session:
    """Open a session that sends no login, not even one from a ``.netrc`` file."""
    from calcarine import __version__

    session = requests.Session()
    session.auth = _no_login
    # What is stored is wanted byte for byte, not compressed on the way.
    session.headers.update(
        {"User-Agent": f"calcarine/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}
    )
    return session


@contextmanager
def send_request(
    session: requests.Session,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    timeout: tuple[float, float] | None = None,
) -> Iterator[requests.Response]:
    """Send a request, follow redirects, and close the response at the end.

    Raises
    ------
    CalcarineError
        If the address is none, or a redirect would give up encryption.
    """
    here = http_address(url)
    options = {"stream": True, "timeout": timeout or TIMEOUT, "allow_redirects": False}
    for _ in range(_REDIRECTS):
        try:
            response = session.request(method, here, headers=headers, **options)  # type: ignore[arg-type]
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise SettingError(f"{here} is not a valid address.") from error
        with response:
            target = session.get_redirect_target(response)
            if not target:
                yield response
                return
        there = requests.compat.urljoin(here, target)
        if here.startswith("https://") and not there.startswith("https://"):
            raise CalcarineError(
                f"{here} redirects to {there}, which is not encrypted; it was not followed, and "
                "the owners of the data should know."
            )
        here = there
    raise CalcarineError(f"{url} redirects without end.")


def remote_file_info(response: requests.Response, asset: Asset) -> RemoteFileInfo:
    """Read the headers of a complete (200), partial (206) or unsatisfiable (416) response."""
    headers = response.headers
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    encoding = headers.get("Content-Encoding", "").strip().lower()
    # A .gz file is often sent as if it were a compressed form of another one; it is meant as it is.
    encoded = encoding not in ("", "identity") and not asset.path.endswith((".gz", ".tgz", ".mgz"))
    length: str | None = None
    if response.status_code in (206, 416):
        length = headers.get("Content-Range", "").rpartition("/")[2]
    elif response.status_code == 200 and not encoded:
        length = headers.get("Content-Length")
    size = int(length) if length and length.isascii() and length.isdigit() else None
    etag = headers.get("ETag")
    return RemoteFileInfo(
        size, etag, headers.get("Last-Modified"), _md5_in(etag, headers, asset.url), kind, encoded
    )


def _md5_in(etag: str | None, headers: Mapping[str, str], url: str) -> str | None:
    plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    keyed = "x-amz-server-side-encryption-customer-algorithm" in headers
    if not url.startswith("s3://") or not etag or not plain or keyed:
        return None
    inside = etag.strip('"').lower()
    return inside if re.fullmatch("[0-9a-f]{32}", inside) else None


def looks_like_page(path: str, kind: str = "", start: bytes = b"") -> bool:
    """Return whether a server sent a web page (a login, an error) instead of a file.

    Parameters
    ----------
    path : str
        Name of the requested file.
    kind : str
        Media type of the answer.
    start : bytes
        First bytes of it.
    """
    if path.lower().endswith((".html", ".htm")):
        return False
    text = path.lower().endswith((".csv", ".tsv", ".txt", ".json", ".md"))
    is_html = kind in ("text/html", "application/xhtml+xml") and not text
    return is_html or start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def retry_after(response: requests.Response) -> float | None:
    """Return how many seconds the server asks to wait; None if it does not say."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def connection_reason(error: Any) -> str:
    """Return in a few words why a connection failed."""
    name = f"{type(error).__name__} {error}"
    known = {
        "NameResolution": "the server's name is not found; is there a network?",
        "refused": "the server does not listen",
        "SSL": "the encryption could not be set up",
        "imed out": "the server was silent for too long",
        "imeout": "the server was silent for too long",
        "IncompleteRead": "the connection ended early",
        "reset": "the connection was cut",
        "disconnected": "the connection was cut",
        "aborted": "the connection was cut",
    }
    for sign, words in known.items():
        if sign in name:
            return words
    return " ".join(name.split())[:200]
