"""Injected errors are detected, and valid pipelines are not flagged."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from calcarine.audit import (
    CHECKS,
    VERDICTS,
    AuditInputs,
    Check,
    FitStatistics,
    PictureSet,
    Prediction,
    ReportedScore,
    SampleChoice,
    TrialTable,
    audit,
    list_checks,
    read_numbers,
)
from calcarine.audit.binomial import proportion_interval, tail_probability
from calcarine.audit.check import register_check
from calcarine.audit.checks import reported_numbers
from calcarine.audit.checks.generalisation import effective_rank, share_inside
from calcarine.audit.checks.sample_choice import similarities
from calcarine.audit.reported_scores import definitions
from calcarine.audit.runner import ORDER
from calcarine.audit.selftest import CASES, Detection, detect
from calcarine.audit.selftest.simulated_decoding import SimulatedDecoding, reported
from calcarine.audit.stimulus_names import Names, canonical, difference
from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.evaluation.scoring.score import score_arrays
from calcarine.reporting.audit_page import build_audit_page

SLOW = "numbers-from-pictures"
QUICK = [name for name in ORDER if name != SLOW]
LEAKS = [each for each in CASES if each.check]
CLEAN = [each for each in CASES if not each.check]


def random_pictures(rng, n, side=32):
    return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("case", LEAKS, ids=lambda case: case.name)
def test_every_injected_error_is_found(case, monkeypatch):
    if case.check == SLOW:  # one protocol is enough, and all take a minute
        monkeypatch.setattr(reported_numbers, "definitions", _of_one_protocol)
    wanted = {"inconclusive"} if case.undetectable else {"failed", "suspicious"}
    for seed in (101,) if case.check == SLOW else (101, 102):
        assert audit(case.make(seed), [case.check]).findings[case.check].verdict in wanted


@pytest.mark.parametrize("case", CLEAN, ids=lambda case: case.name)
def test_valid_pipelines_are_flagged_by_no_check_but_those_that_may(case):
    found = audit(case.make(201), QUICK).findings
    flagged = {name for name, each in found.items() if each.verdict in ("failed", "suspicious")}
    assert flagged <= set(case.allowed), [found[name].sentence for name in flagged]


def test_at_least_twelve_valid_pipelines_are_unusual():
    assert sum(not case.numbers for case in CLEAN) >= 12


INPUTS = {
    "train": None,
    "trials": None,
    "responses": None,
    "statistics": (),
    "predictions": (),
    "sample_choice": None,
    "decoder_choices": (),
    "others": {},
}


@pytest.mark.parametrize(
    "name",
    [
        "histogram of the ground truth, valid predictions",
        "ground truth at 8 x 8 pixels",
        "25 % ground truth blended in, other part given",
        "25 % ground truth blended in, blend given as another method",
        "test predictions z-scored over the test set",
        "repeats of a stimulus in several folds",
        "scaler fitted with test trials",
        "score of the best 20 of 40 test stimuli",
        "brain activity shuffled",
    ],
)
def test_more_evidence_never_takes_a_flag_back(name):
    """Each input is added to what flagged already, in two orders."""
    case = next(each for each in LEAKS if each.name == name)
    whole = case.make(101)
    for order in (list(INPUTS), list(INPUTS)[::-1]):
        inputs, was = replace(whole, **INPUTS), False
        for added in ["", *order]:
            if added:
                inputs = replace(inputs, **{added: getattr(whole, added)})
            verdict = audit(inputs, [case.check]).findings[case.check].verdict
            flagged = verdict in ("failed", "suspicious")
            assert flagged or not was, (added, verdict)
            was = was or flagged
        assert was


def test_a_prediction_that_can_be_made_again_is_asked_for_its_moments_too():
    """A rule that brings every batch to the targets' moments may give one row what it gave all."""
    study = SimulatedDecoding(3)
    (each,) = study.inputs().predictions
    values = each.values - each.values.mean(0)
    values = values / values.std(0) * each.truth.std(0) + each.truth.mean(0)
    for again in (None, lambda rows: values[rows]):
        changed = Prediction("latents", values, each.truth, each.train, again)
        found = audit(replace(study.inputs(), predictions=[changed]), ["transductive-prediction"])
        assert found.findings["transductive-prediction"].verdict == "failed"


