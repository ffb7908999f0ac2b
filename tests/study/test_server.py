import io
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from calcarine.errors import CalcarineError
from calcarine.study.app import build_app
from calcarine.study.guard import RateLimit
from calcarine.study.server import base_url, is_loopback, serve
from calcarine.study.session import progress
from calcarine.study.store import Study, find_rater

OPAQUE = re.compile(r"[A-Za-z0-9_-]{22}")


@pytest.fixture
def raters(make, rater):
    study = make()
    return [rater(study, token) for _, token in study.links()]


def answers(study):
    with study.connection() as con:
        return {
            row["key"]: row["choice"]
            for row in con.execute(
                "SELECT t.key, a.choice FROM answers a JOIN trials t ON t.id = a.trial"
            )
        }


def secrets_of(study):
    """Everything that must reach no rater."""
    with study.connection() as con:
        images = con.execute("SELECT * FROM images").fetchall()
        hashes = [row["token_hash"] for row in con.execute("SELECT * FROM raters")]
    words = {"secretpic", "hidden-run", "identification", "rater-0", "catch", "blurred", "main"}
    words |= {"method", "reconstruct", "study.sqlite", "token_hash", "first_left", "<script>alert"}
    words |= {row["file"].removesuffix(".png") for row in images} | set(hashes)
    return words


def test_nothing_a_rater_gets_names_a_method_file_or_id(make, rater, first_side):
    study = make()
    (_, mine), (_, other) = study.links()
    me = rater(study, mine)
    me.get()
    state = me.begin()
    shapes, pictures = set(), []
    while state["phase"] == "trial":
        shapes.add(json.dumps(sorted(state)))
        pictures += [me.get(f"/images/{token}") for token in state["images"].values()]
        state = me.answer(state["trial"], "left").json()["state"]
    for path in ("/state", "/nothing", "/images/nothing", ""):
        me.get(path)
    me.answer("nothing", "left")
    assert len(shapes) == 1  # practice, catch and real trials look the same
    hidden = secrets_of(study)
    for reply in me.replies:
        kind = reply.headers["content-type"]
        text = reply.content.decode("latin-1").lower()
        head = str(reply.headers).lower()
        for word in hidden:
            assert word.lower() not in head
            # The page's own English, and chance runs of letters in compressed pixels, are no leak.
            if kind.startswith("text/html") and word in ("main", "blurred"):
                continue
            if kind == "image/png" and len(word) < 6:
                continue
            assert word.lower() not in text, (word, reply.url)
        assert other not in text
        for name in ("etag", "last-modified", "content-disposition", "server"):
            assert name not in reply.headers
    for image in pictures:
        chunks = set(
            re.findall(rb"IHDR|raNd|IDAT|IEND|tEXt|zTXt|iTXt|eXIf|tIME|pHYs|iCCP", image.content)
        )
        assert chunks == {b"IHDR", b"raNd", b"IDAT", b"IEND"}
        assert image.content[16:26] == pictures[0].content[16:26]  # one size, one depth, one type
    # Nothing of a picture is known without decoding it: one length, and never the same bytes.
    assert len({len(image.content) for image in pictures}) == 1
    assert len({image.content for image in pictures}) == len(pictures)
    tokens = [str(picture.url).rsplit("/", 1)[1] for picture in pictures]
    assert len(set(tokens)) == len(tokens)  # a picture that comes twice has two names
    assert all(OPAQUE.fullmatch(token) for token in tokens)


def test_the_trial_payload_is_exactly_this(raters):
    state = raters[0].begin()
    assert set(state) == {"phase", "practice", "done", "total", "trial", "images", "ahead"}
    assert set(state["images"]) == {"original", "left", "right"} and len(state["ahead"]) == 3
    reply = raters[0].answer(state["trial"], "left").json()
    assert set(reply) == {"recorded", "feedback", "state"}


def test_feedback_is_given_in_practice_only_and_is_true(raters, truth):
    me = raters[0]
    state = me.begin()
    said = []
    while state["phase"] == "trial":
        shown = truth(me.study, state)
        reply = me.answer(state["trial"], "left").json()
        right = "right" if shown["first_side"] == "left" else "wrong"
        said.append((shown["part"], reply["feedback"], right))
        state = reply["state"]
    assert Counter(part for part, _, _ in said) == {"practice": 2, "catch": 2, "main": 18}
    for part, feedback, right in said:
        assert feedback == (right if part == "practice" else None)


