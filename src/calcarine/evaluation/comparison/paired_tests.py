"""Paired tests of methods that were scored on the same images."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from calcarine.evaluation.comparison.columns import Column, ImageScores, Key, differences
from calcarine.evaluation.statistics.intervals import hierarchical_bootstrap
from calcarine.evaluation.statistics.permutation import smallest_p
from calcarine.evaluation.statistics.significance import (
    ALPHA,
    holm,
    paired_difference,
    required_size,
    share_of_signs,
    signed_rank_p,
)

__all__ = ["paired_tests"]


def paired_tests(
    columns: list[Column], notes: list[str], n_boot: int, n_permutations: int, seed: int
) -> list[dict[str, Any]]:
    """Test every pair of methods on the images that both have.

    Parameters
    ----------
    columns : list of Column
    notes : list of str
        Gets a sentence for each test that is left out.
    n_boot, n_permutations, seed : int

    Returns
    -------
    list of dict
        See `ScoreComparison`.
    """
    results = []
    bare = [column.name for column in columns if not column.scores]
    if bare:
        notes.append(
            f"{', '.join(bare)}: not tested, because the scores of single images are not available."
        )
    for a, b in combinations([column for column in columns if column.scores], 2):
        reason = _why_not_at_all(a, b)
        if reason is not None:
            notes.append(f"{a.name} and {b.name} {reason}, so they are not tested.")
            continue
        untested: dict[str, list[str]] = {}
        for key in a.records:
            if key not in b.records:
                continue
            result: dict[str, Any] | str = _why_no_test(key, a, b) or _test(
                a.scores[key], b.scores[key], n_boot, n_permutations, seed
            )
            if isinstance(result, str):
                untested.setdefault(result, []).append(key[1])
                continue
            head = {"protocol": key[0], "metric": key[1], "a": a.name, "b": b.name}
            results.append(head | result)
        notes += [
            f"{a.name} and {b.name} are not tested on {_some(metrics)}: {why}."
            for why, metrics in untested.items()
        ]
        if any(one.pictures is None for one in _image_scores(a, b)):
            notes.append(
                f"{a.name} and {b.name} are paired by image names, because score files of older "
                "versions have no image digests; score again to pair by content."
            )
    for protocol in {test["protocol"] for test in results}:
        family = [test for test in results if test["protocol"] == protocol]
        for name in ("p", "p_signed_rank"):
            for test, p in zip(family, holm([test[name] for test in family]), strict=True):
                test[f"{name}_holm"] = float(p)
        notes += _sample_size_notes(protocol, family, n_permutations)
    return results


def _sample_size_notes(
    protocol: str, family: list[dict[str, Any]], n_permutations: int
) -> list[str]:
    """Return a note if no difference could be significant with this number of images or flips."""
    n, tests = max(test["n"] for test in family), len(family)
    least = tests * smallest_p(n_permutations, share_of_signs(n))
    if least <= ALPHA:
        return []
    images, flips = required_size(n, n_permutations, tests, ALPHA, share_of_signs)
    required = [f"at least {images} images"] if images > n else []
    required += [f"at least {flips} sign flips"] if flips > n_permutations else []
    return [
        f"Tests of {protocol} are inconclusive: with {n} images, {n_permutations} sign flips and a "
        f"correction for {tests} tests, p is at least {min(1.0, least):.2g} for any difference; "
        f"use {' and '.join(required)}."
    ]


def _image_scores(*columns: Column) -> list[ImageScores]:
    return [one for column in columns for scores in column.scores.values() for one in scores]


def _why_not_at_all(a: Column, b: Column) -> str | None:
    if None not in (*a.subjects, *b.subjects) and a.subjects != b.subjects:
        return "have different subjects"
    if len(a.subjects) != len(b.subjects):
        return f"have {len(a.subjects)} and {len(b.subjects)} subjects"
    return None


def _why_no_test(key: Key, a: Column, b: Column) -> str | None:
    # The tests compare means; the mean of the ranks is a metric of its own.
    if a.records[key].get("summary") == "median":
        return "medians are not tested"
    if key not in a.scores or key not in b.scores:
        return "scores of single images are not available"
    differing = differences(a.records[key], b.records[key])
    return f"the scores are not comparable ({', '.join(differing)})" if differing else None


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _test(
    a: list[ImageScores],
    b: list[ImageScores],
    n_boot: int,
    n_permutations: int,
    seed: int,
) -> dict[str, Any] | str:
    """Test two methods on their common images, or return why this is not possible."""
    content = all(one.pictures is not None for one in (*a, *b))
    pairs = [(x.by(content), y.by(content)) for x, y in zip(a, b, strict=True)]
    if not content and any(set(x) != set(y) for x, y in pairs):
        return (
            "their image names differ, and score files of older versions have no image digests; "
            "score again"
        )
    gains = [{i: x[i] - y[i] for i in x if i in y} for x, y in pairs]
    if not all(gains):
        return "they have no image in common"
    # Subjects who saw the same image are not independent, so signs are flipped by image.
    images: dict[str, list[float]] = {}
    for gain in gains:
        for image, value in gain.items():
            images.setdefault(image, []).append(value)
    mean = np.asarray([np.mean(values) for values in images.values()])
    result = vars(
        paired_difference(mean, np.zeros(len(mean)), n_boot, n_permutations, seed=seed)
    ) | {"subjects": len(gains), "p_signed_rank": signed_rank_p(mean)}
    if len(gains) > 1:
        values = [np.asarray(list(gain.values())) for gain in gains]
        over = hierarchical_bootstrap(values, n_boot, seed=seed)
        result |= {"difference": over.value, "ci_low": over.ci_low, "ci_high": over.ci_high}
    return result
