"""Retrieval in galleries of growing size, and what a folder of pictures costs.

    python benchmarks/gallery.py --pictures 3000
    python benchmarks/gallery.py --table benchmarks/results/gallery.json

Scenes that no subject saw are written as PNG files, and their embeddings (the bundled ViT-MAE)
extracted as a run does, in batches of 64. The simulated subject's decoded embeddings (600 training
stimuli, ventral region) then look for its 200 test pictures among these and the other test
pictures. Intervals are 95 % bootstrap intervals over stimuli. Seconds and peak memory are of the
extraction, with reading the files, and of the search; the search is repeated with 100,000 pictures
of random embeddings on disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import peak_bytes
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "gallery.json"
SEED, BATCH, LARGE = 11, 64, 100_000


def write_scenes(folder: Path, count: int, size: int) -> None:
    from calcarine.stimuli import StimulusSet

    for start in range(0, count, 1000):
        scenes = StimulusSet.from_scenes(SEED, range(start, min(start + 1000, count)), size)
        for key, image in zip(scenes.ids, scenes.images(), strict=True):
            Image.fromarray(image).save(folder / f"{key}.png")


def run(count: int) -> dict:
    import calcarine as ca
    from calcarine.decoding import Gallery
    from calcarine.features import FeatureStore, extract_folder, load_vision_model

    brain = ca.load_dataset("simulated", n_train=600, n_test=200)
    (split,) = brain.splits
    own = load_vision_model("mini").features(brain.stimuli.images())
    decoded = ca.EmbeddingRegression("ventral").fit(brain, None, {"image": own}).predict(brain)
    mean = own[brain.stimuli.rows(split.train)].mean(0)
    seen = Gallery(own[brain.stimuli.rows(split.test)], split.test)
    model = ca.LatentDiffusion.from_pretrained("mini")
    rows = np.random.default_rng(0).integers(0, 200, (10_000, 200))
    found: dict = {"galleries": []}

    def interval(values: np.ndarray) -> list[float]:
        low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
        return [float(values.mean()), float(low), float(high)]

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "scenes"
        folder.mkdir()
        write_scenes(folder, count, brain.stimuli.size[0])
        print(f"{count:,} pictures are written", flush=True)
        peak_bytes(anew=True)
        start = time.perf_counter()
        pictures, features = extract_folder(
            ["hf:mini"],
            model,
            folder,
            FeatureStore(Path(place) / "store"),
            size=brain.stimuli.size,
            batch_size=BATCH,
        )
        found["extraction"] = {
            "pictures": count,
            "seconds": time.perf_counter() - start,
            "peak_gb": peak_bytes() / 1e9,
        }
        for others in (0, 800, count):
            part = Gallery(features["hf:mini"][: max(others, 1)], pictures.ids[: max(others, 1)])
            gallery = Gallery.joined([part, seen]) if others else seen
            start = time.perf_counter()
            one = ca.retrieve(decoded["image"], gallery, split.test, mean=mean)
            found["galleries"].append(
                {
                    "size": len(gallery),
                    "seconds": time.perf_counter() - start,
                    "top-1": interval(one.rank <= 1),
                    "top-5": interval(one.rank <= 5),
                    "median rank": one.median_rank,
                    "rank percentile": interval(np.diag(one.percentiles)),
                }
            )
        large = np.lib.format.open_memmap(
            Path(place) / "large.npy", mode="w+", dtype=np.float32, shape=(LARGE, own.shape[1])
        )
        rng = np.random.default_rng(0)
        for start in range(0, LARGE, 10_000):
            large[start : start + 10_000] = rng.normal(size=(10_000, own.shape[1]))
        both = Gallery.joined([Gallery(large, [f"other {i}" for i in range(LARGE)]), seen])
        peak_bytes(anew=True)
        start = time.perf_counter()
        ca.retrieve(decoded["image"], both, split.test, mean=mean)
        seconds = time.perf_counter() - start
        found["search"] = {
            "pictures": len(both),
            "seconds": seconds,
            "peak_gb": peak_bytes() / 1e9,
        }
    return found


def print_table(found: dict) -> None:
    print("| gallery | top-1 | top-5 | median rank | rank percentile |")
    print("| --- | --- | --- | --- | --- |")
    for one in found["galleries"]:
        cells = [
            "{:.3f} [{:.3f}, {:.3f}]".format(*one[name])
            for name in ("top-1", "top-5", "rank percentile")
        ]
        rank = f"{one['median rank']:g}"
        print(f"| {one['size']:,} | {cells[0]} | {cells[1]} | {rank} | {cells[2]} |")
    for name in ("extraction", "search"):
        one = found[name]
        print(
            f"{name} of {one['pictures']:,} pictures: {one['seconds']:.1f} s, peak memory "
            f"{one['peak_gb']:.2f} GB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, help="print the table of a file of results only")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(json.loads(arguments.table.read_text()))
        return
    found = run(arguments.pictures)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print_table(found)


if __name__ == "__main__":
    main()
