"""Records of metrics: values, intervals, chance, tests and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from calcarine.evaluation.statistics.intervals import bootstrap_interval, bootstrap_median
from calcarine.evaluation.statistics.significance import holm

if TYPE_CHECKING:
    from calcarine.evaluation.inputs.image_stacks import TestSet
    from calcarine.evaluation.metrics.metric import FloatArray
    from calcarine.evaluation.scoring.measuring import Measured
    from calcarine.evaluation.scoring.settings import ScoreSettings
    from calcarine.evaluation.statistics.permutation import PermutationResult

__all__ = ["adjusted", "per_image", "record", "shuffled"]

Record = dict[str, Any]


def record(
    result: Measured,
    method: str,
    role: str,
    label: str,
    test: TestSet,
    digest: str,
    samples: int,
    settings: ScoreSettings,
) -> tuple[Record, PermutationResult | None]:
    """Return the record of one metric of one set of pictures, and its permutation test if any."""
    metric, n = result.metric, len(test.ids)
    null = metric.null(result.scores, result.measurement, settings.n_permutations, settings.seed)
    low = high = None
    value = (
        float(result.scores) if result.scores.ndim == 0 else metric.summarise(_own(result.scores))
    )
    if result.scores.ndim:
        interval = bootstrap_median if metric.summary == "median" else bootstrap_interval
        low, high = interval(_own(result.scores), settings.n_boot, seed=settings.seed)
    row = {
        "method": method,
        "role": role,
        "metric": metric.name,
        "protocol": label,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "pool": metric.pool(n),
        "chance": metric.chance(n),
        "p": None if null is None else null.p,
        "null_mean": None if null is None else null.null_mean,
        "null_sd": None if null is None else null.null_sd,
        "p_min": None if null is None else null.p_min,
        "n_permutations": None if null is None else settings.n_permutations,
        "p_holm": None,
        "p_holm_min": None,
        "direction": metric.direction,
        "higher_is_better": metric.higher_is_better,
        "summary": metric.summary,
        "definition": metric.definition,
        "samples": samples if metric.uses_pictures else None,
        "test_set": test.name,
        "data": digest,
        "networks": result.digests,
        "judge": result.judge,
    }
    return row, null


def _own(scores: FloatArray) -> FloatArray:
    return np.diagonal(scores) if scores.ndim == 2 else scores


def adjusted(rows: list[Record]) -> list[Record]:
    """Add Holm's correction to the records of one method under one protocol."""
    tested = [row for row in rows if row["p"] is not None]
    for name in ("p", "p_min"):
        # Holm's correction is monotonic: correcting the smallest p gives the smallest corrected p.
        for row, p in zip(tested, holm([row[name] for row in tested]), strict=True):
            row[name.replace("p", "p_holm", 1)] = float(p)
    return rows


def shuffled(row: Record, null: PermutationResult) -> Record:
    """Return the record of the shuffled brain for the record of a method."""
    return row | {
        "method": f"shuffled brain ({row['method']})",
        "role": "floor",
        "value": null.null_mean,
        "ci_low": null.null_low,
        "ci_high": null.null_high,
        "p": None,
        "p_min": None,
        "n_permutations": None,
        "p_holm": None,
        "p_holm_min": None,
    }


def per_image(
    result: Measured,
    method: str,
    label: str,
    ids: Sequence[str],
    categories: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the scores of every image as columns; empty if only the whole set has a score."""
    if result.scores.ndim == 0:
        return {}
    return {
        "id": list(ids),
        "method": method,
        "metric": result.metric.name,
        "value": [float(value) for value in _own(result.scores)],
        "category": None if categories is None else list(categories),
        "protocol": label,
    }
