"""Several methods and papers in one table, if they may stand in one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.evaluation.comparison.columns import Column, Key, Record, differences, read_columns
from calcarine.evaluation.comparison.paired_tests import paired_tests
from calcarine.evaluation.comparison.published import published_records
from calcarine.evaluation.results.score_files import read_scores

FloatArray = NDArray[np.float64]


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
    columns = read_columns(read, n_boot, seed)
    for system in published:
        records = {(r["protocol"], r["metric"]): r for r in published_records(system)}
        columns.append(Column(published_records(system)[0]["method"], records))
    if len(columns) < 2:
        raise CalcarineError("a comparison needs at least two methods: give more score files.")
    notes: list[str] = []
    rows = _mixed_rows(columns) if mix else _strict_rows(columns, notes)
    tests = paired_tests(columns, notes, n_boot, n_permutations, seed)
    return ScoreComparison([column.name for column in columns], rows, tests, notes)


def concept(metric: str) -> str:
    """What a metric is about, without what protocols do differently."""
    name = re.sub(r", fixed (image|reconstruction)$", "", metric)
    name = re.sub(r"^SSIM,.*", "SSIM", name)
    name = re.sub(r"^EffNet-B \(.*\) distance$", "EffNet-B distance", name)
    return name.replace("Inception v3", "Inception")


def _strict_rows(columns: list[Column], notes: list[str]) -> list[tuple[str, dict[str, Cell]]]:
    common = set.intersection(*({key[0] for key in column.records} for column in columns))
    if not common or None in common:
        text = "; ".join(
            f"{column.name}: " + ", ".join(sorted({k[0] or "not known" for k in column.records}))
            for column in columns
        )
        raise CalcarineError(
            f"these scores have no protocol in common ({text}): score all of them by one "
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
            differing = differences(record, first)
            if differing:
                raise CalcarineError(
                    f"{column.name} and {first['method']} cannot stand in one table, for "
                    f"{key[1]!r} differs ({differing[0]}): score them alike, "
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
