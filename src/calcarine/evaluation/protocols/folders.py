"""Folders of pictures as test sets and reconstructions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.evaluation.protocols.pictures import Pictures, from_files
from calcarine.evaluation.protocols.score import Settings, TestSet, floors_of, score_pictures
from calcarine.stimuli.pictures import PICTURE_SUFFIXES, check_picture, read_picture

if TYPE_CHECKING:
    from calcarine.evaluation.scores import Evaluation

_SAMPLE = re.compile(r"^(?P<name>.+)_(?:sample-?|s)?(?P<number>\d+)$")


@dataclass(frozen=True)
class Folder:
    """A test set and the sets of reconstructions that belong to it."""

    test: TestSet
    methods: dict[str, Pictures]


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
    settings: Settings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a folder of reconstructions against a folder of ground truths.

    Parameters
    ----------
    truth, images : path
        Folders of pictures with the same names. Several samples of NAME are called ``NAME_0``,
        ``NAME_s0`` or ``NAME_sample-0``.
    run : path, optional
        Folder of a run, instead of the two.
    method : str, optional
        Name for the records; the folder's by default. Of a run, the one method to score.
    test_set : str, optional
        Name of the test set, such as "nsd-982", by which published scores are compared.
    categories : mapping of str to str, optional
        Category of each image by its name.
    train : path, optional
        Folder of training pictures of one size, for floors.
    blurry : path, optional
        Folder of low-level reconstructions, of which "mindeye" blends in a quarter.
    inputs : mapping of str to array, optional
        As in `score_arrays`, rows in the alphabetical order of names.
    samples : mapping of str to int, optional
        Of a run: how many samples of a method count; all by default.
    settings : Settings
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
    settings = settings or Settings()
    if run is not None:
        if truth is not None or images is not None or blurry is not None:
            raise CalcarineError("give the folder of a run, or --truth and --images, not both.")
        found = open_run(Path(run), method, test_set, samples)
    elif truth is None or images is None:
        raise CalcarineError(
            "say what to score: --truth DIR and --images DIR, or the folder of a run."
        )
    else:
        found = open_folders(Path(truth), Path(images), method, test_set)
    ids = found.test.ids
    low = None
    if blurry is not None and truth is not None:
        low = open_folders(Path(truth), Path(blurry), "blurry", test_set).methods["blurry"]
    kinds = None
    if categories is not None:
        absent = [name for name in ids if name not in categories]
        if absent:
            raise CalcarineError(f"{absent[0]!r} has no category: give every image one.")
        kinds = [categories[name] for name in ids]
    return score_pictures(
        found.test,
        found.methods,
        floors=floors_of(None if train is None else read_folder(Path(train)), ids, settings.seed),
        blurry=low,
        categories=kinds,
        inputs=inputs,
        settings=settings,
        progress=progress,
    )


def open_folders(truth: Path, images: Path, method: str | None, test_set: str | None) -> Folder:
    """Pair the pictures of two folders by name.

    Parameters
    ----------
    truth, images : Path
    method, test_set : str, optional

    Returns
    -------
    Folder

    Raises
    ------
    CalcarineError
        If a picture has no partner, samples are not equally many, or there are fewer than two.
    """
    wanted = _by_stem(truth)
    ids = sorted(wanted)
    made: dict[str, dict[int, Path]] = {name: {} for name in ids}
    strangers = []
    for stem, path in sorted(_by_stem(images).items()):
        name, sample = _sample_of(stem, made)
        if name is None:
            strangers.append(stem)
        else:
            made[name][sample] = path
    absent = [name for name in ids if not made[name]]
    for names, problem, mend in (
        (
            absent,
            f"have no picture in {images}",
            "make them, or remove them from the ground truths",
        ),
        (strangers, f"of {images} have no ground truth in {truth}", "remove or rename them"),
    ):
        if names:
            raise CalcarineError(f"{len(names)} pictures {problem}, first {names[0]!r}: {mend}.")
    if len(ids) < 2:
        raise CalcarineError(
            f"{truth} holds {len(ids)} picture to score, and at least 2 are needed: add pictures."
        )
    _check_samples(ids, made, images)
    files = [[made[name][key] for key in sorted(made[name])] for name in ids]
    truths = from_files([[wanted[name]] for name in ids])
    _check_readable([*(wanted[name] for name in ids), *(path for row in files for path in row)])
    test = TestSet(truths, ids, test_set)
    return Folder(test, {method or images.name or "reconstructions": from_files(files)})


def open_run(
    run: Path,
    method: str | None,
    test_set: str | None,
    samples: Mapping[str, int] | None = None,
) -> Folder:
    """Pictures of a finished run, every method or one of them.

    Raises
    ------
    CalcarineError
        If the run has no index of pictures, or not that method.
    """
    import pandas as pd

    path = run / "reconstructions" / "index.parquet"
    try:
        index = pd.read_parquet(path).astype({"id": str, "sample": int})
        rows = index[["id", "method", "sample", "file"]]
    except (OSError, ValueError, KeyError):
        raise CalcarineError(
            f"{run} holds no finished pictures of a run ({path} is missing or broken): give "
            "--truth and --images, or call 'calcarine reconstruct' first."
        ) from None
    ids = sorted(rows["id"].unique())
    names = [str(name) for name in rows["method"].unique() if name != "truth"]
    if method is not None:
        if method not in names:
            raise CalcarineError(
                f"{run} has no method {method!r}: choose among {', '.join(names)}."
            )
        names = [method]
    truths = [[run / "reconstructions" / "truth" / f"{quote(i, safe=' ')}.png"] for i in ids]
    _check_readable([row[0] for row in truths])
    methods = {}
    for name in names:
        made: dict[str, dict[int, Path]] = {i: {} for i in ids}
        for row in rows[rows["method"] == name].itertuples():
            made[str(row.id)][int(str(row.sample))] = _inside(run, str(row.file))
        _check_samples(ids, made, path)
        most = (samples or {}).get(name)
        files = [[made[i][key] for key in sorted(made[i])[:most]] for i in ids]
        _check_readable([file for row in files for file in row])
        methods[name] = from_files(files)
    return Folder(TestSet(from_files(truths), ids, test_set), methods)


def read_folder(folder: Path) -> NDArray[np.uint8]:
    """All pictures of a folder as one array, shape (n, height, width, 3)."""
    pictures = [read_picture(path) for _, path in sorted(_by_stem(folder).items())]
    if not pictures:
        raise CalcarineError(f"{folder} holds no picture: give a folder of training pictures.")
    if len({picture.shape for picture in pictures}) > 1:
        raise CalcarineError(f"the pictures of {folder} differ in size: give them one size.")
    return np.stack(pictures)


def picture_files(folder: Path) -> list[Path]:
    """Files of a folder that are pictures by their names, in order.

    Raises
    ------
    CalcarineError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise CalcarineError(f"there is no folder {folder}: look at its name.")
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in picture_files(folder):
        if path.stem in found:
            raise CalcarineError(
                f"{folder} holds both {found[path.stem].name} and {path.name}: keep one of them."
            )
        found[path.stem] = path
    return found


