"""The raters' page in a real Chromium: what was clicked on the screen is what is exported."""

import csv
import io
import json
import os
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from base64 import b64decode
from dataclasses import dataclass, field

import playwright.sync_api as playwright
import pytest
from PIL import Image
from typer.testing import CliRunner

from calcarine.cli.main import app

NAMES = ("chromium", "chromium-browser", "google-chrome")
GIVEN = os.environ.get("CALCARINE_BROWSER")
BROWSER = next(filter(None, map(shutil.which, [GIVEN] if GIVEN else NAMES)), None)
if GIVEN and BROWSER is None:
    pytest.fail(f"CALCARINE_BROWSER is '{GIVEN}', but that is no program.", pytrace=False)
if BROWSER is None:
    pytest.skip(
        "No Chromium was found; install one or name it in CALCARINE_BROWSER.",
        allow_module_level=True,
    )

# Everything that has a name tries to run a script.
METHODS = tuple(f"<script>alert('{name}')</script>" for name in ("methodone", "methodtwo"))
STIMULI = tuple(f"<img src=x onerror=alert('stimulus{n}')>" for n in range(9))
TITLE = "</title><script>alert('title')</script>Alike?"
QUESTION = "Which <svg onload=alert('question')> is more alike?"
CONSENT = "I agree <img src=x onerror=alert('consent')>."
ORIGINAL = "original"
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
SHOWN = """(before) => {
  const at = (id) => document.getElementById(id);
  for (const id of ["intro", "rest", "done"]) if (!at(id).hidden) return id;
  if (at("rate").hidden) return null;
  if (!at("feedback").hidden) return "feedback";
  if (at("pictures").classList.contains("loading")) return null;
  const where = at("part").textContent + " " + at("count").textContent;
  return where === before ? null : where;
}"""
LEFT_AND_BACK = """() => {
  Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
  delete document.hidden;
}"""
COLOURS = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  await frame(); await frame();
  return ["#original", "#left img", "#right img"].map((name) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d");
    pen.drawImage(document.querySelector(name), 0, 0, 1, 1);
    return Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3));
  });
}"""


def colour(stimulus, method):
    """Of a picture: who looks at it knows which one it is."""
    return (20 + 25 * stimulus, 60 + 60 * (ORIGINAL, *METHODS).index(method), 110)


PICTURES = {colour(n, m): (STIMULI[n], m) for n in range(9) for m in (ORIGINAL, *METHODS)}


def calcarine(*words):
    said = CliRunner().invoke(app, [str(word) for word in words])
    assert said.exit_code == 0, said.output
    return said.output


class Site:
    """A study and its server, by the commands that people use."""

    def __init__(self, folder, raters, originals=3, easy=2):
        self.folder, self.study = folder, folder / "study"
        self.practice, self.questions = easy, easy + 3 * originals
        self.total = self.practice + self.questions
        given = []
        for number, method in enumerate((ORIGINAL, *METHODS)):
            place = folder / f"pictures{number}"
            place.mkdir()
            given += ["--folder", f"{method}={place}"]
            for n, stimulus in enumerate(STIMULI):
                Image.new("RGB", (32, 32), colour(n, method)).save(place / f"{stimulus}.png")
        (folder / "consent.txt").write_text(CONSENT)
        calcarine(
            "study",
            "make",
            *given,
            "--measured",
            "--out",
            self.study,
            "--originals",
            originals,
            "--raters",
            raters,
            "--practice",
            easy,
            "--catch",
            easy,
            "--size",
            32,
            "--rest-every",
            4,
            "--title",
            TITLE,
            "--question",
            QUESTION,
            "--consent",
            folder / "consent.txt",
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()
        self.free = list(self.links)

    def start(self):
        command = [sys.executable, "-m", "calcarine", "study", "serve", self.study, "--port"]
        self.server = subprocess.Popen(
            [*map(str, command), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        self.links = []
        for line in self.server.stdout:
            if line.startswith("Serving"):
                return
            self.links.append(tuple(line.split()))
        raise AssertionError("The server ended before it served.")

    def kill(self):
        self.server.kill()  # SIGKILL: nothing is tidied up
        self.server.communicate(timeout=30)

    def answered(self, name):
        lines = calcarine("study", "status", self.study).splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    def export(self):
        calcarine("study", "export", self.study, "--out", self.folder / "answers.csv")
        return list(csv.DictReader(io.StringIO((self.folder / "answers.csv").read_text())))


@pytest.fixture(scope="module")
def chromium():
    arguments = ["--no-sandbox"] if hasattr(os, "getuid") and os.getuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=arguments, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"), 5)
    yield site
    site.kill()


@pytest.fixture
def visit(chromium):
    """Open windows; whatever goes wrong in one of them fails the test."""
    contexts, wrong = [], []

    def alarm(dialog):
        wrong.append(dialog.message)
        dialog.dismiss()

    def build(window, **options):
        context = chromium.new_context(**window, **options)
        context.set_default_timeout(60_000)
        context.on("dialog", alarm)
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        contexts.append(context)
        return context

    yield build
    for context in contexts:
        context.close()
    assert wrong == []


@dataclass
class Person:
    """Looks at the screen, chooses, and keeps an own list of what was chosen."""

    site: Site
    context: object
    hand: str
    clicked: dict = field(default_factory=dict)
    look_closely: bool = False

    def __post_init__(self):
        self.name, self.link = self.site.free.pop()
        self.random = random.Random(self.name)
        self.open()

    def open(self):
        self.page = self.context.new_page()
        self.where = ""
        self.page.goto(self.link)

    def screen(self):
        return self.page.wait_for_function(SHOWN, arg=self.where).json_value()

    def press(self, selector, key):
        if self.hand == "key":
            self.page.keyboard.press(key)
        elif self.hand == "touch":
            self.page.tap(selector)
        else:
            self.page.click(selector)

    def reach(self, selector):
        for _ in range(20):
            if self.page.evaluate("(name) => document.activeElement.matches(name)", selector):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached with Tab.")

    def agree(self):
        assert self.page.locator("#begin").is_disabled()
        for selector in ("#agree", "#begin"):
            if self.hand == "key":
                self.reach(selector)
            self.press(selector, "Space")
        self.page.wait_for_selector("#rate:not([hidden])")

    def look(self):
        """What stands where, by the pictures' colours."""
        seen = [tuple(rgb) for rgb in self.page.evaluate(COLOURS)]
        if self.look_closely:
            self.fits(seen)
        return [PICTURES[nearest(rgb)] for rgb in seen]

    def fits(self, seen):
        """On the glass itself: everything is there, uncovered, without scrolling."""
        assert self.page.evaluate("() => scrollX + scrollY") == 0
        glass = Image.open(io.BytesIO(self.page.screenshot(scale="css"))).convert("RGB")
        for name, rgb in zip(("#original", "#left img", "#right img"), seen, strict=True):
            box = self.page.locator(name).bounding_box()
            assert min(box["width"], box["height"]) > 90
            right, low = box["x"] + box["width"], box["y"] + box["height"]
            assert box["x"] >= 0 and box["y"] >= 0 and right <= glass.width and low <= glass.height
            for x, y in ((box["x"] + 8, box["y"] + 8), (right - 8, low - 8)):
                assert nearest(glass.getpixel((round(x), round(y)))) == nearest(rgb)
        pause = self.page.locator("#pause").bounding_box()
        assert pause["height"] >= 44 and pause["x"] + pause["width"] <= glass.width

    def choose(self, screen):
        part, number, total = re.fullmatch(r"(\w+) (\d+) of (\d+)", screen).groups()
        practice = part == "Practice"
        assert int(total) == (self.site.practice if practice else self.site.questions)
        place = int(number) - 1 + (0 if practice else self.site.practice)
        assert place not in self.clicked
        original, left, right = self.look()
        assert original[1] == ORIGINAL
        side = self.random.choice(("left", "right"))
        if not practice:  # whoever sees the original itself beside something else takes it
            side = "left" if left == original else "right" if right == original else side
        self.clicked[place] = (place, original[0], left, right, side, self.hand)
        self.where = screen
        keys = {"left": ("ArrowLeft", "f"), "right": ("ArrowRight", "j")}
        self.press(f"#{side}", keys[side][place % 2])

    def check_verdict(self):
        _, original, left, right, side, _ = self.clicked[max(self.clicked)]
        right_one = (left if side == "left" else right)[0] == original
        wanted = "Correct: " if right_one else "Not correct: "
        assert self.page.inner_text("#verdict").startswith(wanted)

    def step(self):
        screen = self.screen()
        if screen == "intro":
            self.agree()
        elif screen == "feedback":
            self.check_verdict()
            self.press("#next", "Enter")
        elif screen == "rest":
            self.press("#resume", "Enter")
        elif screen != "done":
            self.choose(screen)
        return screen

    def until(self, answers):
        """Go on until so many are clicked and the next question is on the screen."""
        while len(self.clicked) < answers or self.screen() in ("feedback", "rest"):
            self.step()
        return self.screen()

    def finish(self):
        while self.step() != "done":
            pass


