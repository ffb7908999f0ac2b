"""The results of a study as text table, JSON and HTML page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from calcarine.files import write_text
from calcarine.reporting.html_pages import environment
from calcarine.study.analysis import FEWEST_RATERS, ComparisonResult, StudyAnalysis

__all__ = [
    "number",
    "p_value",
    "percent",
    "seconds",
    "table_lines",
    "unreachable_tests",
    "write_analysis",
]


def write_analysis(analysis: StudyAnalysis, folder: Path) -> tuple[Path, Path]:
    """Write ``analysis.json`` and ``analysis.html``.

    Parameters
    ----------
    analysis : StudyAnalysis
    folder : Path
        The folder of the study, or another folder.

    Returns
    -------
    json, html : Path

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, analyse, write_analysis
    >>> analysis = analyse(Study(Path("study")))  # doctest: +SKIP
    >>> record, page = write_analysis(analysis, Path("study"))  # doctest: +SKIP
    """
    templates = environment("calcarine.study")
    templates.filters.update(percent=percent, p=p_value, num=number, seconds=seconds)
    page = templates.get_template("analysis.html.j2").render(
        analysis=analysis,
        settings=analysis.settings,
        groups=_groups(analysis),
        sentence=_sentence(analysis),
        unreachable_tests=unreachable_tests(analysis),
        fewest_raters=FEWEST_RATERS,
        provenance=[_flat(entry) for entry in analysis.settings.provenance],
    )
    target, html = folder / "analysis.json", folder / "analysis.html"
    write_text(
        target, json.dumps(analysis.record(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    write_text(html, page)
    return target, html


def table_lines(analysis: StudyAnalysis) -> list[str]:
    """Return the results as lines of plain text."""
    width = max([len(result.name) for result in analysis.comparisons] + [10])
    lines = []
    if analysis.settings.simulated:
        lines.append("SIMULATED brain: these results are no evidence about a human brain.")
    lines.append(
        f"{'comparison':{width}}  {'first':>6}  {'95 % interval':>15}  {'p (Holm)':>9}  "
        f"{'sign p':>8}  {'raters p':>8}  {'kappa':>6}  {'alpha':>6}"
    )
    for result in analysis.comparisons:
        interval = f"[{percent(result.ci_low)}, {percent(result.ci_high)}]"
        lines.append(
            f"{result.name:{width}}  {percent(result.proportion):>6}  {interval:>15}  "
            f"{p_value(result.p_holm):>8}{'*' if result.significant else ' '}  "
            f"{p_value(result.sign_p_holm):>8}  {p_value(result.p_raters_holm):>8}  "
            f"{number(result.kappa):>6}  {number(result.alpha):>6}"
        )
    lines.append(
        f"first: share of answers for the first method; for identification, of correct answers. "
        f"*: p < {analysis.settings.alpha:g}. Every p is corrected for "
        f"{len(analysis.comparisons)} comparisons."
    )
    lines += unreachable_tests(analysis)
    lines += [f"Excluded: {rater.rater} ({rater.excluded})." for rater in analysis.excluded]
    if analysis.unfinished:
        lines.append(
            f"Not finished: {', '.join(analysis.unfinished)}. Do not stop a study because an "
            "interim result is significant."
        )
    return lines


def unreachable_tests(analysis: StudyAnalysis) -> list[str]:
    """Return notes on tests that cannot be significant with so few originals or raters.

    The smallest two-sided p of n signed ranks, or of n signs, is 2 / 2^n.
    """
    tests, alpha = len(analysis.comparisons), analysis.settings.alpha
    needed = math.floor(1 + math.log2(tests / alpha)) + 1 if tests else 0
    counts = {
        "originals": min((result.n_originals for result in analysis.comparisons), default=needed),
        "raters": min(
            (result.n_raters for result in analysis.comparisons if result.p_raters is not None),
            default=needed,
        ),
    }
    return [
        f"Inconclusive: with {n} {what} and a correction for {tests} comparisons, p over {what} is "
        f"at least {min(1.0, tests * 2.0 ** (1 - n)):.2g} for any answers; use at least {needed} "
        f"{what}."
        for what, n in counts.items()
        if n < needed
    ]


def percent(value: float) -> str:
    """Format a proportion as a percentage, for example 0.5 as "50 %"."""
    return f"{100 * value:.0f} %"


def p_value(value: float | None) -> str:
    """Format a p-value."""
    if value is None:
        return "–"
    if value < 0.001:
        return f"{value:.0e}" if value >= 1e-99 else "<1e-99"
    return f"{value:.3f}"


def number(value: float | None) -> str:
    """Format a number with two decimals and a typographic minus sign."""
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """Format milliseconds as seconds."""
    return "–" if value is None else f"{value / 1000:.1f} s"


def _sentence(analysis: StudyAnalysis) -> str:
    kept = len(analysis.raters) - len(analysis.excluded)
    brain = {True: "simulated", False: "measured", None: "not stated"}
    answers = sum(result.n_answers for result in analysis.comparisons)
    return (
        f"{answers} answers of {kept} {'rater' if kept == 1 else 'raters'} on "
        f"{len(analysis.settings.originals)} originals. Brain activity: "
        f"{brain[analysis.settings.simulated]}."
    )


def _groups(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    titles = {
        "method": (
            "Comparisons of methods",
            "Share of answers for the first method. The dashed line means no preference.",
        ),
        "identification": (
            "Identification",
            "Share of answers that choose the reconstruction of the shown original over the "
            "reconstruction of another original. The dashed line is chance.",
        ),
    }
    groups = []
    for kind, (title, text) in titles.items():
        results = [result for result in analysis.comparisons if result.kind == kind]
        if results:
            groups.append({"title": title, "text": text, "rows": [_row(r) for r in results]})
    return groups


def _row(result: ComparisonResult) -> dict[str, Any]:
    if not result.significant:
        reading = "not significant"
    elif result.kind == "identification":
        reading = "above chance" if result.proportion > 0.5 else "below chance"
    else:
        reading = f"{result.first if result.proportion > 0.5 else result.second} preferred"
    return {"result": result, "reading": reading}


def _flat(entry: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in entry.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            rows.append((f"{prefix}{name}", "yes" if value else "no"))
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{name}", text))
    return rows
