"""Finding splits by name or in a file, and saving them."""

from __future__ import annotations

import re
from pathlib import Path

from calcarine.brain.dataset import BrainDataset
from calcarine.brain.split import Split
from calcarine.errors import SettingError
from calcarine.splits.stimulus_pool import SplitWithPartners

__all__ = ["find_split", "read_split", "save_splits"]

_NAME = re.compile(r"[\w+=][\w+=. -]*")
_LONGEST = 100


def find_split(dataset: BrainDataset, wanted: str | Path) -> Split:
    """Return a split of a data set by its name, or from a JSON file of `Split.save`.

    Parameters
    ----------
    dataset : BrainDataset
        All stimuli of the split must have been shown in it.
    wanted : str or Path
        A name of a split of the data set, or else a path.

    Returns
    -------
    Split

    Raises
    ------
    CalcarineError
        If it is neither, the file was changed by hand, a stimulus was not
        shown, or its name could not be the name of a folder.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.splits import find_split
    >>> seen = ca.StimulusSet.from_scenes(seed=0, indices=range(5))
    >>> brain = ca.BrainDataset.from_arrays(np.zeros((5, 3)), seen.ids, seen, test=1)
    >>> find_split(brain, "random") is brain.split()
    True
    >>> path = ca.Split("mine", seen.ids[:3], seen.ids[3:], rule="by hand").save("mine.json")
    >>> len(find_split(brain, "mine.json").test)
    2
    """
    text = str(wanted)
    for split in dataset.splits:
        if split.name == text:
            return split
    path = Path(text)
    if not path.is_file():
        names = ", ".join(split.name for split in dataset.splits[:5])
        more = " and others" if len(dataset.splits) > 5 else ""
        raise SettingError(
            f"{text} is neither a file nor a split of data set {dataset.name}, which has "
            f"{names}{more}; 'calcarine datasets split' makes files of splits."
        )
    return dataset.split(read_split(path))


def read_split(path: str | Path) -> Split:
    """Return a split from a JSON file; its name must be valid as a folder name.

    Raises
    ------
    CalcarineError
        If it cannot be read, was changed by hand, or has another name.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.splits import read_split
    >>> path = ca.Split("mine", ("a", "b"), ("c",), rule="by hand").save("mine.json")
    >>> read_split(path).test
    ('c',)
    """
    split = Split.read(path)
    if len(split.name) > _LONGEST or not _NAME.fullmatch(split.name):
        raise SettingError(
            f"{path}: the split's name '{split.name[:_LONGEST]}' cannot name a folder; use "
            f"letters, digits, points and hyphens, {_LONGEST} at most."
        )
    return split


def save_splits(made: SplitWithPartners, folder: str | Path) -> list[Path]:
    """Save a split and its partners to files named after them and their hashes.

    Parameters
    ----------
    made : SplitWithPartners
        From a function of `calcarine.splits.split_rules`.
    folder : str or Path
        Made when missing.

    Returns
    -------
    list of Path
        ``NAME-HASH.json`` of the split, then of its partners.

    Examples
    --------
    >>> from calcarine.splits import random_split, save_splits
    >>> made = random_split([f"img{i}" for i in range(20)], n_partners=1)
    >>> len(save_splits(made, "splits"))
    2
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    return [split.save(root / f"{split.name}-{split.digest()[:8]}.json") for split in made.all]
