"""What long work shows on a terminal and in a log."""

from __future__ import annotations

import io
import itertools
import re
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from calcarine.experiment import decoders, progress
from calcarine.experiment.progress import ConsoleProgress
from calcarine.experiment.reconstructions import _Job, _made
from calcarine.files.work_queue import WorkQueue


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    # The thread would write at moments of the real time.
    monkeypatch.setattr(progress, "_CHECK", 3600.0)
    return Clock()


def logged(clock: Any) -> tuple[ConsoleProgress, io.StringIO]:
    log = io.StringIO()
    return ConsoleProgress(Console(file=log, width=80), clock), log


def timed_lines(clock: Clock, shown: ConsoleProgress, log: io.StringIO, n: int, step: float) -> Any:
    """Finish one of n units every `step` seconds; return the lines with their times."""
    lines = []
    with shown.track("Pictures", n) as advance:
        for _ in range(n):
            clock.now += step
            before = log.tell()
            advance(1)
            lines += [(clock.now - 1000, line) for line in log.getvalue()[before:].splitlines()]
    return lines


def test_a_log_has_a_line_soon_and_then_every_few_minutes(clock):
    shown, log = logged(clock)
    lines = timed_lines(clock, shown, log, n=100, step=7.0)
    times = [at for at, _ in lines]
    assert times[0] <= 120
    assert all(60 <= later - at <= 300 for at, later in itertools.pairwise(times))
    assert times[-1] >= 400
    assert lines[1] == (245, "Pictures: 35 of 100, 0:07:35 left")
    assert log.getvalue().splitlines()[-1] == "Pictures: finished in 0:11:40"


def test_a_log_has_no_control_characters_and_no_bar(clock, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    shown, log = logged(clock)
    shown.say("Reading the data set " + "x" * 100)
    timed_lines(clock, shown, log, n=30, step=30.0)
    assert re.fullmatch(r"[ -~\n]+", log.getvalue())
    assert log.getvalue().splitlines()[0] == "Reading the data set " + "x" * 100


def test_short_work_writes_no_lines(clock):
    shown, log = logged(clock)
    for _ in range(5):
        timed_lines(clock, shown, log, n=5, step=8.0)
    assert log.getvalue() == ""


def test_lines_of_successive_work_are_a_minute_apart(clock):
    shown, log = logged(clock)
    times = []
    for _ in range(6):
        before = log.tell()
        times += [at for at, _ in timed_lines(clock, shown, log, n=10, step=6.5)]
        if len(log.getvalue()[before:].splitlines()) > 1:
            times.append(clock.now - 1000)  # the line that it is finished
    assert len(times) >= 5
    assert all(later - at >= 60 for at, later in itertools.pairwise(times))


def test_work_that_existed_before_does_not_count_as_speed(clock):
    shown, log = logged(clock)
    with shown.track("Pictures", 100) as advance:
        advance(50)
        for _ in range(10):
            clock.now += 10
            advance(1)
    assert log.getvalue().splitlines()[0] == "Pictures: 56 of 100, 0:07:20 left"


def test_the_time_left_follows_the_recent_speed(clock):
    shown, log = logged(clock)
    with shown.track("Pictures", 1000) as advance:
        for step in [1.0] * 240 + [10.0] * 60:
            clock.now += step
            advance(1)
    last = [line for line in log.getvalue().splitlines() if "left" in line][-1]
    done = int(re.findall(r": (\d+) of", last)[0])
    hours, minutes, seconds = map(int, re.findall(r"(\d+):(\d+):(\d+) left", last)[0])
    assert 3600 * hours + 60 * minutes + seconds == pytest.approx(10 * (1000 - done), rel=0.05)


def test_a_log_shows_life_while_nothing_is_finished(monkeypatch):
    monkeypatch.setattr(progress, "_CHECK", 0.01)
    shown, log = logged(lambda: 1000 * time.monotonic())  # a second lasts a millisecond
    with shown.track("Decoders", 1):
        end = time.monotonic() + 20
        while log.getvalue().count("\n") < 2 and time.monotonic() < end:
            time.sleep(0.01)
    assert log.getvalue().splitlines()[:2] == ["Decoders: 0 of 1, time left not known yet"] * 2


def test_a_terminal_has_bars(clock):
    screen = Terminal()
    console = Console(file=screen, force_terminal=True, width=100)
    shown = ConsoleProgress(console, clock)
    with shown.track("Choosing settings", 4) as advance:
        clock.now += 600
        advance(4)
    assert "━" in screen.getvalue() and "4/4" in screen.getvalue()
    assert " left" not in screen.getvalue()


def test_pictures_of_a_group_are_counted_while_they_are_made():
    def make(rows, keys, count):
        for _ in range(2):  # the batches of a generator; the last picture is not counted
            count(2)
        return np.zeros((len(rows), 4, 4, 3), np.float32)

    counts = []
    job = _Job("c", "all", ("a", "b", "c", "d", "e"), 1, make)
    (group,) = job.groups()
    assert len(_made(job, group, counts.append)) == 5
    assert counts == [2, 2, 1]


def test_the_search_of_settings_counts_its_pictures(clock, monkeypatch, tmp_path):
    screen = Terminal()
    shown = ConsoleProgress(Console(file=screen, force_terminal=True, width=100), clock)
    search = SimpleNamespace(strengths=[0.2, 0.6], guidances=[1.0], n_stimuli=3, steps=5)
    generation = SimpleNamespace(search=search, seed=0)
    made = SimpleNamespace(
        holds=lambda file: "old" in str(file), digests=lambda files: {}, record=dict
    )
    work = SimpleNamespace(
        config=SimpleNamespace(generation=generation),
        run=SimpleNamespace(
            made=lambda stage: made,
            queue=lambda stage, part: WorkQueue(tmp_path / part, "which works too"),
            decoder=tmp_path,
        ),
        splits=[SimpleNamespace(name="old"), SimpleNamespace(name="new")],
        progress=shown,
        new_decoder=lambda: None,
        dataset=None,
        z=None,
        c=None,
    )

    def choose(*arguments):
        for _ in range(2):
            arguments[-1](3)
        return SimpleNamespace(to_json=dict)

    monkeypatch.setattr(decoders, "reconstructor", lambda *_, **__: None)
    monkeypatch.setattr(decoders, "choose_settings", choose)
    decoders._searches(work).lead()
    assert "Choosing settings" in screen.getvalue() and "12/12" in screen.getvalue()
