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

__all__ = ["HEADINGS", "RetrievalSection", "Sheet", "read_retrieval", "retrieval_lines"]

HEADINGS = (
    *("target", "feature space", "region", "gallery", "rank percentile [95 % interval]", "p"),
    *("top-1 (chance)", "top-5", "median rank", "backward top-1", "hubness"),
)
_GALLERIES = {
    "test": "{size} test stimuli",
    "train": "{size} training stimuli",
    "all": "all {size} stimuli",
    "folder": "{size} pictures in {folder}",
    "folder+seen": "{size} pictures: those in {folder} and the test stimuli",
}


@dataclass(frozen=True)
class Sheet:
    """Some stimuli and the pictures nearest to what was decoded.

    Attributes
    ----------
    target : str
    gallery : str
        In words.
    holds_seen : bool
        Whether the gallery holds the stimuli themselves.
    rows : list
        For each stimulus: (id, picture) of it and of the nearest pictures, best first; pictures as
        data URIs.
    """

    target: str
    gallery: str
    holds_seen: bool
    rows: list[list[tuple[str, str]]]


@dataclass(frozen=True)
class RetrievalSection:
    """Scores and pictures for the report.

    Attributes
    ----------
    rows : list of tuple of str
        Cells under `HEADINGS`.
    sheets : list of Sheet
    corrected : bool
        Whether similarities are corrected for hubs.
    holding, lacking : list of str
        Galleries that hold the pictures that were seen, and those that lack them.
    """

    rows: list[tuple[str, ...]]
    sheets: list[Sheet]
    corrected: bool
    holding: list[str]
    lacking: list[str]


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
        scores = content["scores"]
        searched = {(score["target"], score["gallery"]): score for score in scores}
        pictures: dict[str, str] = {}

        def uri(name: str) -> str:
            if name not in pictures:
                file = folder / "pictures" / Path(name).name
                pictures[name] = data_uri(file.read_bytes())
            return pictures[name]

        sheets = [
            Sheet(
                str(sheet["target"]),
                _gallery(score),
                _has_ranks(score),
                [[(str(key), uri(name)) for key, name in row] for row in sheet["rows"]],
            )
            for sheet in read_json(folder / "pictures" / "shown.json")
            for score in [searched[sheet["target"], sheet["gallery"]]]
        ]
        held = {_gallery(score): _has_ranks(score) for score in scores}
        return RetrievalSection(
            [_row(score) for score in scores],
            sheets,
            content["hubs"] != "keep",
            [name for name, holds in held.items() if holds],
            [name for name, holds in held.items() if not holds],
        )
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
    lines = []
    for row in (dict(zip(HEADINGS, cells, strict=True)) for cells in section.rows):
        searched = f"Retrieval by {row['target']} from {row['region']} among {row['gallery']}"
        if row["gallery"] in section.lacking:
            lines.append(f"{searched}: no ranks, because it lacks the pictures that were seen")
            continue
        lines.append(
            f"{searched}: rank percentile {row[HEADINGS[4]]}, {row['p']}, top-1 "
            f"{row['top-1 (chance)']}, top-5 {row['top-5']}, median rank {row['median rank']}"
        )
    return lines


def _has_ranks(score: dict[str, Any]) -> bool:
    """Return whether the gallery of a score holds the stimuli themselves."""
    return "rank percentile" in score


def _gallery(score: dict[str, Any]) -> str:
    """Return the gallery of a score in words, with its size."""
    kind, _, folder = score["gallery"].partition(":")
    return _GALLERIES[kind].format(size=f"{score['gallery_size']:,}", folder=folder)


def _row(score: dict[str, Any]) -> tuple[str, ...]:
    named = (
        *(str(score[name]) for name in ("target", "space", "roi")),
        _gallery(score),
    )
    hubness = f"{score['hubness']:.2f}"
    if not _has_ranks(score):
        return (*named, *["–"] * 6, hubness)
    low, high = number(float(score["ci_low"])), number(float(score["ci_high"]))
    p = score["p"]
    return (
        *named,
        f"{number(float(score['rank percentile']))} [{low}, {high}]",
        "–" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}",
        f"{score['top-1']:.3f} ({score['top-1 chance']:.2g})",
        f"{score['top-5']:.3f}",
        f"{score['median rank']:g}",
        f"{score['backward top-1']:.3f}",
        hubness,
    )
