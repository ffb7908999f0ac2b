"""Score reconstructions under named protocols, from arrays or folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError
from calcarine.evaluation.inputs.array_files import align_rows
from calcarine.evaluation.inputs.folders import open_folders, open_run, read_folder
from calcarine.evaluation.inputs.image_stacks import ImageStack, TestSet, from_array
from calcarine.evaluation.results.evaluation import Evaluation
from calcarine.evaluation.scoring.scoring import Scoring
from calcarine.evaluation.scoring.settings import ScoreSettings

__all__ = ["floors_of", "score_arrays", "score_folder", "score_pictures"]


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
        Ground truths; floats must be in [0, 1].
    recon : uint8 or float array of shape (n, height, width, 3) or (n, samples, height, width, 3)
        Reconstructions, in the order of the ground truths.
    ids : sequence of str, optional
        Names of the images; numbers by default.
    method, test_set : str
        Names for the records.
    categories : sequence of str, optional
        Category of each image, for the protocol "calcarine".
    train : uint8 array of shape (n_train, height, width, 3), optional
        Training images; their mean and random training images are scored as floors.
    blurry : array like ``recon``, optional
        Low-level reconstructions; the protocol "mindeye" blends them in with a weight of .25.
    inputs : mapping of str to array, optional
        ``image_embeddings`` and ``brain_embeddings`` (n, ...), ``betas_REGION`` and
        ``predicted_betas_REGION`` (n, voxels).
    **settings
        Fields of `ScoreSettings`.

    Returns
    -------
    Evaluation
        Scores of one method, and of the floors if training images are given.

    Raises
    ------
    CalcarineError
        If arrays do not fit together, there are fewer than two images, or a name is unknown.

    See Also
    --------
    score_folder : Score folders of pictures.
    compare_scores : Compare methods and published scores.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import score_arrays
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> result = score_arrays(truth, truth, judge=None, n_boot=100, n_permutations=100)
    >>> record = next(row for row in result.records if row["metric"] == "pixel correlation")
    >>> round(record["value"], 6), record["n"]
    (1.0, 12)
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
    """Score several methods on one test set under protocols.

    Parameters
    ----------
    test : TestSet
    methods, floors : mapping of str to ImageStack
        Pictures in the order of the test set. Names that begin with "ceiling" mark ceilings.
    blurry, categories, inputs
        As in `score_arrays`.
    settings : ScoreSettings
    progress : callable, optional
        Called with the name of each step.

    Returns
    -------
    Evaluation
    """
    with Scoring(
        test,
        methods,
        floors=floors,
        blurry=blurry,
        categories=categories,
        inputs=inputs,
        settings=settings,
    ) as scoring:
        scored = []
        for number, title in enumerate(scoring.titles):
            if progress is not None:
                progress(title)
            scored.append(scoring.score(number))
        return scoring.join(scored)


def floors_of(
    train: NDArray[np.uint8] | None, ids: Sequence[str], seed: int
) -> dict[str, ImageStack]:
    """Return the mean and random pictures of the training images, if there are any."""
    from calcarine.evaluation.baselines import random_training_image, training_mean

    if train is None:
        return {}
    return {
        "training mean": from_array(training_mean(train, len(ids)), "training mean"),
        "random training image": from_array(
            random_training_image(train, ids, seed=seed), "training images"
        ),
    }


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
        Folders of pictures with the same names, or stacks (.pt, .npy, .npz). Several samples of
        NAME are named ``NAME_0``, ``NAME_s0`` or ``NAME_sample-0``.
    run : path, optional
        Folder of a run, instead of ``truth`` and ``images``.
    method : str, optional
        Name for the records; by default that of the folder. For a run, the only method to score.
    test_set : str, optional
        Name of the test set, for example "nsd-982", for comparisons with published scores.
    categories : mapping of str to str, optional
        Category of each image by its name.
    train : path, optional
        Folder or stack of training pictures of one size, for floors.
    blurry : path, optional
        Folder or stack of low-level reconstructions; "mindeye" blends them in with a weight of
        .25.
    inputs : mapping of str to array, optional
        As in `score_arrays`, with rows in the order of the array ``ids`` if it is given, else of
        the sorted names (or of the numbers, if the names are 0 to n - 1).
    samples : mapping of str to int, optional
        For a run: number of samples of each method; all by default.
    settings : ScoreSettings, optional
    progress : callable, optional
        Called with the name of each step.

    Returns
    -------
    Evaluation

    Raises
    ------
    CalcarineError
        If pictures are missing or unreadable, or cannot be paired.
    """
    settings = settings or ScoreSettings()
    if run is not None:
        if truth is not None or images is not None or blurry is not None:
            raise SettingError("Give either the folder of a run, or --truth and --images.")
        matches = open_run(Path(run), method, test_set, samples)
    elif truth is None or images is None:
        raise SettingError(
            "There is nothing to score; give --truth DIR and --images DIR, or the folder of a run."
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
            raise SettingError(f"{absent[0]!r} has no category; give one for every image.")
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