def nearest(rgb):
    """The picture's colour, of which dithering changes each value by at most one."""
    return min(PICTURES, key=lambda known: max(abs(a - b) for a, b in zip(known, rgb, strict=True)))


def as_clicked(row):
    """One line of the export in a person's terms."""
    method = row["first"].partition(", ")[0]  # one colour, however blurred or dithered
    own, other = (row["original"], method), (row["second_of"], row["second"])
    left, right = (own, other) if row["first_left"] == "1" else (other, own)
    return int(row["position"]), row["original"], left, right, row["choice"], row["input"]


def assert_exported(site, *people):
    rows = site.export()
    for person in people:
        assert sorted(person.clicked) == list(range(site.total))
        mine = [as_clicked(row) for row in rows if row["rater"] == person.name]
        assert mine == [person.clicked[place] for place in range(site.total)]
    return [row for row in rows if row["rater"] in {person.name for person in people}]


def test_a_session_by_keyboard_alone(site, visit):
    me = Person(site, visit(DESKTOP), "key", look_closely=True)
    paused = site.practice + 1
    me.until(paused)
    for key in ("p", "Space"):  # the same key hides the pictures and brings them back
        me.page.keyboard.press(key)
        me.page.wait_for_selector("#rest:not([hidden])")
        assert me.page.inner_text("#rest-title") == "Paused"
        assert not me.page.locator("#original").is_visible()
        me.page.keyboard.press("ArrowLeft")  # chooses nothing while the pictures are hidden
        me.page.keyboard.press(key)
        me.page.wait_for_selector("#rate:not([hidden])")
    screen = me.screen()
    me.step()
    me.where = screen
    screen = me.until(paused + 2)
    original, left, right = me.look()
    me.reach("#right")
    me.page.keyboard.press("Enter")
    me.clicked[paused + 2] = (paused + 2, original[0], left, right, "right", "key")
    me.where = screen
    me.finish()
    rows = assert_exported(site, me)
    assert [float(row["paused_ms"]) > 0 for row in rows] == [n == paused for n in range(site.total)]
    assert all(float(row["client_ms"]) > 0 for row in rows)


