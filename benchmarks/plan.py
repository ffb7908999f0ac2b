"""What `calcarine plan` predicts, compared with what runs take.

    python benchmarks/plan.py
    python benchmarks/plan.py --table benchmarks/results/plan.json

Each case is a whole run by the command line, which measures and plans first, on simulated data or
on a simulated folder in the format of NSD, with the mini model. The time and the memory of each
stage are divided by those of its plan; a ratio of 1 is a perfect prediction.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "plan.json"
NSD_TRIALS = [240, 240, 240]


def cases(folder: Path) -> dict[str, list[str]]:
    """Return the arguments of ``calcarine run`` by case."""
    return {
        "demo": ["--preset", "demo"],
        "NSD": [
            *("--preset", "takagi2023", "--dataset", "nsd", "--data", str(folder / "nsd")),
            *("--set", "generation.model=mini", "--set", "dataset.options.sessions=3"),
            *("--set", "generation.steps=10", "--set", "generation.samples=2"),
            *("--set", "evaluation.protocols=[calcarine]"),
        ],
        "encoding": [
            *("--preset", "encoding", "--set", "generation.steps=10"),
            *("--set", "generation.samples=1", "--set", "generation.candidates=0"),
        ],
    }


def run(name: str, arguments: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """Run a case; return planned and real numbers of each stage."""
    out = folder / name
    command = [sys.executable, "-m", "calcarine", "run", *arguments, "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    manifest = json.loads((out / "manifest.json").read_text())
    found = {}
    for stage, seconds in manifest["times"].items():
        planned = manifest["plan"][stage]
        found[stage] = {
            "planned seconds": round(planned["seconds"], 2),
            "seconds": seconds,
            "planned GB": round(planned["memory"] / 1e9, 2),
            "GB": round(manifest["memory"][stage] / 1e9, 2),
        }
    found["together"] = {
        "planned seconds": round(sum(row["planned seconds"] for row in found.values()), 2),
        "seconds": round(sum(row["seconds"] for row in found.values()), 2),
        "planned GB": max(row["planned GB"] for row in found.values()),
        "GB": max(row["GB"] for row in found.values()),
    }
    return found


def print_table(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print planned and real numbers, and their ratios."""
    print(f"{'case':10} {'stage':12} {'planned':>9} {'took':>9} {'ratio':>6}   GB planned, took")
    for case, stages in results.items():
        for stage, row in stages.items():
            planned, took = row["planned seconds"], row["seconds"]
            print(
                f"{case:10} {stage:12} {planned:7.1f} s {took:7.1f} s {took / planned:6.2f}   "
                f"{row['planned GB']:.2f}, {row['GB']:.2f} ({row['GB'] / row['planned GB']:.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help="of demo, NSD and encoding; all by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON with the results")
    parser.add_argument("--table", type=Path, help="print the table of earlier results")
    options = parser.parse_args()
    if options.table:
        print_table(json.loads(options.table.read_text()))
        return
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        from calcarine.datasets.registry import write_fake_dataset

        write_fake_dataset("nsd", folder / "nsd", trials=NSD_TRIALS)
        for case, arguments in cases(folder).items():
            if not options.cases or case in options.cases:
                results[case] = run(case, arguments, folder)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print_table(results)


if __name__ == "__main__":
    main()
