"""The parts of a data set from arrays in memory, for `BrainDataset.from_arrays`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from calcarine.brain.responses import make_responses
from calcarine.brain.scaling import ZScore, check_zscore, scale_sessions
from calcarine.brain.split import Split
from calcarine.errors import CalcarineError, SettingError, ShapeError, did_you_mean
from calcarine.stimuli.stimulus_set import StimulusSet

__all__ = ["Images", "Pictures", "Test", "Texts", "parts_from_arrays", "voxel_table"]

Images: TypeAlias = StimulusSet | Mapping[Any, ArrayLike] | ArrayLike
"""Pictures: a `StimulusSet`, a mapping of id to picture, or an array."""

Test: TypeAlias = float | int | Sequence[object] | Split | Sequence[Split]
"""Test stimuli: a share, a number, ids, or splits."""

Texts: TypeAlias = Mapping[Any, str | Sequence[str]] | Sequence[str | Sequence[str]] | None
"""Captions or categories, by id or in the order of the pictures."""


@dataclass(frozen=True)
class Pictures:
    """The arguments of `BrainDataset.from_arrays` that describe the pictures."""

    images: Images
    image_ids: Sequence[object] | None
    captions: Texts
    categories: Texts


def parts_from_arrays(
    who: str,
    responses: ArrayLike,
    stimulus_ids: Sequence[object],
    pictures: Pictures,
    test: Test,
    sessions: ArrayLike | None,
    seed: int,
    zscore: ZScore,
) -> dict[str, Any]:
    """Check the arguments of `BrainDataset.from_arrays` and return parts of a data set.

    Returns
    -------
    dict
        ``responses``, ``stimuli``, ``splits`` and ``scaling``.
    """
    values = _responses(responses, who)
    shown = _ids(stimulus_ids, "stimulus_ids", who)
    if len(shown) != len(values):
        raise ShapeError(
            f"{who}: there are {len(values)} rows of responses and {len(shown)} stimulus ids; "
            "give the id of the stimulus of each trial."
        )
    numbers = _sessions(sessions, len(shown), who)
    stimuli = _stimuli(pictures, shown, who)
    splits = _splits(test, shown, seed, who)
    scaling = None
    if check_zscore(zscore, who) != "none":
        train = np.isin(shown, splits[0].train)
        values, scaling = scale_sessions(values, numbers, train, shown, zscore, who)
    return {
        "responses": make_responses(values, shown, numbers),
        "stimuli": stimuli,
        "splits": splits,
        "scaling": scaling,
    }


def _responses(responses: ArrayLike, who: str) -> NDArray[np.float32]:
    values = np.asarray(responses)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ShapeError(
            f"{who}: responses must be numbers of shape (trial, voxel), not {values.dtype} of "
            f"shape {values.shape}."
        )
    return values.astype(np.float32)


def _ids(ids: Sequence[object], what: str, who: str) -> list[str]:
    if isinstance(ids, str):
        raise SettingError(f"{who}: {what} must be a list of ids, such as ['{ids}'], not one text.")
    return [str(key) for key in ids]


def _sessions(sessions: ArrayLike | None, count: int, who: str) -> NDArray[np.int64]:
    if sessions is None:
        return np.zeros(count, np.int64)
    numbers = np.asarray(sessions)
    if numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        raise ShapeError(
            f"{who}: sessions must be whole numbers, one for each of {count} trials, not "
            f"{numbers.dtype} of shape {numbers.shape}."
        )
    return numbers.astype(np.int64)


def _stimuli(given: Pictures, shown: list[str], who: str) -> StimulusSet:
    if isinstance(given.images, StimulusSet):
        if given.image_ids is not None or given.captions or given.categories:
            raise SettingError(
                f"{who}: a StimulusSet has ids, captions and categories of its own; leave "
                "image_ids, captions and categories out."
            )
        return given.images
    pictures, ids = _pictures(given.images, given.image_ids, shown, who)
    _check_known(shown, ids, "stimulus_ids", who)
    texts = {
        what: _by_id(each, ids, what, who)
        for what, each in (("captions", given.captions), ("categories", given.categories))
    }
    try:
        return StimulusSet.from_arrays(pictures, ids, **texts)
    except CalcarineError as error:
        raise type(error)(f"{who}: {error}") from error


def _pictures(
    images: Any, image_ids: Sequence[object] | None, shown: list[str], who: str
) -> tuple[NDArray[Any], list[str]]:
    if isinstance(images, Mapping):
        if image_ids is not None:
            raise SettingError(f"{who}: a mapping of pictures has ids already; omit image_ids.")
        arrays = {str(key): np.asarray(picture) for key, picture in images.items()}
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) != 1:
            sizes = ", ".join(map(str, sorted(shapes))) or "none"
            raise ShapeError(f"{who}: all pictures must have one shape; there are {sizes}.")
        return np.stack(list(arrays.values())), list(arrays)
    pictures = np.asarray(images)
    if image_ids is not None:
        return pictures, _ids(image_ids, "image_ids", who)
    if len(pictures) != len(shown):
        raise ShapeError(
            f"{who}: there are {len(pictures)} images for {len(shown)} trials; give image_ids, the "
            "id of each image, or one image for each trial."
        )
    return _first_of_each(pictures, shown, who)


def _first_of_each(
    pictures: NDArray[Any], shown: list[str], who: str
) -> tuple[NDArray[Any], list[str]]:
    """Reduce one picture for each trial to one for each stimulus."""
    first: dict[str, int] = {}
    for row, key in enumerate(shown):
        place = first.setdefault(key, row)
        if place != row and not np.array_equal(pictures[place], pictures[row]):
            raise SettingError(
                f"{who}: trials {place} and {row} show stimulus {key} and have different images; "
                "give different pictures different ids."
            )
    return pictures[list(first.values())], list(first)


def _by_id(texts: Texts, ids: list[str], what: str, who: str) -> Any:
    if not isinstance(texts, Mapping):
        return texts
    known = {str(key): text for key, text in texts.items()}
    missing = [key for key in ids if key not in known]
    if missing:
        raise SettingError(
            f"{who}: {what} lack {len(missing)} of {len(ids)} stimuli, the first {missing[0]}."
        )
    return [known[key] for key in ids]


def _check_known(names: Sequence[str], known: Sequence[str], what: str, who: str) -> None:
    unknown = [key for key in dict.fromkeys(names) if key not in set(known)]
    if unknown:
        raise SettingError(
            f"{who}: {len(unknown)} of the {what} are not among the {len(known)} images, the first "
            f"{unknown[0]}; the ids of the images are as {known[0] if known else 'none'}."
            + did_you_mean(unknown[0], known)
        )


def _splits(test: Any, shown: list[str], seed: int, who: str) -> tuple[Split, ...]:
    if isinstance(test, Split):
        return (test,)
    ids = list(dict.fromkeys(shown))
    if isinstance(test, int | float | np.number) and not isinstance(test, bool):
        return (
            _random_split(test.item() if isinstance(test, np.number) else test, ids, seed, who),
        )
    if isinstance(test, str) or not isinstance(test, Sequence | set | frozenset | np.ndarray):
        raise SettingError(
            f"{who}: test is a share such as 0.1, a number of stimuli, a list of ids or a Split, "
            f"not {test!r}."
        )
    given = list(test)
    if given and all(isinstance(each, Split) for each in given):
        return tuple(given)
    return (_listed_split([str(key) for key in given], ids, who),)


def _random_split(size: int | float, ids: list[str], seed: int, who: str) -> Split:
    total = len(ids)
    whole = isinstance(size, int)
    count = int(size) if whole else max(1, round(float(size) * total))
    if (not whole and not 0 < float(size) < 1) or not 0 < count < total:
        raise SettingError(
            f"{who}: a test of {size} does not fit {total} stimuli; give a share between 0 and 1 "
            f"or a number from 1 to {total - 1}."
        )
    order = np.random.default_rng(seed).permutation(sorted(ids))
    chosen = {str(key) for key in order[:count]}
    rule = f"{size if whole else format(float(size), 'g')} of the stimuli, drawn at random"
    return Split(
        "random",
        tuple(key for key in ids if key not in chosen),
        tuple(key for key in ids if key in chosen),
        rule,
        seed,
    )


def _listed_split(test: list[str], ids: list[str], who: str) -> Split:
    unknown = [key for key in test if key not in set(ids)]
    if not test or unknown:
        problem = f"{unknown[0]} was shown in no trial" if unknown else "the list is empty"
        raise SettingError(
            f"{who}: test must list ids of stimuli that were shown, and {problem}; ids are as "
            f"{ids[0] if ids else 'none'}." + (did_you_mean(unknown[0], ids) if unknown else "")
        )
    chosen = set(test)
    return Split(
        "test-list",
        tuple(key for key in ids if key not in chosen),
        tuple(dict.fromkeys(test)),
        "the listed stimuli are the test",
    )


def voxel_table(voxels: pd.DataFrame | ArrayLike | None, count: int, who: str) -> pd.DataFrame:
    """Return a table of coordinates, NaN where they are not known."""
    if isinstance(voxels, pd.DataFrame):
        return voxels
    if voxels is None:
        return pd.DataFrame(np.full((count, 3), np.nan), columns=["x", "y", "z"])
    places = np.asarray(voxels, dtype=np.float64)
    if places.shape != (count, 3):
        raise ShapeError(
            f"{who}: voxels must be coordinates of shape ({count}, 3), not {places.shape}."
        )
    return pd.DataFrame(places, columns=["x", "y", "z"])
