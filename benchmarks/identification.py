"""Time and memory of two-way identification against the field's double loop.

    python benchmarks/identification.py --repeats 3
    python benchmarks/identification.py --images 200 --features 20000 --repeats 1   # quick
    python benchmarks/identification.py --table benchmarks/results/identification.json

The size is that of the NSD test set in a middle layer of CLIP ViT-L/14: 982 images, 257 x 1024
features. Each repeat is a process of its own: features are made in memory (simulated: a share of
the truth plus noise), then correlations of all pairs and identification in both directions are
timed, by the clock and in processor seconds, for on a shared machine the two differ. Peak memory
is the largest resident set of that process, features included.

The double loop calls numpy.corrcoef for every pair. It is timed on a subset of images at the full
width, in turn with ours, and *extrapolated* to all pairs. On the subset both must decide every
contest alike. The floor is the matrix product of all features in single precision alone.

n-way top-k in closed form is compared with 1,000 draws of the field's kind: differences must be
within what so many draws leave to chance.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from memory import peak_bytes

RESULTS = Path(__file__).parent / "results" / "identification.json"


def simulated(n: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truths, and reconstructions that hold a small share of them; float32."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, width), np.float32)
    recon = rng.standard_normal((n, width), np.float32)
    # About as much as leaves contests open: correlations differ by noise of 1 / sqrt(width).
    share = np.float32(1.5 / np.sqrt(width))
    for i in range(n):
        recon[i] += share * truth[i]
    return truth, recon


def ours(n: int, width: int) -> dict[str, float]:
    from calcarine.evaluation.metrics.matrices import identification_matrix
    from calcarine.evaluation.metrics.similarity import correlation_matrix

    truth, recon = simulated(n, width)
    clock, processor = time.perf_counter(), time.process_time()
    matrix = correlation_matrix(truth, recon)
    scores = [
        float(np.diagonal(identification_matrix(matrix, side, "failure")).mean())
        for side in ("image", "reconstruction")
    ]
    return {
        "seconds": time.perf_counter() - clock,
        "processor_seconds": time.process_time() - processor,
        "peak_gb": peak_bytes() / 1e9,
        "features_gb": 2 * truth.nbytes / 1e9,
        "fixed_image": scores[0],
        "fixed_reconstruction": scores[1],
    }


def product(n: int, width: int) -> dict[str, float]:
    """The floor: one matrix product in single precision."""
    truth, recon = simulated(n, width)
    clock = time.perf_counter()
    _ = truth @ recon.T
    return {"seconds": time.perf_counter() - clock}


def loop(n: int, width: int, subset: int) -> dict[str, float | bool]:
    """The double loop on some images, and whether contests come out alike."""
    from calcarine.evaluation.metrics.similarity import correlation_matrix

    truth, recon = simulated(subset, width)
    clock, processor = time.perf_counter(), time.process_time()
    reference = np.empty((subset, subset))
    for i in range(subset):
        for j in range(subset):
            reference[i, j] = np.corrcoef(truth[i], recon[j])[0, 1]
    seconds, used = time.perf_counter() - clock, time.process_time() - processor
    matrix = correlation_matrix(truth, recon, single=True)
    own = np.diagonal
    alike = all(
        np.array_equal(a, b)
        for a, b in (
            (own(reference)[:, None] > reference, own(matrix)[:, None] > matrix),
            (own(reference)[None] > reference, own(matrix)[None] > matrix),
        )
    )
    pairs = (n / subset) ** 2
    return {
        "subset": subset,
        "subset_seconds": seconds,
        "extrapolated_seconds": seconds * pairs,
        "extrapolated_processor_seconds": used * pairs,
        "contests_alike": alike,
        "largest_difference": float(np.abs(matrix - reference).max()),
    }


def n_way(images: int = 40, classes: int = 1000, draws: int = 1000) -> dict[str, float]:
    """Closed form against draws, in standard errors of the draws."""
    from calcarine.evaluation.metrics.matrices import n_way_top_k_matrix, n_way_top_k_sampled

    rng = np.random.default_rng(0)
    truth = rng.standard_normal((images, classes))
    recon = (0.35 * truth + rng.standard_normal((images, classes)))[:, None]
    clock = time.process_time()
    exact = n_way_top_k_matrix(truth, recon, 50, 1)
    middle = time.process_time()
    sampled = n_way_top_k_sampled(truth, recon, 50, 1, draws)
    end = time.process_time()
    error = np.sqrt(np.maximum(exact * (1 - exact), 1e-12) / draws)
    open_ = (exact > 0.02) & (exact < 0.98)
    z = ((sampled - exact) / error)[open_]
    own = np.diagonal(exact).mean(), np.diagonal(sampled).mean()
    spread = np.sqrt((np.diagonal(error) ** 2).sum()) / images
    return {
        "images": images,
        "closed_form": float(own[0]),
        "sampled": float(own[1]),
        "difference_in_standard_errors": float((own[1] - own[0]) / spread),
        "entries": int(open_.sum()),
        "largest_z": float(np.abs(z).max()),
        "closed_form_processor_seconds": middle - clock,
        "sampled_processor_seconds": end - middle,
    }


def apart(part: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Run a part in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--images", str(arguments.images)]
    command += ["--features", str(arguments.features), "--subset", str(arguments.subset)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def table(found: dict) -> str:
    side, slow, ways = found["ours"], found["double_loop"], found["n_way"]
    ratio = slow["extrapolated_seconds"] / side["seconds"]
    work = slow["extrapolated_processor_seconds"] / side["processor_seconds"]
    every = ", ".join(f"{s:.1f}" for s in side["all_seconds"])
    loops = ", ".join(f"{s / 60:.0f}" for s in slow["all_seconds"])
    return "\n".join(
        [
            f"{found['images']} images x {found['features']} features, two directions",
            f"ours: {side['seconds']:.1f} s by the clock (median of {every}), "
            f"{side['processor_seconds']:.1f} processor seconds, peak {side['peak_gb']:.2f} GB of "
            f"which {side['features_gb']:.2f} GB are the features",
            f"double loop over numpy.corrcoef: {slow['extrapolated_seconds'] / 60:.0f} min by the "
            f"clock (median of {loops}), "
            f"{slow['extrapolated_processor_seconds'] / 60:.0f} min of processor time, "
            f"extrapolated from {slow['subset']} x {slow['subset']} pairs; {ratio:.0f} x ours "
            f"by the clock, {work:.0f} x in processor time",
            f"the matrix product alone: {found['product']['seconds']:.1f} s",
            f"contests alike on the subset: {slow['contests_alike']}; largest difference of a "
            f"correlation {slow['largest_difference']:.1e}",
            f"50-way top-1: {ways['closed_form']:.4f} in closed form, {ways['sampled']:.4f} by "
            f"1,000 draws ({ways['difference_in_standard_errors']:+.1f} standard errors); largest "
            f"of {ways['entries']} entries {ways['largest_z']:.1f}",
            f"load of the machine: {found['load']}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=982)
    parser.add_argument("--features", type=int, default=263_168)
    parser.add_argument("--subset", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", choices=("ours", "loop", "product"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())))
        return
    if arguments.part == "ours":
        print(json.dumps(ours(arguments.images, arguments.features)))
        return
    if arguments.part == "product":
        print(json.dumps(product(arguments.images, arguments.features)))
        return
    if arguments.part == "loop":
        print(json.dumps(loop(arguments.images, arguments.features, arguments.subset)))
        return
    found = {
        "images": arguments.images,
        "features": arguments.features,
        "load": f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "n_way": n_way(),
    }
    parts = {"ours": "ours", "double_loop": "loop", "product": "product"}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in parts}
    for _ in range(arguments.repeats):
        for name, part in parts.items():
            runs[name].append(apart(part, arguments))
    for name, every in runs.items():
        found[name] = {key: statistics.median(run[key] for run in every) for key in every[0]}
        timed = "extrapolated_seconds" if name == "double_loop" else "seconds"
        found[name]["all_seconds"] = [round(run[timed], 2) for run in every]
    alike = all(run["contests_alike"] for run in runs["double_loop"])
    found["double_loop"]["contests_alike"] = alike
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    assert alike and abs(found["n_way"]["largest_z"]) < 5.5


if __name__ == "__main__":
    main()