def test_pictures_that_collapsed_are_seen_beside_predictions_that_did_not(rng):
    inputs = SimulatedDecoding(3).inputs()
    one, two = (inputs.recon.full(row).astype(float) for row in (0, 1))
    share = rng.random(len(inputs))
    images = np.stack([np.rint(s * one + (1 - s) * two) for s in share]).astype(np.uint8)
    recon = PictureSet.of(inputs.truth.ids, images)
    for predictions in ((), inputs.predictions):
        changed = replace(inputs, recon=recon, predictions=predictions)
        found = audit(changed, ["dimension-collapse"]).findings["dimension-collapse"]
        assert found.verdict == "suspicious"


@pytest.mark.parametrize(
    ("written", "how"),
    [
        ("test-001", "same id"),
        ("test-001.png", "ending"),
        ("TEST-001", "case"),
        (" test-001 ", "blanks"),
        ("stimuli/test-001", "folder"),
        ("test-1", "spelling of the number"),
        ("a\\b\\Test-001.JPG", "folder and file ending and case"),
    ],
)
def test_names_are_found_however_they_are_written(written, how):
    assert Names([written, "other"]).find("test-001") == written
    assert Names(["test-001"]).find(written) == "test-001"
    assert how in difference("test-001", written)
    assert len(set(canonical([written, "test-001"]).values())) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat/001", "dog/001"), ("a1", "a100"), ("test-001", "test-0010"), ("a-b", "ab")],
)
def test_names_of_different_stimuli_stay_different(one, other):
    assert Names([one]).find(other) is None
    assert len(set(canonical([one, other]).values())) == 2


@pytest.mark.parametrize(
    ("test", "train", "verdict"),
    [
        ("k1", "K01.png", "failed"),
        ("k1", "images/k1", "failed"),
        ("new/k1", "old/k1", "suspicious"),
        ("test/k1", "train/k1", "passed"),
        ("test/s1", "train/s1", "passed"),
        ("cat/001", "dog/001", "passed"),
        ("k1", "k2", "passed"),
    ],
)
def test_a_leak_by_an_id_that_is_written_otherwise(rng, test, train, verdict):
    bare = _bare(rng)
    trials = TrialTable(np.array([test, train, "more"]), role=np.array(["test", "train", "train"]))
    found = audit(replace(bare, trials=trials), ["split-leaks"]).findings["split-leaks"]
    assert found.verdict == verdict
    if verdict == "failed":
        assert train in found.sentence and "except for" in found.sentence


def test_a_test_picture_that_the_table_has_in_training_leaks(rng):
    """Also where the table lists no test trial of it."""
    bare = _bare(rng)
    trials = TrialTable(np.array(["s3", "s99"]), role=np.array(["train", "test"]))
    found = audit(replace(bare, trials=trials), ["split-leaks"]).findings["split-leaks"]
    assert found.verdict == "failed" and "s3" in found.sentence


def test_pictures_named_otherwise_are_one_picture(rng):
    trials = TrialTable(
        np.array(["a", "b"]),
        role=np.array(["train", "test"]),
        picture=np.array(["coco/000000000123.jpg", "123"]),
    )
    found = audit(replace(_bare(rng), trials=trials), ["split-leaks"]).findings["split-leaks"]
    assert found.verdict == "failed"


def test_test_stimuli_without_a_reconstruction_are_counted(rng):
    bare = _bare(rng)
    names = [*bare.truth.ids, "s98", "s99.png", "S99"]
    for kept, verdict in ((12, "passed"), (15, "suspicious")):
        trials = TrialTable(np.array(names[:kept]), role=np.full(kept, "test"))
        found = audit(replace(bare, trials=trials), ["chosen-stimuli"]).findings["chosen-stimuli"]
        assert found.verdict == verdict
    assert found.numbers["test stimuli without a reconstruction"] == 2


def test_stimuli_of_one_common_light_are_not_taken_for_a_leak(rng):
    """Where every truth has one mean and contrast, a decoder may know both."""
    inputs = SimulatedDecoding(4).inputs()

    def equal(side):
        images = np.stack([side.full(row).astype(float) for row in range(len(side))])
        images = images - images.mean((1, 2), keepdims=True)
        images = 128 + 30 * images / images.std((1, 2), keepdims=True)
        return PictureSet.of(side.ids, np.rint(np.clip(images, 0, 255)).astype(np.uint8))

    changed = replace(inputs, truth=equal(inputs.truth), recon=equal(inputs.recon))
    found = audit(changed, ["transductive-prediction"]).findings["transductive-prediction"]
    assert found.verdict == "passed"


