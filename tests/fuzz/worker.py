"""Tries damaged inputs in a process of its own, which may hang or crash.

``python tests/fuzz/worker.py TARGET SEED`` repeats one input and prints what comes of it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from mutations import mutate
from targets import TARGETS, Target

from calcarine.errors import CalcarineError

MEMORY = 4 << 30
"""What an input of some kilobytes may take, in bytes."""


def built(target: Target, root: Path) -> Path:
    """Folder of a valid input, written once; targets with the same input share it."""
    build = getattr(target.build, "__name__", target.name)
    folder = root / "valid" / build
    if not (root / f"{build}.built").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        target.build(folder)
        (root / f"{build}.built").touch()
    return folder


def attempt(target: Target, root: Path, seed: int | None) -> dict[str, Any]:
    """Read a valid input (no seed), or a damaged one; see `outcomes`."""
    work = root / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(built(target, root), work)
    damage = "none"
    if seed is not None:
        rng = Random(f"{target.name} {seed}")
        path = target.chosen(work, rng)
        damage = f"{mutate(path, rng)} in {path.relative_to(work).as_posix()}"
    with chdir(work), warnings.catch_warnings(), limited_memory():
        warnings.simplefilter("ignore")
        return {"damage": damage, "outcomes": outcomes(target, work)}


def outcomes(target: Target, folder: Path) -> list[tuple[str, str]]:
    """For each use of a folder: loads, refused (with the sentence) or failed (with a traceback)."""
    found = []
    for use in target.uses:
        torch.manual_seed(0)
        try:
            use(folder)
            found.append(("loads", ""))
        except BaseException as error:
            fine = is_clear(error)
            found.append(("refused", str(error)) if fine else ("failed", traceback.format_exc()))
    return found


def is_clear(error: BaseException) -> bool:
    """Whether the command line would end with a sentence that says what is wrong and where."""
    if isinstance(error, CalcarineError):
        # Nobody gave an option, so this is an error of Python under another name.
        return not str(error).startswith("An option of data set")
    if isinstance(error, OSError):
        return bool(error.filename)
    return isinstance(error, SystemExit)


@contextmanager
def limited_memory() -> Iterator[None]:
    now = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def serve(root: Path) -> None:
    """Answer lines ``[TARGET, SEED]`` of JSON by one line each."""
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for line in sys.stdin:
        name, seed = json.loads(line)
        try:
            answer = attempt(TARGETS[name], root, seed)
        except Exception:  # of the build or the harness
            answer = {"damage": "none", "outcomes": [("failed", traceback.format_exc())]}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) == 2:
        serve(Path(sys.argv[1]))
        return
    target, seed = TARGETS[sys.argv[1]], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as root:
        found = attempt(target, Path(root), seed)
    print(f"{target.name} {seed}: {found['damage']}")
    for outcome, text in found["outcomes"]:
        print(f"{outcome}: {text}")


if __name__ == "__main__":
    main()
