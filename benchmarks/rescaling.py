"""Decoded embeddings brought back to scale: what retrieval, correlation and distance gain or lose.

    python benchmarks/rescaling.py                                    # the simulated subject
    python benchmarks/rescaling.py --digits69 DIR                     # and measured responses
    python benchmarks/rescaling.py --table benchmarks/results/rescaling.json

Embeddings are those of the bundled ViT-MAE (the mean of the patches, and all tokens). Every way of
`EmbeddingRegression(rescale=...)` decodes the same test stimuli; "nearest 10" replaces a decoded
embedding by the mean of the ten training embeddings in the most similar directions. The gallery is
the test stimuli of the simulated subject, and all 100 digits. Distance is relative to the root mean
square distance of a true embedding from the training mean, which is the distance of that mean
itself. Intervals are 95 % bootstrap intervals over stimuli; differences are paired.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "rescaling.json"
WAYS = ("none", "norm", "variance", "components", "posterior", "nearest 10")
SCORES = ("top-1", "rank percentile", "correlation", "distance", "norm")
N_BOOT = 10_000


def decode(brain, split, roi: str, features: np.ndarray) -> dict[str, np.ndarray]:
    from calcarine.decoding import EmbeddingRegression
    from calcarine.decoding.rescaling import RESCALINGS

    targets = dict.fromkeys(RESCALINGS, features)
    decoder = EmbeddingRegression(roi, rescale={name: name for name in RESCALINGS})
    decoded = decoder.fit(brain, split, targets).predict(brain, split)
    train = features[brain.stimuli.rows(split.train)].reshape(len(split.train), -1)
    about = train - train.mean(0)
    plain = decoded["none"].reshape(len(split.test), -1) - train.mean(0)
    similar = plain @ (about / np.linalg.norm(about, axis=1, keepdims=True)).T
    nearest = np.argsort(-similar, axis=1)[:, :10]
    decoded["nearest 10"] = train[nearest].mean(1).reshape(decoded["none"].shape)
    return decoded


def measure(brain, split, decoded: np.ndarray, features: np.ndarray, gallery) -> np.ndarray:
    """Return rank, rank percentile, correlation, distance and norm of each test stimulus."""
    from calcarine.decoding import retrieve

    mean = features[brain.stimuli.rows(split.train)].mean(0, dtype=np.float64)
    pictures = features[brain.stimuli.rows(gallery)]
    found = retrieve(decoded, pictures, split.test, gallery, mean=mean)
    true = (features[brain.stimuli.rows(split.test)] - mean).reshape(len(split.test), -1)
    own = (decoded - mean).reshape(true.shape)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(own, true, strict=True)]
    size = np.sqrt((true**2).sum(1).mean())
    distance, norm = np.linalg.norm(own - true, axis=1), np.linalg.norm(own, axis=1)
    percentile = np.diag(found.percentiles)
    return np.stack([found.rank, percentile, correlation, distance / size, norm / size], axis=1)


def scores(table: np.ndarray) -> np.ndarray:
    """Return the scores of stimuli, one a row."""
    return np.column_stack([table[:, 0] <= 1, table[:, 1:]])


def interval(values: np.ndarray, rows: np.ndarray) -> list[float]:
    means = values[rows].mean(1)
    return [float(values.mean()), *(float(x) for x in np.percentile(means, [2.5, 97.5]))]


def compare(brain, roi: str, features: np.ndarray, all_stimuli: bool) -> dict:
    parts: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    for split in brain.splits:
        gallery = brain.stimuli.ids if all_stimuli else split.test
        for way, values in decode(brain, split, roi, features).items():
            parts[way].append(measure(brain, split, values, features, gallery))
    tables = {way: np.concatenate(tables) for way, tables in parts.items()}
    count = len(tables["none"])
    rows = np.random.default_rng(0).integers(0, count, (N_BOOT, count))
    plain, result = scores(tables["none"]), {}
    for way, table in tables.items():
        own = scores(table)
        result[way] = {"median rank": float(np.median(table[:, 0]))}
        for column, name in enumerate(SCORES):
            result[way][name] = interval(own[:, column], rows)
            result[way][f"{name}, less none"] = interval(own[:, column] - plain[:, column], rows)
    size = len(brain.stimuli) if all_stimuli else len(brain.splits[0].test)
    return {"stimuli": count, "gallery": size, "ways": result}


def run(digits69: Path | None) -> dict:
    from calcarine.datasets import load_dataset
    from calcarine.features import load_vision_model

    model = load_vision_model("mini")
    brains = {"simulated": (load_dataset("simulated", n_train=600, n_test=200), "ventral", False)}
    if digits69 is not None:
        brains["digits69"] = (load_dataset("digits69", digits69), "all", True)
    found = {}
    for name, (brain, roi, all_stimuli) in brains.items():
        for pool in ("mean", "tokens"):
            features = model.features(brain.stimuli.images(), "-1", pool)
            found[f"{name}, {pool}"] = compare(brain, roi, features, all_stimuli)
    return found


def print_table(found: dict) -> None:
    for name, part in found.items():
        print(f"\n{name}: {part['stimuli']} stimuli, gallery of {part['gallery']}\n")
        print("| rescale | top-1 | median rank | rank percentile | correlation | distance | norm |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for way, own in part["ways"].items():
            cells = [f"{own['median rank']:g}"]
            for score in SCORES:
                value, low, high = own[score]
                change, lowest, highest = own[f"{score}, less none"]
                marked = "*" if way != "none" and (lowest > 0 or highest < 0) else ""
                cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}]{marked}")
            print(f"| {way} | {cells[1]} | {cells[0]} | {' | '.join(cells[2:])} |")
    print("\n* the 95 % interval of the paired difference from none leaves out 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits69", type=Path, help="folder of the data set digits69")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, help="print the table of a file of results only")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(json.loads(arguments.table.read_text()))
        return
    found = run(arguments.digits69)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print_table(found)


if __name__ == "__main__":
    main()
