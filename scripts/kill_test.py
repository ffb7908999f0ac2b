"""Does a run that is killed at any moment, and resumed, end with the same files?

    python scripts/kill_test.py --kills 42 --seed 0

Three small runs (``WORKLOADS``), side by side, are made twice without interruption. Then each trial
makes one of them again, and ends its process 1 to 5 times by SIGKILL: at a random time, or just
before or after its N-th call of one of ``CALLS``. Each time the same command resumes in the same
folder, which must not be refused (a lock ends with its process). In the end the folder must have
the files of an uninterrupted run, byte for byte, and no others. Files in which the two
uninterrupted runs differ hold times; their names are printed. Of these, JSON must be the same
but for decimal numbers and dates, and the others must be there.

A trial draws from ``SEED-NUMBER`` alone, which is printed with it; ``--trial SEED-NUMBER`` repeats
one. Exit status: 0 if every command ended with 0 and no file differs, else 1.

The processes are forks of one that has imported calcarine, so this needs POSIX.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALLS = ("replace", "rename", "mkdir", "unlink", "fsync")  # of the module os
TIME = re.compile(rb"\d+\.\d+|\d{4}-\d\d-\d\dT[\d:+]+")
LONGEST = 900  # seconds that one command may take
SMALL = (
    "dataset.options={n_train: 40, n_test: 4, n_sessions: 2, n_early: 24, n_ventral: 24, "
    "n_other: 12}",
    "ridge.n_alphas=3",
    "ridge.n_folds=2",
    "generation.samples=1",
    "generation.steps=5",
    "evaluation.n_boot=100",
    "evaluation.n_permutations=100",
    "evaluation.ceilings=false",
)
WORKLOADS = {
    "takagi-encode": (
        "--preset=takagi",
        *SMALL,
        "generation.candidates=2",
        "encoding.enabled=true",
        "encoding.analyses=[latents, noise]",
        "encoding.strengths=[0.4]",
        "encoding.n_alphas=3",
        "encoding.n_folds=2",
        "encoding.n_boot=100",
    ),
    "visdec": (
        "--preset=visdec-mini",
        *SMALL,
        "visdec.pretrain.pool=[own]",
        "visdec.encoder={patch: 16, dim: 16, depth: 1, heads: 2, decoder_dim: 16, "
        "decoder_depth: 1, decoder_heads: 2}",
        "visdec.finetune.steps=2",
        *(
            f"visdec.{phase}.training.{setting}"
            for phase in ("pretrain", "guide", "finetune")
            for setting in ("steps=4", "batch_size=8", "warmup_steps=1", "save_every_steps=1")
        ),
    ),
    "takagi-search": (
        "--preset=takagi",
        *SMALL,
        "generation.candidates=2",
        "generation.search={enabled: true, strengths: [0.4, 0.8], guidances: [1, 5], "
        "n_stimuli: 5, steps: 3}",
    ),
}


@dataclass
class Kill:
    """A moment: ``seconds`` after the start, or at the ``n``-th call of ``os.NAME``."""

    seconds: float | None = None
    name: str = ""
    n: int = 0
    after: bool = False

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"at {self.seconds:.2f} s"
        return f"{'after' if self.after else 'before'} {self.name} {self.n}"


@dataclass
class Undisturbed:
    """What a run is when nobody kills it."""

    files: dict[str, bytes]
    vary: set[str]
    seconds: float
    calls: dict[str, int]


def import_calcarine() -> None:
    """Import once, but compute nothing, so that forks start at once."""
    import torch

    import calcarine

    torch.set_num_threads(1)
    modules = pkgutil.walk_packages(calcarine.__path__, "calcarine.")
    import_all([module.name for module in modules])


def import_all(names: list[str]) -> None:
    for name in names:
        if not name.endswith("__main__"):
            with suppress(Exception):  # an extra that is not installed, or no module on disk
                importlib.import_module(name)


def count_calls(kill: Kill | None) -> Counter[str]:
    """Count this process's calls, and end it at the moment of ``kill``."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            now = kill is not None and kill.name == name and kill.n == counts[name]
            if now and not kill.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if now:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in CALLS:
        setattr(os, name, counted(name))
    return counts


def command_of(workload: str, run: Path) -> list[str]:
    preset, *settings = WORKLOADS[workload]
    return ["run", preset, f"--out={run}", *(f"--set={setting}" for setting in settings)]


def attempt(workload: str, folder: Path, kill: Kill | None = None) -> int:
    """Give the command in a process of its own; its exit status, or minus the signal's number."""
    pid = os.fork()
    if pid == 0:
        _child(command_of(workload, folder / "run"), folder, kill)
    began = time.monotonic()
    deadline = LONGEST if kill is None or kill.seconds is None else kill.seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began >= deadline:
            os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if deadline == LONGEST:
                raise RuntimeError(f"A command took more than {LONGEST} s.")
            return code
        time.sleep(0.002)


