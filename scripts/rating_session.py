"""Does a study's server that is killed in mid-session keep every answer that it acknowledged?

    python scripts/rating_session.py --raters 30 --kills 5

A study of made-up pictures is served by ``calcarine study serve`` at 127.0.0.1. All raters answer
at once, as fast as they are let; meanwhile the server is ended by SIGKILL and started again, at
random moments that are spread over the session. A rater does what the page does: an answer without
reply is sent again, and the next trial comes after a reply only. Each keeps a list of its own of
what was acknowledged, which is compared with the database in the end.

Exit status: 0 if every acknowledged answer is in the database as it was given, with no others, and
SQLite's integrity check says ok; else 1. It gives up after ``--minutes``. Needs the extra ``test``;
study, raters and server are those of ``tests/study``.
"""

from __future__ import annotations

import argparse
import random
import runpy
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from calcarine.study.make import make_study
from calcarine.study.sources import from_runs
from calcarine.study.store import Study

TESTS = Path(__file__).parents[1] / "tests" / "study"
PARTS = runpy.run_path(str(TESTS / "conftest.py"))
SERVER = runpy.run_path(str(TESTS / "test_server.py"))


class Session:
    """One study, its server, with a record of what its raters saw."""

    def __init__(self, study: Study, seed: int, minutes: float) -> None:
        self.study = study
        self.seed = seed
        self.port = SERVER["free_port"]()
        self.deadline = time.monotonic() + 60 * minutes
        self.server: subprocess.Popen[str] | None = None
        self.acknowledged: dict[str, str] = {}
        self.changed: list[str] = []
        self.lost_replies = 0
        self.lock = threading.Lock()

    def start(self) -> None:
        self.server, _ = SERVER["start"](self.study, self.port)

    def kill(self) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.communicate()

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise TimeoutError("the session took longer than --minutes")

    def rate(self, number: int, token: str) -> None:
        """Answer until there is no trial left."""
        draw = random.Random(f"{self.seed}-{number}")
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60) as client:
            me = PARTS["Rater"](self.study, token, client)
            state = self.insist(me.post, "/consent", {})
            while state["phase"] == "trial":
                trial, choice = state["trial"], draw.choice(("left", "right"))
                reply = self.insist(me.answer, trial, choice)
                with self.lock:
                    self.acknowledged[trial] = choice
                    if reply["recorded"] != choice:
                        self.changed.append(trial)
                state = reply["state"]

    def insist(self, send: Any, *args: Any) -> dict[str, Any]:
        """Send until there is a reply: 429 means slower, no connection is a killed server."""
        while True:
            self.check_time()
            try:
                reply = send(*args)
                if reply.status_code != 429:
                    reply.raise_for_status()
                    return dict(reply.json())
            except httpx.ConnectError:
                pass  # nothing was sent
            except httpx.TransportError:
                with self.lock:
                    self.lost_replies += 1
            time.sleep(0.1)

    def disturb(self, kills: int, total: int) -> None:
        """Kill the server and start it again, ``kills`` times, spread over the session."""
        draw = random.Random(self.seed)
        for number in range(kills):
            while len(self.acknowledged) < total * (number + 0.5) / kills:
                self.check_time()
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.2))
            self.kill()
            print(f"killed after {len(self.acknowledged)} of {total} answers", flush=True)
            self.start()

    def compare(self, total: int) -> bool:
        """Print what the database holds against what was acknowledged."""
        kept = SERVER["answers"](self.study)
        with sqlite3.connect(self.study.database) as con:
            integrity = con.execute("PRAGMA integrity_check").fetchone()[0]
        said = self.acknowledged
        lost = said.keys() - kept.keys()
        changed = {trial for trial in said.keys() & kept.keys() if said[trial] != kept[trial]}
        changed |= set(self.changed)
        print(
            f"{len(said)} answers acknowledged, {len(kept)} in the database, {len(lost)} lost, "
            f"{len(changed)} changed; {self.lost_replies} requests sent again because a kill took "
            f"their reply; integrity_check {integrity}"
        )
        return len(said) == len(kept) == total and not lost and not changed and integrity == "ok"


def hold(session: Session, kills: int) -> bool:
    links = session.study.links()
    with session.study.connection() as con:
        total = con.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
    session.start()
    try:
        with ThreadPoolExecutor(len(links) + 1) as pool:
            work = [pool.submit(session.disturb, kills, total)]
            work += [pool.submit(session.rate, n, token) for n, (_, token) in enumerate(links)]
            errors = [error for each in work if (error := each.exception())]
    finally:
        session.kill()
    for error in errors:
        print(f"{type(error).__name__}: {error}")
    return session.compare(total) and not errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raters", type=int, default=30)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = from_runs([PARTS["make_run"](Path(folder, "run"))])
        settings = {"n_originals": 3, "practice": 2, "catch": 2, "size": 32}
        study = make_study(runs, Path(folder, "study"), n_raters=options.raters, **settings)
        held = hold(Session(study, options.seed, options.minutes), options.kills)
    print(f"{options.raters} raters, {options.kills} kills: {'held' if held else 'NOT held'}")
    sys.exit(not held)


if __name__ == "__main__":
    main()
