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
    matches = []
    bare = [column.name for column in columns if not column.scores]
    if bare:
        notes.append(f"{', '.join(bare)}: not tested, for there are no scores of single images.")
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
            matches.append(head | result)
        notes += [
            f"{a.name} and {b.name} are not tested on {_some(metrics)}: {why}."
            for why, metrics in untested.items()
        ]
        if any(one.pictures is None for one in _image_scores(a, b)):
            notes.append(
                f"{a.name} and {b.name} are paired by the names of images, for files of an older "
                "version do not record what the images are; score again to pair by content."
            )
    for protocol in {test["protocol"] for test in matches}:
        family = [test for test in matches if test["protocol"] == protocol]
        for name in ("p", "p_signed_rank"):
            for test, p in zip(family, holm([test[name] for test in family]), strict=True):
                test[f"{name}_holm"] = float(p)
        notes += _sample_size_notes(protocol, family, n_permutations)
    return matches


def _sample_size_notes(
    protocol: str, family: list[dict[str, Any]], n_permutations: int
) -> list[str]:
    """Say it where no difference, however clear, could have been significant."""
    n, tests = max(test["n"] for test in family), len(family)
    least = tests * smallest_p(n_permutations, share_of_signs(n))
    if least <= ALPHA:
        return []
    images, flips = required_size(n, n_permutations, tests, ALPHA, share_of_signs)
    required = [f"at least {images} images"] if images > n else []
    required += [f"at least {flips} sign flips"] if flips > n_permutations else []
    return [
        f"Tests of {protocol} are inconclusive: with {n} images, {n_permutations} sign flips and a "
        f"correction for {tests} tests p is at least {min(1.0, least):.2g} for any difference; use "
        f"{' and '.join(required)}."
    ]


def _image_scores(*columns: Column) -> list[ImageScores]:
    return [one for column in columns for scores in column.scores.values() for one in scores]


def _why_not_at_all(a: Column, b: Column) -> str | None:
    if None not in (*a.subjects, *b.subjects) and a.subjects != b.subjects:
        return "are of other subjects"
    if len(a.subjects) != len(b.subjects):
        return f"are of {len(a.subjects)} and {len(b.subjects)} subjects"
    return None


def _why_no_test(key: Key, a: Column, b: Column) -> str | None:
    # Tests are of means; a median of ranks has the ranks' mean beside it.
    if a.records[key].get("summary") == "median":
        return "medians are not tested"
    if key not in a.scores or key not in b.scores:
        return "it has no scores of single images"
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
    """Test two methods on the images of both, or say why not."""
    content = all(one.pictures is not None for one in (*a, *b))
    pairs = [(x.by(content), y.by(content)) for x, y in zip(a, b, strict=True)]
    if not content and any(set(x) != set(y) for x, y in pairs):
        return (
            "their images have other names, and files of an older version do not record what the "
            "images are; score again"
        )
    gains = [{i: x[i] - y[i] for i in x if i in y} for x, y in pairs]
    if not all(gains):
        return "they have no image in common"
    # Subjects who saw one image are no independent witnesses of it, so signs flip by image.
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
