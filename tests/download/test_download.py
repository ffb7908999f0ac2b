import errno
import gzip
import hashlib
import http.server
import io
import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from calcarine.brain.assets import Asset, UsageTerms
from calcarine.brain.info import DatasetInfo
from calcarine.cli.main import app, main
from calcarine.datasets import registry
from calcarine.download import command, http_requests, parallel, planned_files, transfer
from calcarine.download.download_record import DownloadRecord
from calcarine.download.progress import NoProgress, PrintedProgress
from calcarine.download.transfer import DiskFullError, RetryPolicy, fetch
from calcarine.errors import CalcarineError
from calcarine.files.locks import LOCK_NAME

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes
SHA = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
TERMS = UsageTerms(
    "Toy agreement", "https://example.org/terms", "Cite the paper and share nothing."
)


@dataclass
class Server:
    """Serves ``files``; ``tricks[path]`` holds what to do with the next GETs of a path."""

    files: dict = field(default_factory=dict)
    etags: dict = field(default_factory=dict)
    kinds: dict = field(default_factory=dict)
    tricks: dict = field(default_factory=dict)
    no_range: bool = False
    no_head: bool = False
    log: list = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def add(self, path, content=CONTENT, etag='"one"', kind="application/octet-stream"):
        self.files[path], self.etags[path], self.kinds[path] = content, etag, kind
        return self.url + path

    def gets(self, path=None):
        return [e for e in self.log if e[0] == "GET" and path in (None, e[1])]

    def ranges(self):
        return [headers.get("Range") for _, _, headers in self.gets()]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: Server

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.shelf.log.append(("HEAD", self.path, dict(self.headers)))
        known = self.path in self.shelf.files and not self.shelf.no_head
        self.send_response(200 if known else 405 if self.shelf.no_head else 404)
        if known:
            self._describe(len(self.shelf.files[self.path]))
        else:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def _describe(self, length):
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", self.shelf.kinds[self.path])
        if self.shelf.etags[self.path]:
            self.send_header("ETag", self.shelf.etags[self.path])

    def do_GET(self):
        shelf = self.shelf
        shelf.log.append(("GET", self.path, dict(self.headers)))
        tricks = shelf.tricks.get(self.path, [])
        trick, value = tricks.pop(0) if tricks else ("", None)
        if trick == "status" or self.path not in shelf.files:
            status, headers = value if trick else (404, {})
            self.send_response(status)
            for key, each in headers.items():
                self.send_header(key, each)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = shelf.files[self.path]
        start = self._start()
        if trick == "corrupt":
            body = bytes([body[0] ^ 255]) + body[1:]
        if start is not None and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        if start is not None:
            stop = 1 if self.headers["Range"] == "bytes=0-0" else len(body)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            body = body[start:stop]
        if trick == "gzip":
            body = gzip.compress(body)
            self._describe(len(body))
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(body)
            return
        if trick == "endless":  # neither a length nor chunks: the end is where it ends
            self.send_header("ETag", shelf.etags[self.path])
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body[:value])
            self.close_connection = True
            return
        if trick == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("ETag", shelf.etags[self.path])
            self.end_headers()
            part = body[:value] if value is not None else body
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            if value is None:
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.close_connection = True
            return
        self._describe(len(body))
        self.end_headers()
        if trick == "cut":
            self.wfile.write(body[:value])
            self.close_connection = True
        elif trick == "hold":
            self.wfile.write(body[:value])
            self.wfile.flush()
            shelf.go.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _start(self):
        wanted, shelf = self.headers.get("Range"), self.shelf
        if wanted is None or shelf.no_range:
            return None
        if "If-Range" in self.headers and self.headers["If-Range"] != shelf.etags[self.path]:
            return None
        return int(wanted.removeprefix("bytes=").partition("-")[0])


@pytest.fixture
def server():
    shelf = Server()
    handler = type("Bound", (Handler,), {"shelf": shelf})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    running.handle_error = lambda *_: None  # clients that go away are what is tested
    shelf.url = f"http://127.0.0.1:{running.server_address[1]}"
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield shelf
    shelf.go.set()
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """No test waits; what would have been waited for is kept."""
    kept = []
    monkeypatch.setattr(RetryPolicy, "pause", lambda self, n, wait, stop: kept.append((n, wait)))
    return kept


def leftovers(folder):
    return sorted(p.name for p in folder.rglob("*") if ".part" in p.name)


# --- one file ---


