"""Results of an evaluation: scores of methods, floors and ceilings on the same images."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from calcarine.display import html_table, listed, text_table
from calcarine.errors import CalcarineError
from calcarine.files import atomic_write, read_json, write_text
from calcarine.files.parquet import read_parquet

__all__ = [
    "DEFAULT_PROTOCOL",
    "NOTES_NAME",
    "PER_IMAGE_NAME",
    "SUMMARY_NAME",
    "Evaluation",
    "main_protocol",
    "read_evaluation",
    "read_summary",
    "select_main_protocol",
    "write_evaluation",
]

Record = dict[str, Any]

SUMMARY_NAME = "summary.json"
NOTES_NAME = "notes.json"
PER_IMAGE_NAME = "per_image.parquet"
DEFAULT_PROTOCOL = "calcarine"
_MOST_ROWS = 12
_FEW_ROWS = 3


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of all methods on one test set.

    Parameters
    ----------
    records : list of dict
        One for each method and metric, with these keys:

        - method, role ("method", "floor" or "ceiling"), metric, protocol;
        - value, ci_low and ci_high (95 % interval over images), summary ("mean" or "median" over
          images), higher_is_better, definition (a sentence), direction;
        - n (images), samples, pool (number of candidates; of the smallest category if only images
          of one category compete), chance (None if theory gives none);
        - p (one-sided permutation test), p_holm (corrected for the metrics of the protocol),
          n_permutations, null_mean and null_sd (scores of shuffled pairs);
        - p_min and p_holm_min: the p that perfect reconstructions would get with this number of
          images and shuffles;
        - test_set (name), data (SHA-256 of the ground truths), networks (SHA-256 of the weights
          by name).

        Records of a "shuffled brain" hold the null distribution and no p.
    per_image : pandas.DataFrame
        One row for each image, method and metric; columns id, method, metric, value, category
        and protocol.
    notes : list of str
        What was left out, and why.
    pictures : dict of str to str
        SHA-256 of each ground truth by id; comparisons pair images by it.
    subject, dataset : str or None
        Whose brain activity was decoded, and the name of the data set; None if not known.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import score_arrays
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> result = score_arrays(truth, truth, judge=None, n_boot=100, n_permutations=100)
    >>> own = [record for record in result.records if record["role"] == "method"]
    >>> own[0]["metric"], round(own[0]["value"], 2), own[0]["n"]
    ('pixel correlation', 1.0, 12)
    >>> result.per_image.columns.tolist()
    ['id', 'method', 'metric', 'value', 'category', 'protocol']
    """

    records: list[Record]
    per_image: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    subject: str | None = None
    dataset: str | None = None

    def __repr__(self) -> str:
        return text_table(self._title(), self._summary() | self._scores(_FEW_ROWS))

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._summary() | self._scores(_MOST_ROWS))

    def _scores(self, most: int) -> dict[str, object]:
        """Return the first scores of the methods with their intervals and verdicts."""
        from calcarine.evaluation.results.tables import cells

        several = len({r["method"] for r in self.records if r.get("role") == "method"}) > 1
        rows: dict[str, object] = {}
        for record in self.records:
            if record.get("role") != "method" or len(rows) == most:
                continue
            _, value, interval, *_, verdict = cells(record)
            name = f"{record['method']}: {record['metric']}" if several else record["metric"]
            rows[str(name)] = " · ".join([value, interval, verdict])
        return rows

    def _title(self) -> str:
        n = self.per_image["id"].nunique() if "id" in self.per_image else 0
        return f"Evaluation of {n} images"

    def _summary(self) -> dict[str, object]:
        def names(role: str) -> list[str]:
            return list(dict.fromkeys(r["method"] for r in self.records if r.get("role") == role))

        rows: dict[str, object] = {"methods": listed(names("method"))}
        rows |= {f"{role}s": listed(names(role)) for role in ("floor", "ceiling") if names(role)}
        rows["protocols"] = listed(dict.fromkeys(str(r["protocol"]) for r in self.records))
        rows["scores"] = len(self.records)
        return rows | ({"notes": len(self.notes)} if self.notes else {})


def main_protocol(known: Iterable[str]) -> str:
    """Return the protocol that reports lead with: "calcarine", else the first, else "".

    Several protocols can have a metric of the same name, so a report must choose one.
    """
    names = list(dict.fromkeys(known))
    return DEFAULT_PROTOCOL if DEFAULT_PROTOCOL in names else next(iter(names), "")


def select_main_protocol(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the main protocol."""
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
    Each file is written under a temporary name and renamed, so an interruption leaves no
    incomplete file.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from calcarine.evaluation import score_arrays, write_evaluation
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> result = score_arrays(truth, truth, judge=None, n_boot=100, n_permutations=100)
    >>> write_evaluation("scores", result)
    >>> sorted(file.name for file in Path("scores").iterdir())
    ['notes.json', 'per_image.parquet', 'summary.json']
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

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import read_evaluation, score_arrays, write_evaluation
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> result = score_arrays(truth, truth, judge=None, n_boot=100, n_permutations=100)
    >>> write_evaluation("scores", result)
    >>> len(read_evaluation("scores").records) == len(result.records)
    True
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
    except (OSError, ValueError):
        raise CalcarineError(_malformed(path)) from None
    if not isinstance(content, list):
        raise CalcarineError(_malformed(path))
    return content


def _malformed(path: Path) -> str:
    return f"The scores {path} are missing or damaged; run the evaluation again."