def test_a_pause_before_the_pictures_are_there_is_not_lost(tmp_path, visit):
    site = Site(tmp_path, 1, originals=2, easy=1)
    held, come = [], False
    try:
        me = Person(site, visit(DESKTOP), "key")
        me.page.route(
            "**/images/*", lambda route: route.continue_() if come else held.append(route)
        )
        assert me.screen() == "intro"
        me.agree()
        me.page.keyboard.press("p")
        come = True
        for route in held:
            route.continue_()
        me.page.wait_for_selector("#rest:not([hidden])")
        assert me.page.inner_text("#rest-title") == "Paused"
        me.page.keyboard.press("p")
        me.page.wait_for_selector("#rate:not([hidden])")
        while me.screen() != "rest":
            me.step()
        me.page.evaluate(LEFT_AND_BACK)
        me.step()
        assert me.screen().startswith("Question") and me.look()
        assert me.page.locator("#rest").is_hidden()  # who left during a rest is not paused again
        me.finish()
        rows = assert_exported(site, me)
    finally:
        site.kill()
    assert [float(row["paused_ms"]) > 0 for row in rows] == [n == 0 for n in range(site.total)]


def test_a_session_by_touch_on_a_phone(site, visit):
    me = Person(site, visit(PHONE), "touch", look_closely=True)
    assert me.screen() == "intro"
    wide = "() => document.documentElement.scrollWidth - innerWidth"
    assert me.page.evaluate(wide) <= 0
    assert not me.page.locator("kbd").first.is_visible()  # no keys are named where there are none
    me.until(5)
    me.page.set_viewport_size({"width": 844, "height": 390})
    me.until(7)
    me.page.set_viewport_size(PHONE["viewport"])
    me.finish()
    assert me.page.evaluate(wide) <= 0
    assert {row["input"] for row in assert_exported(site, me)} == {"touch"}