@pytest.mark.parametrize("offset", [1, 255, 65_536, 65_537, len(CONTENT) - 1])
@pytest.mark.parametrize("trick", ["cut", "chunks"])
def test_a_broken_transfer_goes_on_at_the_byte_reached(server, tmp_path, offset, trick):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [(trick, offset)]
    got = fetch(Asset("sub/a.h5", url, sha256=SHA), tmp_path)
    assert (tmp_path / "sub/a.h5").read_bytes() == CONTENT
    assert got.sha256 == SHA and got.size == len(CONTENT)
    assert server.ranges() == [None, f"bytes={offset}-"]
    assert server.log[1][2]["If-Range"] == '"one"'
    assert leftovers(tmp_path) == []


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 90_000), max_size=5), st.integers(0, 2))
def test_any_row_of_breaks_ends_with_the_same_bytes(server, tmp_path, cuts, busy):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("cut", n) for n in cuts] + [("status", (503, {}))] * busy
    fetch(Asset("a.h5", url), tmp_path, retries=RetryPolicy(tries=8))
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    (tmp_path / "a.h5").unlink()


def test_a_second_call_continues_what_the_first_gave_up(server, tmp_path):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("cut", 1000), *[("cut", 0)] * 4]
    with pytest.raises(CalcarineError, match=r"a.h5 .* without getting further .*1.0 kB are kept"):
        fetch(Asset("a.h5", url), tmp_path, retries=RetryPolicy(tries=2))
    assert not (tmp_path / "a.h5").exists()
    server.tricks.clear()
    server.log.clear()
    fetch(Asset("a.h5", url), tmp_path)
    assert server.ranges() == ["bytes=1000-"]
    assert (tmp_path / "a.h5").read_bytes() == CONTENT


def test_patience_is_counted_anew_after_progress_and_ends_without_it(server, tmp_path):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("cut", 10_000)] * 25
    fetch(Asset("a.h5", url), tmp_path, retries=RetryPolicy(tries=1))
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    server.tricks["/a.h5"] = [("status", (500, {}))] * 99
    server.log.clear()
    with pytest.raises(CalcarineError, match="HTTP 500"):
        fetch(Asset("b.h5", url), tmp_path, retries=RetryPolicy(tries=3))
    assert len(server.log) == 4


