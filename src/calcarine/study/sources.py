"""Collect the pictures of a study from run folders, or from folders with the same file names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from calcarine.errors import CalcarineError, MissingFileError, SettingError
from calcarine.files import digest_file
from calcarine.reporting.run_pictures import RunPictures
from calcarine.stimuli.image_files import PICTURE_SUFFIXES
from calcarine.stimuli.names import match_names

__all__ = ["PAPER_METHODS", "StudyImages", "from_folders", "from_runs", "parse_pair"]

PAPER_METHODS = ("z_c", "z", "c")
_BETWEEN = " vs "


@dataclass(frozen=True)
class StudyImages:
    """Pictures of a study.

    Attributes
    ----------
    originals : dict of str to Path
        Files of the originals that all methods have, by id, sorted.
    methods : dict of str to dict of str to Path
        Files of the reconstructions, by method and id of the original.
    pairs : list of (str, str)
        Methods that are compared by default.
    left_out : dict of str to str
        Originals that are not used, with the reason.
    simulated : bool or None
        Whether the brain was simulated; None if not stated.
    provenance : list of dict

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import StudyImages
    >>> pictures = StudyImages(
    ...     originals={"img1": Path("truth/img1.png")},
    ...     methods={"z": {"img1": Path("z/img1.png")}, "c": {"img1": Path("c/img1.png")}},
    ...     pairs=[("z", "c")],
    ...     left_out={},
    ...     simulated=False,
    ...     provenance=[],
    ... )
    >>> len(pictures.originals)
    1
    """

    originals: dict[str, Path]
    methods: dict[str, dict[str, Path]]
    pairs: list[tuple[str, str]]
    left_out: dict[str, str]
    simulated: bool | None
    provenance: list[dict[str, Any]]


def from_runs(
    runs: Sequence[Path], methods: Sequence[str] = (), sample: str = "first", seed: int = 0
) -> StudyImages:
    """Take originals and reconstructions from finished runs.

    Parameters
    ----------
    runs : sequence of Path
        Run folders. With several runs, methods are named "RUN/METHOD", and equal ids must mean
        equal pictures.
    methods : sequence of str
        Methods of each run; by default z_c, z and c if the run has at least two of these, else
        all methods.
    sample : {"first", "random"}
        Which sample of a method to use: the first, or one drawn with ``seed`` for each original.
    seed : int

    Returns
    -------
    StudyImages

    Raises
    ------
    CalcarineError
        If a run is not finished, has no such method, or shares no originals with other runs.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import from_runs, make_study
    >>> pictures = from_runs([Path("runs/takagi")], methods=["z_c", "z"])  # doctest: +SKIP
    >>> study = make_study(pictures, Path("study"))  # doctest: +SKIP
    """
    from calcarine.reporting.run_records import read_run

    if sample not in ("first", "random"):
        raise SettingError(f"The sample cannot be '{sample}'; choose first or random.")
    records = [read_run(Path(run)) for run in runs]
    files = [RunPictures(record) for record in records]
    names = _run_names([record.folder for record in records])
    originals: dict[str, Path] = {}
    result: dict[str, dict[str, Path]] = {}
    provenance = []
    for name, record, own in zip(names, records, files, strict=True):
        required = _methods_of(record.picture_methods, methods, record.folder)
        rng = np.random.default_rng([seed, 3])
        for stimulus in record.ids:
            originals.setdefault(stimulus, own.truth(stimulus))
        for method in required:
            label = f"{name}/{method}" if len(records) > 1 else method
            result[label] = {}
            for stimulus in record.ids:
                numbers = own.samples(stimulus, method)
                if not numbers:
                    continue
                number = numbers[0] if sample == "first" else numbers[rng.integers(len(numbers))]
                path = own.picture(stimulus, method, int(number))
                if path is not None:
                    result[label][stimulus] = path
        provenance.append(_run_provenance(name, record, required, sample))
    _refuse_other_originals(originals, records, files, names)
    sentences = [record.simulated for record in records]
    return _complete(originals, result, _run_pairs(names, result), any(sentences), provenance)


def from_folders(folders: Sequence[str], simulated: bool | None = None) -> StudyImages:
    """Take pictures from folders, matched by file name without ending.

    Names can differ in case and leading zeros if this is not ambiguous.

    Parameters
    ----------
    folders : sequence of str
        Folders as "name=DIR"; one must be named "original".
    simulated : bool, optional
        Whether the brain was simulated, if known.

    Returns
    -------
    StudyImages

    Raises
    ------
    CalcarineError
        If a folder is missing, given twice, or has no pictures.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from PIL import Image
    >>> from calcarine.study import from_folders
    >>> for name in ("truth", "z", "z_c"):
    ...     Path("pictures", name).mkdir(parents=True)
    ...     for i in range(2):
    ...         Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(f"pictures/{name}/img{i}.png")
    >>> pictures = from_folders(["original=pictures/truth", "z=pictures/z", "z_c=pictures/z_c"])
    >>> list(pictures.originals), pictures.pairs
    (['img0', 'img1'], [('z', 'z_c')])
    """
    named: dict[str, Path] = {}
    for text in folders:
        name, sign, place = text.partition("=")
        if not sign or not name.strip() or not place or _BETWEEN in name:
            raise SettingError(
                f"'{text}' is not a named folder; write name=DIR, for example original=pictures."
            )
        if name in named:
            raise SettingError(f"The folder '{name}' is given twice; give each name once.")
        named[name] = Path(place)
    if "original" not in named or len(named) < 2:
        raise SettingError(
            "A study needs --folder original=DIR and at least one folder of reconstructions."
        )
    files = {name: _pictures_in(folder) for name, folder in named.items()}
    provenance = [
        {"folder": str(folder), "name": name, "digest": _digest_of(files[name])}
        for name, folder in named.items()
    ]
    originals = files.pop("original")
    for name, own in files.items():
        meant = match_names(own, list(originals))
        files[name] = {meant.get(stem, stem): path for stem, path in own.items()}
    return _complete(originals, files, list(combinations(files, 2)), simulated, provenance)


def parse_pair(text: str, methods: Sequence[str]) -> tuple[str, str]:
    """Parse a comparison "A vs B"."""
    first, sign, second = text.partition(_BETWEEN)
    if not sign or first == second:
        raise SettingError(
            f"'{text}' is not a comparison; write two methods as '{_BETWEEN.join(methods[:2])}'."
        )
    for name in (first, second):
        if name not in methods:
            raise SettingError(
                f"There is no method '{name}' to compare; there are: {', '.join(methods)}."
            )
    return first, second


def _run_names(folders: list[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{name}-{place}" for place, name in enumerate(names, 1)]


def _methods_of(present: list[str], requested: Sequence[str], folder: Path) -> list[str]:
    missing = [name for name in requested if name not in present]
    if missing:
        raise CalcarineError(
            f"{folder} has no method '{missing[0]}'; it has: {', '.join(present) or 'none'}."
        )
    paper = [name for name in PAPER_METHODS if name in present]
    required = list(requested) or (paper if len(paper) > 1 else present)
    if not required:
        raise CalcarineError(f"{folder} has no reconstructions; run it again.")
    return required


def _run_pairs(names: list[str], result: dict[str, dict[str, Path]]) -> list[tuple[str, str]]:
    """Return pairs of methods of the same run, and of the same method in different runs."""
    if len(names) == 1:
        return list(combinations(result, 2))
    split = [tuple(label.split("/", 1)) for label in result]
    return [
        ("/".join(a), "/".join(b))
        for a, b in combinations(split, 2)
        if a[0] == b[0] or a[1] == b[1]
    ]


def _run_provenance(name: str, record: Any, methods: list[str], sample: str) -> dict[str, Any]:
    index = record.folder / "reconstructions" / "index.parquet"
    return {
        "run": name,
        "folder": str(record.folder),
        "methods": methods,
        "sample": sample,
        "simulated": record.simulated,
        "index digest": digest_file(index),
        "digests": record.manifest.get("digests", {}),
        "dataset": record.manifest.get("dataset", {}),
    }


def _refuse_other_originals(
    originals: dict[str, Path], records: list[Any], files: list[RunPictures], names: list[str]
) -> None:
    from calcarine.study.rater_images import load_uniform

    for name, record, own in zip(names[1:], records[1:], files[1:], strict=True):
        for stimulus in record.ids:
            if originals[stimulus] == own.truth(stimulus):
                continue
            here, there = (
                np.asarray(load_uniform(path, 32), float)
                for path in (originals[stimulus], own.truth(stimulus))
            )
            # Runs can store their originals at different sizes.
            if np.abs(here - there).mean() > 8:
                raise CalcarineError(
                    f"The original '{stimulus}' is not the same picture in {name} and {names[0]}; "
                    "compare runs on the same data set."
                )


def _pictures_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise MissingFileError(f"There is no folder {folder}; give a folder of pictures.")
    result: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PICTURE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in result:
            raise CalcarineError(
                f"{folder} has two pictures named '{path.stem}'; keep one of them."
            )
        result[path.stem] = path
    if not result:
        raise MissingFileError(
            f"{folder} has no pictures; give a folder of pictures ({', '.join(PICTURE_SUFFIXES)})."
        )
    return result


def _digest_of(files: dict[str, Path]) -> str:
    whole = hashlib.sha256()
    for name, path in files.items():
        whole.update(f"{name}\0{digest_file(path)}\n".encode())
    return whole.hexdigest()


def _complete(
    originals: dict[str, Path],
    methods: dict[str, dict[str, Path]],
    pairs: list[tuple[str, str]],
    simulated: bool | None,
    provenance: list[dict[str, Any]],
) -> StudyImages:
    left_out: dict[str, str] = {}
    kept: dict[str, Path] = {}
    everything = sorted(set(originals).union(*methods.values()))
    for name in everything:
        missing = [method for method, files in methods.items() if name not in files]
        if name not in originals:
            left_out[name] = "no original"
        elif missing:
            left_out[name] = f"no picture by {', '.join(missing)}"
        else:
            kept[name] = originals[name]
    if len(kept) < 2:
        raise SettingError(
            f"Only {len(kept)} of {len(everything)} originals have a picture by every method; "
            "give folders or runs with the same names."
        )
    return StudyImages(kept, methods, pairs, left_out, simulated, provenance)
