"""What a report says of the stimuli that were retrieved by decoded features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from calcarine.errors import DamagedFileError
from calcarine.files import read_json
from calcarine.reporting.html_pages import data_uri
from calcarine.reporting.score_tables import number

__all__ = ["HEADINGS", "RetrievalSection", "read_retrieval", "retrieval_lines"]

HEADINGS = (
    *("target", "feature space", "region", "gallery", "rank percentile [95 % interval]", "p"),
    *("top-1 (chance)", "top-5", "median rank", "backward top-1", "hubness"),
)
_GALLERIES = {"test": "{size} test stimuli", "all": "all {size} stimuli"}


@dataclass(frozen=True)
class RetrievalSection:
    """Scores and pictures for the report.

    Attributes
    ----------
    rows : list of tuple of str
        Cells under `HEADINGS`.
    sheets : dict of str to list
        By target, for some stimuli: (id, picture) of the stimulus and of those nearest to what was
        decoded, best first; pictures as data URIs.
    corrected : bool
        Whether similarities are corrected for hubs.
    """

    rows: list[tuple[str, ...]]
    sheets: dict[str, list[list[tuple[str, str]]]]
    corrected: bool


def read_retrieval(run: Path) -> RetrievalSection | None:
    """Read ``retrieval/`` of a run; None if it retrieved nothing.

    Raises
    ------
    DamagedFileError
        If a file is damaged.
    """
    folder = run / "retrieval"
    if not (folder / "summary.json").is_file():
        return None
    try:
        settings = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
        if not settings["embeddings"]["targets"]:  # of earlier settings
            return None
        content = read_json(folder / "summary.json")
        rows = [_row(score) for score in content["scores"]]
        shown = read_json(folder / "pictures" / "shown.json")
        uris = {
            key: data_uri((folder / "pictures" / Path(name).name).read_bytes())
            for key, name in shown["files"].items()
        }
        sheets = {
            str(target): [[(str(key), uris[key]) for key in keys] for keys in listed]
            for target, listed in shown["rows"].items()
        }
        return RetrievalSection(rows, sheets, content["hubs"] != "keep")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise DamagedFileError(
            f"{folder} cannot be read; make it again with 'calcarine retrieve {run}'."
        ) from error


def retrieval_lines(run: Path) -> list[str]:
    """Return the scores of retrieval as lines of plain text, for the command line.

    Raises
    ------
    DamagedFileError
        If a file is damaged.
    """
    section = read_retrieval(run)
    if section is None:
        return []
    cells = [dict(zip(HEADINGS, row, strict=True)) for row in section.rows]
    return [
        f"Retrieval by {row['target']} from {row['region']} among {row['gallery']}: rank "
        f"percentile {row[HEADINGS[4]]}, {row['p']}, top-1 {row['top-1 (chance)']}, top-5 "
        f"{row['top-5']}, median rank {row['median rank']}"
        for row in cells
    ]


def _row(score: dict[str, Any]) -> tuple[str, ...]:
    low, high = number(float(score["ci_low"])), number(float(score["ci_high"]))
    p = score["p"]
    return (
        str(score["target"]),
        str(score["space"]),
        str(score["roi"]),
        _GALLERIES[score["gallery"]].format(size=score["gallery_size"]),
        f"{number(float(score['rank percentile']))} [{low}, {high}]",
        "–" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}",
        f"{score['top-1']:.3f} ({score['top-1 chance']:.3f})",
        f"{score['top-5']:.3f}",
        f"{score['median rank']:g}",
        f"{score['backward top-1']:.3f}",
        f"{score['hubness']:.2f}",
    )
