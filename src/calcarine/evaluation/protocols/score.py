"""Scores of reconstructions under named protocols."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import calcarine.evaluation.protocols.calcarine_definitions  # noqa: F401 (registers)
from calcarine.checkpoints.network_weights import WeightsStore
from calcarine.errors import CalcarineError
from calcarine.evaluation.protocols.cache import FeatureCache
from calcarine.evaluation.protocols.extra_inputs import prepared_inputs
from calcarine.evaluation.protocols.image_stacks import ImageStack, from_array
from calcarine.evaluation.protocols.measuring import measure
from calcarine.evaluation.protocols.network_features import Networks
from calcarine.evaluation.protocols.protocol import find_protocol
from calcarine.evaluation.protocols.recording import (
    adjusted,
    per_image,
    record,
    shuffled,
)
from calcarine.evaluation.protocols.result_table import too_few
from calcarine.evaluation.protocols.test_set import ScoreSettings, TestSet
from calcarine.evaluation.scores import Evaluation

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
    arrays = prepared_inputs(
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
                bench = FeatureCache(
                    test.truth,
                    pictures,
                    networks,
                    settings.batch_size,
                    Path(folder),
                    low,
                    arrays.found,
                )
                measured = measure(bench, protocol, notes)
                bench.forget()
            label = protocol.name if low is None else f"{protocol.name}, a quarter blurry"
            rows = [
                record(m, name, role, label, test, digest, pictures.samples, settings)
                for m in measured
            ]
            records += adjusted([row for row, _ in rows])
            if role == "method":
                notes += filter(None, [too_few(row for row, _ in rows)])
                records += [shuffled(row, null) for row, null in rows if null is not None]
            tables += [per_image(m, name, label, test.ids, categories) for m in measured]
    if not records:
        raise CalcarineError(
            "nothing could be scored, for "
            + (notes[0] if notes else "the protocols have no metric.")
        )
    found = [table for table in tables if len(table)]
    empty = pd.DataFrame(columns=["id", "method", "metric", "value", "category", "protocol"])
    table = pd.concat(found, ignore_index=True) if found else empty
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