def test_a_closed_tab_comes_back_to_the_very_trial(site, visit):
    me = Person(site, visit(DESKTOP), "mouse")
    screen = me.until(3)
    seen = me.look()
    me.page.close()
    me.context = visit(PHONE)  # and from another device too
    me.hand = "touch"
    me.open()
    assert me.screen() == screen and me.look() == seen

    me.step()  # the tab is closed as soon as the finger is off
    me.page.close()
    deadline = time.monotonic() + 60
    while site.answered(me.name) < 4:
        assert time.monotonic() < deadline
    me.open()
    screen = me.until(5)

    me.context.set_offline(True)  # closed before the answer could leave the page
    me.step()
    me.page.wait_for_selector("#offline:not([hidden])")
    me.page.close()
    me.context.set_offline(False)
    del me.clicked[5]
    me.open()
    assert me.screen() == screen
    me.until(6)

    def lose_reply(route):
        route.fetch()
        route.abort()

    me.page.route("**/answers", lose_reply, times=1)  # stored, but the page does not hear of it
    me.until(7)
    assert site.answered(me.name) == 7

    stale, where = me.page, me.screen()
    me.open()
    assert me.screen() == where
    me.until(8)
    side = me.clicked[7][4]
    stale.tap("#left" if side == "right" else "#right")  # a second tab that is behind
    stale.wait_for_function(SHOWN, arg=where)
    stale.close()
    me.finish()
    rows = assert_exported(site, me)
    assert all(int(rows[place]["times_shown"]) > 1 for place in (3, 5, 7))


def test_ten_raters_at_once(tmp_path, visit):
    site = Site(tmp_path, 10, originals=2, easy=1)
    hands = ["key", "mouse", "touch"]
    people = []
    try:
        for n in range(10):
            hand = hands[n % 3]
            people.append(Person(site, visit(PHONE if hand == "touch" else DESKTOP), hand))
        going = list(people)
        while going:  # nobody waits for the reply to another
            going = [person for person in going if person.step() != "done"]
        rows = assert_exported(site, *people)
    finally:
        site.kill()
    assert len(rows) == 10 * site.total
    calcarine("study", "analyse", site.study)
    analysis = json.loads((site.study / "analysis.json").read_text())
    chosen = [
        (left[1], right[1], (left if side == "left" else right) == (original, METHODS[0]))
        for person in people
        for _, original, left, right, side, _ in person.clicked.values()
        if ORIGINAL not in (left[1], right[1]) and left[1] != right[1]
    ]
    found = next(c for c in analysis["comparisons"] if c["kind"] == "method")
    assert found["n_answers"] == len(chosen) == 20 and found["n_raters"] == 10
    assert found["proportion"] == pytest.approx(sum(own for *_, own in chosen) / 20)
    page = visit(DESKTOP).new_page()
    page.goto((site.study / "analysis.html").as_uri())
    assert page.inner_text("h1") == TITLE and page.locator("script, main img").count() == 0
    assert METHODS[0] in page.inner_text("main")


def test_a_killed_server_comes_back_and_nobody_notices_much(tmp_path, visit):
    site = Site(tmp_path, 2)
    try:
        me = Person(site, visit(DESKTOP), "mouse")
        me.until(4)
        site.kill()
        me.step()  # clicked while nobody listens
        me.page.wait_for_selector("#offline:not([hidden])")
        site.start()
        me.until(5)
        assert me.page.locator("#offline").is_hidden() and site.answered(me.name) == 5
        me.until(8)
        me.step()
        site.kill()  # while the answer is on its way
        site.start()
        me.finish()
        assert_exported(site, me)
    finally:
        site.kill()


