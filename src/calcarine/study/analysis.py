"""Analyse the answers of a study: exclusions, preferences, intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calcarine.errors import CalcarineError
from calcarine.evaluation.statistics.significance import holm, signed_rank_p
from calcarine.study import agreement, preference
from calcarine.study.answers import AnswerRow, read_answers
from calcarine.study.design import CATCH, MAIN
from calcarine.study.session import progress
from calcarine.study.settings import MethodPair, StudySettings
from calcarine.study.store import Study

__all__ = [
    "FEWEST_RATERS",
    "ComparisonResult",
    "RaterResult",
    "StudyAnalysis",
    "analyse",
    "analyse_rows",
]

# With fewer raters, no result of a signed-rank test reaches p = .05.
FEWEST_RATERS = 6


@dataclass(frozen=True)
class RaterResult:
    """Summary of one rater; ``excluded`` is the reason for exclusion, or empty.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, analyse
    >>> raters = analyse(Study(Path("study"))).raters  # doctest: +SKIP
    >>> {each.rater: each.excluded for each in raters if each.excluded}  # doctest: +SKIP
    """

    rater: str
    answered: int
    trials: int
    catch_right: int
    catch_answered: int
    left_share: float | None
    median_ms: float | None
    excluded: str


@dataclass(frozen=True)
class ComparisonResult:
    """Result of one comparison over the raters that are not excluded.

    Attributes
    ----------
    proportion : float
        Share of answers for ``first``; for identification the share of correct answers.
    ci_low, ci_high : float
        95 % bootstrap interval over originals and raters.
    p_originals, p_raters : float or None
        Wilcoxon signed-rank tests of the proportions of originals and of raters against one
        half; the latter is None with fewer than 6 raters.
    sign_p : float
        Exact sign test over originals; ``above`` and ``below`` are its counts.
    p_holm, p_raters_holm, sign_p_holm : float or None
        Corrected over all comparisons of the study.
    significant : bool
        Whether ``p_holm`` is below the significance level of the study.
    agreement : float or None
        Share of pairs of raters who agree on an original.
    kappa, alpha : float or None
        Fleiss' kappa over originals with answers of all raters; Krippendorff's alpha over all
        originals.
    proportion_all_raters : float
        The proportion without any exclusion.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, analyse
    >>> result = analyse(Study(Path("study"))).comparisons[0]  # doctest: +SKIP
    >>> result.proportion, (result.ci_low, result.ci_high), result.p_holm  # doctest: +SKIP
    """

    name: str
    kind: str
    first: str
    second: str
    n_answers: int
    n_originals: int
    n_raters: int
    proportion: float
    ci_low: float
    ci_high: float
    p_originals: float
    p_raters: float | None
    sign_p: float
    above: int
    below: int
    agreement: float | None
    kappa: float | None
    alpha: float | None
    proportion_all_raters: float
    p_holm: float = math.nan
    p_raters_holm: float | None = None
    sign_p_holm: float = math.nan
    significant: bool = False


@dataclass(frozen=True)
class StudyAnalysis:
    """All results of a study; `record` returns the contents of ``analysis.json``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, analyse
    >>> analysis = analyse(Study(Path("study")))  # doctest: +SKIP
    >>> analysis.excluded  # doctest: +SKIP
    """

    settings: StudySettings
    raters: list[RaterResult]
    comparisons: list[ComparisonResult]
    seed: int

    @property
    def excluded(self) -> list[RaterResult]:
        return [rater for rater in self.raters if rater.excluded]

    @property
    def unfinished(self) -> list[str]:
        return [rater.rater for rater in self.raters if rater.answered < rater.trials]

    def record(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "title": settings.title,
            "simulated": settings.simulated,
            "rules": {
                "catch_minimum": settings.catch_minimum,
                "finished_minimum": settings.finished_minimum,
                "alpha": settings.alpha,
                "correction": "Holm over comparisons",
                "test": "Wilcoxon signed-rank over originals, two-sided",
            },
            "bootstrap_seed": self.seed,
            "excluded": {rater.rater: rater.excluded for rater in self.excluded},
            "unfinished": self.unfinished,
            "raters": [asdict(rater) for rater in self.raters],
            "comparisons": [asdict(result) for result in self.comparisons],
            "provenance": list(settings.provenance),
        }


def analyse(study: Study, seed: int = 0) -> StudyAnalysis:
    """Analyse the answers of a study by the rules that were fixed when it was made.

    Parameters
    ----------
    study : Study
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    StudyAnalysis

    Raises
    ------
    CalcarineError
        If there are no answers, or every rater is excluded.

    Examples
    --------
    >>> from pathlib import Path
    >>> from calcarine.study import Study, analyse
    >>> analysis = analyse(Study(Path("study")))  # doctest: +SKIP
    >>> for result in analysis.comparisons:  # doctest: +SKIP
    ...     print(result.name, result.proportion, result.p_holm)
    """
    rows = read_answers(study)
    return analyse_rows(rows, study.settings, progress(study), seed)


def analyse_rows(
    rows: Sequence[AnswerRow],
    settings: StudySettings,
    trials: Sequence[tuple[str, int, int]],
    seed: int = 0,
) -> StudyAnalysis:
    """Analyse answers; ``trials`` lists (rater, answers, trials) of all invited raters."""
    begun = [entry for entry in trials if entry[1]]
    if not any(row.part == MAIN for row in rows):
        raise CalcarineError("The study has no answers yet; send the links to the raters.")
    raters = [_rater_result(name, total, rows, settings) for name, _, total in begun]
    kept = {rater.rater for rater in raters if not rater.excluded}
    if not kept:
        raise CalcarineError(
            f"All {len(raters)} raters with answers are excluded by the rules of the study "
            f"({raters[0].rater}: {raters[0].excluded}); invite more raters, or export the answers."
        )
    results = []
    for comparison in settings.comparisons:
        own = [row for row in rows if row.part == MAIN and row.comparison == comparison.name]
        result = _compare(comparison, own, kept, settings, seed)
        if result is not None:
            results.append(result)
    return StudyAnalysis(settings, raters, _corrected(results, settings.alpha), seed)


def _rater_result(
    name: str, total: int, rows: Sequence[AnswerRow], settings: StudySettings
) -> RaterResult:
    own = [row for row in rows if row.rater == name]
    catches = [row for row in own if row.part == CATCH]
    right = sum(row.first_chosen for row in catches)
    main = [row for row in own if row.part == MAIN]
    reason = ""
    if len(own) < settings.finished_minimum * total:
        least = 100 * settings.finished_minimum
        reason = f"answered {len(own)} of {total} trials, fewer than {least:.0f} %"
    elif settings.catch and not catches:
        reason = "answered no catch trial"
    elif catches and right < settings.catch_minimum * len(catches):
        least = 100 * settings.catch_minimum
        reason = f"{right} of {len(catches)} catch trials correct, fewer than {least:.0f} %"
    return RaterResult(
        rater=name,
        answered=len(own),
        trials=total,
        catch_right=right,
        catch_answered=len(catches),
        left_share=float(np.mean([row.choice == "left" for row in main])) if main else None,
        median_ms=float(np.median([row.client_ms for row in main])) if main else None,
        excluded=reason,
    )


def _compare(
    comparison: MethodPair,
    rows: Sequence[AnswerRow],
    kept: set[str],
    settings: StudySettings,
    seed: int,
) -> ComparisonResult | None:
    choices = _matrix([row for row in rows if row.rater in kept], settings.originals)
    if not choices.size:
        return None
    by_original = preference.means(choices, axis=0) - 0.5
    by_rater = preference.means(choices, axis=1) - 0.5
    low, high = preference.crossed_interval(choices, seed=seed)
    sign_p, above, below = preference.sign_test_p(by_original)
    votes = agreement.counts(choices)
    full = votes[votes.sum(axis=1) == len(choices)]
    return ComparisonResult(
        **comparison.model_dump(),
        n_answers=int(np.isfinite(choices).sum()),
        n_originals=len(by_original),
        n_raters=len(by_rater),
        proportion=float(np.nanmean(choices)),
        ci_low=low,
        ci_high=high,
        p_originals=signed_rank_p(by_original),
        p_raters=(signed_rank_p(by_rater) if len(by_rater) >= FEWEST_RATERS else None),
        sign_p=sign_p,
        above=above,
        below=below,
        agreement=_known(_pairwise(votes)),
        kappa=_known(agreement.fleiss_kappa(full)),
        alpha=_known(agreement.krippendorff_alpha(votes)),
        proportion_all_raters=float(np.mean([row.first_chosen for row in rows])),
    )


def _matrix(rows: Sequence[AnswerRow], originals: Sequence[str]) -> NDArray[np.float64]:
    """Return answers as (n_raters, n_originals): 1 if the first was chosen, NaN if missing."""
    raters = {name: place for place, name in enumerate(dict.fromkeys(row.rater for row in rows))}
    items = {name: place for place, name in enumerate(originals)}
    values = np.full((len(raters), len(items)), np.nan)
    for row in rows:
        values[raters[row.rater], items[row.original]] = row.first_chosen
    return values


def _pairwise(votes: NDArray[np.float64]) -> float:
    """Return the share of agreeing pairs among all pairs of raters of the same original."""
    size = votes.sum(axis=1)
    pairs = float((size * (size - 1)).sum())
    return float((votes * (votes - 1)).sum()) / pairs if pairs else math.nan


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _corrected(results: list[ComparisonResult], alpha: float) -> list[ComparisonResult]:
    p_holm = holm([result.p_originals for result in results]).tolist()
    sign = holm([result.sign_p for result in results]).tolist()
    tested = [place for place, result in enumerate(results) if result.p_raters is not None]
    over_raters = dict(
        zip(
            tested,
            holm([float(results[place].p_raters or 0.0) for place in tested]).tolist(),
            strict=True,
        )
    )
    return [
        replace(
            result,
            p_holm=p_holm[place],
            sign_p_holm=sign[place],
            p_raters_holm=over_raters.get(place),
            significant=p_holm[place] < alpha,
        )
        for place, result in enumerate(results)
    ]
