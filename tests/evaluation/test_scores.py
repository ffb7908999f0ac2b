"""Every score stands beside its floor and its test, and survives writing."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from calcarine.errors import CalcarineError
from calcarine.evaluation.baselines import random_training_image, training_mean
from calcarine.evaluation.inputs.image_stacks import TestSet, from_array
from calcarine.evaluation.metrics import matrices
from calcarine.evaluation.networks.feature_cache import TruthFeatures
from calcarine.evaluation.networks.judges import Judge, JudgeNet
from calcarine.evaluation.results.evaluation import (
    Evaluation,
    read_evaluation,
    read_summary,
    select_main_protocol,
    write_evaluation,
)
from calcarine.evaluation.scoring import scoring
from calcarine.evaluation.scoring.score import score_arrays, score_pictures
from calcarine.evaluation.scoring.scoring import ScoredSet, Scoring
from calcarine.evaluation.scoring.settings import ScoreSettings

N, S, SIDE = 12, 2, 16
LABELS = ["six", "nine", "one", "two"]
CATEGORIES = ["six", "nine"] * (N // 2)
IDS = [f"stim{i}" for i in range(N)]
WANG = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "data_range": 1.0,
}
FAST = {"n_boot": 50, "n_permutations": 99}


def score(truth, methods, *, floors=None, ids=IDS, categories=None, protocols=("calcarine",), **k):
    return score_pictures(
        TestSet(from_array(truth, "ground truths"), ids),
        {name: from_array(images, name) for name, images in methods.items()},
        floors={name: from_array(images, name) for name, images in (floors or {}).items()},
        categories=categories,
        settings=ScoreSettings(protocols=protocols, **({"judge": None} | FAST | k)),
    )


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(1)
    return Judge(JudgeNet(LABELS, (4, 6, 8)), "tiny")


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (N, SIDE, SIDE, 3)).astype(np.uint8)
    noise = rng.integers(0, 256, (N, S, SIDE, SIDE, 3)).astype(np.uint8)
    return {"truth": truth, "noise": noise, "close": (truth[:, None] // 2 + noise // 2)}


@pytest.fixture(scope="module")
def full(judge, images) -> Evaluation:
    train = images["noise"].reshape(-1, SIDE, SIDE, 3)
    return score(
        images["truth"],
        {
            "close": images["close"],
            "noise": images["noise"],
            "ceiling: same": images["truth"][:, None],
        },
        ids=IDS,
        categories=CATEGORIES,
        floors={
            "training mean": training_mean(train, N),
            "random training image": random_training_image(train, IDS),
        },
        judge=judge,
        read_classes=["six", "nine"],
    )


def pick(records: list[dict], method: str, metric: str) -> dict:
    (found,) = [r for r in records if r["method"] == method and r["metric"] == metric]
    return found


def test_a_network_reads_the_ground_truths_once(judge, images, monkeypatch):
    read = []
    layers = Judge.read

    def counted(self, pictures, *arguments, **options):
        read.append(len(pictures))
        return layers(self, pictures, *arguments, **options)

    def scores(limit):
        read.clear()
        monkeypatch.setattr(scoring, "TruthFeatures", lambda folder: TruthFeatures(folder, limit))
        methods = {"close": images["close"], "noise": images["noise"]}
        result = score(images["truth"], methods, judge=judge, categories=CATEGORIES)
        return sum(read), result

    monkeypatch.setattr(Judge, "read", counted)
    kept, result = scores(2**30)
    again, same = scores(0)
    assert kept == N + 2 * S * N and again == 2 * N + 2 * S * N
    assert result.records == same.records and result.per_image.equals(same.per_image)


def test_sets_may_be_scored_in_any_order_and_pass_through_json(judge, images, full):
    train = images["noise"].reshape(-1, SIDE, SIDE, 3)
    with Scoring(
        TestSet(from_array(images["truth"], "ground truths"), IDS),
        {
            "close": from_array(images["close"], "close"),
            "noise": from_array(images["noise"], "noise"),
            "ceiling: same": from_array(images["truth"][:, None], "same"),
        },
        floors={
            "training mean": from_array(training_mean(train, N), "mean"),
            "random training image": from_array(random_training_image(train, IDS), "random"),
        },
        categories=CATEGORIES,
        settings=ScoreSettings(judge=judge, read_classes=["six", "nine"], **FAST),
    ) as sets:
        order = [3, 0, 4, 1, 2]
        scored = {number: json.dumps(asdict(sets.score(number))) for number in order}
        joined = sets.join([ScoredSet(**json.loads(scored[number])) for number in range(5)])
    assert joined.records == full.records and joined.notes == full.notes
    pd.testing.assert_frame_equal(joined.per_image, full.per_image)


def test_every_method_floor_and_ceiling_has_every_metric(full):
    roles = {
        "close": "method",
        "noise": "method",
        "ceiling: same": "ceiling",
        "training mean": "floor",
        "random training image": "floor",
        "shuffled brain (close)": "floor",
        "shuffled brain (noise)": "floor",
    }
    assert {r["method"]: r["role"] for r in full.records} == roles
    names = {
        method: [r["metric"] for r in full.records if r["method"] == method] for method in roles
    }
    assert all(sorted(found) == sorted(names["close"]) for found in names.values())
    spaces = ("pixels", "early layer", "middle layer", "late layer")
    for space in spaces:
        for side in ("image", "reconstruction"):
            assert f"identification, {space}, fixed {side}" in names["close"]
            assert f"identification within category, {space}, fixed {side}" in names["close"]
        assert f"identification among the 10 nearest, {space}, fixed image" in names["close"]
    assert {"pixel correlation", "SSIM", "category accuracy"} <= set(names["close"])
    notes = [note for note in full.notes if "perfect reconstructions" not in note]
    assert len(notes) == 1 and "10-way top-1; 24-way top-5" in notes[0]


def test_values_are_means_of_the_per_image_scores(full):
    assert list(full.per_image) == ["id", "method", "metric", "value", "category", "protocol"]
    for record in full.records:
        if record["method"].startswith("shuffled"):
            continue
        table = full.per_image
        rows = table[(table.method == record["method"]) & (table.metric == record["metric"])]
        assert list(rows.id) == IDS and list(rows.category) == CATEGORIES
        middle = rows.value.median() if record["summary"] == "median" else rows.value.mean()
        assert record["value"] == pytest.approx(middle)
        assert record["ci_low"] - 1e-9 <= record["value"] <= record["ci_high"] + 1e-9
        assert record["n"] == N and record["protocol"] == "calcarine"


def test_values_equal_the_metrics_computed_by_hand(full, images, judge):
    truth, close = images["truth"], images["close"]

    def correlations(x, y):
        """By numpy, pair by pair, averaged over samples."""
        x, y = x.reshape(N, -1), y.reshape(N, S, -1)
        return np.array([[np.mean([np.corrcoef(a, c)[0, 1] for c in b]) for b in y] for a in x])

    pixels = correlations(truth, close)
    alike = [
        np.mean([structural_similarity(*map(rgb2gray, (x, y)), **WANG) for y in made])
        for x, made in zip(truth / 255, close / 255, strict=True)
    ]
    by_hand = {
        "pixel correlation": pixels,
        "SSIM": np.diag(alike),
        "identification, pixels, fixed image": matrices.identification_matrix(pixels),
        "identification within category, pixels, fixed reconstruction": (
            matrices.identification_matrix(pixels, "reconstruction", groups=CATEGORIES)
        ),
    }
    late = [judge.read(x.reshape(-1, SIDE, SIDE, 3)).layers["late"] for x in (truth, close)]
    by_hand["identification, late layer, fixed image"] = matrices.identification_matrix(
        correlations(*late)
    )
    for metric, matrix in by_hand.items():
        value = pick(full.records, "close", metric)["value"]
        assert value == pytest.approx(np.diagonal(matrix).mean(), abs=1e-6)


def test_chance_and_pool(full):
    expected = {
        "identification, late layer, fixed image": (0.5, N),
        "identification within category, pixels, fixed image": (0.5, N // 2),
        "category accuracy": (0.5, 2),
        "SSIM": (None, None),
    }
    for metric, (chance, pool) in expected.items():
        record = pick(full.records, "noise", metric)
        assert (record["chance"], record["pool"]) == (chance, pool)


def test_perfect_images_are_at_one_with_the_least_p(full):
    for metric in ("pixel correlation", "SSIM", "identification, late layer, fixed image"):
        record = pick(full.records, "ceiling: same", metric)
        assert record["value"] == pytest.approx(1) and record["p"] == pytest.approx(1 / 100)


def test_training_mean_identifies_nothing(full):
    for space in ("pixels", "early layer", "late layer"):
        record = pick(full.records, "training mean", f"identification, {space}, fixed image")
        assert record["value"] == 0.5 and record["p"] == 1


def test_shuffled_brain_is_at_chance_and_below_a_real_effect(full):
    metric = "identification, pixels, fixed image"
    real = pick(full.records, "close", metric)
    shuffled = pick(full.records, "shuffled brain (close)", metric)
    assert shuffled["value"] == real["null_mean"] == pytest.approx(0.5, abs=0.05)
    assert shuffled["ci_low"] < 0.5 < shuffled["ci_high"] < real["value"]
    assert shuffled["p"] is None and real["p"] == pytest.approx(1 / 100)
    assert pick(full.records, "noise", metric)["p"] > 0.02


def test_the_same_call_gives_the_same_answer(images):
    runs = [score(images["truth"], {"a": images["close"]}) for _ in range(2)]
    assert runs[0].records == runs[1].records
    pd.testing.assert_frame_equal(runs[0].per_image, runs[1].per_image)
    assert runs[0].per_image["category"].isna().all()


def test_reconstructions_of_another_size_are_resized(images):
    large = images["truth"].repeat(2, axis=1).repeat(2, axis=2)[:, None]
    result = score(images["truth"], {"large": large})
    assert pick(result.records, "large", "pixel correlation")["value"] > 0.9


def test_what_cannot_be_computed_is_left_out_with_a_note(images, judge):
    tiny = images["truth"][:, :10, :10]
    kinds = ["zebra"] * 3 + ["six"] * 9
    result = score(tiny, {"m": images["close"]}, categories=kinds, judge=judge)
    names = {record["metric"] for record in result.records}
    assert not names & {"SSIM", "category accuracy", "10-way top-1"}
    assert not any("within" in name for name in names)
    notes = " ".join(result.notes)
    assert "SSIM" in notes and "zebra" in notes and "within category" in notes and "10-way" in notes


def test_without_a_judge_only_pixels_are_compared_and_that_is_said(images):
    result = score(images["truth"], {"m": images["close"]}, categories=CATEGORIES)
    names = {record["metric"] for record in result.records}
    assert "identification within category, pixels, fixed image" in names
    assert not any("layer" in name or "way" in name or "read" in name for name in names)
    assert any("no judge is named" in note for note in result.notes)


def test_protocols_stand_side_by_side_and_one_leads(images):
    both = score(images["truth"], {"m": images["close"]}, protocols=["mindeye", "calcarine"])
    assert {record["protocol"] for record in both.records} == {"mindeye", "calcarine"}
    twice = both.per_image[both.per_image["metric"] == "pixel correlation"]
    assert len(twice) == 2 * N
    leading = select_main_protocol(both.per_image)
    assert (
        set(leading["protocol"]) == {"calcarine"}
        and not leading[["metric", "id"]].duplicated().any()
    )
    one = score_arrays(images["truth"], images["close"], protocols=["mindeye"], **FAST)
    assert set(select_main_protocol(one.per_image)["protocol"]) == {"mindeye"}


def test_written_scores_come_back(full, tmp_path):
    write_evaluation(tmp_path / "metrics", full)
    write_evaluation(tmp_path / "metrics", full)
    written = {path.name for path in (tmp_path / "metrics").iterdir()}
    assert written == {"summary.json", "notes.json", "per_image.parquet"}
    text = (tmp_path / "metrics" / "summary.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    records = read_summary(tmp_path / "metrics")
    order = [(record["method"], record["metric"]) for record in records]
    assert order == sorted(order) and len(records) == len(full.records)
    for record in full.records:
        back = pick(records, record["method"], record["metric"])
        assert back == {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}
    again = read_evaluation(tmp_path / "metrics")
    pd.testing.assert_frame_equal(again.per_image, full.per_image, check_dtype=False)


def test_a_failed_write_leaves_the_old_file(full, tmp_path):
    write_evaluation(tmp_path, full)
    before = (tmp_path / "summary.json").read_bytes()
    broken = Evaluation([full.records[0] | {"value": float("nan")}], full.per_image)
    with pytest.raises(ValueError, match="JSON"):
        write_evaluation(tmp_path, broken)
    assert (tmp_path / "summary.json").read_bytes() == before


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_missing_or_malformed_summary_is_told(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(CalcarineError, match="run the evaluation again"):
        read_summary(tmp_path)


def test_input_that_does_not_fit_is_refused(images, judge):
    truth, close = images["truth"], images["close"]
    good = {"truth": truth, "methods": {"m": close}}
    for change, message in (
        ({"truth": truth.astype(int)}, "ground truths"),
        ({"methods": {}}, "no method"),
        ({"methods": {"m": close[:3]}}, "'m'"),
        ({"methods": {"m": close.astype(float)}}, "The m are float64"),
        ({"floors": {"m": close}}, "both"),
        ({"ids": ["a"] * N}, "each image one unique id"),
        ({"categories": ["a"]}, "categories"),
        ({"judge": judge, "categories": CATEGORIES, "read_classes": ["eight"]}, "'eight'"),
    ):
        arguments = good | change
        with pytest.raises(CalcarineError, match=message):
            score(arguments.pop("truth"), arguments.pop("methods"), **arguments)