def _sample_of(stem: str, known: Mapping[str, Any]) -> tuple[str | None, int]:
    """Name and sample number of a file; a name of a ground truth itself comes first."""
    if stem in known:
        return stem, -1
    match = _SAMPLE.match(stem)
    if match and match["name"] in known:
        return match["name"], int(match["number"])
    return None, 0


def _check_samples(ids: Sequence[str], made: Mapping[str, Mapping[int, Path]], where: Path) -> None:
    first = sorted(made[ids[0]])
    for name in ids:
        if sorted(made[name]) != first:
            raise CalcarineError(
                f"{ids[0]!r} has {len(first)} samples and {name!r} has {len(made[name])}, or other "
                f"sample numbers, in {where}: give every image the same samples."
            )
        if -1 in made[name] and len(made[name]) > 1:
            raise CalcarineError(
                f"{name!r} has a picture without a sample number beside numbered ones in {where}: "
                "number all or none."
            )


def _check_readable(paths: Sequence[Path]) -> None:
    """Look at the head of every file, so that a broken one is told before hours of work."""
    for path in paths:
        check_picture(path)


def _inside(run: Path, relative: str) -> Path:
    path = (run / relative).resolve()
    if not path.is_relative_to(run.resolve()):
        raise CalcarineError(
            f"the index of {run} names {relative!r}, which lies outside of the run: reconstruct "
            "again."
        )
    return path
