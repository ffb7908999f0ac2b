"""Columns of a comparison: the scores of one method, from one subject or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calcarine.errors import SettingError
from calcarine.evaluation.results.score_files import ScoreFile
from calcarine.evaluation.statistics.intervals import hierarchical_bootstrap

__all__ = ["Column", "ImageScores", "differences", "read_columns"]

Record = dict[str, Any]


Key = tuple[str | None, str]


@dataclass(frozen=True)
class ImageScores:
    """Scores of the images of one subject.

    Parameters
    ----------
    ids : sequence of str
    pictures : sequence of str or None
        SHA-256 of the ground truths, if the file records them.
    values : sequence of float
    """

    ids: Sequence[str]
    pictures: Sequence[str] | None
    values: Sequence[float]

    def by(self, content: bool) -> dict[str, float]:
        """Return the score of each image by its content or its id; equal pictures are averaged."""
        keys = self.pictures if content and self.pictures is not None else self.ids
        result: dict[str, list[float]] = {}
        for key, value in zip(keys, self.values, strict=True):
            result.setdefault(key, []).append(value)
        # Sorted, so that names and order of the images change no test.
        return {key: float(np.mean(result[key])) for key in (sorted(result) if content else result)}


@dataclass
class Column:
    """One method of a comparison, from one subject or several.

    Parameters
    ----------
    name : str
    records : dict
        By protocol and metric; for several subjects, their mean with a hierarchical interval.
    scores : dict
        By protocol and metric: scores of each subject's images.
    subjects : tuple of str or None
        In the order of `scores`; None if the subject is not known.
    """

    name: str
    records: dict[Key, Record] = field(default_factory=dict)
    scores: dict[Key, list[ImageScores]] = field(default_factory=dict)
    subjects: tuple[str | None, ...] = ()


def differences(record: Record, other: Record) -> tuple[str, ...]:
    """Return the reasons why two scores are not comparable; empty if they are."""
    result = []
    if record["protocol"] != other["protocol"] or record["protocol"] is None:
        result.append(f"protocol {record['protocol'] or 'unknown'}")
    if record["metric"] != other["metric"]:
        result.append(record["metric"])
    if record["pool"] != other["pool"]:
        result.append(f"pool {record['pool'] or 'unknown'}")
    if not _same_test_set(record, other):
        result.append(f"test set {record['test_set'] or 'without a name'}")
    # Published scores do not report the digests of their weights.
    weights, others = record.get("networks") or {}, other.get("networks") or {}
    differing = [name for name in weights if weights[name] != others.get(name, weights[name])]
    result += [f"weights of {name}" for name in differing]
    return tuple(result)


def _same_test_set(a: Record, b: Record) -> bool:
    if a["data"] is not None and b["data"] is not None:
        return bool(a["data"] == b["data"])
    named = a["test_set"] is not None and a["test_set"] == b["test_set"]
    return named and a["n"] == b["n"]


def read_columns(files: Sequence[ScoreFile], n_boot: int, seed: int) -> list[Column]:
    """Collect the scores of each method from score files.

    Parameters
    ----------
    files : sequence of ScoreFile
    n_boot, seed : int
        For the intervals of several subjects.

    Returns
    -------
    list of Column

    Raises
    ------
    CalcarineError
        If the subjects of one method were scored differently.
    """
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
    for method, result in parts.items():
        subjects = [file.subject for file, _ in result]
        several = None not in subjects and len(set(subjects)) == len(result)
        # Subjects of another data set are another experiment.
        datasets = {file.dataset for file, _ in result} - {None}
        together = several and len(datasets) <= 1
        groups = [result] if together or len(result) == 1 else [[part] for part in result]
        for group in groups:
            name = method if len(groups) == 1 else f"{method} ({labels[group[0][0].path]})"
            group.sort(key=lambda part: part[0].subject or "")
            columns.append(_column(name, method, group, n_boot, seed))
    return columns


def _labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Return unique names of files, with as many of their folders as needed."""
    whole = {path: path.resolve().with_suffix("").parts for path in paths}
    for depth in range(1, max(map(len, whole.values()), default=0) + 1):
        result = {path: "/".join(parts[-depth:]) for path, parts in whole.items()}
        if len(set(result.values())) == len(result):
            return result
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
            differing = [d for d in differences(record, first) if not d.startswith("test set")]
            if differing:
                raise SettingError(
                    f"The subjects of {method!r} were scored differently ({differing[0]} in "
                    f"{file.path}); score them in the same way, or give them different names."
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
    values = [np.asarray(matches.values) for matches in scores]
    result = hierarchical_bootstrap(values, n_boot, seed=seed)
    return record | {
        "value": result.value,
        "ci_low": result.ci_low,
        "ci_high": result.ci_high,
        "subjects": subjects,
    }
