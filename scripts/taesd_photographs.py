"""Real photographs through the real latent space of Stable Diffusion v1, on a CPU.

    python scripts/taesd_photographs.py --weights FOLDER [--out photographs]

FOLDER holds taesd_encoder.safetensors and taesd_decoder.safetensors (MIT, madebyollin/taesd). The
photographs come with scikit-image. Their latents z (4 x 32 x 32, from 256 px) are given to
simulated voxels: each pools z over a Gaussian window with weights of its own, and has noise. Ridge
decodes z from the voxels, and TAESD's decoder shows it. Training crops are taken from the left two
thirds of each photograph and test crops from the right third, so that no pixel is in both.

Prints PSNR and pixel correlation with 95 % intervals over test crops, and the ceiling (true z)
and the floors (training mean, another crop's voxels), and writes figures.json and sheet.png.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from calcarine.brain import Responses
from calcarine.decoding.reconstruct import to_uint8
from calcarine.decoding.ridge_fits import fit_ridge
from calcarine.diffusion import Autoencoder
from calcarine.evaluation.statistics.intervals import bootstrap_interval
from calcarine.stimuli import resize_images

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "retina")
SIDE, REPEATS = 256, 3


@cache
def photographs() -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(data, name)()) for name in NAMES}


def crops(
    part: tuple[float, float], count: int, rng: np.random.Generator, side: int = SIDE
) -> np.ndarray:
    """Random square crops of a vertical strip of each photograph, some mirrored."""
    found = []
    pictures = list(photographs().values())
    for number in range(count):
        picture = pictures[number % len(pictures)]
        height, width = picture.shape[:2]
        left, right = int(part[0] * width), int(part[1] * width)
        largest = min(height, right - left)
        size = int(rng.integers(min(96, largest), largest + 1))
        x = int(rng.integers(left, right - size + 1))
        y = int(rng.integers(0, height - size + 1))
        crop = resize_images(picture[None, y : y + size, x : x + size], side)[0]
        found.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return np.ascontiguousarray(np.stack(found))


def mixing(shape: tuple[int, int, int], voxels: int, rng: np.random.Generator) -> np.ndarray:
    """Weights (latent dimensions, voxels): Gaussian windows over z, channels mixed at random."""
    channels, height, width = shape
    rows, columns = np.mgrid[:height, :width]
    y, x = rng.uniform(0, height, voxels), rng.uniform(0, width, voxels)
    spread = rng.uniform(0.7, 2.5, voxels)
    distance = (rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2
    window = np.exp(-distance / (2 * spread**2))
    window /= np.sqrt((window**2).sum((0, 1)))
    weights = rng.standard_normal((channels, voxels))
    mixed = weights[:, None, None, :] * window[None]
    return mixed.reshape(-1, voxels).astype(np.float32)


def psnr(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    error = ((truth / 255.0 - made / 255.0) ** 2).mean((1, 2, 3))
    return -10 * np.log10(error)


def correlation(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    a, b = (x.reshape(len(x), -1).astype(float) for x in (truth, made))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1) + 1e-12)


def experiment(
    autoencoder: Autoencoder,
    n_train: int = 240,
    n_test: int = 48,
    voxels: int = 2000,
    noise: float = 1.0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Pictures of each method and the truth, uint8."""
    rng = np.random.default_rng(0)
    train, test = crops((0, 2 / 3), n_train, rng), crops((2 / 3, 1), n_test, rng)
    z_train, z_test = autoencoder.encode(train), autoencoder.encode(test)
    shape = z_train.shape[1:]
    mix = mixing(shape, voxels, rng)
    signal = z_train.reshape(n_train, -1) @ mix
    centre, scale = signal.mean(0), signal.std(0)

    def measure(z: np.ndarray, repeats: int) -> np.ndarray:
        clean = np.repeat((z.reshape(len(z), -1) @ mix - centre) / scale, repeats, axis=0)
        return (clean + noise * rng.standard_normal(clean.shape)).astype(np.float32)

    ids = tuple(f"crop-{i:04d}" for i in range(n_train))
    shown = tuple(i for i in ids for _ in range(REPEATS))
    sessions = np.zeros(len(shown), np.int64)
    responses = Responses(measure(z_train, REPEATS), shown, "train", sessions)
    ridge, summary = fit_ridge(responses, ids, z_train.reshape(n_train, -1), None, 5)
    print(f"median penalty {summary.median_alpha:.3g}, cross-validated r2 {summary.mean_cv_r2:.3f}")
    averaged = measure(z_test, REPEATS).reshape(n_test, REPEATS, -1).mean(1)
    decoded = ridge.predict(averaged).reshape(n_test, *shape).astype(np.float32)
    mean = np.repeat(z_train.mean(0, keepdims=True), n_test, axis=0)
    other = np.roll(decoded, len(NAMES) // 2 + n_test // 2, axis=0)
    sets = {
        "ceiling: true z": z_test,
        "z decoded from voxels": decoded,
        "floor: training mean of z": mean,
        "floor: voxels of another photograph": other,
    }
    return {name: to_uint8(autoencoder.decode(z)) for name, z in sets.items()}, test


def round_trip(autoencoder: Autoencoder, side: int = 512) -> dict[str, float]:
    """PSNR of whole photographs, cropped to a square, through encoder and decoder."""
    found = {}
    for name, picture in photographs().items():
        least = min(picture.shape[:2])
        square = resize_images(picture[None, :least, :least], side, filter="lanczos")
        made = to_uint8(autoencoder.decode(autoencoder.encode(square)))
        found[name] = float(psnr(square, made)[0])
    return found


def sheet(truth: np.ndarray, methods: dict[str, np.ndarray], columns: int = 12) -> Image.Image:
    rows = [truth, *methods.values()]
    chosen = np.arange(columns)
    lines = [np.concatenate(list(resize_images(row[chosen], 128)), axis=1) for row in rows]
    return Image.fromarray(np.concatenate(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("photographs"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    autoencoder = Autoencoder.from_pretrained(options.weights)
    whole = round_trip(autoencoder)
    for name, value in whole.items():
        print(f"{name:<20} round trip at 512 px {value:5.1f} dB")
    methods, truth = experiment(autoencoder)
    figures: dict[str, object] = {"simulated_voxels": True, "round_trip_512_psnr": whole}
    for name, made in methods.items():
        row = {}
        for label, score in (("psnr", psnr(truth, made)), ("r", correlation(truth, made))):
            low, high = bootstrap_interval(score, 2000, seed=0)
            row[label] = [float(score.mean()), low, high]
        figures[name] = row
        print(
            f"{name:<32} PSNR {row['psnr'][0]:5.2f} [{row['psnr'][1]:.2f}, {row['psnr'][2]:.2f}] "
            f"dB   pixel r {row['r'][0]:.3f} [{row['r'][1]:.3f}, {row['r'][2]:.3f}]"
        )
    sheet(truth, methods).save(options.out / "sheet.png")
    (options.out / "figures.json").write_text(json.dumps(figures, indent=2))
    print(f"{time.monotonic() - began:.0f} s; pictures in {options.out / 'sheet.png'}")


if __name__ == "__main__":
    main()