def test_every_response_is_closed(raters):
    me = raters[0]
    app = me.client
    replies = [
        me.get(),
        me.get("/state"),
        me.begin() and me.replies[-1],
        app.get("/static/rate.js"),
    ]
    replies += [app.get("/nothing"), app.get("/r/nothing"), app.put("/static/rate.js")]
    for reply in replies:
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    page = replies[0].text + app.get("/static/rate.css").text + app.get("/static/rate.js").text
    assert not re.search(r"https?://", page)


def test_wrong_tokens_get_a_plain_page(raters):
    me = raters[0]
    token = me.base.removeprefix("/r/")
    wrong = ["x", token[:-1], token + "x", token.swapcase(), "' OR 1=1 --", "%00", "a" * 3000, "é"]
    for text in wrong:
        for path in ("", "/state", "/images/x"):
            reply = me.client.get(f"/r/{text}{path}")
            assert reply.status_code == 404, text
            assert "This link is not valid" in reply.text and "<h1>" in reply.text
    assert me.client.post("/r/x/answers", json={}).status_code in (404, 422)
    with me.study.connection() as con:
        assert find_rater(con, token)["name"] == "rater-01"
        assert find_rater(con, token + " ") is None


@pytest.mark.parametrize(
    "path",
    [
        "/static/../study.sqlite",
        "/static/%2e%2e/gallery.py",
        "/static/..%2f..%2fgallery.py",
        "/static/",
        "/static",
        "/images/",
        "/",
        "/docs",
        "/openapi.json",
        "/redoc",
        "/r/",
        "/r",
        "//etc/passwd",
        "/static/%00",
    ],
)
def test_nothing_else_is_served(raters, path):
    reply = raters[0].client.get(path)
    assert reply.status_code == 404 and "This link is not valid" in reply.text


def test_images_are_served_for_the_own_open_trials_only(raters):
    me, other = raters
    state = me.begin()
    token = state["images"]["left"]
    assert me.get(f"/images/{token}").headers["content-type"] == "image/png"
    assert me.get(f"/images/{state['ahead'][0]}").status_code == 200
    other.begin()
    assert other.get(f"/images/{token}").status_code == 404
    with me.study.connection() as con:
        later = con.execute("SELECT * FROM trials WHERE rater = 0 AND position = 9").fetchone()
        file = con.execute("SELECT file FROM images").fetchone()["file"]
    for name in (later["left_token"], file, "..%2fstudy.sqlite", "..%2f..%2fstudy.json"):
        assert me.get(f"/images/{name}").status_code == 404
    me.answer(state["trial"], "left")
    assert me.get(f"/images/{token}").status_code == 404


def test_nothing_before_consent(raters):
    me = raters[0]
    assert me.get("/state").json() == {"phase": "consent"}
    with me.study.connection() as con:
        trial = con.execute("SELECT * FROM trials WHERE rater = 0 AND position = 0").fetchone()
    assert me.get(f"/images/{trial['left_token']}").status_code == 404
    assert me.answer(trial["key"], "left").status_code == 404
    me.begin()
    then = me.study
    with then.connection() as con:
        at = con.execute("SELECT consented FROM raters WHERE id = 0").fetchone()[0]
    me.begin()
    with then.connection() as con:
        assert con.execute("SELECT consented FROM raters WHERE id = 0").fetchone()[0] == at


