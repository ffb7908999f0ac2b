"""GOD as rearranged by other laboratories: ``sbj_N.npz``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calcarine.datasets._numpy_files import NpzFile
from calcarine.datasets.god._ids import first_index, picture_list
from calcarine.datasets.god._subject_files import INFO, WHO, GodTrials, add_unions
from calcarine.errors import DamagedFileError

__all__ = ["matches", "read_rearranged", "regions"]


def regions(file: NpzFile, count: int) -> dict[str, NDArray[np.bool_]]:
    """Return boolean masks over the voxels, by name."""
    results = {}
    for name in (name for name in file.names if not name.startswith("arr_")):
        mask = file.array(name, 1, "b")
        if mask.shape != (count,):
            raise DamagedFileError(
                f"{WHO}: the mask {name} in {file.path} is of {len(mask)} voxels and the responses "
                f"are of {count}; get the file again."
            )
        results[name] = mask
    return results


def matches(
    trials: NDArray[np.float32], labels: NDArray[np.int64], means: NDArray[np.float32]
) -> float:
    """Return the share of test pictures with a mean most similar to its row of ``means``."""
    own = np.zeros(means.shape)
    np.add.at(own, labels, trials)
    own /= np.maximum(np.bincount(labels, minlength=len(means)), 1)[:, None]
    a, b = (x - x.mean(1, keepdims=True) for x in (own, means.astype(np.float64)))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        similarity = a @ b.T
    return float((np.nan_to_num(similarity, nan=-2).argmax(1) == np.arange(len(means))).mean())


def read_rearranged(
    path: Path, folders: list[Path], counts: dict[str, int], given: int | None = None
) -> GodTrials:
    """Read one subject of the rearranged form.

    Parameters
    ----------
    path : Path
        ``sbj_N.npz``.
    folders : list of Path
        Folders to search for lists of pictures.
    counts : dict of str to int
        How many ``"train"`` and ``"test"`` pictures ``images_*.npz`` has,
        where it is there.
    given : int, optional
        Where ``arr_3`` and ``arr_4`` begin, if known.
    """
    file = NpzFile(path, WHO, INFO.source)
    with np.errstate(over="ignore", invalid="ignore"):
        train = file.array("arr_0", 2).astype(np.float32)
        trials, labels = _test(file, counts.get("test"), given)
    voxels = train.shape[1]
    if trials.shape[1] != voxels:
        raise DamagedFileError(
            f"{WHO}: arr_0 of {path} has {voxels} voxels and its test has {trials.shape[1]}; get "
            "the file again."
        )
    index = file.array("arr_3", 1)
    if len(index) != len(train):
        raise DamagedFileError(
            f"{WHO}: arr_3 of {path} numbers {len(index)} trials and arr_0 has {len(train)}; get "
            "the file again."
        )
    names_train, names_test = picture_list(folders, "train"), picture_list(folders, "test")
    known = counts.get("train") or (len(names_train) if names_train else None)
    where = f"{WHO}: arr_3 (training index) of {path}"
    index = index.astype(np.int64) - first_index(index, known, where, given)
    first, first_rows = _named(index, names_train, "god-train-{:04d}", path)
    second, second_rows = _named(labels, names_test, "god-test-{:02d}", path)
    is_test = np.arange(len(train) + len(trials)) >= len(train)
    nowhere = np.full((voxels, 3), np.nan)
    return GodTrials(
        responses=np.concatenate([train, trials]),
        names=first + second,
        is_test=is_test,
        sessions=np.where(is_test, 2, 1).astype(np.int64),
        voxels=pd.DataFrame(nowhere, columns=["x", "y", "z"]),
        rois=add_unions(regions(file, voxels)),
        rows={"train": first_rows, "test": second_rows},
    )


def _named(
    index: NDArray[np.int64], names: list[str] | None, pattern: str, path: Path
) -> tuple[list[str], dict[str, int]]:
    if names is not None and int(index.max()) >= len(names):
        raise DamagedFileError(
            f"{WHO}: {path} numbers {int(index.max()) + 1} pictures and the list names "
            f"{len(names)}; take the list that came with it."
        )
    results = [names[row] if names else pattern.format(row) for row in index.tolist()]
    return results, dict(zip(results, index.tolist(), strict=True))


def _test(
    file: NpzFile, count: int | None, given: int | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return test trials and their pictures; the means of the file if it has no trials."""
    means = file.array("arr_2", 2).astype(np.float32) if "arr_2" in file else None
    if "arr_1" not in file or "arr_4" not in file:
        if means is None:
            raise DamagedFileError(
                f"{WHO}: {file.path} has neither test trials (arr_1 and arr_4) nor their means "
                f"(arr_2); the right file is from {INFO.source}."
            )
        return means, np.arange(len(means))
    trials, labels = file.array("arr_1", 2).astype(np.float32), file.array("arr_4", 1)
    if len(labels) != len(trials):
        raise DamagedFileError(
            f"{WHO}: arr_4 of {file.path} labels {len(labels)} trials and arr_1 has {len(trials)}; "
            "get the file again."
        )
    known = len(means) if means is not None else count
    base = first_index(labels, known, f"{WHO}: arr_4 (test labels) of {file.path}", given)
    rows = labels.astype(np.int64) - base
    if means is not None and means.shape[1] == trials.shape[1]:
        share = matches(trials, rows, means)
        if share < 0.5:
            raise DamagedFileError(
                f"{WHO}: the means of arr_1 by arr_4 of {file.path} are like arr_2 for only "
                f"{share:.0%} of the test pictures, so arr_4 orders them differently; get the file "
                "again, or load the form h5."
            )
    return trials, rows
