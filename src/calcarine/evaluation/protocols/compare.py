"""Several methods and papers in one table, if they may stand in one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.evaluation.inference import (
    ALPHA,
    enough,
    hierarchical_bootstrap,
    holm,
    share_of_signs,
    signed_rank_p,
)
from calcarine.evaluation.protocols.published import published_records
from calcarine.evaluation.protocols.score_files import ScoreFile, read_scores
from calcarine.evaluation.statistics import paired_difference, smallest_p

Record = dict[str, Any]
Key = tuple[str | None, str]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ImageScores:
    """Scores of one subject's images.

    Parameters
    ----------
    ids : sequence of str
    pictures : sequence of str or None
        SHA-256 of the ground truths, where the file records them.
    values : sequence of float
    """

    ids: Sequence[str]
    pictures: Sequence[str] | None
    values: Sequence[float]

    def by(self, content: bool) -> dict[str, float]:
        """Score of each image by its content or its id; equal pictures get their mean."""
        keys = self.pictures if content and self.pictures is not None else self.ids
        found: dict[str, list[float]] = {}
        for key, value in zip(keys, self.values, strict=True):
            found.setdefault(key, []).append(value)
        # Sorted, so that what images are called and their order change no test.
        return {key: float(np.mean(found[key])) for key in (sorted(found) if content else found)}


@dataclass
class Column:
    """One method of a comparison, from one subject or several.

    Parameters
    ----------
    name : str
    records : dict
        By protocol and metric; of several subjects, their mean and hierarchical interval.
    scores : dict
        By protocol and metric: scores of each subject's images.
    subjects : tuple of str or None
        In the order of `scores`; None where nobody said who it was.
    """

    name: str
    records: dict[Key, Record] = field(default_factory=dict)
    scores: dict[Key, list[ImageScores]] = field(default_factory=dict)
    subjects: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A score in a comparison; `marks` say in what it differs from the first column."""

    record: Record
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreComparison:
    """A table of methods.

    Parameters
    ----------
    columns : list of str
    rows : list of (str, dict of str to Cell)
        Metric, and the cell of each column that has it.
    tests : list of dict
        protocol, metric, a, b, difference (a - b), ci_low, ci_high, p (two-sided sign flips over
        images), p_signed_rank (Wilcoxon's, as Takagi & Nishimoto 2023 test), p_holm and
        p_signed_rank_holm (over all tests of a protocol), n and subjects.
    notes : list of str
    """

    columns: list[str]
    rows: list[tuple[str, dict[str, Cell]]]
    tests: list[dict[str, Any]]
    notes: list[str]


def compare_scores(
    files: Sequence[str | Path],
    published: Sequence[str] = (),
    *,
    mix: bool = False,
    n_boot: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
) -> ScoreComparison:
    """Put methods beside each other.

    Parameters
    ----------
    files : sequence of path
        Written by ``calcarine score --out``. Files of one method and several subjects make one
        column.
    published : sequence of str
        Systems of `published_systems`.
    mix : bool
        Allow other protocols, pools and test sets; every cell that differs is marked.
    n_boot, n_permutations, seed : int
        For intervals and tests.

    Returns
    -------
    Comparison

    Raises
    ------
    CalcarineError
        If scores do not belong into one table and `mix` is not given.
    """
    read = [read_scores(file) for file in files]
    given = [file.path.resolve() for file in read]
    twice = next((file for file in given if given.count(file) > 1), None)
    if twice is not None:
        raise CalcarineError(f"{twice} was given twice: give each file of scores once.")
    columns = _columns(read, n_boot, seed)
    for system in published:
        records = {(r["protocol"], r["metric"]): r for r in published_records(system)}
        columns.append(Column(published_records(system)[0]["method"], records))
    if len(columns) < 2:
        raise CalcarineError("a comparison needs at least two methods: give more score files.")
    notes: list[str] = []
    rows = _mixed_rows(columns) if mix else _strict_rows(columns, notes)
    tests = _tests(columns, notes, n_boot, n_permutations, seed)
    return ScoreComparison([column.name for column in columns], rows, tests, notes)


