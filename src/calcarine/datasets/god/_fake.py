"""Files in the layout of GOD with simulated content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calcarine.datasets.bdata import write_bdata
from calcarine.errors import SettingError
from calcarine.simulation.linear_signal import draw_pictures, responses_with_signal

__all__ = ["fake"]

_REGIONS = ("V1", "V2", "V3", "V4", "LOC", "FFA", "PPA")
_DESCRIPTIONS = {
    "VoxelData": "1 = voxel responses",
    "stimulus_id": "Picture: synset.number in six digits",
    "DataType": "1 training, 2 perception test, 3 imagery test",
    "Session": "Session number",
    "Run": "Run number",
    "image_index": "Place of the picture in its list, from 1",
    "ROI_VC": "1 = visual cortex",
    "voxel_x": "x in mm",
    "voxel_y": "y in mm",
    "voxel_z": "z in mm",
}


@dataclass(frozen=True)
class _World:
    labels: NDArray[np.float64]
    pictures: NDArray[np.uint8]
    features: NDArray[np.float64]
    n_train: int


def fake(
    folder: str | Path,
    *,
    full_size: bool = False,
    seed: int = 0,
    people: int | None = None,
    voxels: int | None = None,
    size: int | None = None,
    pictures: str = "both",
    unit_range: bool = False,
) -> None:
    """Write both forms of GOD: ``SubjectN.h5`` and ``sbj_N.npz``, with pictures.

    Parameters
    ----------
    folder : str or Path
        Folder to write to.
    full_size : bool
        1200 training pictures, 50 test pictures shown 35 times and 4466
        voxels a subject (about 0.5 GB a subject).
    seed : int
        Seed of the content.
    people, voxels, size : int, optional
        How many subjects and voxels, and the side of pictures.
    pictures : str
        ``"npz"``, ``"folder"``, ``"both"`` or ``"none"``.
    unit_range : bool
        Whether the array file holds floats in 0..1, not bytes.

    Examples
    --------
    >>> import os
    >>> from calcarine.datasets import god
    >>> god.fake("god-fake", people=1, voxels=30, pictures="none")
    >>> sorted(os.listdir("god-fake"))[:2]
    ['Subject1.h5', 'imagenet_class_index.json']
    """
    if pictures not in ("npz", "folder", "both", "none"):
        raise SettingError(f"Pictures are npz, folder, both or none, not {pictures}.")
    rng = np.random.default_rng(seed)
    counts = (150, 8, 50, 35, 10) if full_size else (12, 5, 8, 5, 2)
    people = people or (5 if full_size else 2)
    n_voxels = voxels or (4466 if full_size else 70)
    side = size or (256 if full_size else 16)
    if not 1 <= people <= 5 or n_voxels < 2 * len(_REGIONS):
        raise SettingError("GOD has up to five subjects, and its regions need 14 voxels.")
    world = _world(rng, counts, side)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_pictures(folder, world, side, pictures, unit_range)
    for number in range(1, people + 1):
        _write_subject(folder, rng, world, number, n_voxels, counts)


def _world(rng: np.random.Generator, counts: tuple[int, ...], side: int) -> _World:
    n_classes, each, n_test = counts[:3]
    synsets = np.sort(rng.choice(np.arange(1_500_000, 13_000_000), n_classes + n_test, False))
    synsets = rng.permutation(synsets)
    train = np.repeat(synsets[:n_classes], each)
    numbers = rng.integers(1, 30_000, n_classes * each + n_test)
    # Picture numbers whose last digits are zeros, and of one to six digits.
    tricky = (10, 100, 7, 12000, 123450, 999999)
    numbers[: len(tricky)] = tricky
    numbers[-len(tricky) :] = tricky
    labels = np.concatenate([train, synsets[n_classes:]])
    labels = np.array([float(f"{s}.{n:06d}") for s, n in zip(labels, numbers, strict=True)])
    labels[: len(train)].sort()
    labels[len(train) :].sort()
    labels = np.concatenate([np.unique(labels[: len(train)]), labels[len(train) :]])
    _, groups = np.unique(np.floor(labels), return_inverse=True)
    images, features = draw_pictures(rng, groups.astype(np.int64), side)
    return _World(labels, images, features, len(labels) - n_test)


def _file_name(label: float) -> str:
    synset, number = f"{label:.6f}".split(".")
    return f"n{int(synset):08d}_{int(number)}"


def _write_pictures(
    folder: Path, world: _World, side: int, pictures: str, unit_range: bool
) -> None:
    halves = {
        "training": slice(0, world.n_train),
        "test": slice(world.n_train, len(world.labels)),
    }
    for half, own in halves.items():
        rows = zip(world.labels[own].tolist(), world.pictures[own], strict=True)
        if pictures in ("folder", "both"):
            place = folder / "stimuli" / half
            place.mkdir(parents=True)
            for label, picture in rows:
                # PNG data under another file ending, so that the colours of the signal stay exact.
                Image.fromarray(picture).save(place / f"{_file_name(label)}.JPEG", format="PNG")
        listed = (
            "imagenet_training_label.csv" if half == "training" else ("imagenet_testing_label.csv")
        )
        if pictures != "none":
            lines = [f"{v:.6f},{_file_name(v)}.JPEG" for v in world.labels[own].tolist()]
            (folder / listed).write_text("\n".join(lines) + "\n")
    if pictures in ("npz", "both"):
        images: NDArray[Any] = world.pictures
        if unit_range:
            images = (images / 255).astype(np.float32)
        np.savez(
            folder / f"images_{side}.npz",
            train_images=images[halves["training"]],
            test_images=images[halves["test"]],
        )
    synsets = sorted({_file_name(label)[:9] for label in world.labels.tolist()})
    index = {str(row): [key, f"thing_{row}"] for row, key in enumerate(synsets)}
    (folder / "imagenet_class_index.json").write_text(json.dumps(index))


def _write_subject(
    folder: Path,
    rng: np.random.Generator,
    world: _World,
    number: int,
    n_voxels: int,
    counts: tuple[int, ...],
) -> None:
    n_test, repeats, imagined = counts[2:]
    train = rng.permutation(world.n_train)
    test = world.n_train + np.concatenate([rng.permutation(n_test) for _ in range(repeats)])
    inner = world.n_train + np.concatenate([rng.permutation(n_test) for _ in range(imagined)])
    shown = np.concatenate([train, test, inner])
    kinds = np.repeat([1.0, 2.0, 3.0], [len(train), len(test), len(inner)])
    brain = responses_with_signal(rng, world.features, shown, n_voxels, noise=0.7)
    labels = world.labels[shown]
    # Imagery trials name a category and no picture.
    labels = np.where(kinds == 3, np.floor(labels), labels)
    index = np.where(shown < world.n_train, shown, shown - world.n_train) + 1.0
    run = np.concatenate(
        [np.arange(len(part)) // max(1, len(part) // 4) + 1 for part in (train, test, inner)]
    )
    marks = _marks(rng, n_voxels)
    padded = {key: np.concatenate([mark, np.full(5, np.nan)]) for key, mark in marks.items()}
    write_bdata(
        folder / f"Subject{number}.h5",
        {
            "VoxelData": brain,
            "DataType": kinds,
            "stimulus_id": labels,
            "image_index": index,
            "Session": (run + 1) // 2,
            "Run": run.astype(np.float64),
        },
        padded,
        _DESCRIPTIONS,
    )
    _write_rearranged(folder / f"sbj_{number}.npz", brain, shown, kinds, marks, world, rng)


def _marks(rng: np.random.Generator, n_voxels: int) -> dict[str, NDArray[np.float64]]:
    region = np.arange(n_voxels) * len(_REGIONS) // n_voxels
    add_unions = {"LVC": range(3), "HVC": range(4, 7), "VC": range(7)}
    named = {name: np.isin(region, [row]) for row, name in enumerate(_REGIONS)}
    named.update({name: np.isin(region, list(rows)) for name, rows in add_unions.items()})
    marks = {f"ROI_{name}": np.where(mask, 1.0, np.nan) for name, mask in named.items()}
    for axis in "xyz":
        marks[f"voxel_{axis}"] = np.round(rng.uniform(-60, 60, n_voxels), 1)
    return marks


def _write_rearranged(
    path: Path,
    brain: NDArray[np.float32],
    shown: NDArray[np.int64],
    kinds: NDArray[np.float64],
    marks: dict[str, NDArray[np.float64]],
    world: _World,
    rng: np.random.Generator,
) -> None:
    train, test = np.flatnonzero(kinds == 1), np.flatnonzero(kinds == 2)
    train = rng.permutation(train)
    labels = shown[test] - world.n_train
    means = np.stack([brain[test[labels == row]].mean(0) for row in range(labels.max() + 1)])
    masks = {key[4:]: mark == 1 for key, mark in marks.items() if key.startswith("ROI_")}
    noise = brain[test].std(0)
    np.savez(
        path,
        arr_0=brain[train],
        arr_1=brain[test],
        arr_2=means,
        arr_3=shown[train],
        arr_4=labels,
        arr_5=noise,
        arr_6=1 / noise,
        **masks,
    )