def test_the_page_holds_no_truth_and_names_are_inert(site, visit, tmp_path):
    other = Person(site, visit(DESKTOP), "mouse")
    other.until(6)
    context = visit(DESKTOP, record_har_path=tmp_path / "all.har", record_har_content="embed")
    me = Person(site, context, "mouse")
    assert me.screen() == "intro" and me.page.title() == TITLE == me.page.inner_text("#intro h1")
    assert me.page.inner_text(".consent").strip() == CONSENT
    looks, texts = set(), []
    while (screen := me.screen()) != "done":
        assert me.page.locator("script").count() == 1 and me.page.locator("svg").count() == 0
        assert me.page.locator("img").count() == 3
        texts.append(me.page.content())
        if screen.startswith("Question"):
            assert me.page.inner_text("#question") == QUESTION
            shown = me.page.locator("#rate").evaluate("(element) => element.outerHTML")
            looks.add(re.sub(r"\d+", "0", re.sub(r'blob:[^"]+', "", shown)))
        me.step()
    context.close()
    assert_exported(site, me)
    assert len(looks) == 1  # catch trials and all comparisons look the same

    entries = json.loads((tmp_path / "all.har").read_text())["log"]["entries"]
    said = []
    for entry in entries:
        assert entry["request"]["url"].startswith((f"http://127.0.0.1:{site.port}/", "blob:"))
        content = entry["response"]["content"]
        body = content.get("text", "")
        if content.get("encoding") == "base64":
            body = b64decode(body).decode("latin-1")
        texts += [body, json.dumps(entry["response"]["headers"]), entry["request"]["url"]]
        if "json" in content["mimeType"]:
            said.append(json.loads(body))
            for word in ("catch", "main", "blur", "original_", "first"):
                assert word not in body
    for text in texts:
        for word in secret_words(site, me):
            assert word not in text, word
    replies = [reply for reply in said if "recorded" in reply]
    assert [reply["recorded"] for reply in replies] == [me.clicked[n][4] for n in range(site.total)]
    assert [reply["feedback"] is not None for reply in replies] == [
        n < 2 for n in range(site.total)
    ]
    assert all(set(reply) == {"recorded", "feedback", "state"} for reply in replies)
    fetched = [e["request"]["url"] for e in entries if "/images/" in e["request"]["url"]]
    assert len(fetched) == len(set(fetched)) == 3 * site.total  # each picture once, by an own name


def secret_words(site, me):
    """All that tells what a picture is, or belongs to another rater."""
    words = {"methodone", "methodtwo", "stimulus", "identification", "rater-0"}
    words |= {link.rsplit("/", 1)[1] for name, link in site.links if name != me.name}
    words |= {file.stem for file in (site.study / "images").iterdir()}
    with sqlite3.connect(site.study / "study.sqlite") as con:
        words |= {word for (word,) in con.execute("SELECT token_hash FROM raters")}
        theirs = "FROM trials t JOIN raters r ON r.id = t.rater WHERE r.name != ?"
        for kind in ("key", "original_token", "left_token", "right_token"):
            words |= {word for (word,) in con.execute(f"SELECT {kind} {theirs}", (me.name,))}
    return words


def test_the_gallery_by_keyboard(run, visit, tmp_path):
    calcarine("gallery", run, "--out", tmp_path / "gallery.html")
    page = visit(DESKTOP).new_page()
    page.goto((tmp_path / "gallery.html").as_uri())
    page.wait_for_selector("article")
    names = page.locator("article h2").all_inner_texts()
    numbers = page.locator("article figure:not(.seen) figcaption").all_inner_texts()
    assert len(numbers) == 3 * len(names)
    assert all(re.search(r" −?[01]\.\d{3}$", text) for text in numbers)
    assert "pixel correlation with the stimulus" in page.inner_text("#said")
    page.select_option("#order", "m2")
    assert "“pixel error” (lower is better)" in page.inner_text("#said")
    assert page.locator("article figure:not(.seen) figcaption").all_inner_texts() != numbers
    page.select_option("#order", "random")
    hostile = next(n for n, name in enumerate(names) if "</script>" in name)
    assert page.locator("script").count() == 2  # its data and its own
    for _ in range(hostile + 1):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.inner_text("#whole-title").startswith("</script><script>alert(1)</script>")
    page.keyboard.press("ArrowRight" if hostile + 1 < len(names) else "ArrowLeft")
    assert "</script>" not in page.inner_text("#whole-title")
    page.keyboard.press("Escape")
    assert page.locator("#whole").is_hidden()
    page.keyboard.press("r")
    assert page.locator("article h2").all_inner_texts() != names
