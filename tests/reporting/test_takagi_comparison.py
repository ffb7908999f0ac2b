"""The verdict on the paper's pattern, on cases whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from calcarine.reporting.takagi_comparison import (
    AS_PAPER,
    INCONCLUSIVE,
    NOT_AS_PAPER,
    compare_with_takagi,
    level,
    paired_interval,
)

PerImage = Callable[..., pd.DataFrame]
# Mean score on metrics of appearance and of semantic content, as the paper has it.
PAPER = {"z": (0.8, 0.55), "c": (0.5, 0.85), "z_c": (0.78, 0.84)}
IDS = [f"img{i:03d}" for i in range(40)]


@pytest.mark.parametrize(
    ("means", "appearance", "semantic", "overall"),
    [
        (PAPER, AS_PAPER, AS_PAPER, AS_PAPER),
        (
            {"z": (0.5, 0.85), "c": (0.8, 0.55), "z_c": (0.7, 0.7)},
            NOT_AS_PAPER,
            NOT_AS_PAPER,
            NOT_AS_PAPER,
        ),
        (
            {"z": (0.8, 0.7), "c": (0.5, 0.7), "z_c": (0.78, 0.7)},
            AS_PAPER,
            INCONCLUSIVE,
            INCONCLUSIVE,
        ),
    ],
)
def test_verdict(
    scores_around: PerImage,
    means: dict[str, tuple[float, float]],
    appearance: str,
    semantic: str,
    overall: str,
) -> None:
    pattern = compare_with_takagi(scores_around(means, IDS))
    assert pattern is not None
    assert pattern.verdicts == {"appearance": appearance, "semantic": semantic}
    assert pattern.verdict == overall


def test_differences_are_paired(scores_around: PerImage) -> None:
    """A small but constant advantage shows, however much the pictures vary."""
    frame = scores_around(PAPER, IDS, spread=0.0)
    common = dict(zip(IDS, np.random.default_rng(0).normal(0, 5, len(IDS)), strict=True))
    pattern = compare_with_takagi(frame.assign(value=frame["value"] + frame["id"].map(common)))
    assert pattern is not None and pattern.verdict == AS_PAPER
    first = pattern.metrics[0]
    assert first.best == "z" and first.clear
    assert first.comparisons[0].difference == pytest.approx(0.3)


def test_one_level_alone_does_not_make_the_pattern(scores_around: PerImage) -> None:
    frame = scores_around(PAPER, IDS)
    pattern = compare_with_takagi(frame[frame["metric"] == "pixel correlation"])
    assert pattern is not None
    assert pattern.verdicts == {"appearance": AS_PAPER}
    assert pattern.verdict == INCONCLUSIVE


def test_no_pattern_without_the_three_methods(scores_around: PerImage) -> None:
    assert compare_with_takagi(scores_around({"z": PAPER["z"], "c": PAPER["c"]}, IDS)) is None


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("SSIM", "appearance"),
        ("identification, early layer, fixed reconstruction", "appearance"),
        ("identification, late layer, fixed image", "semantic"),
        ("10-way top-1", "semantic"),
        ("identification within category, pixels, fixed image", None),
        ("identification, middle layer, fixed image", None),
        ("correlated latents", None),
    ],
)
def test_level(metric: str, expected: str | None) -> None:
    assert level(metric) == expected


def test_paired_interval_covers_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        low, high = paired_interval(rng.normal(0.3, 1, 40), n_boot=300)
        covered += low <= 0.3 <= high
    assert 0.88 <= covered / 200 <= 0.99