def test_few_pictures_that_follow_the_brain_are_retrieval_and_not_ignorance(rng):
    """Without the training pictures, sharing them is what shows it."""
    case = next(each for each in LEAKS if each.check == "retrieval")
    inputs = case.make(1)
    names = ["ignores-the-brain", "retrieval"]
    for train, verdict in ((inputs.train, "failed"), (None, "suspicious")):
        told = audit(replace(inputs, train=train), names).findings
        assert told["retrieval"].verdict == verdict
        assert told["ignores-the-brain"].verdict == "passed"


def _of_one_protocol(families):
    return [each for each in definitions(families) if each.protocol == "calcarine"]


def test_every_check_is_the_target_of_a_injected_error():
    assert {each.check for each in LEAKS} == set(CHECKS) == set(ORDER)


def test_detections_are_counted():
    case = [each for each in CASES if each.check == "repeats-over-folds"]
    (found,) = detect(range(2), case)
    assert (found.n, found.flagged, found.inconclusive, found.right) == (2, 2, 0, True)
    assert found.row()[2] == "2 of 2"


@pytest.mark.parametrize(
    ("kind", "found", "inconclusive", "right"),
    [
        ("mistake", 10, 0, True),
        ("mistake", 8, 2, True),
        ("mistake", 7, 0, False),
        ("undetectable", 0, 10, True),
        ("undetectable", 0, 9, False),
        ("nothing", 0, 0, True),
        ("nothing", 1, 0, False),
    ],
)
def test_the_self_test_passes_only_if_mistakes_are_found_and_none_is_made_up(
    kind, found, inconclusive, right
):
    undetectable = kind == "undetectable"
    case = next(
        p for p in (CLEAN if kind == "nothing" else LEAKS) if p.undetectable == undetectable
    )
    assert Detection(case, 10, found, inconclusive, {}).right is right


def test_one_wrong_row_of_the_self_test_ends_with_exit_code_1(monkeypatch):
    case = next(p for p in CASES if p.check == "split-leaks")
    for found, code in ((2, 0), (1, 1)):
        rows = [Detection(case, 2, 2, 0, {}), Detection(case, 2, found, 0, {})]
        monkeypatch.setattr(
            "calcarine.audit.selftest.detect", lambda seeds, progress, rows=rows: rows
        )
        assert CliRunner().invoke(app, ["audit", "--selftest", "2"]).exit_code == code


def test_checks_are_whole_and_a_new_one_is_one_class():
    for name, check in CHECKS.items():
        assert check.name == name and check.title
        assert check.question.endswith("?") and check.evidence_needed.endswith((".", "mindeye."))
    with pytest.raises(ValueError, match="two checks"):

        @register_check
        class Again(Check):
            name = "retrieval"


def test_pictures_alone_are_enough_to_begin_with(tmp_path, rng):
    truth = PictureSet.of("abcdefghijkl", random_pictures(rng, 12))
    noisy = np.clip(
        np.stack([truth.full(i) for i in range(12)]).astype(int) // 2
        + random_pictures(rng, 12) // 2,
        0,
        255,
    ).astype(np.uint8)
    found = audit(AuditInputs("only pictures", PictureSet.of(truth.ids, noisy), truth))
    told = {name: f.verdict for name, f in found.findings.items()}
    for name in (
        "split-leaks",
        "repeats-over-folds",
        "near-duplicates",
        "statistics-from-test",
        "choices-on-test",
        "chosen-stimuli",
        "best-of-samples",
        "retrieval",
        SLOW,
        "score-by-distance",
    ):
        assert told[name] == "inconclusive"
    assert told["ignores-the-brain"] == "passed"
    # Half of every pixel is the truth's; the other half is unknown.
    assert told["pixel-blends"] == "suspicious"

    page, beside = build_audit_page(found, tmp_path / "audit.html")
    text, content = page.read_text(), json.loads(beside.read_text())
    assert "http" not in text.replace("http-equiv", "")
    # Only where something is unsettled does the page say what would settle it.
    articles = dict(re.findall(r'<article class="check" id="([\w-]+)">(.*?)</article>', text, re.S))
    settled = {name for name in told if "What would settle it" not in articles[name]}
    assert settled == {name for name, verdict in told.items() if verdict in ("passed", "failed")}
    assert {"ignores-the-brain"} <= settled < set(told)
    assert content["format"] == "calcarine audit 1"
    assert list(content["verdicts"]) == list(VERDICTS)
    assert sum(content["verdicts"].values()) == len(content["checks"]) == len(list_checks())
    for check in content["checks"]:
        assert check["verdict"] in VERDICTS and check["evidence_needed"] and check["finding"]
        assert {"name", "title", "question", "numbers", "tables"} <= check.keys()
        for table in check["tables"]:
            assert all(len(row) == len(table["columns"]) for row in table["rows"])
    again = audit(found.inputs).content()
    assert again == found.content()