def test_answers_are_taken_for_the_current_trial_and_once(raters):
    me, other = raters
    state = me.begin()
    theirs = other.begin()
    assert me.answer(theirs["trial"], "left").status_code == 404
    with me.study.connection() as con:
        later = con.execute("SELECT key FROM trials WHERE rater = 0 AND position = 3").fetchone()[0]
    assert me.answer(later, "left").status_code == 409
    assert answers(me.study) == {}
    once = me.answer(state["trial"], "left").json()
    again = me.answer(state["trial"], "right", client_ms=1.0).json()
    assert again == once and once["recorded"] == "left"
    assert answers(me.study) == {state["trial"]: "left"}


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": "middle"},
        {"choice": ["left"]},
        {"client_ms": -1},
        {"client_ms": "12"},
        {"client_ms": 1e12},
        {"input": "x'); DROP TABLE answers;--"},
        {"extra": 1},
        {"trial": 5},
        {"trial": "x" * 65},
        {"trial": ""},
        {"paused_ms": None},
    ],
)
def test_malformed_answers_change_nothing(raters, changes):
    me = raters[0]
    state = me.begin()
    reply = me.answer(**{"trial": state["trial"], "choice": "left", **changes})
    assert reply.status_code == 422 and "The answer is not valid" in reply.json()["error"]
    assert answers(me.study) == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"client_ms": NaN}'])
def test_bodies_that_are_no_json(raters, body):
    me = raters[0]
    me.begin()
    reply = me.client.post(me.base + "/answers", content=body)
    assert reply.status_code == 422 and set(reply.json()) == {"error"}


def test_json_deeper_than_any_answer_is_told_as_what_it_is(raters):
    me = raters[0]
    me.begin()
    for body in (b"[" * 4000, b'{"a":' * 800, b"[" * 2000 + b"]" * 2000):
        reply = me.client.post(me.base + "/answers", content=body)
        assert (
            reply.status_code in (400, 422) and "The answer is not valid" in reply.json()["error"]
        )


def test_in_no_trial_are_two_pictures_the_same(make, rater):
    study = make(practice=4, catch=6)
    me = rater(study, study.links()[0][1])
    state = me.begin()
    while state["phase"] == "trial":
        shown = {
            side: Image.open(io.BytesIO(me.get(f"/images/{token}").content)).tobytes()
            for side, token in state["images"].items()
        }
        assert len(set(shown.values())) == 3
        state = me.answer(state["trial"], "left").json()["state"]


def test_a_database_that_is_damaged_while_it_is_served_promises_nothing(raters, capsys):
    me = raters[0]
    state = me.begin()
    content = me.study.database.read_bytes()
    me.study.database.write_bytes(content[:100] + bytes(len(content) - 100))
    for file in me.study.path.glob("study.sqlite-*"):
        file.unlink()
    for reply in (me.get("/state"), me.answer(state["trial"], "left")):
        assert reply.status_code == 503
        assert "was not saved" in reply.json()["error"] and "safe" not in reply.json()["error"]
    page = me.get()
    assert page.status_code == 503 and page.headers["content-type"].startswith("text/html")
    assert "calcarine: " in capsys.readouterr().err


def test_injection_is_only_text(raters):
    me = raters[0]
    me.begin()
    for text in ("' OR '1'='1", "x'; DROP TABLE answers; --", '" UNION SELECT 1', "\x00", "%' --"):
        assert me.answer(text, "left").status_code == 404
        assert (
            me.get(f"/images/{text.replace('%', '%25')}".replace("\x00", "%00")).status_code == 404
        )
    assert answers(me.study) == {} and progress(me.study)[0][1] == 0


def test_long_bodies_and_fast_askers_are_refused(make, rater):
    study = make()
    token = study.links()[0][1]
    clock = [0.0]
    limit = RateLimit(1, 3, lambda: clock[0])
    client = TestClient(build_app(study, limit, RateLimit(1, 2, lambda: clock[0])))
    me = rater(study, token, client)
    assert [me.get("/state").status_code for _ in range(4)] == [200, 200, 200, 429]
    clock[0] = 2.0
    assert [me.get("/state").status_code for _ in range(3)] == [200, 200, 429]
    assert [client.get("/r/x").status_code for _ in range(3)] == [404, 404, 429]
    assert client.post(me.base + "/answers", content=b"x" * 5000).status_code == 413

    def endless():
        yield from (b"x" * 1000 for _ in range(50))

    assert client.post(me.base + "/answers", content=endless()).status_code == 413


