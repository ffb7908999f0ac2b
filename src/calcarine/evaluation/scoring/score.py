"""Scores of reconstructions under named protocols."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import calcarine.evaluation.protocols.definitions  # noqa: F401 (registers the protocols)
from calcarine.checkpoints.network_weights import WeightsStore
from calcarine.errors import CalcarineError
from calcarine.evaluation.inputs.array_files import align_rows
from calcarine.evaluation.inputs.folders import open_folders, open_run, read_folder
from calcarine.evaluation.inputs.image_stacks import ImageStack, TestSet, from_array
from calcarine.evaluation.networks.feature_cache import FeatureCache
from calcarine.evaluation.networks.feature_networks import Networks
from calcarine.evaluation.protocols.protocol import find_protocol
from calcarine.evaluation.results.evaluation import Evaluation
from calcarine.evaluation.results.tables import sample_size_note
from calcarine.evaluation.scoring.extra_arrays import prepare_arrays
from calcarine.evaluation.scoring.measuring import measure
from calcarine.evaluation.scoring.records import (
    adjusted,
    per_image,
    record,
    shuffled,
)
from calcarine.evaluation.scoring.settings import ScoreSettings

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]


def score_arrays(
    truth: NDArray[Any],
    recon: NDArray[Any],
    *,
    ids: Sequence[str] | None = None,
    method: str = "reconstructions",
    test_set: str | None = None,
    categories: Sequence[str] | None = None,
    train: NDArray[np.uint8] | None = None,
    blurry: NDArray[Any] | None = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    **settings: Any,
) -> Evaluation:
    """Score reconstructions in memory.

    Parameters
    ----------
    truth : uint8 or float array of shape (n, height, width, 3)
        Ground truths; floats lie in [0, 1].
    recon : uint8 or float array of shape (n, height, width, 3) or (n, samples, height, width, 3)
    ids : sequence of str, optional
        Names of the images; numbers by default.
    method, test_set : str
        Names for the records.
    categories : sequence of str, optional
        Category of each image, for the protocol "calcarine".
    train : uint8 array of shape (n_train, height, width, 3), optional
        Training images; their mean and random ones are scored as floors.
    blurry : array like `recon`, optional
        Low-level reconstructions, of which the protocol "mindeye" blends in a quarter.
    inputs : mapping of str to array, optional
        ``image_embeddings`` and ``brain_embeddings`` (n, ...), ``betas_REGION`` and
        ``predicted_betas_REGION`` (n, voxels).
    **settings
        Fields of `ScoreSettings`.

    Returns
    -------
    Evaluation
        Of one method, and of the floors where there are training images.

    Raises
    ------
    CalcarineError
        If arrays do not fit together, there are fewer than two images, or a name is unknown.
    """
    pictures = from_array(truth, "ground truths")
    names = [str(i) for i in range(len(pictures))] if ids is None else [str(i) for i in ids]
    made = {method: from_array(recon, "reconstructions")}
    low = None if blurry is None else from_array(blurry, "blurry reconstructions")
    return score_pictures(
        TestSet(pictures, names, test_set),
        made,
        floors=floors_of(train, names, settings.get("seed", 0)),
        blurry=low,
        categories=categories,
        inputs=inputs,
        settings=ScoreSettings(**settings),
    )


def score_pictures(
    test: TestSet,
    methods: Mapping[str, ImageStack],
    *,
    floors: Mapping[str, ImageStack] | None = None,
    blurry: ImageStack | None = None,
    categories: Sequence[str] | None = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    settings: ScoreSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score sets of pictures under protocols; see `score_arrays`.

    Parameters
    ----------
    test : TestSet
    methods, floors : mapping of str to ImageStack
        In the order of the test set. A name that begins with "ceiling" marks a ceiling.
    blurry, categories, inputs
        As in `score_arrays`.
    settings : ScoreSettings
    progress : callable, optional
        Called with the name of what is done next.

    Returns
    -------
    Evaluation
    """
    import pandas as pd

    settings = settings or ScoreSettings()
    _check(test, methods, floors or {}, blurry)
    chosen = [
        find_protocol(name)(settings.draws, settings.seed)
        for name in dict.fromkeys(settings.protocols)
    ]
    networks = Networks(
        WeightsStore(settings.weights, settings.download), settings.networks, settings.judge
    )
    arrays = prepare_arrays(
        inputs, categories, len(test.ids), settings.judge, settings.read_classes
    )
    digest, notes = test.truth.digest(), list(arrays.notes)
    records: list[Record] = []
    tables: list[pd.DataFrame] = []
    sets = [(name, pictures, _role(name)) for name, pictures in methods.items()]
    sets += [(name, pictures, "floor") for name, pictures in (floors or {}).items()]
    for protocol in chosen:
        for name, pictures, role in sets:
            if progress is not None:
                progress(f"{protocol.name}: {name}")
            low = blurry if protocol.blends and role == "method" else None
            with tempfile.TemporaryDirectory(prefix="calcarine-") as folder:
                cache = FeatureCache(
                    test.truth,
                    pictures,
                    networks,
                    settings.batch_size,
                    Path(folder),
                    low,
                    arrays.arrays,
                )
                measured = measure(cache, protocol, notes)
                cache.forget()
            label = protocol.name if low is None else f"{protocol.name}, a quarter blurry"
            rows = [
                record(m, name, role, label, test, digest, pictures.samples, settings)
                for m in measured
            ]
            records += adjusted([row for row, _ in rows])
            if role == "method":
                notes += filter(None, [sample_size_note(row for row, _ in rows)])
                records += [shuffled(row, null) for row, null in rows if null is not None]
            tables += [per_image(m, name, label, test.ids, categories) for m in measured]
    if not records:
        raise CalcarineError(
            "nothing could be scored, for "
            + (notes[0] if notes else "the protocols have no metric.")
        )
    result = [table for table in tables if len(table)]
    empty = pd.DataFrame(columns=["id", "method", "metric", "value", "category", "protocol"])
    table = pd.concat(result, ignore_index=True) if result else empty
    contents = dict(zip(test.ids, test.truth.digests, strict=True))
    return Evaluation(records, table, list(dict.fromkeys(notes)), contents)


