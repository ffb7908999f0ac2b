"""Score files: JSON with records, scores of every image, and provenance."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.errors import DamagedFileError
from calcarine.files import read_json, write_text

if TYPE_CHECKING:
    from calcarine.evaluation.results.evaluation import Evaluation

__all__ = ["FORMAT", "ScoreFile", "read_scores", "write_scores"]

FORMAT = "calcarine scores 1"
PerImage = dict[str, dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class ScoreFile:
    """Content of a score file.

    Parameters
    ----------
    path : Path
    subject : str or None
        The subject.
    ids : list of str
    records : list of dict
    per_image : dict
        Scores by method, protocol and metric, in the order of `ids`.
    pictures : list of str or None
        SHA-256 of each ground truth, in the order of `ids`; None in files of older versions.
    dataset : str or None
        Name of the data set; None in files of older versions and where it is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import read_scores, score_arrays, write_scores
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> options = {"judge": None, "n_boot": 100, "n_permutations": 100}
    >>> result = score_arrays(truth, truth, method="copy", **options)
    >>> write_scores("scores.json", result)
    >>> values = read_scores("scores.json").per_image["copy"]["calcarine"]["pixel correlation"]
    >>> len(values), round(values[0], 3)
    (12, 1.0)
    """

    path: Path
    subject: str | None
    ids: list[str]
    records: list[dict[str, Any]]
    per_image: PerImage
    pictures: list[str] | None = None
    dataset: str | None = None


def write_scores(path: str | Path, evaluation: Evaluation, subject: str | None = None) -> None:
    """Write a score file atomically.

    Parameters
    ----------
    path : path
    evaluation : Evaluation
        From `score_arrays` or `score_folder`.
    subject : str, optional
        The subject, by default that of the evaluation; files of several subjects of one method
        are joined by `compare_scores`.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import read_scores, score_arrays, write_scores
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> result = score_arrays(truth, truth, judge=None, n_boot=100, n_permutations=100)
    >>> write_scores("scores.json", result, subject="S1")
    >>> read_scores("scores.json").subject
    'S1'
    """
    from calcarine import __version__

    table = evaluation.per_image
    per_image: PerImage = {}
    for keys, rows in table.groupby(["method", "protocol", "metric"], sort=False):
        method, protocol, metric = (str(key) for key in keys)
        values = [round(float(value), 9) for value in rows["value"]]
        per_image.setdefault(method, {}).setdefault(protocol, {})[metric] = values
    ids = [str(i) for i in dict.fromkeys(table["id"])]
    known = [evaluation.pictures.get(i) for i in ids]
    content = {
        "format": FORMAT,
        "calcarine": __version__,
        "subject": evaluation.subject if subject is None else subject,
        "dataset": evaluation.dataset,
        "ids": ids,
        "pictures": None if None in known else known,
        "notes": evaluation.notes,
        "records": [
            {k: round(v, 9) if isinstance(v, float) else v for k, v in record.items()}
            for record in evaluation.records
        ],
        "per_image": per_image,
    }
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    write_text(Path(path), text + "\n")


def read_scores(path: str | Path) -> ScoreFile:
    """Read a score file.

    Parameters
    ----------
    path : path

    Returns
    -------
    ScoreFile

    Raises
    ------
    CalcarineError
        If the file is missing, is not a score file, or has an invalid value.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.evaluation import read_scores, score_arrays, write_scores
    >>> truth = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> result = score_arrays(truth, truth, judge=None, n_boot=100, n_permutations=100)
    >>> write_scores("scores.json", result)
    >>> scores = read_scores("scores.json")
    >>> len(scores.ids), scores.records[0]["metric"]
    (12, 'pixel correlation')
    """
    path = Path(path)
    try:
        content = read_json(path)
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DamagedFileError(
            f"{path} is missing or is not a score file; make one with 'calcarine score --out'."
        )
    wrong = _wrong(content)
    if wrong is not None:
        raise DamagedFileError(
            f"{path} is damaged ({wrong}); make it again with 'calcarine score --out'."
        )
    return ScoreFile(
        path,
        content["subject"],
        content["ids"],
        content["records"],
        content["per_image"],
        content.get("pictures"),
        content.get("dataset"),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _is_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _or_none(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


def _is_finite(value: Any) -> bool:
    """Return whether all numbers in a value can be written as JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


_LARGEST = 1e100  # beyond it, differences and means overflow
_NEEDED: dict[str, Callable[[Any], bool]] = {
    "method": _is_text,
    "role": lambda value: value in ("method", "floor", "ceiling"),
    "metric": _is_text,
    "protocol": _or_none(_is_text),
    "value": _is_number,
    "ci_low": _or_none(_is_number),
    "ci_high": _or_none(_is_number),
    "n": _or_none(_is_count),
    "pool": _or_none(_is_count),
    "test_set": _or_none(_is_text),
    "data": _or_none(_is_text),
}
_KNOWN: dict[str, Callable[[Any], bool]] = {
    "chance": _or_none(_is_number),
    "p": _or_none(_is_number),
    "p_holm": _or_none(_is_number),
    "null_mean": _or_none(_is_number),
    "null_sd": _or_none(_is_number),
    "higher_is_better": lambda value: isinstance(value, bool),
    "summary": _or_none(_is_text),
    "samples": _or_none(_is_count),
    "networks": _or_none(_is_digests),
    "judge": _or_none(_is_text),
}


def _wrong(content: dict[str, Any]) -> str | None:
    """Return the place of the first invalid value, or None."""
    if not _or_none(_is_text)(content.get("subject", 0)):
        return "subject"
    if not _or_none(_is_text)(content.get("dataset")):
        return "dataset"
    ids, records = content.get("ids"), content.get("records")
    if not isinstance(ids, list) or not all(map(_is_text, ids)) or len(set(ids)) < len(ids):
        return "ids"
    pictures = content.get("pictures")
    if pictures is not None and (
        not isinstance(pictures, list) or [type(one) for one in pictures] != [str] * len(ids)
    ):
        return "pictures"
    if not isinstance(records, list):
        return "records"
    known = set()
    for number, record in enumerate(records):
        name = _wrong_in_record(record)
        if name is not None:
            return f"records, number {number + 1}: {name}"
        key = (record["method"], record["protocol"], record["metric"])
        if key in known and record["role"] != "floor":
            return f"records, number {number + 1}: a second score of {key[0]} by {key[2]}"
        known.add(key)
    return _wrong_per_image(content.get("per_image"), len(ids))


def _wrong_in_record(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "not a record"
    for name, test in (_NEEDED | _KNOWN).items():
        if name in record or name in _NEEDED:
            try:
                right = test(record[name])
            except (KeyError, TypeError):  # missing, or a list instead of a string
                right = False
            if not right:
                return name
    return next((name for name, value in record.items() if not _is_finite(value)), None)


def _wrong_per_image(per_image: Any, n: int) -> str | None:
    """Check the scores of every image by method, protocol and metric."""
    level = [("per_image", per_image)]
    for _ in range(3):
        if not all(isinstance(part, dict) for _, part in level):
            return next(place for place, part in level if not isinstance(part, dict))
        level = [(f"{at}: {name}", part) for at, whole in level for name, part in whole.items()]
    for place, values in level:
        if not isinstance(values, list) or len(values) != n or not all(map(_is_number, values)):
            return f"{place}, which should be {n} numbers"
    return None
