"""No damaged file ends in a traceback, a hang or a crash.

``CALCARINE_FUZZ`` is the number of inputs, and ``CALCARINE_FUZZ_SEED`` the seed of the first.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from mutations import BYTES, JSON, TEXT, YAML  # noqa: E402
from targets import ALL, TARGETS  # noqa: E402

INPUTS = int(os.environ.get("CALCARINE_FUZZ", "300"))
FIRST = int(os.environ.get("CALCARINE_FUZZ_SEED", "0"))
CHOSEN = [target for target in ALL if INPUTS >= 2000 or not target.slow]
HANG = 300
"""Seconds that one input may take on a busy machine."""


class Worker:
    """A process that reads damaged files, and is begun anew when it hangs or crashes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process: subprocess.Popen[str] | None = None

    def attempt(self, name: str, seed: int | None) -> list[list[str]]:
        """Outcomes of one input; see `worker.outcomes`."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), str(self.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        process = self.process
        print(json.dumps([name, seed]), file=process.stdin, flush=True)
        if not select.select([process.stdout], [], [], HANG)[0]:
            self.close()
            return [["failed", f"no answer within {HANG} seconds"]]
        answer = process.stdout.readline()
        if not answer:
            code = process.wait()
            self.process = None
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return [["failed", f"the interpreter crashed: {how}"]]
        return json.loads(answer)["outcomes"]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


def share(name: str) -> int:
    """How many inputs a target gets."""
    total = sum(target.weight for target in CHOSEN)
    return max(1, round(INPUTS * TARGETS[name].weight / total))


def again(name: str, seed: int) -> str:
    return f"{Path(sys.executable).name} tests/fuzz/worker.py {name} {seed}"


@pytest.mark.timeout(0)  # each input has a limit of its own
@pytest.mark.parametrize("name", [target.name for target in CHOSEN])
def test_damaged_files_load_or_are_refused_in_a_sentence(name: str, worker: Worker) -> None:
    valid = worker.attempt(name, None)
    assert [outcome for outcome, _ in valid] == ["loads"] * len(TARGETS[name].uses), valid
    seeds = range(FIRST, FIRST + share(name))
    print(f"\n{name}: seeds {seeds[0]} to {seeds[-1]}")
    failures = [
        f"{again(name, seed)}\n{text}"
        for seed in seeds
        for outcome, text in worker.attempt(name, seed)
        if outcome == "failed"
    ]
    assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize(
    "mutation", sorted({*BYTES, *TEXT, *JSON, *YAML}, key=lambda m: m.__name__)
)
def test_mutations_change_files_and_repeat(mutation: Any) -> None:
    content = b'{"a": [1, 2.5, {"b": "one,two"}],\n "c": null,\n "d": true}\n'
    made = [mutation(content, Random(seed)) for seed in range(40)]
    assert made == [mutation(content, Random(seed)) for seed in range(40)]
    assert sum(each != content for each in made) >= 20
    for seed in range(3):  # what is empty or no text may not break the harness either
        mutation(b"", Random(seed))
        mutation(b"\xff\0", Random(seed))