def floors_of(
    train: NDArray[np.uint8] | None, ids: Sequence[str], seed: int
) -> dict[str, ImageStack]:
    """Mean and random pictures of the training images, where there are any."""
    from calcarine.evaluation.baselines import random_training_image, training_mean

    if train is None:
        return {}
    return {
        "training mean": from_array(training_mean(train, len(ids)), "training mean"),
        "random training image": from_array(
            random_training_image(train, ids, seed=seed), "training images"
        ),
    }


def _role(name: str) -> str:
    return "ceiling" if name.startswith("ceiling") else "method"


def _check(
    test: TestSet,
    methods: Mapping[str, ImageStack],
    floors: Mapping[str, ImageStack],
    blurry: ImageStack | None,
) -> None:
    n = len(test.truth)
    if n < 2:
        raise CalcarineError(
            f"there is {n} image to score, and at least 2 are needed: add images to both sides."
        )
    if len(test.ids) != n or len(set(test.ids)) < n:
        raise CalcarineError(
            f"{len(test.ids)} ids were given for {n} images: give each image one id of its own."
        )
    twice = sorted(set(methods) & set(floors))
    if twice or not methods:
        problem = f"{twice[0]!r} is both a method and a floor" if twice else "there is no method"
        raise CalcarineError(f"{problem}: give each set of images one name of its own.")
    low = {} if blurry is None else {"blurry": blurry}
    for name, pictures in {**methods, **floors, **low}.items():
        if len(pictures) != n:
            raise CalcarineError(
                f"there are {n} ground truths and {len(pictures)} images of {name!r}: give one for "
                "each."
            )


def score_folder(
    truth: str | Path | None = None,
    images: str | Path | None = None,
    *,
    run: str | Path | None = None,
    method: str | None = None,
    test_set: str | None = None,
    categories: Mapping[str, str] | None = None,
    train: str | Path | None = None,
    blurry: str | Path | None = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    samples: Mapping[str, int] | None = None,
    settings: ScoreSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a folder of reconstructions against a folder of ground truths.

    Parameters
    ----------
    truth, images : path
        Folders of pictures with the same names, or files of stacks (.pt, .npy, .npz). Several
        samples of NAME are called ``NAME_0``, ``NAME_s0`` or ``NAME_sample-0``.
    run : path, optional
        Folder of a run, instead of the two.
    method : str, optional
        Name for the records; the folder's by default. Of a run, the one method to score.
    test_set : str, optional
        Name of the test set, such as "nsd-982", by which published scores are compared.
    categories : mapping of str to str, optional
        Category of each image by its name.
    train : path, optional
        Folder or stack of training pictures of one size, for floors.
    blurry : path, optional
        Folder or stack of low-level reconstructions, of which "mindeye" blends in a quarter.
    inputs : mapping of str to array, optional
        As in `score_arrays`, rows in the order of the array ``ids`` or, without it, of sorted
        names (numbers where names are 0 to n - 1).
    samples : mapping of str to int, optional
        Of a run: how many samples of a method count; all by default.
    settings : ScoreSettings
    progress : callable, optional
        Called with the name of what is done next.

    Returns
    -------
    Evaluation

    Raises
    ------
    CalcarineError
        If pictures are missing, unreadable, or do not pair.
    """
    settings = settings or ScoreSettings()
    if run is not None:
        if truth is not None or images is not None or blurry is not None:
            raise CalcarineError("give the folder of a run, or --truth and --images, not both.")
        matches = open_run(Path(run), method, test_set, samples)
    elif truth is None or images is None:
        raise CalcarineError(
            "say what to score: --truth DIR and --images DIR, or the folder of a run."
        )
    else:
        matches = open_folders(Path(truth), Path(images), method, test_set)
    ids = matches.test.ids
    notes = list(matches.notes)
    low = None
    if blurry is not None and truth is not None:
        other = open_folders(Path(truth), Path(blurry), "blurry", test_set)
        low = other.methods["blurry"]
        notes += [note for note in other.notes if note not in notes]
    groups = None
    if categories is not None:
        absent = [name for name in ids if name not in categories]
        if absent:
            raise CalcarineError(f"{absent[0]!r} has no category: give every image one.")
        groups = [categories[name] for name in ids]
    result = score_pictures(
        matches.test,
        matches.methods,
        floors=floors_of(None if train is None else read_folder(Path(train)), ids, settings.seed),
        blurry=low,
        categories=groups,
        inputs=None if inputs is None else align_rows(inputs, ids),
        settings=settings,
        progress=progress,
    )
    return replace(result, notes=[*notes, *result.notes])