def concept(metric: str) -> str:
    """What a metric is about, without what protocols do differently."""
    name = re.sub(r", fixed (image|reconstruction)$", "", metric)
    name = re.sub(r"^SSIM,.*", "SSIM", name)
    name = re.sub(r"^EffNet-B \(.*\) distance$", "EffNet-B distance", name)
    return name.replace("Inception v3", "Inception")


def differences(record: Record, other: Record) -> tuple[str, ...]:
    """In what two scores cannot be compared, in words; empty where they can."""
    found = []
    if record["protocol"] != other["protocol"] or record["protocol"] is None:
        found.append(f"protocol {record['protocol'] or 'not known'}")
    if record["metric"] != other["metric"]:
        found.append(record["metric"])
    if record["pool"] != other["pool"]:
        found.append(f"pool {record['pool'] or 'not known'}")
    if not _same_test_set(record, other):
        found.append(f"test set {record['test_set'] or 'without a name'}")
    # A published score does not say which weights it was made with.
    weights, others = record.get("networks") or {}, other.get("networks") or {}
    unlike = [name for name in weights if weights[name] != others.get(name, weights[name])]
    found += [f"weights of {name}" for name in unlike]
    return tuple(found)


def _same_test_set(a: Record, b: Record) -> bool:
    if a["data"] is not None and b["data"] is not None:
        return bool(a["data"] == b["data"])
    named = a["test_set"] is not None and a["test_set"] == b["test_set"]
    return named and a["n"] == b["n"]


def _columns(files: Sequence[ScoreFile], n_boot: int, seed: int) -> list[Column]:
    parts: dict[str, list[tuple[ScoreFile, list[Record]]]] = {}
    for file in files:
        own: dict[str, list[Record]] = {}
        for record in file.records:
            if record["role"] != "floor":
                own.setdefault(record["method"], []).append(record)
        for method, records in own.items():
            parts.setdefault(method, []).append((file, records))
    columns = []
    labels = _labels([file.path for file in files])
    for method, found in parts.items():
        subjects = [file.subject for file, _ in found]
        together = None not in subjects and len(set(subjects)) == len(found)
        groups = [found] if together or len(found) == 1 else [[part] for part in found]
        for group in groups:
            name = method if len(groups) == 1 else f"{method} ({labels[group[0][0].path]})"
            group.sort(key=lambda part: part[0].subject or "")
            columns.append(_column(name, method, group, n_boot, seed))
    return columns