def statistics(stored, train, both):
    unit = both.std(0)
    return FitStatistics("mean", stored, train.mean(0), both.mean(0), unit)


@pytest.mark.parametrize(
    ("which", "verdict"), [("train", "passed"), ("both", "failed"), ("other", "inconclusive")]
)
def test_a_stored_mean_tells_whose_it_is(rng, which, verdict):
    train, test = rng.normal(3, 2, (50, 7)), rng.normal(3, 2, (20, 7))
    both = np.concatenate([train, test])
    stored = {"train": train, "both": both, "other": test}[which].mean(0).astype(np.float32)
    inputs = replace(_bare(rng), statistics=[statistics(stored.astype(np.float64), train, both)])
    found = audit(inputs, ["statistics-from-test"])
    assert found.findings["statistics-from-test"].verdict == verdict


def _bare(rng, n=12):
    ids = [f"s{i}" for i in range(n)]
    return AuditInputs("bare", *(PictureSet.of(ids, random_pictures(rng, n)) for _ in range(2)))


def test_a_prediction_that_needs_the_others_is_found_by_asking_for_it_alone(rng):
    x, weights = rng.normal(size=(12, 5)), rng.normal(size=(5, 30))

    def honest(rows):
        return x[rows] @ weights

    def by_batch(rows):
        return honest(rows) - 0.01 * honest(rows).mean(0)

    for predict, verdict in ((honest, "passed"), (by_batch, "failed")):
        each = Prediction("latents", predict(np.arange(12)), predict=predict)
        found = audit(replace(_bare(rng), predictions=[each]), ["transductive-prediction"])
        assert found.findings["transductive-prediction"].verdict == verdict


def test_the_weights_of_a_blend_are_told(rng):
    ids = [f"s{i}" for i in range(12)]
    truth, low = (PictureSet.of(ids, random_pictures(rng, 12)) for _ in range(2))
    mixed = np.stack([0.3 * truth.full(i) + 0.7 * low.full(i) for i in range(12)])
    recon = PictureSet.of(ids, np.rint(mixed).astype(np.uint8))
    inputs = AuditInputs("mixed", recon, truth, others={"low": low})
    found = audit(inputs, ["pixel-blends"]).findings["pixel-blends"]
    assert found.verdict == "failed"
    assert found.tables[0].rows[0][:3] == (
        "ground truth + low",
        "12 of 12",
        "0.30 (sd 0.00), 0.70 (sd 0.00)",
    )


def test_folds_of_a_run_keep_their_own_training_sets(rng):
    """A picture that is in training for others only is neither a leak nor a copy."""
    images = random_pictures(rng, 12)
    ids = [f"s{i}" for i in range(12)]
    everything = PictureSet.of(ids, images)
    names = ["split-leaks", "near-duplicates", "retrieval"]
    recon = PictureSet.of(ids, random_pictures(rng, 12))
    for allowed, verdict in ((~np.eye(12, dtype=bool), "passed"), (None, "failed")):
        inputs = AuditInputs("folds", recon, everything, train=everything, allowed=allowed)
        told = {name: f.verdict for name, f in audit(inputs, names).findings.items()}
        assert told["split-leaks"] == told["near-duplicates"] == verdict
        assert told["retrieval"] == "passed"


def test_a_blind_rule_that_chooses_otherwise_fails(rng):
    ids = [f"s{i}" for i in range(12)]
    samples = PictureSet.of(ids, rng.integers(0, 256, (12, 3, 32, 32, 3), dtype=np.uint8))
    bare, chosen = _bare(rng), np.arange(12) % 3
    for reapplied, verdict in ((chosen, "passed"), ((chosen + 1) % 3, "failed")):
        inputs = replace(bare, sample_choice=SampleChoice(samples, chosen, reapplied))
        found = audit(inputs, ["best-of-samples"]).findings["best-of-samples"]
        assert found.verdict == verdict


