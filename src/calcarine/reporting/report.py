"""The HTML report of a run: one file that works offline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calcarine.display import size_text, time_text
from calcarine.evaluation.networks.judge_names import judges_of
from calcarine.files import write_bytes
from calcarine.reporting import score_tables as scoring
from calcarine.reporting import shown_stimuli as picking
from calcarine.reporting.audit_page import VERDICT_CLASSES
from calcarine.reporting.html_pages import data_uri, environment, small_png
from calcarine.reporting.report_terms import judge_names, judges_text, report_terms
from calcarine.reporting.retrieval_section import HEADINGS as RETRIEVAL_HEADINGS
from calcarine.reporting.retrieval_section import read_retrieval
from calcarine.reporting.run_records import (
    RunRecord,
    main_method,
    read_audit,
    read_notes,
    read_run,
    read_run_scores,
    read_run_verdicts,
)
from calcarine.reporting.takagi_comparison import INCONCLUSIVE, NOT_AS_PAPER, compare_with_takagi

if TYPE_CHECKING:
    from calcarine.evaluation.results.floor_verdicts import FloorVerdict
    from calcarine.reporting.run_records import VerdictKey
    from calcarine.reporting.shown_stimuli import Pick, Quality

__all__ = ["PICTURE_PIXELS", "build_report", "headline_scores"]

PICTURE_PIXELS = 192
_MOST_SAMPLES = 8
_SHEET_RANDOM = 5


def build_report(run: Path) -> Path:
    """Write the report of a finished run.

    Parameters
    ----------
    run : Path
        The run directory.

    Returns
    -------
    Path
        ``run/report.html``, one file that contains its images and styles. The figures are also
        written to ``run/figures/scores.png`` and ``run/figures/reconstructions.png``.

    Raises
    ------
    CalcarineError
        If the run is not finished, or one of its files is damaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import build_report
    >>> page = build_report(Path("runs/takagi"))  # doctest: +SKIP
    """
    from calcarine.reporting import figures
    from calcarine.reporting.bottleneck_figure import HEADINGS, curve_figure, curve_rows, read_curve
    from calcarine.reporting.score_figure import scores_figure

    record = read_run(Path(run))
    order = picking.quality(record)
    random = picking.at_random(record, order)
    quantiles = picking.at_quantiles(order) if order is not None else []
    plot = figures.png(scores_figure(record.scores, record.simulated), dpi=180)
    sheet = figures.png(
        figures.sheet_figure(
            record, quantiles + random[:_SHEET_RANDOM], _sheet_caption(record, order)
        )
    )
    curve = read_curve(record.folder)
    narrow = figures.png(curve_figure(curve, record.simulated)) if curve else None
    templates = environment()
    templates.filters.update(
        num=scoring.number, ci=scoring.interval, p=scoring.p_value, named_p=scoring.named_p_value
    )
    verdicts = read_run_verdicts(record.folder)
    headlines = scoring.headlines(record.scores, verdicts)
    page = templates.get_template("report.html.j2").render(
        record=record,
        manifest=record.manifest,
        title=record.title,
        terms=report_terms(record),
        sentence=_sentence(record),
        # A run writes the maps after this page.
        encoding=_mapping(record.settings, "encoding").get("enabled")
        or (record.folder / "encoding.html").exists(),
        headlines=headlines,
        verdict_summary=scoring.verdict_summary(headlines),
        outcome_classes=scoring.OUTCOME_CLASSES,
        pictures=_pictures(record, order, quantiles, random),
        scores=_score_tables(record, verdicts, headlines),
        plot=data_uri(plot),
        pattern=compare_with_takagi(record.per_image, record.higher_is_better),
        not_as_paper=NOT_AS_PAPER,
        inconclusive=INCONCLUSIVE,
        settings=_flatten(_in_use(_filled(record.settings, _mapping(record.manifest, "resolved")))),
        chosen=_mapping(record.manifest, "chosen"),
        decoder=_decoder_rows(_mapping(record.manifest, "decoder")),
        provenance=_provenance(record),
        times=_times(record.manifest),
        machine=_flatten(_mapping(record.manifest, "hardware")),
        versions=_versions(record),
        limits=_limits(record),
        audit=read_audit(record.folder),
        verdict_classes=VERDICT_CLASSES,
        judges=judges_text(judge_names(record.scores)),
        bottleneck=data_uri(narrow) if narrow else None,
        bottleneck_judges=judges_text(judges_of(curve)),
        curve=curve_rows(curve),
        curve_headings=HEADINGS,
        retrieval=read_retrieval(record.folder),
        retrieval_headings=RETRIEVAL_HEADINGS,
        notes=read_notes(record.folder),
    )
    write_bytes(record.folder / "figures" / "scores.png", plot)
    write_bytes(record.folder / "figures" / "reconstructions.png", sheet)
    if narrow:
        write_bytes(record.folder / "figures" / "bottleneck.png", narrow)
    report = record.folder / "report.html"
    write_bytes(report, page.encode("utf-8"))
    return report


def headline_scores(run: Path) -> list[str]:
    """Return the main scores as lines of plain text, for the command line.

    Parameters
    ----------
    run : Path
        The run directory with ``metrics/summary.json``.

    Returns
    -------
    list of str
        Method, metric, value [interval], chance, p, floor, ceiling and verdict of each main
        score, each followed by an indented line for every other method. The last line counts the
        verdicts on the main method.

    Raises
    ------
    CalcarineError
        If a file is missing or damaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.reporting import headline_scores
    >>> for line in headline_scores(Path("runs/takagi")):  # doctest: +SKIP
    ...     print(line)
    """
    lines = []
    headlines = scoring.headlines(read_run_scores(Path(run)), read_run_verdicts(Path(run)))
    for headline in headlines:
        lines.append(f"{_line(headline)}: {headline.verdict.sentence}")
        lines += [
            f"  {score.method} {scoring.number(score.value)}: {verdict.sentence}"
            for score, verdict in headline.others
        ]
    return [*lines, scoring.verdict_summary(headlines)]


def _line(headline: scoring.Headline) -> str:
    score = headline.score
    parts = [f"{scoring.number(score.value)} {scoring.interval(score)}".strip()]
    if math.isfinite(score.chance):
        parts.append(f"chance {scoring.number(score.chance)}")
    if p := scoring.named_p_value(score):
        parts.append(p)
    for role, other in (("floor", headline.floor), ("ceiling", headline.ceiling)):
        if other is not None:
            parts.append(f"{role} {scoring.number(other.value)} ({other.method})")
    known = [score.protocol] * bool(score.protocol)
    known += [f"judge {score.judge}"] * bool(score.judge)
    where = f" ({', '.join(known)})" if known else ""
    return f"{score.method}: {score.metric}{where}: {', '.join(parts)}"


def _sentence(record: RunRecord) -> str:
    data = _mapping(record.manifest, "dataset")
    wish = _mapping(record.settings, "dataset")
    name = data.get("title") or data.get("name") or wish.get("name") or "an unnamed data set"
    person = data.get("subject") or wish.get("subject") or "one subject"
    brain = "simulated" if record.simulated else "measured"
    return (
        f"Reconstructions of {len(record.ids)} images from the {brain} brain activity of {person}. "
        f"Data set: {name}."
    )


def _pictures(
    record: RunRecord, order: Quality | None, quantiles: list[Pick], random: list[Pick]
) -> dict[str, Any]:
    method = main_method(record.picture_methods) if record.picture_methods else None
    variety = [pick for pick in random[: picking.N_VARIETY] if method]
    return {
        "methods": ["truth", *record.picture_methods],
        "quality": order,
        "ranking": _ranking(order),
        "quantiles": [_picture_row(record, pick) for pick in quantiles],
        "random": [_picture_row(record, pick) for pick in random],
        "seed": picking.SEED,
        "pixels": PICTURE_PIXELS,
        "variety_method": method,
        "variety": [_variety_row(record, pick, str(method)) for pick in variety],
    }


def _ranking(order: Quality | None) -> str:
    """Say by which score images are ranked, and why by this one."""
    if order is None:
        return ""
    name = f"Each row is the image at a quantile of “{order.metric}” of {order.method}."
    others = [f"“{one}”" for one in order.candidates if one != order.metric]
    if not others:
        return name
    return (
        f"{name} It is used instead of {' or '.join(others)} because the fewest images share its "
        f"lowest or its highest value ({order.at_ends} of {len(order.values)})."
    )


def _picture_row(record: RunRecord, pick: Pick) -> dict[str, Any]:
    images = {"truth": _embed(record.truth(pick.id))}
    for method in record.picture_methods:
        path = record.picture(pick.id, method)
        if path is not None:
            images[method] = _embed(path)
    return {"pick": pick, "images": images}


def _variety_row(record: RunRecord, pick: Pick, method: str) -> dict[str, Any]:
    images = []
    for sample in record.samples(pick.id, method)[:_MOST_SAMPLES]:
        path = record.picture(pick.id, method, sample)
        if path is not None:
            images.append((sample, _embed(path)))
    return {"pick": pick, "truth": _embed(record.truth(pick.id)), "images": images}


def _embed(path: Path) -> str:
    return data_uri(small_png(path, PICTURE_PIXELS, optimize=True))


def _sheet_caption(record: RunRecord, order: Quality | None) -> str:
    ranked = (
        f"Percentages: image at this quantile of {order.metric} of {order.method}. "
        if order is not None
        else ""
    )
    return (
        f"{ranked}Random: drawn with seed {picking.SEED}. Always the first sample; "
        f"n = {len(record.ids)}."
    )


def _score_tables(
    record: RunRecord,
    verdicts: dict[VerdictKey, FloorVerdict],
    headlines: list[scoring.Headline],
) -> dict[str, Any]:
    roles = ("method", "floor", "ceiling")
    names = {role: scoring.names_of_role(record.scores, role) for role in roles}
    return {
        "groups": scoring.arrange(record.scores),
        "verdicts": verdicts,
        "columns": [(name, role) for role in roles for name in names[role]],
        "alt": _plot_alt(record, headlines),
    }


def _plot_alt(record: RunRecord, headlines: list[scoring.Headline]) -> str:
    methods = ", ".join(scoring.names_of_role(record.scores, "method"))
    lead = "; ".join(f"{_line(one)}: {one.verdict.sentence}" for one in headlines)
    return f"Scores of {methods} with intervals; the table below has all values. {lead}"


def _decoder_rows(decoder: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    for fold, latents in decoder.items():
        for latent, facts in (latents or {}).items():
            cells = {name: _plain(value) for name, value in (facts or {}).items()}
            rows.append({"fold": str(fold), "latent": str(latent)} | cells)
    return rows


def _provenance(record: RunRecord) -> list[tuple[str, str]]:
    data = _mapping(record.manifest, "dataset")
    digests = _mapping(record.manifest, "digests")
    return _flatten(data) + [(f"{name} digest", _plain(value)) for name, value in digests.items()]


def _versions(record: RunRecord) -> list[tuple[str, str]]:
    manifest = record.manifest
    own = manifest.get("calcarine version", manifest.get("calcarine"))
    rows = [("calcarine", _plain(own))] if own is not None else []
    seeds = manifest.get("seeds")
    rows += [item for item in _flatten(_mapping(manifest, "versions")) if item not in rows]
    if isinstance(seeds, dict):
        return rows + [(f"seed: {name}", value) for name, value in _flatten(seeds)]
    return rows + ([("seeds", _plain(seeds))] if seeds is not None else [])


def _times(manifest: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return stage, time and memory of each stage, with those of the plan in brackets."""
    memory, plan = _mapping(manifest, "memory"), _mapping(manifest, "plan")
    rows: list[tuple[str, ...]] = []
    for stage, seconds in _mapping(manifest, "times").items():
        planned = plan.get(stage, {})
        time, size = time_text(float(seconds)), "–"
        if planned.get("seconds") is not None:
            time += f" ({time_text(float(planned['seconds']))})"
        if stage in memory:
            size = size_text(float(memory[stage]))
            size += f" ({size_text(float(planned['memory']))})" if "memory" in planned else ""
        rows.append((str(stage), time, size))
    return rows


