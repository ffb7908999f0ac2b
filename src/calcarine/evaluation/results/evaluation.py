"""Scores of methods, floors and ceilings on the same images, written and read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from calcarine.errors import CalcarineError
from calcarine.files import atomic_write, read_json, write_text
from calcarine.files.parquet import read_parquet

Record = dict[str, Any]

SUMMARY_NAME = "summary.json"
NOTES_NAME = "notes.json"
PER_IMAGE_NAME = "per_image.parquet"
DEFAULT_PROTOCOL = "calcarine"


@dataclass(frozen=True)
class Evaluation:
    """Scores of all methods.

    Parameters
    ----------
    records : list of dict
        One for each method and metric: method, role ("method", "floor" or "ceiling"), metric,
        protocol, value, ci_low, ci_high (95 %, over images), n (images), pool (candidates; of the
        smallest category where categories compete), chance (None where theory gives none), p
        (permutation, one-sided), null_mean and null_sd (shuffled pairs), n_permutations, p_holm
        (corrected for the metrics of the protocol), p_min and p_holm_min (the p that perfect
        reconstructions of so few images would get with so few shuffles), direction,
        higher_is_better, summary ("mean" or "median" of the images), definition (a sentence),
        samples, test_set, data (SHA-256 of the ground truths) and networks (SHA-256 of weights by
        name). The records of a "shuffled brain" hold the null distribution and no p.
    per_image : DataFrame
        Columns id, method, metric, value, category and protocol.
    notes : list of str
        What was left out, and why.
    pictures : dict of str to str
        SHA-256 of each ground truth by id, by which comparisons pair images.
    """

    records: list[Record]
    per_image: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)


def main_protocol(known: Iterable[str]) -> str:
    """Ours, or the first where ours was not asked for; "" of none.

    A metric may have the same name under several protocols; one of them must be meant.
    """
    names = list(dict.fromkeys(known))
    return DEFAULT_PROTOCOL if DEFAULT_PROTOCOL in names else next(iter(names), "")


def select_main_protocol(per_image: pd.DataFrame) -> pd.DataFrame:
    """Rows of the leading protocol."""
    if "protocol" not in per_image.columns or per_image.empty:
        return per_image
    return per_image[per_image["protocol"] == main_protocol(per_image["protocol"])]


def write_evaluation(folder: str | Path, evaluation: Evaluation) -> None:
    """Write ``summary.json`` (a list of records), ``notes.json`` and ``per_image.parquet``.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    evaluation : Evaluation
        Records are sorted by method, protocol and metric, numbers rounded to six digits after the
        point.

    Notes
    -----
    Each file is written aside and renamed, so a half-written one is never found.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    order = ("method", "protocol", "metric", "role")
    records = sorted(evaluation.records, key=lambda row: [str(row[name]) for name in order])
    rounded = [{key: _rounded(value) for key, value in row.items()} for row in records]
    with atomic_write(folder / PER_IMAGE_NAME) as temporary:
        evaluation.per_image.to_parquet(temporary)
    for name, content in ((NOTES_NAME, evaluation.notes), (SUMMARY_NAME, rounded)):
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_text(folder / name, text)


def read_summary(folder: str | Path) -> list[Record]:
    """Read the records that `write_evaluation` wrote.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of dict

    Raises
    ------
    CalcarineError
        If the file is missing or malformed.
    """
    path = Path(folder) / SUMMARY_NAME
    records = _read_list(path)
    if not records:
        raise CalcarineError(_malformed(path))
    return records


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read back all that `write_evaluation` wrote.

    Parameters
    ----------
    folder : path

    Returns
    -------
    Evaluation
        Records sorted and rounded.

    Raises
    ------
    CalcarineError
        If a file is missing or malformed.
    """
    records, notes = read_summary(folder), _read_list(Path(folder) / NOTES_NAME)
    path = Path(folder) / PER_IMAGE_NAME
    try:
        per_image = read_parquet(path)
    except (OSError, ValueError):
        raise CalcarineError(_malformed(path)) from None
    return Evaluation(records, per_image, notes)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _read_list(path: Path) -> list[Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        raise CalcarineError(_malformed(path)) from None
    if not isinstance(content, list):
        raise CalcarineError(_malformed(path))
    return content


def _malformed(path: Path) -> str:
    return f"the scores {path} are missing or malformed: run the evaluation again."