def test_a_choice_that_is_often_but_not_always_the_best_is_only_suspicious(rng):
    inputs = SimulatedDecoding(6).inputs()
    samples = inputs.sample_choice.samples
    best = similarities(inputs, inputs.sample_choice)["pixel correlation"].argmax(axis=1)
    mixed = np.where(rng.random(len(best)) < 0.5, best, rng.integers(5, size=len(best)))
    for chosen, verdict in ((mixed, "suspicious"), (best, "failed")):
        changed = replace(inputs, sample_choice=SampleChoice(samples, chosen))
        found = audit(changed, ["best-of-samples"]).findings["best-of-samples"]
        assert found.verdict == verdict


def test_samples_that_are_alike_leave_nothing_to_pick(rng):
    """The first of equal samples is the best of them, which nobody chose."""
    ids = [f"s{i}" for i in range(12)]
    bare, pictures = _bare(rng), rng.integers(0, 256, (12, 3, 32, 32, 3), dtype=np.uint8)
    alike = np.repeat(pictures[:, :1], 3, axis=1)
    half = np.concatenate([alike[:6], pictures[6:]])
    for samples, hits in ((alike, None), (half, "of 6")):
        choice = SampleChoice(PictureSet.of(ids, samples), np.zeros(12, int))
        found = audit(replace(bare, sample_choice=choice), ["best-of-samples"]).findings[
            "best-of-samples"
        ]
        assert found.verdict == "passed"
        rows = [row for table in found.tables for row in table.rows]
        assert all(hits in row[1] for row in rows) if hits else not rows


def test_a_number_that_is_too_good_fails_and_one_that_is_too_low_is_suspicious(monkeypatch):
    monkeypatch.setattr(reported_numbers, "definitions", _of_one_protocol)
    inputs = SimulatedDecoding(5, n_test=12).inputs()
    for change, verdict in ((0.05, "failed"), (-0.05, "suspicious"), (0.0, "passed")):
        numbers = [replace(n, value=n.value + change) for n in inputs.numbers]
        found = audit(replace(inputs, numbers=numbers), [SLOW]).findings[SLOW]
        assert found.verdict == verdict


def test_similarities_averaged_over_samples_are_a_valid_definition(rng, monkeypatch):
    monkeypatch.setattr(reported_numbers, "definitions", _of_one_protocol)
    truth = random_pictures(rng, 16)
    noise = rng.integers(0, 256, (16, 5, *truth.shape[1:]))
    recon = (truth[:, None] * 0.02 + noise * 0.98).astype(np.uint8)
    metric = "identification, pixels, fixed image"
    scored = score_arrays(truth, recon, n_boot=2, n_permutations=2, judge=None).records
    value = next(r["value"] for r in scored if r["metric"] == metric)
    ids = [str(i) for i in range(16)]
    pictures = PictureSet.of(ids, recon), PictureSet.of(ids, truth)
    number = ReportedScore("identification pixels", round(value, 3), 3)
    inputs = AuditInputs("honest", *pictures, numbers=(number,))
    found = audit(inputs, [SLOW]).findings[SLOW]
    assert found.verdict == "passed", found.sentence
    assert "similarities averaged over samples" in {row[3] for row in found.tables[0].rows}


def test_pictures_that_nobody_named_are_not_one_picture():
    def look(picture, fold):
        trials = TrialTable(
            stimulus=np.array(list("abcd")), picture=np.array(picture), fold=np.array(fold)
        )
        found = audit(replace(_bare(np.random.default_rng(0)), trials=trials), [check])
        return found.findings[check].verdict

    check = "repeats-over-folds"
    assert look(["", "", "7", "8"], list("0101")) == "passed"
    assert look(["7", "7", "", ""], list("0101")) == "failed"
    assert look(["", "", "a", "b"], list("0101")) == "passed"
    assert look(["", "", "", ""], [""] * 4) == "passed"