def test_a_server_without_range_starts_over(server, tmp_path):
    server.no_range = True
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("cut", 5000)]
    fetch(Asset("a.h5", url, md5=MD5), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    server.tricks["/a.h5"] = [("cut", 5000)] * 99  # never further than 5000: this must end
    with pytest.raises(CalcarineError, match="without getting further"):
        fetch(Asset("b.h5", url), tmp_path, retries=RetryPolicy(tries=3))


@pytest.mark.parametrize("honours", [True, False])
def test_a_file_that_changed_between_two_tries_is_never_mixed(
    server, tmp_path, honours, monkeypatch
):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("cut", 7000)] * 3
    with pytest.raises(CalcarineError):
        fetch(Asset("a.h5", url), tmp_path, retries=RetryPolicy(tries=-1))
    new = bytes(reversed(CONTENT))
    server.tricks.clear()
    server.add("/a.h5", new, '"two"')
    if not honours:  # a server that sends the range though If-Range does not fit
        monkeypatch.setattr(
            Handler, "_start", lambda self: 7000 if "Range" in self.headers else None
        )
    fetch(Asset("a.h5", url), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == new


def test_a_part_of_another_address_or_without_a_note_is_not_continued(server, tmp_path):
    url = server.add("/a.h5")
    (tmp_path / "a.h5.part").write_bytes(b"x" * 5000)
    fetch(Asset("a.h5", url), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    (tmp_path / "b.h5.part").write_bytes(b"x" * 5000)
    told = {"url": "http://other/b.h5", "size": len(CONTENT), "etag": '"one"'}
    (tmp_path / "b.h5.part.json").write_text(json.dumps(told))
    fetch(Asset("b.h5", url), tmp_path)
    assert (tmp_path / "b.h5").read_bytes() == CONTENT
    assert server.ranges() == [None, None]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_part_that_is_whole_already_is_taken(server, tmp_path, size):
    url = server.add("/a.h5")
    (tmp_path / "a.h5.part").write_bytes(CONTENT)
    (tmp_path / "a.h5.part.json").write_text(
        json.dumps({"url": url, "size": size, "etag": '"one"'})
    )
    fetch(Asset("a.h5", url, sha256=SHA), tmp_path)  # without a size the server answers 416
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    assert len(server.gets()) == (1 if size is None else 0)


def test_416_for_a_part_that_is_too_long_starts_over(server, tmp_path):
    url = server.add("/a.h5")
    (tmp_path / "a.h5.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.h5.part.json").write_text(json.dumps({"url": url, "etag": '"one"'}))
    fetch(Asset("a.h5", url), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{"sha256": SHA}, {"md5": MD5.upper()}])
def test_a_corrupted_body_is_fetched_once_more_and_then_refused(server, tmp_path, known):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("corrupt", None)]
    fetch(Asset("a.h5", url, **known), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    server.tricks["/a.h5"] = [("corrupt", None)] * 9
    server.log.clear()
    with pytest.raises(CalcarineError, match=r"b.h5 .*damaged during the transfer"):
        fetch(Asset("b.h5", url, **known), tmp_path)
    assert len(server.gets()) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5"]


def test_a_wrong_size_is_refused_where_the_size_is_exact_only(server, tmp_path):
    url = server.add("/a.h5")
    with pytest.raises(CalcarineError, match="has 307200 bytes and should have 5"):
        fetch(Asset("a.h5", url, size=5, exact=True), tmp_path)
    assert list(tmp_path.iterdir()) == []
    fetch(Asset("a.h5", url, size=5), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_a_refusal_is_one_sentence_and_not_tried_again(server, tmp_path, status):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("status", (status, {}))]
    with pytest.raises(CalcarineError) as caught:
        fetch(Asset("a.h5", url), tmp_path)
    text = str(caught.value)
    assert "a.h5" in text and url in text and f"HTTP {status}" in text and "\n" not in text
    assert len(server.log) == 1


def test_a_busy_server_is_asked_again_when_it_says(server, tmp_path, waits):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [
        ("status", (503, {"Retry-After": "7"})),
        ("status", (429, {})),
        ("status", (502, {})),
    ]
    lines, text = printed(False)
    fetch(Asset("a.h5", url), tmp_path, lines)
    said = text.getvalue().splitlines()
    assert [wait for _, wait in waits] == [7.0, None, None]
    assert ["HTTP 429" in said[0], "HTTP 502" in said[1], len(said)] == [True, True, 2]
    assert [n for n, _ in waits] == [1, 2, 3]


def test_waits_grow_are_spread_and_end(monkeypatch):
    monkeypatch.undo()
    seen = []
    stop = SimpleNamespace(wait=seen.append)
    patience = RetryPolicy(first=1, longest=30, obey=100)
    for n in range(8):
        patience.pause(n, None, stop)
    for wanted, found in zip([1, 2, 4, 8, 16, 30, 30, 30], seen, strict=True):
        assert wanted / 2 <= found <= wanted
    patience.pause(1, 1e9, stop)
    assert seen[-1] == 100


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("name", ["a.hdf5", "a.nii.gz", "a.zip", "a.csv"])
def test_a_login_page_is_not_taken_for_data(server, tmp_path, kind, name):
    url = server.add("/" + name, b"\n<!DOCTYPE html><html>log in</html>", kind=kind)
    with pytest.raises(CalcarineError, match="web page"):
        fetch(Asset(name, url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_left_and_the_transfer_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(http_requests, "TIMEOUT", (5.0, 0.2))
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("hold", 777)]
    fetch(Asset("a.h5", url), tmp_path)
    assert server.ranges() == [None, "bytes=777-"]
    assert (tmp_path / "a.h5").read_bytes() == CONTENT


def test_a_body_without_a_length_is_held_against_the_known_size(server, tmp_path):
    url = server.add("/a.h5")
    server.tricks["/a.h5"] = [("endless", 999)]
    fetch(Asset("a.h5", url, len(CONTENT), exact=True), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=999-"]


@pytest.mark.parametrize(("name", "packed"), [("a.csv", False), ("a.nii.gz", True)])
def test_a_text_packed_on_the_way_is_unpacked_and_a_gz_file_is_not(server, tmp_path, name, packed):
    url = server.add("/" + name)
    server.tricks["/" + name] = [("gzip", None)]
    fetch(Asset(name, url), tmp_path)
    found = (tmp_path / name).read_bytes()
    assert (gzip.decompress(found) if packed else found) == CONTENT


def test_files_without_bytes_arrive(server, tmp_path):
    url = server.add("/empty.txt", b"")
    assert fetch(Asset("empty.txt", url), tmp_path).size == 0
    assert (tmp_path / "empty.txt").read_bytes() == b""


def test_redirects_are_followed_but_not_out_of_encryption(server, tmp_path):
    url = server.add("/a.h5")
    server.files["/old"] = b""
    server.tricks["/old"] = [("status", (302, {"Location": "/a.h5"}))]
    fetch(Asset("a.h5", server.url + "/old"), tmp_path)
    assert (tmp_path / "a.h5").read_bytes() == CONTENT

    class Secure(http_requests.requests.Session):
        def request(self, method, address, **rest):
            if not address.startswith("https://"):
                raise AssertionError("asked without encryption")
            response = http_requests.requests.Response()
            response.status_code = 302
            response.headers["location"] = url
            response.raw = SimpleNamespace(close=lambda: None)
            return response

    with (
        pytest.raises(CalcarineError, match="not encrypted"),
        http_requests.send_request(Secure(), "GET", "https://safe.example/a.h5"),
    ):
        pass
    server.files["/loop"] = b""
    server.tricks["/loop"] = [("status", (302, {"Location": "/loop"}))] * 50
    with pytest.raises(CalcarineError, match="redirects without end"):
        fetch(Asset("b.h5", server.url + "/loop"), tmp_path)


def test_no_login_is_ever_sent(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.add("/bucket/a%20b%2B.h5", etag=f'"{MD5}"')
    fetch(Asset("a.h5", "s3://bucket/a b+.h5"), tmp_path)
    sent = {key.lower(): value for key, value in server.log[0][2].items()}
    assert set(sent) <= {"host", "user-agent", "accept", "accept-encoding", "connection"}


# --- disks ---


def test_a_full_disk_keeps_the_part_and_the_same_command_continues(server, tmp_path, monkeypatch):
    url = server.add("/a.h5")
    real, room = transfer.write_block, [100_000]

    def limited(file, block):
        fits = block[: room[0]]
        real(file, fits)
        room[0] -= len(fits)
        if len(fits) < len(block):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "write_block", limited)
    with pytest.raises(DiskFullError) as caught:
        fetch(Asset("a.h5", url), tmp_path)
    assert "a.h5 needs 207.2 kB more" in str(caught.value) and "free" in str(caught.value)
    assert (tmp_path / "a.h5.part").read_bytes() == CONTENT[:100_000]
    monkeypatch.setattr(transfer, "write_block", real)
    fetch(Asset("a.h5", url), tmp_path)
    assert server.ranges() == [None, "bytes=100000-"]
    assert (tmp_path / "a.h5").read_bytes() == CONTENT


def test_a_file_without_room_is_not_begun(server, tmp_path, monkeypatch):
    url = server.add("/a.h5")
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskFullError, match=r"needs 307.2 kB more and 1.0 kB is free"):
        fetch(Asset("a.h5", url), tmp_path)
    assert not (tmp_path / "a.h5.part").exists()


# --- several files ---


def rows_for(server, tmp_path, names):
    assets = [Asset(name, server.url + "/" + name) for name in names]
    record = DownloadRecord(tmp_path, "toy")
    return planned_files.plan_files(assets, tmp_path, record, {}), record


def test_one_that_fails_stops_no_other(server, tmp_path):
    names = [f"{i}.h5" for i in range(6)]
    for name in names[1:]:
        server.add("/" + name, CONTENT + name.encode())
    rows, record = rows_for(server, tmp_path, names)
    failures = parallel.fetch_all(rows, tmp_path, record, NoProgress(), workers=3)
    assert list(failures) == ["0.h5"] and "HTTP 404" in failures["0.h5"]
    for name in names[1:]:
        assert (tmp_path / name).read_bytes() == CONTENT + name.encode()
    kept = json.loads((tmp_path / "downloads.json").read_text())["files"]
    assert sorted(kept) == names[1:]
    entry = kept["1.h5"]
    assert entry["sha256"] == hashlib.sha256(CONTENT + b"1.h5").hexdigest()
    assert (entry["size"], entry["etag"]) == (len(CONTENT) + 4, '"one"') and entry["fetched"]


def test_files_come_at_the_same_time(server, tmp_path):
    names = ["a.h5", "b.h5", "c.h5"]
    for name in names:
        server.add("/" + name)
        server.tricks["/" + name] = [("hold", 10)]
    rows, record = rows_for(server, tmp_path, names)
    run = threading.Thread(
        target=parallel.fetch_all, args=(rows, tmp_path, record, NoProgress(), 3), daemon=True
    )
    run.start()
    until(lambda: len(server.gets()) == 3)  # all three are asked for while none has ended
    server.go.set()
    run.join(10)
    assert all((tmp_path / name).read_bytes() == CONTENT for name in names)


def test_interrupting_leaves_parts_that_continue(server, tmp_path, monkeypatch):
    server.add("/a.h5")
    server.tricks["/a.h5"] = [("hold", 4321)]
    rows, record = rows_for(server, tmp_path, ["a.h5"])
    monkeypatch.setattr(parallel, "_GRACE", 0.01)
    real = threading.Thread.join

    def join(thread, timeout=None):
        if timeout == 0.2:
            until(lambda: (tmp_path / "a.h5.part").exists())
            until(lambda: (tmp_path / "a.h5.part").stat().st_size == 4321)
            raise KeyboardInterrupt
        real(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(KeyboardInterrupt):
        parallel.fetch_all(rows, tmp_path, record, NoProgress())
    monkeypatch.undo()
    server.go.set()
    until(lambda: (tmp_path / "a.h5.part").stat().st_size == 4321)
    time.sleep(0.05)
    fetch(Asset("a.h5", server.url + "/a.h5"), tmp_path)
    assert server.ranges()[-1] == "bytes=4321-"
    assert (tmp_path / "a.h5").read_bytes() == CONTENT


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# --- S3 ---


@pytest.fixture(scope="module")
def bucket():
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    client.create_bucket(Bucket="natural-scenes")
    key = "ppdata/subj 01/b+1.hdf5"
    client.put_object(Bucket="natural-scenes", Key=key, Body=CONTENT, ACL="public-read")
    yield url
    running.stop()


def test_s3_is_read_without_keys_and_continued(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket)
    asset = Asset("b.hdf5", "s3://natural-scenes/ppdata/subj 01/b+1.hdf5")
    record = DownloadRecord(tmp_path, "toy")
    assert planned_files.request_sizes([asset], record)[asset.url].size == len(CONTENT)
    (tmp_path / "b.hdf5.part").write_bytes(CONTENT[:1234])
    told = {"url": asset.url, "size": len(CONTENT), "etag": f'"{MD5}"', "md5": MD5}
    (tmp_path / "b.hdf5.part.json").write_text(json.dumps(told))
    assert fetch(asset, tmp_path).etag == f'"{MD5}"'
    assert (tmp_path / "b.hdf5").read_bytes() == CONTENT
    with pytest.raises(CalcarineError, match=r"HTTP 40[34]"):
        fetch(Asset("c.hdf5", "s3://natural-scenes/no"), tmp_path)


def test_an_etag_of_s3_that_is_an_md5_is_held_against_the_content(server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.add("/b/a.h5", etag=f'"{MD5}"')
    server.tricks["/b/a.h5"] = [("corrupt", None)] * 2
    with pytest.raises(CalcarineError, match="its md5 is"):
        fetch(Asset("a.h5", "s3://b/a.h5"), tmp_path)
    server.add("/b/a.h5", etag=f'"{MD5}-12"')  # sent in several parts: no hash of the content
    fetch(Asset("a.h5", "s3://b/a.h5"), tmp_path)


def test_dates_and_seconds_to_wait():
    def told(value):
        return http_requests.retry_after(SimpleNamespace(headers={"Retry-After": value}))

    soon = datetime.now(UTC) + timedelta(seconds=100)
    assert 95 < told(format_datetime(soon, usegmt=True)) <= 100
    assert told("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert told("12") == 12 and told("soon") is None and told("") is None


def test_addresses_of_buckets(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert http_requests.http_address("s3://b/k/x y.h5") == "https://b.s3.amazonaws.com/k/x%20y.h5"
    assert http_requests.http_address("s3://b.c/k") == "https://s3.amazonaws.com/b.c/k"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one/")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://two")
    assert http_requests.http_address("s3://b/k") == "http://two/b/k"


# --- the command ---


def toy(server, names, access="", terms=TERMS, **changes):
    info = DatasetInfo(
        "toy", "Toy data", False, ("s1",), "example.org", "CC0", True, ("a.h5",), access, terms
    )
    assets = [Asset(name, server.url + "/" + name, **changes) for name in names]
    return SimpleNamespace(
        INFO=info, load=lambda data, subject: None, assets=lambda subjects: assets
    )


@pytest.fixture
def calcarine(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["calcarine", "datasets", "download", *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run


@pytest.fixture
def three(server, monkeypatch):
    for name in ("a.h5", "b.h5", "c.csv"):
        server.add("/" + name)
    monkeypatch.setitem(registry.READERS, "toy", toy(server, ["a.h5", "b.h5", "c.csv"]))
    return server


def test_without_consent_nothing_is_downloaded(three, tmp_path, calcarine):
    to = tmp_path / "new"
    code, out, err = calcarine("toy", "--to", to)
    assert code == 2 and not to.exists() and three.gets() == []
    assert "--accept-terms" in err and len(err.strip().splitlines()) == 1
    for words in ("Toy agreement", "Cite the paper", "https://example.org/terms", "921.6 kB"):
        assert words in out


@pytest.mark.parametrize("answer", ["no", "", "y", "yes please"])
def test_only_yes_is_consent_on_a_terminal(three, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    arguments = ["datasets", "download", "toy", "--to", str(tmp_path / "new")]
    result = CliRunner().invoke(app, arguments, input=f"{answer}\n")
    assert isinstance(result.exception, CalcarineError) and "not accepted" in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_yes_on_a_terminal_downloads_and_is_recorded(three, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    arguments = ["datasets", "download", "toy", "--to", str(tmp_path)]
    result = CliRunner().invoke(app, arguments, input="yes\n")
    assert result.exit_code == 0, result.exception
    assert all((tmp_path / n).read_bytes() == CONTENT for n in ("a.h5", "b.h5", "c.csv"))
    terms = json.loads((tmp_path / "downloads.json").read_text())["terms"]
    assert [(t["title"], t["how"]) for t in terms] == [("Toy agreement", "typed yes")]


def test_a_second_call_fetches_only_what_is_missing(three, tmp_path, calcarine):
    assert calcarine("toy", "--to", tmp_path, "--accept-terms")[0] == 0
    three.log.clear()
    code, out, _ = calcarine("toy", "--to", tmp_path)
    assert code == 0 and three.log == [] and "All 3 files" in out
    (tmp_path / "b.h5").unlink()
    code, out, _ = calcarine("toy", "--to", tmp_path)  # consent is on record
    assert code == 0 and {e[1] for e in three.gets()} == {"/b.h5"} and "were accepted on" in out
    assert not (tmp_path / LOCK_NAME).exists()


def test_terms_that_changed_are_asked_for_again(three, tmp_path, calcarine, monkeypatch):
    assert calcarine("toy", "--to", tmp_path, "--accept-terms")[0] == 0
    (tmp_path / "b.h5").unlink()
    new = UsageTerms(TERMS.title, TERMS.url, "Pay a fee.")
    monkeypatch.setitem(registry.READERS, "toy", toy(three, ["a.h5", "b.h5"], terms=new))
    assert calcarine("toy", "--to", tmp_path)[0] == 2


def test_verify_finds_a_changed_byte_and_mends_it(three, tmp_path, calcarine):
    assert calcarine("toy", "--to", tmp_path, "--accept-terms")[0] == 0
    (tmp_path / "a.h5").write_bytes(CONTENT[:-1] + b"?")
    three.log.clear()
    assert calcarine("toy", "--to", tmp_path)[0] == 0 and three.log == []  # the size is right
    code, out, _ = calcarine("toy", "--to", tmp_path, "--verify")
    assert code == 0 and "2 are whole, 1 not" in out
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    assert [e[1] for e in three.gets()] == ["/a.h5"]


def test_dry_run_shows_sizes_and_downloads_nothing(three, tmp_path, calcarine):
    (tmp_path / "b.h5").write_bytes(CONTENT)
    code, out, _ = calcarine("toy", "--to", tmp_path, "--dry-run")
    assert code == 0 and three.gets() == []
    assert "3 files, 921.6 kB; 307.2 kB are there; 614.4 kB to download" in out and "free" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.h5"]


def test_unknown_sizes_and_too_little_room_are_told(tmp_path, calcarine, monkeypatch):
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")
    monkeypatch.setitem(registry.READERS, "toy", toy(nowhere, ["a.h5"]))
    out = calcarine("toy", "--to", tmp_path, "--dry-run")[1]
    assert "1 file, 1 of unknown size; 0 bytes are there; to download to" in out
    monkeypatch.setitem(registry.READERS, "toy", toy(nowhere, ["a.h5"], size=10**17))
    assert "free, which is too little." in calcarine("toy", "--to", tmp_path, "--dry-run")[1]


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(CalcarineError, match=r"a.h5.part cannot be written"):
        fetch(Asset("x/a.h5", server.add("/a.h5")), tmp_path)


def test_sizes_are_estimates_where_no_server_answers(tmp_path, calcarine, monkeypatch):
    nowhere = SimpleNamespace(url="http://127.0.0.1:9")
    monkeypatch.setitem(registry.READERS, "toy", toy(nowhere, ["a.h5", "b.h5"], size=1_050_000_000))
    code, out, _ = calcarine("toy", "--to", tmp_path, "--dry-run")
    assert code == 0 and "~1.1 GB" in out and "~2.1 GB" in out


def test_a_server_that_knows_no_head_is_asked_for_one_byte(three, tmp_path, calcarine):
    three.no_head = True
    code, out, _ = calcarine("toy", "--to", tmp_path, "--dry-run")
    assert code == 0 and "3 files, 921.6 kB" in out
    assert set(three.ranges()) == {"bytes=0-0"}


def test_too_little_room_is_told_before_anything_starts(three, tmp_path, calcarine, monkeypatch):
    monkeypatch.setattr(command.shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    code, _, err = calcarine("toy", "--to", tmp_path, "--accept-terms")
    assert code == 2 and "5.0 kB free" in err and "921.6 kB more" in err and three.gets() == []


def test_failures_are_one_sentence_at_the_end(three, tmp_path, calcarine):
    del three.files["/a.h5"]
    code, out, err = calcarine("toy", "--to", tmp_path, "--accept-terms")
    assert code == 2 and "1 of 3 files failed" in err and "404" in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in out + err
    assert (tmp_path / "b.h5").exists() and (tmp_path / "c.csv").exists()
    del three.files["/b.h5"]
    (tmp_path / "b.h5").unlink()
    code, _, err = calcarine("toy", "--to", tmp_path)
    assert code == 2 and "2 of 2 files failed" in err and "a.h5, b.h5" in err


def test_a_foreign_file_of_the_same_name_is_not_replaced(three, tmp_path, calcarine):
    (tmp_path / "a.h5").write_bytes(b"mine")
    code, _, err = calcarine("toy", "--to", tmp_path, "--accept-terms")
    assert code == 2 and "a.h5" in err and "move" in err
    assert (tmp_path / "a.h5").read_bytes() == b"mine" and (tmp_path / "b.h5").exists()


def test_interrupting_exits_with_130(three, tmp_path, calcarine, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "fetch_all", stop)
    code, _, err = calcarine("toy", "--to", tmp_path, "--accept-terms")
    assert code == 130 and "resumes" in err and not (tmp_path / LOCK_NAME).exists()


def test_sets_that_cannot_be_downloaded_say_how_one_gets_them(tmp_path, calcarine, monkeypatch):
    module = toy(SimpleNamespace(url="http://127.0.0.1:9"), [], access="Write to the owners.")
    monkeypatch.setitem(registry.READERS, "toy", module)
    code, out, _ = calcarine("toy", "--to", tmp_path)
    assert code == 0 and "Write to the owners." in out and list(tmp_path.iterdir()) == []
    code, out, _ = calcarine("simulated")
    assert code == 0 and "made by calcarine" in out


def test_archives_are_unpacked_recorded_and_removed(server, tmp_path, calcarine, monkeypatch):
    place = tmp_path / "made.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("annotations/captions.json", "{}")
        archive.writestr("annotations/other.json", "no")
    server.add("/made.zip", place.read_bytes())
    module = toy(server, ["made.zip"], members=("annotations/captions.json",))
    monkeypatch.setitem(registry.READERS, "toy", module)
    to = tmp_path / "to"
    assert calcarine("toy", "--to", to, "--accept-terms")[0] == 0
    found = sorted(p.relative_to(to).as_posix() for p in to.rglob("*") if p.is_file())
    assert found == ["annotations/captions.json", "downloads.json"]
    server.log.clear()
    code, out, _ = calcarine("toy", "--to", to, "--verify")
    assert code == 0 and server.log == [] and "1 are whole, 0 not" in out
    (to / "annotations/captions.json").write_text("[]")  # of the same size, but not the same
    assert calcarine("toy", "--to", to, "--verify")[0] == 0
    assert (to / "annotations/captions.json").read_text() == "{}"


def test_members_that_the_user_has_are_not_fetched(server, tmp_path, calcarine, monkeypatch):
    monkeypatch.setitem(registry.READERS, "toy", toy(server, ["sub/x.zip"], members=("d/a", "d/b")))
    (tmp_path / "sub/d").mkdir(parents=True)
    (tmp_path / "sub/d/a").write_text("mine")
    assert "to download" in calcarine("toy", "--to", tmp_path, "--dry-run")[1]
    assert calcarine("toy", "--to", tmp_path)[0] == 2
    (tmp_path / "sub/d/b").write_text("mine")
    code, out, _ = calcarine("toy", "--to", tmp_path)
    assert code == 0 and "The file is in" in out and server.gets() == []


def test_an_archive_that_the_user_put_there_is_unpacked_and_kept(
    server, tmp_path, calcarine, monkeypatch
):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        archive.writestr("x/a.txt", "a")
    server.add("/made.zip", (tmp_path / "made.zip").read_bytes())
    monkeypatch.setitem(registry.READERS, "toy", toy(server, ["made.zip"], members=()))
    assert calcarine("toy", "--to", tmp_path, "--accept-terms")[0] == 0
    assert (tmp_path / "x/a.txt").read_text() == "a" and (tmp_path / "made.zip").exists()
    assert server.gets() == []


SCRIPT = """
import signal, sys
# Shells start background work with the interrupt ignored, and children take that over.
signal.signal(signal.SIGINT, signal.default_int_handler)
from types import SimpleNamespace
from calcarine.cli.main import main
from calcarine.datasets import registry
from calcarine.brain.assets import Asset, UsageTerms
from calcarine.brain.info import DatasetInfo
info = DatasetInfo("toy", "Toy data", False, ("s1",), "example.org", "CC0", True, ("a.h5",))
url = sys.argv.pop()
registry.READERS["toy"] = SimpleNamespace(
    INFO=info, load=None, assets=lambda subjects: [Asset("a.h5", url)])
main()
"""


@pytest.mark.posix
@pytest.mark.parametrize(("how", "code"), [("SIGKILL", -9), ("SIGINT", 130)])
def test_a_process_that_was_ended_leaves_what_the_next_one_continues(
    server, tmp_path, calcarine, monkeypatch, how, code
):
    url = server.add("/a.h5")
    monkeypatch.setitem(registry.READERS, "toy", toy(server, ["a.h5"], terms=None))
    server.tricks["/a.h5"] = [("hold", 123_456)]
    arguments = ["datasets", "download", "toy", "--accept-terms", "--to", str(tmp_path), url]
    part = tmp_path / "a.h5.part"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        until(lambda: part.exists() and part.stat().st_size == 123_456)
        exit_code, _, err = calcarine("toy", "--accept-terms", "--to", tmp_path)
        assert exit_code == 2 and "Another calcarine (pid" in err and str(process.pid) in err
        process.send_signal(getattr(signal, how))
        said = process.stderr.read().decode()
    assert process.returncode == code
    assert "Traceback" not in said and (how == "SIGKILL" or "resumes" in said)
    assert (tmp_path / LOCK_NAME).exists() == (how == "SIGKILL")
    assert not (tmp_path / "a.h5").exists()
    server.go.set()
    assert calcarine("toy", "--to", tmp_path)[0] == 0  # consent is on record
    assert server.ranges()[-1] == "bytes=123456-"
    assert (tmp_path / "a.h5").read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "downloads.json"]


# --- locks, records, lines ---


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "toy", "files": [], "terms": []}'])
def test_a_damaged_record_is_told(tmp_path, text):
    (tmp_path / "downloads.json").write_text(text)
    with pytest.raises(CalcarineError, match="damaged"):
        DownloadRecord(tmp_path, "toy")


def test_a_folder_of_another_data_set_is_told(tmp_path):
    DownloadRecord(tmp_path, "toy").put("a", "http://x/a", 3)
    with pytest.raises(CalcarineError, match="another folder"):
        DownloadRecord(tmp_path, "other")


def test_asset_paths_stay_in_the_folder():
    for path in ("/etc/x", "../x", "a/../../x", "a\\b", "C:/x", ""):
        with pytest.raises(CalcarineError, match="leaves"):
            Asset(path, "https://example.org/x")
    with pytest.raises(CalcarineError, match="is not an https, http or s3 address"):
        Asset("x", "file:///etc/passwd")


def printed(terminal, **options):
    """Return a progress and the text that it printed so far."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    return PrintedProgress(console=console, **options), text


def test_lines_tell_share_speed_and_time_left():
    now = [0.0]
    lines, text = printed(False, pause=10, clock=lambda: now[0])
    for second in range(0, 31, 5):
        now[0] = second
        lines.at("a.h5", second * 1_000_000, 90_000_000)
        lines.at("b.h5", 5_000_000 + second * 1_000_000, None)
    lines.whole("a.h5")
    lines.say("[red] is no markup, " + "and a long line is not broken " * 9)
    lines = text.getvalue().splitlines()
    assert [line for line in lines if line.startswith("a.h5")] == [
        "a.h5: 10.0/90.0 MB, 1.0 MB/s, 0:01:20 left",
        "a.h5: 20.0/90.0 MB, 1.0 MB/s, 0:01:10 left",
        "a.h5: 30.0/90.0 MB, 1.0 MB/s, 0:01:00 left",
        "a.h5: whole",
    ]
    # The 5 MB of a resumed file that were there before are no part of the speed.
    assert "b.h5: 15.0/? MB, 1.0 MB/s" in lines
    assert lines[-1].startswith("[red] is") and lines[-1].endswith("not broken ")


def test_bars_count_what_is_new_also_after_a_start_from_scratch():
    shown, text = printed(True, sizes={"a": 100, "b": 50}, have=40)
    with shown:
        shown.at("a", 40, 100)
        shown.at("a", 10, 100)
        shown.at("a", 100, 100)
        shown.at("b", 0, 50)
        shown.at("b", 50, 50)
        shown.whole("a")
        shown.say("[red] is no markup")
    assert "[red] is no markup" in text.getvalue()
    assert "a: whole" not in text.getvalue()
    last = [line for line in text.getvalue().splitlines() if "all files" in line][-1]
    assert "150/150 bytes" in last
