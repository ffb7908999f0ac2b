"""Make a study folder with pictures, questions and raters."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calcarine import __version__
from calcarine.errors import CalcarineError, SettingError
from calcarine.files import write_bytes, write_text
from calcarine.study.design import CATCH, MAIN, PRACTICE, foils
from calcarine.study.rater_images import blurred, dithered, encode, load_uniform
from calcarine.study.settings import MethodPair, StudySettings
from calcarine.study.sources import StudyImages, parse_pair
from calcarine.study.store import Study, check_raters, create_database
from calcarine.study.wording import TITLE

if TYPE_CHECKING:
    import sqlite3

__all__ = ["BLURRED", "DITHERED", "ORIGINAL", "make_study"]

_STREAM_ORIGINALS = 4
_STREAM_OTHERS = 5
ORIGINAL, BLURRED, DITHERED = "original", "original, blurred", "original, dithered"


def make_study(
    pictures: StudyImages,
    out: Path,
    *,
    title: str = TITLE,
    n_originals: int = 30,
    n_raters: int = 6,
    compare: Sequence[str] = (),
    identification: bool = True,
    seed: int = 0,
    **rules: Any,
) -> Study:
    """Make a study folder.

    Parameters
    ----------
    pictures : StudyImages
        Originals and reconstructions.
    out : Path
        A new or empty folder.
    title : str
        Title of the page for raters.
    n_originals : int
        Number of originals, drawn with ``seed``; all if there are fewer.
    n_raters : int
        Number of invited raters; an even number balances sides and order exactly.
    compare : sequence of str
        Comparisons as "A vs B"; by default those in ``pictures``.
    identification : bool
        Whether reconstructions are also compared with those of another original.
    seed : int
        Seed of all random choices except the tokens.
    **rules
        Other fields of `StudySettings`.

    Returns
    -------
    Study

    Raises
    ------
    CalcarineError
        If the folder is not empty, a picture cannot be read, or there are no comparisons.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from PIL import Image
    >>> from calcarine.study import from_folders, make_study
    >>> rng = np.random.default_rng(0)
    >>> for name in ("truth", "z", "z_c"):
    ...     Path(name).mkdir()
    ...     for i in range(6):
    ...         picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    ...         Image.fromarray(picture).save(f"{name}/img{i}.png")
    >>> pictures = from_folders(["original=truth", "z=z", "z_c=z_c"])
    >>> study = make_study(pictures, Path("study"), n_raters=2, catch=2, practice=2, size=32)
    >>> len(study.links())  # a secret link for each rater
    2
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingError(f"{out} exists already; give a new folder for the study.")
    comparisons = _comparisons(pictures, compare, identification)
    _settings(title=title, comparisons=tuple(comparisons), originals=(), **rules)
    check_raters(n_raters)
    maker = _StudyWriter(pictures, int(rules.get("size", 256)))
    n_catch, n_practice = int(rules.get("catch", 8)), int(rules.get("practice", 4))
    chosen, spare, duplicates = maker.choose(n_originals, 2 * (n_catch + n_practice), seed)
    settings = _settings(
        title=title,
        seed=seed,
        comparisons=tuple(comparisons),
        originals=tuple(chosen),
        left_out={**pictures.left_out, **duplicates},
        simulated=pictures.simulated,
        provenance=tuple(pictures.provenance),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        calcarine=__version__,
        **rules,
    )
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        maker.write(temporary, settings, spare)
        Study(temporary).invite(n_raters)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Study(out)


