"""Open folders of pictures, stacks and runs as test sets and reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import (
    CalcarineError,
    DamagedFileError,
    MissingFileError,
    SettingError,
    ShapeError,
)
from calcarine.evaluation.inputs.array_files import ARRAY_SUFFIXES, read_stack
from calcarine.evaluation.inputs.image_stacks import (
    ImageStack,
    TestSet,
    as_uint8,
    from_array,
    from_files,
)
from calcarine.evaluation.inputs.pairing import ground_truth_files, pair_files
from calcarine.files.parquet import read_parquet
from calcarine.stimuli.image_files import PICTURE_SUFFIXES, check_picture, read_picture

if TYPE_CHECKING:
    pass

__all__ = ["ImageFolder", "is_stack", "open_folders", "open_run", "picture_files", "read_folder"]


@dataclass(frozen=True)
class ImageFolder:
    """A test set and its sets of reconstructions by method."""

    test: TestSet
    methods: dict[str, ImageStack]
    notes: tuple[str, ...] = ()


def open_folders(
    truth: Path, images: Path, method: str | None, test_set: str | None
) -> ImageFolder:
    """Pair the pictures of two folders by name, or of two stacks by their order.

    Parameters
    ----------
    truth, images : Path
        Folders, or files of stacks. Both can be the same folder with ground truths named
        ``NAME_org`` or ``testN-0`` and the samples.
    method, test_set : str, optional
        Names for the records.

    Returns
    -------
    ImageFolder

    Raises
    ------
    CalcarineError
        If a picture has no partner, numbers of samples differ, or there are fewer than two
        pictures.
    """
    notes: list[str] = []
    name = method or (images.stem if images.is_file() else images.name) or "reconstructions"
    if is_stack(truth):
        truths = from_array(read_stack(truth), f"ground truths {truth}")
        if truths.samples > 1:
            raise ShapeError(
                f"{truth} has {truths.samples} samples of each picture; give one ground truth for "
                "each picture."
            )
        ids = [str(row) for row in range(len(truths))]
    else:
        required, notes = _ground_truths(truth, images)
        ids = sorted(required)
        if not ids:
            raise MissingFileError(
                f"{truth} has no pictures ({', '.join(PICTURE_SUFFIXES)}); give the folder of the "
                "ground truths."
            )
        truths = from_files([[required[key]] for key in ids])
    if len(ids) < 2:
        raise ShapeError(f"{truth} has only one picture to score; give at least 2.")
    if is_stack(images):
        made = _rows(from_array(read_stack(images), f"pictures {images}"), ids, truth, images)
    else:
        made, more = _pair(ids, truth, images)
        notes = notes + more
    if not is_stack(truth):
        _check_readable([required[key] for key in ids])
    return ImageFolder(TestSet(truths, ids, test_set), {name: made}, tuple(notes))


def is_stack(path: Path) -> bool:
    """Return whether a path is a stack of pictures, not a folder."""
    return not path.is_dir() and path.suffix.lower() in ARRAY_SUFFIXES


def _ground_truths(truth: Path, images: Path) -> tuple[dict[str, Path], list[str]]:
    files = _by_stem(truth)
    if not images.is_dir():
        return ground_truth_files(files, truth)
    same = truth.resolve() == images.resolve()
    if not same and set(files) <= set(_by_stem(images)):
        return files, []
    return ground_truth_files(files, truth)


def _pair(ids: Sequence[str], truth: Path, images: Path) -> tuple[ImageStack, list[str]]:
    files = _by_stem(images)
    result = pair_files(ids, files, images)
    made = result.made
    absent = [name for name in ids if not made[name]]
    for names, problem, remedy in (
        (absent, f"no picture in {images}", "make them, or remove them from the ground truths"),
        (result.unmatched, f"no ground truth in {truth}", "remove or rename them"),
    ):
        if names:
            owner = "ground truths have" if names is absent else f"pictures of {images} have"
            count = f"{len(names)} of {len(ids if names is absent else files)}"
            raise CalcarineError(f"{count} {owner} {problem}, first {names[0]!r}; {remedy}.")
    _check_samples(ids, made, images)
    paths = [[made[name][key] for key in sorted(made[name])] for name in ids]
    _check_readable([path for row in paths for path in row])
    return from_files(paths), result.notes


def _rows(stack: ImageStack, ids: Sequence[str], truth: Path, images: Path) -> ImageStack:
    """Return the pictures of a stack in the order of ground truths named after its rows."""
    if len(stack) != len(ids):
        raise ShapeError(
            f"{truth} has {len(ids)} ground truths and {images} {len(stack)} pictures; give one "
            "picture for each ground truth."
        )
    places = {name: int(name) for name in ids if name.isdecimal()}
    if sorted(places.values()) != list(range(len(ids))):
        raise SettingError(
            f"The rows of {images} have no names, and the pictures in {truth} are not named 0 to "
            f"{len(ids) - 1} (for example {ids[0]!r}); give both as stacks or both as folders."
        )
    return ImageStack(len(ids), stack.samples, lambda i, s: stack.read(places[ids[i]], s))


def open_run(
    run: Path,
    method: str | None,
    test_set: str | None,
    samples: Mapping[str, int] | None = None,
) -> ImageFolder:
    """Open the pictures of a finished run, for all methods or one of them.

    Parameters
    ----------
    run : Path
    method, test_set : str, optional
    samples : mapping of str to int, optional
        Number of samples by method; all by default.

    Returns
    -------
    ImageFolder

    Raises
    ------
    CalcarineError
        If the run has no index of pictures, or no such method.
    """
    if not run.is_dir():
        raise MissingFileError(
            f"There is no run at {run}; check its name, or give --truth and --images."
        )
    path = run / "reconstructions" / "index.parquet"
    try:
        index = read_parquet(path).astype({"id": str, "sample": int})
        rows = index[["id", "method", "sample", "file"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        raise MissingFileError(
            f"{run} has no finished reconstructions ({path} is missing or damaged); run 'calcarine "
            "reconstruct' first, or give --truth and --images."
        ) from None
    ids = sorted(rows["id"].unique())
    names = [str(name) for name in rows["method"].unique() if name != "truth"]
    if method is not None:
        if method not in names:
            raise SettingError(f"{run} has no method {method!r}; choose among {', '.join(names)}.")
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
    return ImageFolder(TestSet(from_files(truths), ids, test_set), methods)


def read_folder(folder: Path) -> NDArray[np.uint8]:
    """Read all pictures of a folder or stack as one array, shape (n, height, width, 3)."""
    if is_stack(folder):
        stack = from_array(read_stack(folder), f"training pictures {folder}")
        return np.stack([as_uint8(stack.read(row, 0)) for row in range(len(stack))])
    files = [path for _, path in sorted(_by_stem(folder).items())]
    pictures = [read_picture(path) for path in files]
    if not pictures:
        raise MissingFileError(f"{folder} has no pictures; give a folder of training pictures.")
    size = pictures[0].shape[:2]
    for path, picture in zip(files, pictures, strict=True):
        if picture.shape[:2] != size:
            raise ShapeError(
                f"{path} has {picture.shape[0]} x {picture.shape[1]} pixels (height x width) and "
                f"{files[0]} has {size[0]} x {size[1]}; give all training pictures the same size."
            )
    return np.stack(pictures)


def picture_files(folder: Path) -> list[Path]:
    """List the picture files of a folder, sorted by name.

    Raises
    ------
    MissingFileError
        If there is no such folder.
    """
    if folder.is_file():
        raise SettingError(
            f"{folder} is a file; give a folder of pictures, or a stack "
            f"({', '.join(ARRAY_SUFFIXES)})."
        )
    if not folder.is_dir():
        raise MissingFileError(f"There is no folder {folder}; check its name.")
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]


def _by_stem(folder: Path) -> dict[str, Path]:
    result: dict[str, Path] = {}
    for path in picture_files(folder):
        if path.stem in result:
            raise CalcarineError(
                f"{folder} has both {result[path.stem].name} and {path.name}; keep one of them."
            )
        result[path.stem] = path
    return result


def _check_samples(ids: Sequence[str], made: Mapping[str, Mapping[int, Path]], where: Path) -> None:
    first = sorted(made[ids[0]])
    for name in ids:
        if sorted(made[name]) != first:
            raise SettingError(
                f"In {where}, {ids[0]!r} has {len(first)} samples and {name!r} has "
                f"{len(made[name])}, or their sample numbers differ; give every image the same "
                "samples."
            )
        if -1 in made[name] and len(made[name]) > 1:
            raise CalcarineError(
                f"In {where}, {name!r} has pictures with and without a sample number; number all "
                "or none."
            )


def _check_readable(paths: Sequence[Path]) -> None:
    """Check the header of every file, so that a damaged one is reported before hours of work."""
    for path in paths:
        check_picture(path)


def _inside(run: Path, relative: str) -> Path:
    try:
        path = (run / relative).resolve()
        inside = path.is_relative_to(run.resolve())
    except (OSError, ValueError):  # a name that no file can have
        inside = False
    if not inside:
        raise DamagedFileError(
            f"The index of {run} lists {relative!r}, which is outside of the run; reconstruct "
            "again."
        )
    return path
