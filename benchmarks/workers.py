"""Throughput of several processes that share the features and pictures of one run.

    python benchmarks/workers.py --repeats 3
    python benchmarks/workers.py --table benchmarks/results/workers.json

Each case is a run of the simulated subject with the mini model, in processes of its own, up to its
pictures: one process with one thread, one process with a thread for each core, and several
processes that share the cores (``--workers``). Cases take turns. The time is that of the stages
features and reconstruct, in which the first process also waits for the others to start. Features
and pictures of cases whose processes have equally many threads must be equal to the byte; with
other numbers of threads, products are rounded differently.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "workers.json"
STAGES = ("features", "reconstruct")
ONE = """
import sys
from pathlib import Path
from calcarine.experiment import load_experiment, run_experiment
from calcarine.experiment.stages import STAGES

for name in ("evaluate", "audit", "report", "encode"):
    del STAGES[name]
folder, workers, *settings = sys.argv[1:]
run_experiment(load_experiment("takagi", None, settings), Path(folder), workers=int(workers))
"""


def settings(arguments: argparse.Namespace) -> list[str]:
    return [
        f"dataset.options={{n_train: {arguments.train}, n_test: {arguments.test}}}",
        f"generation.steps={arguments.steps}",
        "generation.samples=5",
        "generation.candidates=0",
        "generation.search.enabled=false",
    ]


def run(
    folder: Path, workers: int, threads: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """Seconds of both stages, by the clock."""
    subprocess.run(
        [sys.executable, "-c", ONE, str(folder), str(workers), *settings(arguments)],
        check=True,
        # One thread for the decoders, which the first process fits alone.
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"},
    )
    times = json.loads((folder / "manifest.json").read_text())["times"]
    return {name: times[name] for name in STAGES}


def content(folder: Path) -> dict[str, bytes]:
    """Features and pictures of a run."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for part in ("features", "reconstructions")
        for file in sorted((folder / part).rglob("*"))
        if file.is_file()
    }


def measure(arguments: argparse.Namespace) -> dict:
    cores = os.cpu_count() or 1
    cases = {"1 process, 1 thread": (1, 1), f"1 process, {cores} threads": (1, cores)}
    cases |= {f"{n} processes": (n, cores) for n in arguments.workers}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    equal = True
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as place:
            expected: dict[int, dict[str, bytes]] = {}
            for number, (name, (workers, threads)) in enumerate(cases.items()):
                folder = Path(place) / str(number)
                seconds[name].append(run(folder, workers, threads, arguments))
                found = content(folder)
                each = max(1, threads // workers)
                equal = equal and found == expected.setdefault(each, found)
    return {
        "settings": settings(arguments),
        "seconds": seconds,
        "equal": equal,
        "load": f"{os.getloadavg()[0]:.1f} on {cores} cores",
    }


def table(found: dict) -> str:
    medians = {
        name: {stage: statistics.median(time[stage] for time in times) for stage in STAGES}
        for name, times in found["seconds"].items()
    }
    first, second = list(medians.values())[:2]
    lines = [f"{'':24}{'features':>10}{'pictures':>10}   times one thread, one process"]
    for name, times in medians.items():
        whole, one, all_threads = (sum(case.values()) for case in (times, first, second))
        lines.append(
            f"{name:24}{times['features']:9.1f}s{times['reconstruct']:9.1f}s"
            f"   {one / whole:.2f}, {all_threads / whole:.2f}"
        )
    lines.append(f"equal to the byte with as many threads a process: {found['equal']}")
    lines.append(f"load of the machine: {found['load']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=900)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())))
        return
    found = measure(arguments)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1))
    print(table(found))
    if not found["equal"]:
        raise SystemExit("the runs differ")


if __name__ == "__main__":
    main()
