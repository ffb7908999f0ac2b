"""Scores arranged in tables: families of metrics, rows, and the main scores."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from calcarine.evaluation.results.evaluation import DEFAULT_PROTOCOL
from calcarine.evaluation.results.floor_verdicts import FloorVerdict, Outcome
from calcarine.evaluation.statistics.significance import ALPHA
from calcarine.reporting.run_records import Score, VerdictKey, main_method, order_methods

__all__ = [
    "CATEGORIES",
    "CLASSES",
    "FIXED_IMAGE",
    "FIXED_RECONSTRUCTION",
    "HARD",
    "HEADLINES",
    "IDENTIFICATION",
    "LIKENESS",
    "MIDDLE",
    "OUTCOME_CLASSES",
    "WITHIN",
    "Group",
    "Headline",
    "ScoreRow",
    "adjusted_p",
    "arrange",
    "axis_label",
    "explain",
    "family",
    "headlines",
    "interval",
    "main_rows",
    "named_p_value",
    "names_of_role",
    "number",
    "p_value",
    "verdict_summary",
]

# Fixed before scoring, so that no score is selected by its value.
HEADLINES = (
    "pixel correlation",
    "identification, pixels, fixed image",
    "identification, early layer, fixed image",
    "identification, late layer, fixed image",
    "10-way top-1",
    "category accuracy",
)
_MOST_HEADLINES = 6
_FEWEST_HEADLINES = 4

LIKENESS, IDENTIFICATION = "Pixel similarity", "Identification"
WITHIN, HARD = "Identification within a category", "Identification among hard candidates"
MIDDLE = "Identification, median rank"
CLASSES, CATEGORIES = "n-way classification", "Category classification"
_CONTESTS = ("identification", "pair-wise")
_ORDER = (LIKENESS, IDENTIFICATION, WITHIN, HARD, MIDDLE, CLASSES, CATEGORIES)

# Style classes of outcomes; without a class, the mark is green.
OUTCOME_CLASSES: dict[Outcome, str] = {
    "above floor": "",
    "not distinguishable from floor": "doubt",
    "below floor": "no",
    "ceiling below floor": "no",
    "inconclusive": "open",
    "not tested": "open",
}

# What is counted or measured, by a part of the metric's name; the first that fits.
_QUANTITIES = (
    ("top-1 of the pool", "share of images"),
    ("median rank", "share of comparisons won"),
    ("identification", "share of comparisons won"),
    ("pair-wise", "share of comparisons won"),
    ("-way", "share of draws"),
    ("category accuracy", "share of images"),
    ("retrieval", "share of pools"),
    ("distance", "distance"),
    ("ssim", "structural similarity"),
    ("correlation", "correlation r"),
)

FIXED_IMAGE = (
    "Fixed image: the stimulus is compared with its own reconstruction and with the "
    "reconstructions of the other stimuli in the pool."
)
FIXED_RECONSTRUCTION = (
    "Fixed reconstruction: the reconstruction is compared with its own stimulus and with the other "
    "stimuli in the pool."
)


@dataclass
class ScoreRow:
    """The scores of one metric under one protocol and pool, by method."""

    metric: str
    protocol: str
    pool: int | None
    cells: dict[str, Score] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """Chance level; NaN if the metric has none."""
        known = (s.chance for s in self.cells.values() if math.isfinite(s.chance))
        return next(known, math.nan)

    @property
    def n(self) -> int | None:
        """Number of scored images."""
        counts = [score.n for score in self.cells.values() if score.n is not None]
        return max(counts) if counts else None

    @property
    def judge(self) -> str | None:
        """Name of the judge that the metric used, if any."""
        return next((score.judge for score in self.cells.values() if score.judge), None)

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better."""
        return all(score.higher_is_better for score in self.cells.values())

    @property
    def definition(self) -> str:
        """Definition of the metric, from the protocol if it is stored."""
        known = (score.definition for score in self.cells.values() if score.definition)
        return next(known, "") or explain(self.metric, self.higher_is_better)

    def of_role(self, role: str) -> list[Score]:
        """Return the scores of methods, floors or ceilings."""
        return [score for score in self.cells.values() if score.role == role]