def test_resuming_goes_on_at_the_very_trial(make, rater, first_side):
    study = make(n_originals=2)
    token = study.links()[0][1]
    state = rater(study, token).begin()
    seen = []
    while state["phase"] == "trial":
        seen.append(state["trial"])
        me = rater(Study(study.path), token)  # a new server and a new tab each time
        back = me.get("/state").json()
        assert back["trial"] == state["trial"] and back["images"] == state["images"]
        state = me.answer(back["trial"], "right").json()["state"]
    assert len(set(seen)) == len(seen) == 16
    with study.connection() as con:
        times = [row["times"] for row in con.execute("SELECT times FROM shown")]
    assert min(times) >= 2


def test_several_raters_at_once(make, rater):
    study = make(n_raters=6, n_originals=2)
    client = TestClient(build_app(study, RateLimit(1e9, 10**9)))
    sent = {}

    def work(pair):
        number, (_, token) = pair
        me = rater(study, token, client)
        state, own = me.begin(), {}
        while state["phase"] == "trial":
            choice = "left" if (number + len(own)) % 3 else "right"
            own[state["trial"]] = choice
            # Sent twice at once, as an impatient browser does.
            with ThreadPoolExecutor(2) as both:
                twice = list(both.map(lambda _: me.answer(state["trial"], choice), range(2)))  # noqa: B023
            assert {reply.status_code for reply in twice} == {200}
            state = me.get("/state").json()
        sent.update(own)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, enumerate(study.links())))
    assert answers(study) == sent and len(sent) == 6 * 16
    assert all(done == total for _, done, total in progress(study))


def start(study, port):
    command = [
        sys.executable,
        "-m",
        "calcarine",
        "study",
        "serve",
        str(study.path),
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in server.stdout:
        lines.append(line)
        if line.startswith("Serving"):
            break
    for _ in range(100):
        try:
            httpx.get(f"http://127.0.0.1:{port}/")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    return server, lines


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.posix
def test_a_killed_server_loses_no_acknowledged_answer(make, rater):
    study = make(n_raters=4, n_originals=6)
    port = free_port()
    server, lines = start(study, port)
    links = [line.split()[1] for line in lines if line.startswith("rater-")]
    assert links == [f"http://127.0.0.1:{port}/r/{token}" for _, token in study.links()]
    acknowledged, asked, killed = {}, set(), threading.Event()

    def work(token):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            me = rater(study, token, client)
            try:
                state = me.begin()
                while state["phase"] == "trial":
                    asked.add(state["trial"])
                    reply = me.answer(state["trial"], "left")
                    acknowledged[state["trial"]] = reply.json()["recorded"]
                    state = reply.json()["state"]
                    if len(acknowledged) >= 40 and not killed.is_set():
                        killed.set()
                        server.send_signal(signal.SIGKILL)
            except httpx.TransportError:
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [token for _, token in study.links()]))
    server.wait(10)
    assert killed.is_set() and server.returncode == -signal.SIGKILL
    kept = answers(study)
    assert acknowledged.items() <= kept.items()
    assert set(kept) <= asked  # beyond those, at most answers whose reply was lost
    assert len(kept) - len(acknowledged) <= 4
    with sqlite3.connect(study.database) as con:
        assert con.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert con.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    server, _ = start(study, port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for _, token in study.links():
                state = rater(study, token, client).get("/state").json()
                assert state["trial"] not in kept
            head = client.get(f"/r/{token}/state").headers
            assert "server" not in head
    finally:
        server.terminate()
        _, said = server.communicate(timeout=10)
    assert not any(token in said for _, token in study.links())


def test_a_new_rater_is_let_in_while_it_runs(make, rater):
    study = make()
    client = TestClient(build_app(study))
    ((name, token),) = study.invite(1)
    assert name == "rater-03" and rater(study, token, client).begin()["phase"] == "trial"


def test_addresses(make, capsys):
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")
    assert base_url("::1", 80) == "http://[::1]:80"
    study = make()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CalcarineError, match="choose another --host or --port"):
            serve(study, port=taken.getsockname()[1])


def test_an_open_address_is_warned_about(make, capsys, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    serve(make(), "0.0.0.0", 0, "https://lab.example/")
    said = capsys.readouterr()
    assert said.err.startswith("Warning: other machines can reach this server at 0.0.0.0")
    assert "https://lab.example/r/" in said.out
