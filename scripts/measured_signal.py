"""How much can ridge read from each of the small measured data sets?

    python scripts/measured_signal.py --data DIR       # the folder above those of the data sets

digits69, miyawaki_vbcca: voxels to pixels, mean pixel r over test stimuli and splits, and the
mean training picture.  ncc_s2, haxby_slice: which category a left-out run's blocks are of, and
chance.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

from calcarine import datasets
from calcarine.linear import RidgeCV, RidgeEdgeWarning


def pixel_correlation(name: str, data: Path) -> str:
    dataset = datasets.load_dataset(name, data)
    found, floor = [], []
    for split in dataset.splits:
        train, test = dataset.train(split), dataset.test(split)
        seen = dataset.stimuli.images(train.stimulus_ids)[..., 0].reshape(len(train), -1) / 255
        truth = dataset.stimuli.images(test.stimulus_ids)[..., 0].reshape(len(test), -1) / 255
        ridge = RidgeCV(n_folds=min(5, len(set(train.stimulus_ids))))
        ridge.fit(train.data, seen, groups=np.asarray(train.stimulus_ids))
        for prediction, picture in zip(ridge.predict(test.data), truth, strict=True):
            found.append(np.corrcoef(prediction, picture)[0, 1])
            floor.append(np.corrcoef(seen.mean(0), picture)[0, 1])
    return (
        f"{name:15} mean pixel r {np.mean(found):.3f}, training mean {np.mean(floor):.3f} "
        f"({len(dataset.splits)} splits)"
    )


def category_accuracy(name: str, data: Path) -> str:
    dataset = datasets.load_dataset(name, data)
    right = []
    for split in dataset.splits:
        train, test = dataset.train(split), dataset.test(split)
        names = sorted({own[0] for own in dataset.stimuli.categories()})
        shown = [own[0] for own in dataset.stimuli.categories(train.stimulus_ids)]
        wanted = [own[0] for own in dataset.stimuli.categories(test.stimulus_ids)]
        targets = np.array([[own == each for each in names] for own in shown], dtype=float)
        # A run is left out inside the training runs as it is outside.
        ridge = RidgeCV(cv="logo", alpha_per="all", alphas=np.logspace(-4, 6, 21))
        ridge.fit(train.data, targets, groups=train.sessions)
        read = np.asarray(names)[ridge.predict(test.data).argmax(1)]
        right += (read == np.asarray(wanted)).tolist()
    return (
        f"{name:15} category accuracy {np.mean(right):.3f}, chance {1 / len(names):.3f} "
        f"({len(right)} stimuli in {len(dataset.splits)} splits)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    warnings.simplefilter("ignore", RidgeEdgeWarning)
    for name in ("digits69", "miyawaki_vbcca"):
        print(pixel_correlation(name, data))
    for name in ("ncc_s2", "haxby_slice"):
        print(category_accuracy(name, data))


if __name__ == "__main__":
    main()