def _child(command: list[str], folder: Path, kill: Kill | None) -> None:
    code = 1
    try:
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        counts = count_calls(kill)
        sys.argv = ["calcarine", *command]
        from calcarine.cli.main import main

        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        (folder / "calls").write_text(json.dumps(counts))
        (folder / "modules").write_text("\n".join(list(sys.modules)))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def files_of(run: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.is_file()
    }


def undisturbed(workload: str, folder: Path) -> Undisturbed:
    """Make a run twice, each in the same place, for some files hold its name."""
    made = []
    for _ in range(2):
        shutil.rmtree(folder / "run", ignore_errors=True)
        began = time.monotonic()
        if code := attempt(workload, folder):
            log = (folder / "log").read_text()
            raise RuntimeError(f"{workload} ended with {code} undisturbed:\n{log}")
        seconds = time.monotonic() - began
        made.append(files_of(folder / "run"))
        import_all((folder / "modules").read_text().splitlines())  # what it imported while at work
    calls = json.loads((folder / "calls").read_text())
    return Undisturbed(made[0], different(*made), seconds, calls)


def different(one: dict[str, bytes], two: dict[str, bytes]) -> set[str]:
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}


def comparable(files: dict[str, bytes], vary: set[str]) -> dict[str, bytes]:
    """Files without what differs between two undisturbed runs."""
    shown = dict(files)
    for name in vary & files.keys():
        shown[name] = TIME.sub(b"", files[name]) if name.endswith(".json") else b""
    return shown


def draw_kill(draw: random.Random, whole: Undisturbed, before: int) -> Kill:
    """Draw a moment of a command; those that continue have less left to do."""
    share = 1 / (1 + before)
    if draw.random() < 0.5:
        return Kill(seconds=draw.uniform(0, whole.seconds * share))
    name = draw.choice([name for name in CALLS if whole.calls.get(name)])
    n = draw.randint(1, max(1, int(whole.calls[name] * share)))
    return Kill(name=name, n=n, after=draw.random() < 0.5)


def trial(seed: str, workload: str, folder: Path, whole: Undisturbed, most: int) -> tuple[int, int]:
    """Kill and continue a run until it ends; how often it was killed, how many files differ."""
    draw = random.Random(seed)
    wanted = min(draw.randint(1, 5), most)
    shutil.rmtree(folder / "run", ignore_errors=True)
    said = []
    while True:
        kill = draw_kill(draw, whole, len(said)) if len(said) < wanted else None
        code = attempt(workload, folder, kill)
        if kill is None or code != -signal.SIGKILL:  # it ended before its moment came
            break
        said.append(str(kill))
    killed = f"trial {seed} {workload}: killed {', '.join(said) or 'never'}"
    if code:
        print(f"{killed}; then ended with {code}:\n{(folder / 'log').read_text()}", flush=True)
        return len(said), 1
    made = files_of(folder / "run")
    wrong = different(comparable(whole.files, whole.vary), comparable(made, whole.vary))
    outcome = f"{len(wrong)} files differ: {', '.join(sorted(wrong))}" if wrong else "same"
    print(f"{killed}; {outcome} ({len(whole.files)} files)", flush=True)
    return len(said), len(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=42)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", help="repeat this one alone, such as 0-3")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import_calcarine()
    with tempfile.TemporaryDirectory() as folder:
        if options.trial:
            seed, number = options.trial.rsplit("-", 1)
            kills, wrong = run_trials(int(seed), int(number), 5, True, Path(folder))
        else:
            n = len(WORKLOADS)
            shares = [(options.kills + n - 1 - place) // n for place in range(n)]
            with multiprocessing.get_context("fork").Pool(n) as pool:
                work = [
                    (options.seed, place, share, False, Path(folder))
                    for place, share in enumerate(shares)
                ]
                kills, wrong = map(sum, zip(*pool.starmap(run_trials, work), strict=True))
    print(f"{kills} kills, {wrong} files differ")
    sys.exit(bool(wrong))


def run_trials(seed: int, first: int, wanted: int, once: bool, folder: Path) -> tuple[int, int]:
    """Try one of the runs until it was killed ``wanted`` times; kills, and files that differ."""
    workload = list(WORKLOADS)[first % len(WORKLOADS)]
    place = folder / workload
    place.mkdir()
    if not wanted:
        return 0, 0
    whole = undisturbed(workload, place)
    print(
        f"{workload}: {whole.seconds:.1f} s, {len(whole.files)} files, calls {whole.calls}; "
        f"two uninterrupted runs differ in {', '.join(sorted(whole.vary))}",
        flush=True,
    )
    kills = wrong = 0
    for number in itertools.count(first, len(WORKLOADS)):
        one = trial(f"{seed}-{number}", workload, place, whole, wanted - kills)
        kills, wrong = kills + one[0], wrong + one[1]
        if once or kills >= wanted:
            break
    return kills, wrong


if __name__ == "__main__":
    main()