@dataclass
class Group:
    """Rows of one family of metrics under one protocol."""

    family: str
    protocol: str
    rows: list[ScoreRow] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Family and protocol in one line."""
        return f"{self.family} ({self.protocol})" if self.protocol else self.family


@dataclass(frozen=True)
class Headline:
    """One of the main scores with its verdict, its strongest floor and its ceiling.

    `best` is the method with the best score, and `others` are the other methods with their
    verdicts.
    """

    score: Score
    verdict: FloorVerdict
    floor: Score | None
    ceiling: Score | None
    best: Score
    others: list[tuple[Score, FloorVerdict]]


def family(metric: str) -> str:
    """Return the family of a metric; a metric without family is its own family."""
    name = metric.lower()
    if name.startswith("identification within"):
        return WITHIN
    if name.startswith(("identification among", "identification, top-1")):
        return HARD
    if name.startswith("identification, median"):
        return MIDDLE
    if name.startswith(_CONTESTS):
        return IDENTIFICATION
    if "-way" in name:
        return CLASSES
    if name.startswith("category"):
        return CATEGORIES
    if "pixel correlation" in name or "ssim" in name:
        return LIKENESS
    return metric


def explain(metric: str, higher_is_better: bool = True) -> str:
    """Describe a metric in one sentence."""
    name = metric.lower()
    if name.startswith("identification"):
        where = "of the same category" if "within" in name else "of the pool"
        parts = [part.strip() for part in metric.split(",")]
        space = parts[1] if len(parts) > 1 else "the compared features"
        return (
            f"Share of pairwise comparisons with the others {where} that the true match wins, by "
            f"the correlation of {_space(space)}."
        )
    if match := re.search(r"(\d+)-way top-(\d+)", name):
        return (
            f"Share of draws in which the class of the stimulus is among the {match[2]} most "
            f"probable of {match[1]} classes for the reconstruction."
        )
    if name.startswith("category"):
        return "Share of reconstructions that are classified as the category of the stimulus."
    if "ssim" in name:
        return "Structural similarity of stimulus and reconstruction; 1 for equal images."
    if "correlation" in name:
        return "Correlation of the values of stimulus and reconstruction; 1 for equal images."
    better = "higher" if higher_is_better else "lower"
    return f"See the definition of the protocol; {better} is better."


def axis_label(metric: str, higher_is_better: bool = True) -> str:
    """Return what the values of a metric are, and which way is better."""
    name = metric.lower()
    better = "higher" if higher_is_better else "lower"
    quantity = next((words for part, words in _QUANTITIES if part in name), "score")
    return f"{quantity} ({better} is better)"


def arrange(scores: Iterable[Score]) -> list[Group]:
    """Arrange scores into rows (protocol, metric, pool), and rows into families.

    Scores of different protocols or pools are never in the same row.
    """
    rows: dict[tuple[str, str, int | None], ScoreRow] = {}
    for score in scores:
        key = (score.protocol, score.metric, score.pool)
        row = rows.setdefault(key, ScoreRow(score.metric, score.protocol, score.pool))
        row.cells[score.method] = score
    groups: dict[tuple[str, str], Group] = {}
    for row in rows.values():
        name = family(row.metric)
        group = groups.setdefault((row.protocol, name), Group(name, row.protocol))
        group.rows.append(row)
    return sorted(groups.values(), key=_place)


def _place(group: Group) -> tuple[bool, str, int]:
    known = group.family in _ORDER
    place = _ORDER.index(group.family) if known else len(_ORDER)
    return group.protocol != DEFAULT_PROTOCOL, group.protocol, place


def names_of_role(scores: Iterable[Score], role: str) -> list[str]:
    """Return the sorted names of methods, floors or ceilings."""
    return order_methods(score.method for score in scores if score.role == role)


def headlines(scores: list[Score], verdicts: Mapping[VerdictKey, FloorVerdict]) -> list[Headline]:
    """Return four to six main scores of the main method, by a fixed list of metrics."""
    leading = main_method(names_of_role(scores, "method"))
    rows = [row for group in arrange(scores) for row in group.rows if leading in row.cells]
    rows.sort(key=lambda row: row.protocol != DEFAULT_PROTOCOL)
    return [_headline(row, leading, verdicts) for row in _main(rows)]


def main_rows(scores: Sequence[Score]) -> list[ScoreRow]:
    """Return the four to six main scores of every protocol, by a fixed list of metrics."""
    rows = [row for group in arrange(scores) for row in group.rows]
    protocols = dict.fromkeys(row.protocol for row in rows)
    return [row for name in protocols for row in _main([r for r in rows if r.protocol == name])]


def _main(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    chosen: list[ScoreRow] = []
    for metric in HEADLINES:
        chosen += [row for row in rows if row.metric == metric and row not in chosen][:1]
    for row in rows:
        if len(chosen) < _FEWEST_HEADLINES and row not in chosen:
            chosen.append(row)
    return chosen[:_MOST_HEADLINES]


def _headline(row: ScoreRow, method: str, verdicts: Mapping[VerdictKey, FloorVerdict]) -> Headline:
    own = {name: verdicts[name, row.protocol, row.metric] for name in _methods(row)}
    sign = 1 if row.higher_is_better else -1
    scored = [row.cells[name] for name in own if math.isfinite(row.cells[name].value)]
    best = max(scored, key=lambda score: sign * score.value, default=row.cells[method])
    return Headline(
        score=row.cells[method],
        verdict=own[method],
        floor=row.cells.get(own[method].floor or ""),
        ceiling=row.cells.get(f"ceiling {method}"),
        best=best,
        others=[(row.cells[name], one) for name, one in own.items() if name != method],
    )


def _methods(row: ScoreRow) -> list[str]:
    return names_of_role(row.cells.values(), "method")


def verdict_summary(lines: list[Headline]) -> str:
    """Count the outcomes of the main method in one sentence."""
    outcomes = [line.verdict.outcome for line in lines]
    counts = [(outcomes.count(name), name) for name in OUTCOME_CLASSES]
    counted = [f"{n} {name}" for n, name in counts if n or name == "above floor"]
    scores = "main score" if len(lines) == 1 else "main scores"
    return (
        f"{lines[0].score.method} compared with its strongest floor in {len(lines)} {scores}: "
        f"{', '.join(counted)}."
    )


def _space(space: str) -> str:
    return "pixels" if space == "pixels" else f"features ({space} of a vision network)"


def number(value: float, digits: int = 3) -> str:
    """Format a number; a missing one is a dash."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1000 or 0 < abs(value) < 10**-digits:
        return f"{value:.3g}"
    return f"{value:.{digits}f}"


def interval(score: Score) -> str:
    """Format the interval of a score; empty if it has none."""
    if not (math.isfinite(score.ci_low) and math.isfinite(score.ci_high)):
        return ""
    return f"[{number(score.ci_low)}, {number(score.ci_high)}]"


def adjusted_p(score: Score) -> float:
    """Return the p corrected for the metrics of the protocol, or the uncorrected p."""
    return score.p_holm if math.isfinite(score.p_holm) else score.p


def p_value(score: Score) -> str:
    """Format the corrected p against a shuffled brain; empty if a score has none.

    If not even perfect reconstructions could be significant, the p is marked as inconclusive.
    """
    p = adjusted_p(score)
    if not math.isfinite(p):
        return ""
    if p > ALPHA and score.p_holm_min > ALPHA:
        return (
            f"p = {p:.3f} (inconclusive: perfect reconstructions would get {score.p_holm_min:.2g})"
        )
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def named_p_value(score: Score) -> str:
    """Format the p of a score with the name of its null hypothesis; empty if it has none."""
    return p_value(score).replace("p ", "p against a shuffled brain ", 1)
