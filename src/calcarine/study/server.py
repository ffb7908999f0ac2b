"""Serve a study until the server is stopped."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import TYPE_CHECKING

from calcarine.errors import SettingError, need_extra

if TYPE_CHECKING:
    from calcarine.study.store import Study

__all__ = ["base_url", "is_loopback", "link_lines", "serve"]


def serve(study: Study, host: str = "127.0.0.1", port: int = 8765, url: str | None = None) -> None:
    """Serve a study and print the links of its raters.

    Parameters
    ----------
    study : Study
    host : str
        Address to listen on; by default only this machine has access.
    port : int
        Port; 0 selects a free one.
    url : str, optional
        Base URL of the links, if the server is behind a proxy.

    Raises
    ------
    CalcarineError
        If the address is not available.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, serve
    >>> serve(Study(Path("study")), port=8765)  # doctest: +SKIP
    """
    need_extra("study", "fastapi", "uvicorn")
    import uvicorn

    from calcarine.study.app import build_app

    listening = _listen(host, port)
    if not is_loopback(host):
        print(
            f"Warning: other machines can reach this server at {host}, and it uses plain HTTP; "
            "use a proxy with HTTPS in front of it.",
            file=sys.stderr,
        )
    print("\n".join(link_lines(study, url or base_url(host, listening.getsockname()[1]))))
    print("Serving the study; stop with Ctrl+C. Every answer is saved immediately.")
    sys.stdout.flush()
    # No access log, because links contain the tokens.
    config = uvicorn.Config(
        build_app(study),
        access_log=False,
        server_header=False,
        limit_concurrency=200,
        log_level="warning",
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()


def link_lines(study: Study, base: str) -> list[str]:
    """Return one line for each rater with a stored token."""
    links = study.links()
    if not links:
        return ["There are no stored links; 'calcarine study invite' makes new ones."]
    return [f"{name}  {base.rstrip('/')}/r/{token}" for name, token in links]


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def base_url(host: str, port: int) -> str:
    """Return the base URL of links."""
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # so that links work as soon as they are printed
        return listening
    except (OSError, OverflowError) as error:
        raise SettingError(
            f"Cannot listen on {host}, port {port} ({error}); choose another --host or --port."
        ) from error