def _settings(**fields: Any) -> StudySettings:
    from pydantic import ValidationError

    try:
        return StudySettings(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingError(
            f"The setting '{place}' of the study cannot be {first['input']!r}: {first['msg']}."
        ) from error


def _comparisons(
    pictures: StudyImages, compare: Sequence[str], identification: bool
) -> list[MethodPair]:
    methods = list(pictures.methods)
    pairs = [parse_pair(text, methods) for text in compare] or pictures.pairs
    if len({frozenset(pair) for pair in pairs}) < len(pairs):
        raise SettingError("A comparison is given twice; give each pair of methods once.")
    result = [
        MethodPair(name=f"{first} vs {second}", kind="method", first=first, second=second)
        for first, second in pairs
    ]
    used = [name for name in methods if not compare or any(name in pair for pair in pairs)]
    if identification:
        result += [
            MethodPair(
                name=f"identification: {name}", kind="identification", first=name, second=name
            )
            for name in used
        ]
    if not result:
        raise SettingError("There is nothing to compare; give two methods or keep identification.")
    return result


@dataclass
class _StudyWriter:
    """Reads pictures once, writes each under a random name, and records which is which."""

    pictures: StudyImages
    size: int
    encoded: dict[tuple[str, str], bytes] = field(default_factory=dict)
    ids: dict[tuple[str, str], int] = field(default_factory=dict)

    def choose(
        self, n: int, n_spare: int, seed: int
    ) -> tuple[list[str], list[str], dict[str, str]]:
        """Draw originals, and others for practice and catch trials; duplicates are skipped."""
        if n < 2:
            raise SettingError(f"A study cannot have {n} originals; choose at least 2.")
        names = sorted(self.pictures.originals)
        order = np.random.default_rng([seed, _STREAM_ORIGINALS]).permutation(len(names))
        seen: dict[str, str] = {}
        kept: list[str] = []
        duplicates: dict[str, str] = {}
        for place in order:
            if len(kept) == n + n_spare:
                break
            name = names[place]
            digest = hashlib.sha256(self.bytes_of(name, ORIGINAL)).hexdigest()
            if digest in seen:
                duplicates[name] = f"the same picture as {seen[digest]}"
                continue
            seen[digest] = name
            kept.append(name)
        if len(kept) < 2:
            raise SettingError("All originals are the same picture; give originals that differ.")
        return kept[:n], kept[n:], duplicates

    def bytes_of(self, original: str, method: str) -> bytes:
        if (original, method) not in self.encoded:
            image = load_uniform(self.path_of(original, method), self.size)
            if method in (BLURRED, DITHERED):
                image = blurred(image) if method == BLURRED else image
                seed = int.from_bytes(hashlib.sha256(f"{method} {original}".encode()).digest())
                image = dithered(image, seed)
            self.encoded[original, method] = encode(image)
        return self.encoded[original, method]

    def path_of(self, original: str, method: str) -> Path:
        if method in (ORIGINAL, BLURRED, DITHERED):
            return self.pictures.originals[original]
        return self.pictures.methods[method][original]

    def write(self, folder: Path, settings: StudySettings, spare: list[str]) -> None:
        """Write pictures, questions and settings."""
        questions = _questions(settings) + _easy(settings, spare)
        for comparison in settings.comparisons:
            self._refuse_equal(comparison, settings.originals)
        (folder / "images").mkdir(parents=True)
        con = create_database(folder / "study.sqlite", settings)
        try:
            con.execute("BEGIN IMMEDIATE")
            required = sorted({picture for question in questions for picture in question[3:]})
            # Written in random order, so that file times and numbers reveal nothing.
            for place in np.random.default_rng(secrets.randbits(64)).permutation(len(required)):
                self._write_image(folder, con, *required[place])
            con.executemany(
                "INSERT INTO questions (part, comparison, item, original_image, first_image, "
                "second_image) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (*question[:3], *(self.ids[picture] for picture in question[3:]))
                    for question in questions
                ],
            )
            con.execute("COMMIT")
        finally:
            con.close()
        text = json.dumps(settings.model_dump(mode="json"), indent=2, ensure_ascii=False)
        write_text(folder / "study.json", text + "\n")

    def _write_image(
        self, folder: Path, con: sqlite3.Connection, original: str, method: str
    ) -> None:
        file = f"{secrets.token_hex(16)}.png"
        write_bytes(folder / "images" / file, self.bytes_of(original, method))
        cursor = con.execute(
            "INSERT INTO images (file, original, method, source) VALUES (?, ?, ?, ?)",
            (file, original, method, str(self.path_of(original, method))),
        )
        self.ids[original, method] = int(cursor.lastrowid or 0)

    def _refuse_equal(self, comparison: MethodPair, originals: Sequence[str]) -> None:
        if comparison.kind == "method" and all(
            self.bytes_of(name, comparison.first) == self.bytes_of(name, comparison.second)
            for name in originals
        ):
            raise CalcarineError(
                f"The pictures of '{comparison.first}' and '{comparison.second}' are the same; "
                "compare methods whose pictures differ."
            )


Question = tuple[str, int, int, tuple[str, str], tuple[str, str], tuple[str, str]]


def _questions(settings: StudySettings) -> list[Question]:
    result: list[Question] = []
    originals = settings.originals
    for number, comparison in enumerate(settings.comparisons):
        other = foils(len(originals), settings.seed, number)
        for item, name in enumerate(originals):
            second = originals[other[item]] if comparison.kind == "identification" else name
            result.append(
                (
                    MAIN,
                    number,
                    item,
                    (name, ORIGINAL),
                    (name, comparison.first),
                    (second, comparison.second),
                )
            )
    return result


def _easy(settings: StudySettings, spare: list[str]) -> list[Question]:
    """Make questions with an obvious answer: the original, changed slightly, or another picture."""
    rng = np.random.default_rng([settings.seed, _STREAM_OTHERS])
    methods = sorted({c.first for c in settings.comparisons})
    pool = list(spare) if len(spare) >= 2 else list(settings.originals)
    result: list[Question] = []
    for part, count in ((PRACTICE, settings.practice), (CATCH, settings.catch)):
        for item in range(count):
            # Neighbours in a shuffled pool are never the same original.
            if 2 * len(result) % len(pool) < 2:
                rng.shuffle(pool)
            name = pool[2 * len(result) % len(pool)]
            other = pool[(2 * len(result) + 1) % len(pool)]
            if item % 2:
                first, second = (name, DITHERED), (other, ORIGINAL)
            else:
                first = (name, BLURRED)
                second = (other, methods[int(rng.integers(len(methods)))])
            result.append((part, 0, item, (name, ORIGINAL), first, second))
    return result