def test_repeats_are_known_by_their_ids_whatever_their_pictures_are_called(rng):
    check = "repeats-over-folds"
    for ids in (["a", "a", "b", "b"], ["a", "A.png", "b", "b"]):
        for picture in (None, np.array(["1", "2", "3", "4"])):
            for fold, verdict in (("0101", "failed"), ("0011", "passed")):
                trials = TrialTable(np.array(ids), picture=picture, fold=np.array(list(fold)))
                found = audit(replace(_bare(rng), trials=trials), [check]).findings[check]
                assert found.verdict == verdict, (ids, picture, fold)


def test_numbers_are_read_as_printed_and_found_by_their_definition():
    assert read_numbers("PixCorr .32, SSIM=0.431; 2-way pixels 78.4%") == (
        ReportedScore("PixCorr", 0.32, 2),
        ReportedScore("SSIM", 0.431, 3),
        ReportedScore("2-way pixels", 0.784, 3),
    )
    for text in ("PixCorr", "0.3", " ", "PixCorr high"):
        with pytest.raises(CalcarineError, match=r"PixCorr \.32, SSIM \.43"):
            read_numbers(text)
    study = SimulatedDecoding(5, n_test=12)
    inputs = study.inputs()
    found = audit(inputs, [SLOW]).findings[SLOW]
    assert found.verdict == "passed" and "calcarine" in found.sentence
    named = {row[2] for row in found.tables[0].rows}
    assert "pixel correlation (calcarine)" in named and "SSIM (calcarine)" in named
    assert reported(inputs.truth, inputs.recon) == inputs.numbers


def test_effective_rank_and_span_have_closed_forms(rng):
    basis = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    equal = np.concatenate([np.eye(6), -np.eye(6)])
    assert effective_rank(equal @ basis[:6]) == pytest.approx(6)
    assert effective_rank(np.ones((9, 4))) == 0
    spread = np.diag([3.0, 1.0])
    power = np.array([0.9, 0.1])
    wanted = np.exp(-(power * np.log(power)).sum())
    two = np.concatenate([spread, -spread])
    assert effective_rank(two) == pytest.approx(wanted)
    assert effective_rank(two @ basis[:2]) == pytest.approx(wanted)
    inside = share_inside(equal @ basis[:6], equal[:, :3] @ basis[:3], np.zeros(20), 1.0)
    assert inside == pytest.approx(0.5)


def test_intervals_are_exact():
    assert proportion_interval(0, 20)[1] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert proportion_interval(20, 20) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert tail_probability(3, 3, 0.2) == pytest.approx(0.008)
    assert tail_probability(0, 3, 0.2) == pytest.approx(1)


def test_mistakes_of_the_caller_are_told_in_one_sentence(rng):
    bare = _bare(rng)
    with pytest.raises(CalcarineError, match="no check 'luck'"):
        audit(bare, ["luck"])
    with pytest.raises(CalcarineError, match="The ids of the reconstructions differ"):
        replace(bare, recon=PictureSet.of(list("abcdefghijkl"), random_pictures(rng, 12)))
    with pytest.raises(CalcarineError, match="not finite"):
        Prediction("z", np.full((3, 2), np.nan))
    with pytest.raises(CalcarineError, match="train or test, not 'val'"):
        study = SimulatedDecoding(0)
        study.trials(role=np.full(len(study.shown), "val"))


@pytest.mark.parametrize("seed", [58, 64, 71])
def test_noisy_valid_pipelines_do_not_depend_on_distance(seed):
    """A bootstrap interval of the slope excluded zero with these seeds."""
    case = next(each for each in CLEAN if each.name == "valid: noisy responses")
    found = audit(case.make(seed), ["score-by-distance"]).findings["score-by-distance"]
    assert found.verdict in ("passed", "inconclusive")
    assert found.numbers["permutation p of a decrease with distance"] > 0.001


def test_an_audit_prints_itself_in_a_few_lines_and_as_an_escaped_table():
    inputs = SimulatedDecoding(3, n_test=12).inputs()
    inputs.title = "<b>lab</b>"
    found = audit(inputs, ["split-leaks", "repeats-over-folds"])
    assert repr(found).splitlines()[0] == "Audit of <b>lab</b>, 12 test stimuli"
    assert "passed: 2" in repr(found) and len(repr(found).splitlines()) < 8
    html = found._repr_html_()
    assert "&lt;b&gt;lab" in html and "<b>lab" not in html and "split-leaks" in html
    assert repr(found.findings["split-leaks"]).startswith("passed: No test stimulus")