def _labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Names of files, with as many of their folders as tell them apart."""
    whole = {path: path.resolve().with_suffix("").parts for path in paths}
    for depth in range(1, max(map(len, whole.values()), default=0) + 1):
        found = {path: "/".join(parts[-depth:]) for path, parts in whole.items()}
        if len(set(found.values())) == len(found):
            return found
    return {path: str(path) for path in paths}


def _column(
    name: str,
    method: str,
    parts: list[tuple[ScoreFile, list[Record]]],
    n_boot: int,
    seed: int,
) -> Column:
    column = Column(name, subjects=tuple(file.subject for file, _ in parts))
    for file, records in parts:
        for record in records:
            key = (record["protocol"], record["metric"])
            first = column.records.setdefault(key, dict(record))
            unlike = [d for d in differences(record, first) if not d.startswith("test set")]
            if unlike:
                raise CalcarineError(
                    f"the subjects of {method!r} were scored differently ({unlike[0]} in "
                    f"{file.path}): score them alike, or give them different method names."
                )
            values = file.per_image.get(method, {}).get(record["protocol"], {}).get(key[1])
            if values is not None:
                own = ImageScores(file.ids, file.pictures, values)
                column.scores.setdefault(key, []).append(own)
    if len(parts) > 1:
        column.records = {
            key: _joined(record, column.scores.get(key, []), len(parts), n_boot, seed)
            for key, record in column.records.items()
            if len(column.scores.get(key, [])) == len(parts) and record.get("summary") != "median"
        }
        column.name = f"{name}, {len(parts)} subjects"
    return column


def _joined(
    record: Record, scores: list[ImageScores], subjects: int, n_boot: int, seed: int
) -> Record:
    values = [np.asarray(found.values) for found in scores]
    result = hierarchical_bootstrap(values, n_boot, seed=seed)
    return record | {
        "value": result.value,
        "ci_low": result.ci_low,
        "ci_high": result.ci_high,
        "subjects": subjects,
    }


def _strict_rows(columns: list[Column], notes: list[str]) -> list[tuple[str, dict[str, Cell]]]:
    common = set.intersection(*({key[0] for key in column.records} for column in columns))
    if not common or None in common:
        told = "; ".join(
            f"{column.name}: " + ", ".join(sorted({k[0] or "not known" for k in column.records}))
            for column in columns
        )
        raise CalcarineError(
            f"these scores have no protocol in common ({told}): score all of them by one "
            "protocol, or give --mix to see them side by side, marked."
        )
    rest = sorted({str(key[0]) for column in columns for key in column.records} - common)
    if rest:
        notes.append(f"Not every method has scores of {', '.join(rest)}; these are left out.")
    rows = []
    for key in _keys(columns):
        if key[0] not in common:
            continue
        cells: dict[str, Cell] = {}
        first: Record | None = None
        for column in columns:
            record = column.records.get(key)
            if record is None:
                continue
            first = first or record
            unlike = differences(record, first)
            if unlike:
                raise CalcarineError(
                    f"{column.name} and {first['method']} cannot stand in one table, for "
                    f"{key[1]!r} differs ({unlike[0]}): score them alike, "
                    "name the test set with --test-set, or give --mix."
                )
            cells[column.name] = Cell(record)
        rows.append((f"{key[1]}" if len(common) == 1 else f"{key[0]}: {key[1]}", cells))
    return rows


def _mixed_rows(columns: list[Column]) -> list[tuple[str, dict[str, Cell]]]:
    rows: dict[str, dict[str, Cell]] = {}
    firsts: dict[str, Record] = {}
    for column in columns:
        for key, record in column.records.items():
            about = concept(key[1])
            first = firsts.setdefault(about, record)
            marks = differences(record, first) if record is not first else ()
            place = rows.setdefault(about, {})
            # A method scored by several protocols shows the one nearest to the first column's.
            if column.name not in place or len(marks) < len(place[column.name].marks):
                place[column.name] = Cell(record, marks)
    return list(rows.items())


def _keys(columns: list[Column]) -> list[Key]:
    return list(dict.fromkeys(key for column in columns for key in column.records))


def _tests(
    columns: list[Column], notes: list[str], n_boot: int, n_permutations: int, seed: int
) -> list[dict[str, Any]]:
    found = []
    bare = [column.name for column in columns if not column.scores]
    if bare:
        notes.append(f"{', '.join(bare)}: not tested, for there are no scores of single images.")
    for a, b in combinations([column for column in columns if column.scores], 2):
        reason = _why_not_at_all(a, b)
        if reason is not None:
            notes.append(f"{a.name} and {b.name} {reason}, so they are not tested.")
            continue
        untested: dict[str, list[str]] = {}
        for key in a.records:
            if key not in b.records:
                continue
            result: dict[str, Any] | str = _why_no_test(key, a, b) or _test(
                a.scores[key], b.scores[key], n_boot, n_permutations, seed
            )
            if isinstance(result, str):
                untested.setdefault(result, []).append(key[1])
                continue
            head = {"protocol": key[0], "metric": key[1], "a": a.name, "b": b.name}
            found.append(head | result)
        notes += [
            f"{a.name} and {b.name} are not tested on {_some(metrics)}: {why}."
            for why, metrics in untested.items()
        ]
        if any(one.pictures is None for one in _image_scores(a, b)):
            notes.append(
                f"{a.name} and {b.name} are paired by the names of images, for files of an older "
                "version do not record what the images are; score again to pair by content."
            )
    for protocol in {test["protocol"] for test in found}:
        family = [test for test in found if test["protocol"] == protocol]
        for name in ("p", "p_signed_rank"):
            for test, p in zip(family, holm([test[name] for test in family]), strict=True):
                test[f"{name}_holm"] = float(p)
        notes += _too_few(protocol, family, n_permutations)
    return found


def _too_few(protocol: str, family: list[dict[str, Any]], n_permutations: int) -> list[str]:
    """Say it where no difference, however clear, could have been significant."""
    n, tests = max(test["n"] for test in family), len(family)
    least = tests * smallest_p(n_permutations, share_of_signs(n))
    if least <= ALPHA:
        return []
    images, flips = enough(n, n_permutations, tests, ALPHA, share_of_signs)
    wanted = [f"at least {images} images"] if images > n else []
    wanted += [f"at least {flips} sign flips"] if flips > n_permutations else []
    return [
        f"Tests of {protocol} are inconclusive: with {n} images, {n_permutations} sign flips and a "
        f"correction for {tests} tests p is at least {min(1.0, least):.2g} for any difference; use "
        f"{' and '.join(wanted)}."
    ]


def _image_scores(*columns: Column) -> list[ImageScores]:
    return [one for column in columns for scores in column.scores.values() for one in scores]


def _why_not_at_all(a: Column, b: Column) -> str | None:
    if None not in (*a.subjects, *b.subjects) and a.subjects != b.subjects:
        return "are of other subjects"
    if len(a.subjects) != len(b.subjects):
        return f"are of {len(a.subjects)} and {len(b.subjects)} subjects"
    return None


def _why_no_test(key: Key, a: Column, b: Column) -> str | None:
    # Tests are of means; a median of ranks has the ranks' mean beside it.
    if a.records[key].get("summary") == "median":
        return "medians are not tested"
    if key not in a.scores or key not in b.scores:
        return "it has no scores of single images"
    unlike = differences(a.records[key], b.records[key])
    return f"the scores are not comparable ({', '.join(unlike)})" if unlike else None


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _test(
    a: list[ImageScores],
    b: list[ImageScores],
    n_boot: int,
    n_permutations: int,
    seed: int,
) -> dict[str, Any] | str:
    """Test two methods on the images of both, or say why not."""
    content = all(one.pictures is not None for one in (*a, *b))
    pairs = [(x.by(content), y.by(content)) for x, y in zip(a, b, strict=True)]
    if not content and any(set(x) != set(y) for x, y in pairs):
        return (
            "their images have other names, and files of an older version do not record what the "
            "images are; score again"
        )
    gains = [{i: x[i] - y[i] for i in x if i in y} for x, y in pairs]
    if not all(gains):
        return "they have no image in common"
    # Subjects who saw one image are no independent witnesses of it, so signs flip by image.
    images: dict[str, list[float]] = {}
    for gain in gains:
        for image, value in gain.items():
            images.setdefault(image, []).append(value)
    mean = np.asarray([np.mean(values) for values in images.values()])
    result = vars(
        paired_difference(mean, np.zeros(len(mean)), n_boot, n_permutations, seed=seed)
    ) | {"subjects": len(gains), "p_signed_rank": signed_rank_p(mean)}
    if len(gains) > 1:
        values = [np.asarray(list(gain.values())) for gain in gains]
        over = hierarchical_bootstrap(values, n_boot, seed=seed)
        result |= {"difference": over.value, "ci_low": over.ci_low, "ci_high": over.ci_high}
    return result
