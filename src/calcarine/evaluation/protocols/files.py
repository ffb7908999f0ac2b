"""Score files: JSON with records, scores of every image, and where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.errors import CalcarineError
from calcarine.files import write_text

if TYPE_CHECKING:
    from calcarine.evaluation.scores import Evaluation

FORMAT = "calcarine scores 1"
PerImage = dict[str, dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class ScoreFile:
    """Content of a score file.

    Parameters
    ----------
    path : Path
    subject : str or None
        Whose brain it was.
    ids : list of str
    records : list of dict
    per_image : dict
        Scores by method, protocol and metric, in the order of `ids`.
    pictures : list of str or None
        SHA-256 of each ground truth, in the order of `ids`; files of older versions have none.
    """

    path: Path
    subject: str | None
    ids: list[str]
    records: list[dict[str, Any]]
    per_image: PerImage
    pictures: list[str] | None = None


def write_scores(path: str | Path, evaluation: Evaluation, subject: str | None = None) -> None:
    """Write a score file, whole or not at all.

    Parameters
    ----------
    path : path
    evaluation : Evaluation
        Of `score_arrays` or `score_folder`.
    subject : str, optional
        Whose brain it was.
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
        "subject": subject,
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
        If it is missing or something else.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        needed = ("method", "role", "metric", "protocol", "value", "n", "pool", "data")
        for record in content["records"]:
            for name in needed:
                record[name]
        ids, pictures = content["ids"], content.get("pictures")
        if pictures is not None and [type(p) for p in pictures] != [str] * len(ids):
            raise ValueError("pictures")
        return ScoreFile(
            path, content["subject"], ids, content["records"], content["per_image"], pictures
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise CalcarineError(
            f"{path} is missing or no file of scores: make it with 'calcarine score --out'."
        ) from None
