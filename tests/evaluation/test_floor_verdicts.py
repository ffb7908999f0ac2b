"""Verdicts compare every score with its strongest floor."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calcarine.evaluation import floor_verdicts, score_arrays

FLOORS = {"training mean": 0.4, "nearest training image": 0.6}
CANNOT_DRAW = "ceiling below floor: the generator cannot draw these pictures"


def evaluation(values, *, n=20, spread=0.02, metric="SSIM", higher=True, without=()):
    """Return records and scores of single images around a mean for each set of pictures."""
    rng = np.random.default_rng(0)
    records, frames = [], []
    for name, mean in values.items():
        scores = np.full(n, mean) + spread * rng.standard_normal(n)
        role = "floor" if name in FLOORS or "shuffled" in name else "method"
        records.append(
            {
                "method": name,
                "role": "ceiling" if name.startswith("ceiling") else role,
                "metric": metric,
                "protocol": "calcarine",
                "value": float(scores.mean()),
                "higher_is_better": higher,
            }
        )
        if name not in without:
            frame = pd.DataFrame({"id": range(n), "method": name, "value": scores})
            frames.append(frame.assign(metric=metric, protocol="calcarine"))
    return records, pd.concat(frames)


def only(*arguments, **options):
    (verdict,) = floor_verdicts(*evaluation(*arguments, **options))
    return verdict


@pytest.mark.parametrize(
    ("mean", "outcome", "sentence"),
    [
        (0.8, "above floor", "above its strongest floor (nearest training image)"),
        (0.5, "below floor", "below its strongest floor (nearest training image)"),
        (
            0.6,
            "not distinguishable from floor",
            "not distinguishable from its strongest floor (nearest training image)",
        ),
    ],
)
def test_a_method_is_compared_with_its_strongest_floor(mean, outcome, sentence):
    verdict = only({"z_c": mean} | FLOORS)
    assert (verdict.outcome, verdict.sentence) == (outcome, sentence)
    assert verdict.difference.difference == pytest.approx(mean - 0.6, abs=0.02)


@pytest.mark.parametrize(("mean", "outcome"), [(0.2, "above floor"), (0.5, "below floor")])
def test_lower_is_better_turns_the_verdict_around(mean, outcome):
    verdict = only({"z_c": mean} | FLOORS, metric="LPIPS", higher=False)
    assert (verdict.outcome, verdict.floor) == (outcome, "training mean")


def test_equal_scores_are_not_distinguishable():
    verdict = only({"z_c": 0.6} | FLOORS, spread=0)
    assert verdict.outcome == "not distinguishable from floor" and verdict.p_holm == 1


@pytest.mark.parametrize("mean", [0.1, 0.6, 0.9])
def test_few_images_are_inconclusive_whatever_the_scores(mean):
    verdict = only({"z_c": mean} | FLOORS, n=5)
    assert verdict.sentence == (
        "inconclusive: too few images for a significant difference from its strongest floor "
        "(nearest training image)"
    )


def test_six_images_can_be_sufficient():
    # With six images, 2 of 64 choices of signs are as extreme: p is about 0.031.
    assert only({"z_c": 0.9} | FLOORS, n=6).outcome == "above floor"


@pytest.mark.parametrize(
    ("mean", "ceiling", "sentence"),
    [
        (0.25, 0.36, CANNOT_DRAW),
        (0.6, 0.5, CANNOT_DRAW),
        (0.25, 0.7, "below its strongest floor (nearest training image)"),
        (0.25, 0.6, "below its strongest floor (nearest training image)"),
        (0.8, 0.5, "above its strongest floor (nearest training image)"),
    ],
)
def test_a_ceiling_below_the_floor_is_told_unless_the_method_is_above(mean, ceiling, sentence):
    verdict = only({"z_c": mean, "ceiling z_c": ceiling} | FLOORS)
    assert verdict.sentence == sentence


def test_the_ceiling_of_a_distance_is_below_its_floor_if_it_is_larger():
    values = {"z_c": 0.9, "ceiling z_c": 0.7} | FLOORS
    assert only(values, metric="LPIPS", higher=False).sentence == CANNOT_DRAW
    assert only(values, metric="LPIPS", higher=True).outcome == "above floor"


def test_the_ceiling_of_another_method_does_not_count():
    assert only({"z_c": 0.25, "ceiling z": 0.3} | FLOORS).outcome == "below floor"


@pytest.mark.parametrize(
    ("p", "least", "outcome"),
    [
        (0.01, 0.001, "above floor"),
        (0.3, 0.001, "not distinguishable from floor"),
        (0.3, 0.2, "inconclusive"),
        (None, None, "not tested"),
    ],
)
def test_the_permutation_test_decides_against_the_shuffled_brain(p, least, outcome):
    shuffled = "shuffled brain (z_c)"
    records, per_image = evaluation({"z_c": 0.7, shuffled: 0.65} | FLOORS, without=(shuffled,))
    records[0] |= {"p_holm": p, "p_holm_min": least}
    (verdict,) = floor_verdicts(records, per_image)
    assert (verdict.outcome, verdict.floor, verdict.p_holm) == (outcome, shuffled, p)


def test_the_shuffled_brain_of_another_method_is_no_floor():
    shuffled = "shuffled brain (z)"
    verdict = only({"z_c": 0.7, shuffled: 0.9} | FLOORS, without=(shuffled,))
    assert (verdict.outcome, verdict.floor) == ("above floor", "nearest training image")


def test_scores_without_images_medians_and_missing_floors_are_not_tested():
    verdict = only({"z_c": 0.9} | FLOORS, without=("z_c",))
    assert verdict.sentence == "not tested against its strongest floor (nearest training image)"
    records, per_image = evaluation({"z_c": 0.9} | FLOORS)
    records = [record | {"summary": "median"} for record in records]
    assert floor_verdicts(records, per_image)[0].outcome == "not tested"
    assert only({"z_c": 0.9}).sentence == "not tested: no floor has a score"


def test_p_is_corrected_for_the_metrics_of_the_protocol():
    whole = [evaluation({"z_c": 0.9} | FLOORS, n=6, metric=f"metric {i}") for i in range(2)]
    records = [record for part, _ in whole for record in part]
    verdicts = floor_verdicts(records, pd.concat([frame for _, frame in whole]))
    # Two tests with six images: p is at least 0.062.
    assert [one.outcome for one in verdicts] == ["inconclusive"] * 2
    assert all(one.p_holm == 2 * one.difference.p for one in verdicts)


def test_the_order_of_the_images_does_not_matter():
    records, per_image = evaluation({"z_c": 0.61} | FLOORS)
    jumbled = per_image.sample(frac=1, random_state=0)
    assert floor_verdicts(records, per_image) == floor_verdicts(records, jumbled)


def test_scored_pictures_have_verdicts(rng):
    truth = rng.integers(0, 256, (16, 16, 16, 3), np.uint8)
    train = rng.integers(0, 256, (16, 16, 16, 3), np.uint8)
    scored = score_arrays(truth, truth, train=train, n_boot=50)
    verdicts = floor_verdicts(scored.records, scored.per_image)
    told = {one.metric: one for one in verdicts}["pixel correlation"]
    assert told.outcome == "above floor" and told.p_holm < 0.05