def _limits(record: RunRecord) -> list[str]:
    person = _mapping(record.manifest, "dataset").get("subject") or "one subject"
    sentences = [
        f"These are results of {len(record.ids)} images and one subject ({person}). The intervals "
        "generalise to other images, not to other people.",
        "Every p is corrected for the number of metrics of its protocol (Holm), not for the number "
        "of methods.",
        "A generator makes sharp pictures from any input, so compare each score with its floor and "
        "its ceiling.",
        "Identification depends on the size of the pool; do not compare scores of different pools "
        "or protocols.",
    ]
    if record.simulated:
        sentences.insert(
            0,
            "The brain was simulated. The scores show that the method works on data that fulfil "
            "its assumptions; they are no evidence about a human brain.",
        )
    return sentences


def _mapping(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _filled(settings: dict[str, Any], decided: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of nested settings with other values of some."""
    return {
        name: _filled(value, _mapping(decided, name))
        if isinstance(value, dict)
        else decided.get(name, value)
        for name, value in settings.items()
    }


def _in_use(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those of parts that are not enabled, at any depth."""
    if settings.get("enabled") is False:
        # What a phase starts from is used without training it.
        return {k: v for k, v in settings.items() if k == "enabled" or (k == "start" and v)}
    return {
        name: _in_use(value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            rows += _flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):  # in a list, such as a source of unlabelled responses
        return " ".join(f"{k}={_plain(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)
