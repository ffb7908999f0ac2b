"""Names of GOD's pictures, and the numbers that encode them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError, DamagedFileError, SettingError
from calcarine.files import read_json
from calcarine.stimuli.tables import read_text

__all__ = [
    "category",
    "class_names",
    "first_index",
    "names_of",
    "parse_name",
    "picture_list",
    "stimulus_name",
]

_NAME = re.compile(r"n(\d{8})_(\d{1,9})(?!\d)")
_LISTS = {
    "train": ("imagenet_training_label.csv", "imageID_training.csv", "data/imageID_training.csv"),
    "test": ("imagenet_testing_label.csv", "imageID_test.csv", "data/imageID_test.csv"),
}


def stimulus_name(label: float) -> str:
    """Return the name of the picture with the label ``<synset>.<number in six digits>``.

    Parameters
    ----------
    label : float
        Such as 1518878.010042.

    Returns
    -------
    str
        Such as ``"n01518878_10042"``.

    Raises
    ------
    CalcarineError
        If the number is not a label: without a picture's number, or
        with more than six decimals, as when it was stored in float32.

    Examples
    --------
    >>> from calcarine.datasets.god import stimulus_name
    >>> stimulus_name(1518878.010042)
    'n01518878_10042'
    """
    value = float(label)
    if not 1 <= value < 1e8:
        raise CalcarineError(
            f"{value!r} is not a label of a GOD picture; labels are "
            "<synset>.<number in six digits>, such as 1518878.010042."
        )
    # Six fixed decimals: the shortest text of 1518878.00001 would lose the zero of picture 10.
    synset, number = f"{value:.6f}".split(".")
    if abs(value - float(f"{synset}.{number}")) > 2e-8 or int(number) == 0:
        raise CalcarineError(
            f"The label {value!r} has no picture number in six decimals; it was rounded, as by "
            "float32, so take labels from the original file in float64."
        )
    return f"n{int(synset):08d}_{int(number)}"


def names_of(labels: NDArray[np.float64], where: str) -> list[str]:
    """Return the names of many labels.

    Raises
    ------
    CalcarineError
        If a label is none, or all went through float32.
    """
    if len(labels) and np.isfinite(labels).all():
        with np.errstate(over="ignore"):
            single = labels.astype(np.float32).astype(np.float64)
        if (single == labels).all():
            raise DamagedFileError(
                f"{where}: the labels of pictures were stored in float32, which holds no six "
                "decimals of a synset; take the original file."
            )
    try:
        known = {value: stimulus_name(value) for value in np.unique(labels).tolist()}
    except CalcarineError as error:
        raise CalcarineError(f"{where}: {error}") from error
    return [known[value] for value in labels.tolist()]


def category(name: str) -> str:
    """Return the synset of a picture, for example ``"n01518878"``; empty if its name has none."""
    result = _NAME.search(name)
    return f"n{result.group(1)}" if result else ""


def parse_name(text: str) -> str | None:
    """Return the name of a picture in a file name or a line, the last if there are several."""
    result = _NAME.findall(text)
    return f"n{result[-1][0]}_{int(result[-1][1])}" if result else None


def picture_list(places: Sequence[Path], side: str) -> list[str] | None:
    """Return the names of the pictures in the order of ``images_*.npz``, from a CSV of a release.

    Parameters
    ----------
    places : sequence of Path
        Folders to look in.
    side : str
        ``"train"`` or ``"test"``.

    Returns
    -------
    list of str or None
        None if there is no such file.

    Raises
    ------
    CalcarineError
        If a line names no picture, or one occurs twice.
    """
    for path in (place / name for place in places for name in _LISTS[side]):
        if path.is_file():
            return _read_list(path)
    return None


def _read_list(path: Path) -> list[str]:
    text = read_text(path, "list of pictures")
    try:
        lines = csv.reader(io.StringIO(text, newline=""))
        rows = [row for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DamagedFileError(f"The list of pictures {path} cannot be read ({error}).") from error
    names = []
    for number, row in enumerate(rows, start=1):
        name = parse_name(",".join(row))
        if name is None:
            try:
                name = stimulus_name(float(row[0]))
            except (ValueError, CalcarineError):
                if number == 1:  # a line of headings
                    continue
                raise DamagedFileError(
                    f"{path}, line {number}: '{','.join(row)[:60]}' names no picture, as "
                    "n01518878_10042.JPEG does."
                ) from None
        names.append(name)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DamagedFileError(f"{path} lists {twice} twice; take the original list.")
    return names


def first_index(
    index: NDArray[np.generic], count: int | None, where: str, given: int | None = None
) -> int:
    """Return whether an index begins at 0 or at 1, from its range.

    Parameters
    ----------
    index : array
        Whole numbers.
    count : int, optional
        How many things they number, None where unknown.
    where : str
        Name of the content, for the error.
    given : int, optional
        0 or 1 where the user knows.

    Raises
    ------
    CalcarineError
        If they are no whole numbers, do not fit, or fit both.
    """
    values = np.asarray(index, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all() or (values != np.round(values)).any():
        raise DamagedFileError(f"{where} should be whole numbers and is not; get the file again.")
    low, high = int(values.min()), int(values.max())
    distinct = len(np.unique(values))
    total = count if count is not None else distinct
    fits = [base for base in (0, 1) if low >= base and high < total + base]
    if given is not None:
        fits = [base for base in fits if base == given]
    if not fits:
        raise DamagedFileError(
            f"{where} runs from {low} to {high}, which does not number the {total} pictures; the "
            "files do not belong together."
        )
    if len(fits) > 1:
        raise SettingError(
            f"{where} runs from {low} to {high} of {total} pictures, so it is unknown whether it "
            "begins at 0 or 1; say so with first_index=0 or first_index=1."
        )
    return fits[0]


def class_names(places: Sequence[Path]) -> dict[str, str]:
    """Return words for synsets, from ``imagenet_class_index.json`` if it exists."""
    for place in places:
        path = place / "imagenet_class_index.json"
        if not path.is_file():
            continue
        try:
            content = read_json(path)
            rows = [[str(cell) for cell in row] for row in content.values()]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise DamagedFileError(
                f"{path} is not a class index of ImageNet ({error}); get it again or delete it."
            ) from error
        return {key: row[-1].replace("_", " ") for row in rows if row for key in row[:-1]}
    return {}
