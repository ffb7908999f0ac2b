"""Check additional inputs of metrics: embeddings, responses and categories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError, ShapeError

__all__ = ["MAX_GROUPS", "MIN_GROUP", "ExtraArrays", "prepare_arrays"]

MIN_GROUP, MAX_GROUPS = 5, 10
_KNOWN = re.compile(r"(image|brain)_embeddings|(predicted_)?betas_.+")


@dataclass
class ExtraArrays:
    """Arrays by name, and notes on arrays that cannot be used."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def prepare_arrays(
    inputs: Mapping[str, NDArray[Any]] | None,
    categories: Sequence[str] | None,
    n: int,
    judge: Any,
    read_classes: Sequence[str] | None = None,
) -> ExtraArrays:
    """Check arrays, and convert categories to groups and to labels of the judge.

    Parameters
    ----------
    inputs : mapping of str to array, optional
    categories : sequence of str, optional
    n : int
        Number of images.
    judge : str, path, Judge or None
    read_classes : sequence of str, optional
        Classes that the judge can predict; all by default.

    Returns
    -------
    Inputs

    Raises
    ------
    CalcarineError
        If an array or the categories do not have one entry for each image, or the judge does not
        have a class of ``read_classes``.
    """
    result = ExtraArrays(dict(inputs or {}))
    unknown = [name for name in result.arrays if not _KNOWN.fullmatch(name)]
    for name in unknown:
        del result.arrays[name]
    if unknown:
        result.notes.append(
            f"No metric uses the arrays {', '.join(unknown)}; metrics use image_embeddings, "
            "brain_embeddings, betas_REGION and predicted_betas_REGION."
        )
    for name, array in result.arrays.items():
        if len(array) != n:
            raise ShapeError(
                f"The array {name} has {len(array)} rows for {n} images; give one row for each."
            )
    if categories is None:
        return result
    if len(categories) != n:
        raise ShapeError(
            f"There are {len(categories)} categories for {n} images; give one for each image."
        )
    names = [str(category) for category in categories]
    _groups(names, result)
    if judge is not None:
        _labels(names, judge, read_classes, result)
    return result


def _groups(names: list[str], result: ExtraArrays) -> None:
    codes = np.unique(np.asarray(names), return_inverse=True)[1]
    counts = np.bincount(codes)
    if len(counts) > MAX_GROUPS or counts.min() < MIN_GROUP:
        result.notes.append(
            "Identification within category is left out, because it needs at most "
            f"{MAX_GROUPS} categories with at least {MIN_GROUP} images each."
        )
        return
    result.arrays["groups"] = codes


def _labels(
    names: list[str], judge: Any, read_classes: Sequence[str] | None, result: ExtraArrays
) -> None:
    from calcarine.evaluation.networks.judges import Judge, load_judge

    labels = (judge if isinstance(judge, Judge) else load_judge(judge, "cpu")).labels
    place = {label: index for index, label in enumerate(labels)}
    allowed = list(labels) if read_classes is None else [str(name) for name in read_classes]
    unknown = [name for name in allowed if name not in place]
    if unknown:
        raise SettingError(
            f"The judge has no class {unknown[0]!r}; choose read_classes among {', '.join(labels)}."
        )
    unread = sorted(set(names) - set(allowed))
    if unread:
        result.notes.append(
            f"Category accuracy is left out, because the judge has no class {', '.join(unread)}."
        )
        return
    readable = np.unique([place[name] for name in allowed])
    result.arrays["labels"] = np.asarray([place[name] for name in names])
    result.arrays["readable"] = np.broadcast_to(readable, (len(names), len(readable)))
