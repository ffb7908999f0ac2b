"""Compare several methods and published scores in one table, if they are comparable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import SettingError
from calcarine.evaluation.comparison.columns import Column, Key, Record, differences, read_columns
from calcarine.evaluation.comparison.paired_tests import paired_tests
from calcarine.evaluation.comparison.published import published_records
from calcarine.evaluation.results.score_files import read_scores

__all__ = ["Cell", "ScoreComparison", "compare_scores", "concept"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A score in a comparison; `marks` lists how it differs from the first column."""

    record: Record
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreComparison:
    """A table of methods and metrics, with paired tests.

    Parameters
    ----------
    columns : list of str
        Names of the methods.
    rows : list of (str, dict of str to Cell)
        Metric, and the cells of the columns that have it.
    tests : list of dict
        With the keys protocol, metric, a, b, difference (a - b), ci_low, ci_high, p (two-sided
        sign-flip test over images), p_signed_rank (Wilcoxon, as in Takagi & Nishimoto 2023),
        p_holm and p_signed_rank_holm (corrected for all tests of a protocol), n and subjects.
    notes : list of str
        What was left out or not tested, and why.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import compare_scores, score_arrays, write_scores
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> options = {"judge": None, "n_boot": 100, "n_permutations": 100}
    >>> write_scores("a.json", score_arrays(truth, truth, method="a", **options))
    >>> write_scores("b.json", score_arrays(truth, 255 - truth, method="b", **options))
    >>> comparison = compare_scores(["a.json", "b.json"], n_boot=100, n_permutations=100)
    >>> comparison.columns
    ['a', 'b']
    >>> test = comparison.tests[0]  # a minus b, over the same images
    >>> test["metric"], round(test["difference"], 3), test["p"] < 0.05
    ('pixel correlation', 2.0, True)
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
    """Compare methods in one table and test their differences.

    Parameters
    ----------
    files : sequence of path
        Written by `write_scores` or ``calcarine score --out``. Files of one method and several
        subjects become one column.
    published : sequence of str
        Systems of `published_systems`.
    mix : bool
        Whether to allow different protocols, pools and test sets; every cell that differs from
        the first column is marked.
    n_boot, n_permutations, seed : int
        Bootstrap resamples, sign flips, and the seed of both.

    Returns
    -------
    ScoreComparison

    Raises
    ------
    CalcarineError
        If scores are not comparable and ``mix`` is False.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import compare_scores, score_arrays, write_scores
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> options = {"judge": None, "n_boot": 100, "n_permutations": 100}
    >>> write_scores("a.json", score_arrays(truth, truth, method="a", **options))
    >>> write_scores("b.json", score_arrays(truth, 255 - truth, method="b", **options))
    >>> test = compare_scores(["a.json", "b.json"], n_boot=100).tests[0]
    >>> test["metric"], round(test["difference"], 3), test["n"]
    ('pixel correlation', 2.0, 12)
    """
    read = [read_scores(file) for file in files]
    given = [file.path.resolve() for file in read]
    twice = next((file for file in given if given.count(file) > 1), None)
    if twice is not None:
        raise SettingError(f"{twice} is given twice; give each score file once.")
    columns = read_columns(read, n_boot, seed)
    for system in published:
        records = {(r["protocol"], r["metric"]): r for r in published_records(system)}
        columns.append(Column(published_records(system)[0]["method"], records))
    if len(columns) < 2:
        raise SettingError("A comparison needs at least two methods; give more score files.")
    notes: list[str] = []
    rows = _mixed_rows(columns) if mix else _strict_rows(columns, notes)
    tests = paired_tests(columns, notes, n_boot, n_permutations, seed)
    return ScoreComparison([column.name for column in columns], rows, tests, notes)


def concept(metric: str) -> str:
    """Return the common name of a metric, without the details in which protocols differ."""
    name = re.sub(r", fixed (image|reconstruction)$", "", metric)
    name = re.sub(r"^SSIM,.*", "SSIM", name)
    name = re.sub(r"^EffNet-B \(.*\) distance$", "EffNet-B distance", name)
    return name.replace("Inception v3", "Inception")


def _strict_rows(columns: list[Column], notes: list[str]) -> list[tuple[str, dict[str, Cell]]]:
    common = set.intersection(*({key[0] for key in column.records} for column in columns))
    if not common or None in common:
        text = "; ".join(
            f"{column.name}: " + ", ".join(sorted({k[0] or "unknown" for k in column.records}))
            for column in columns
        )
        raise SettingError(
            f"These scores have no protocol in common ({text}); score all of them by one "
            "protocol, or give --mix to see them in one table with marks."
        )
    rest = sorted({str(key[0]) for column in columns for key in column.records} - common)
    if rest:
        notes.append(f"Left out, because not every method has scores of it: {', '.join(rest)}.")
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
            differing = differences(record, first)
            if differing:
                raise SettingError(
                    f"{column.name} and {first['method']} are not comparable, because {key[1]!r} "
                    f"differs ({differing[0]}); score them in the same way, name the test set with "
                    "--test-set, or give --mix."
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
            # Of several protocols of a method, the one most similar to the first column is shown.
            if column.name not in place or len(marks) < len(place[column.name].marks):
                place[column.name] = Cell(record, marks)
    return list(rows.items())


def _keys(columns: list[Column]) -> list[Key]:
    return list(dict.fromkeys(key for column in columns for key in column.records))
