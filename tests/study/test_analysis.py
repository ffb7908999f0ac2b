import csv
import json
import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calcarine.errors import CalcarineError
from calcarine.evaluation.statistics.significance import holm, signed_rank_p
from calcarine.study.agreement import counts, fleiss_kappa, krippendorff_alpha
from calcarine.study.analysis import analyse, analyse_rows
from calcarine.study.analysis_page import p_value, table_lines, write_analysis
from calcarine.study.answers import AnswerRow, export_answers, read_answers
from calcarine.study.design import foils
from calcarine.study.preference import crossed_interval, means, sign_test_p
from calcarine.study.settings import MethodPair, StudySettings

# Fleiss (1971) as in the common textbook example: 14 raters, 10 items, 5 categories.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
# Krippendorff (2011), data with four observers, twelve units and missing values: 0.743.
_ = math.nan
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


def slow_alpha(ratings):
    """By the definition: observed over expected disagreement, from lists of pairs."""
    units = [[v for v in unit if not math.isnan(v)] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    observed = sum(
        sum(a != b for a, b in combinations(unit, 2)) * 2 / (len(unit) - 1) for unit in units
    ) / len(values)
    expected = sum(a != b for a, b in combinations(values, 2)) * 2
    expected /= len(values) * (len(values) - 1)
    return 1 - observed / expected if expected else math.nan


def slow_kappa(table):
    """By the definition: chance that two raters of an item agree, beyond that of any two."""
    agree = []
    for item in table:
        votes = [k for k, n in enumerate(item) for _ in range(n)]
        pairs = list(combinations(votes, 2))
        agree.append(sum(a == b for a, b in pairs) / len(pairs))
    shares = [sum(column) / sum(map(sum, table)) for column in zip(*table, strict=True)]
    chance = sum(share**2 for share in shares)
    return (np.mean(agree) - chance) / (1 - chance) if chance < 1 else math.nan


def test_agreement_by_textbook_examples():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    assert krippendorff_alpha(counts(KRIPPENDORFF)) == pytest.approx(0.743, abs=5e-4)
    assert fleiss_kappa([[3, 0], [0, 3]]) == krippendorff_alpha([[3, 0], [0, 3]]) == 1


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 8), st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_agreement_by_slow_definitions(seed, raters, items, missing):
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, 2, (raters, items)).astype(float)
    whole = counts(ratings)
    np.testing.assert_allclose(
        fleiss_kappa(whole), slow_kappa(whole.astype(int).tolist()), atol=1e-9
    )
    ratings[rng.random(ratings.shape) < missing] = np.nan
    if np.isfinite(ratings).sum(axis=0).max() > 1:
        np.testing.assert_allclose(
            krippendorff_alpha(counts(ratings)), slow_alpha(ratings), atol=1e-9
        )


def test_agreement_where_it_is_not_defined():
    for table in ([[3, 0], [3, 0]], [[1, 0], [0, 1]], np.zeros((0, 2)), np.zeros((3, 0))):
        assert math.isnan(krippendorff_alpha(table)) and math.isnan(fleiss_kappa(table))
    with pytest.raises(ValueError, match="same number of raters"):
        fleiss_kappa([[2, 0], [1, 0]])


@pytest.mark.parametrize("n", [1, 5, 12, 40])
def test_signed_rank_without_ties_is_scipys_exact_one(n, rng):
    values = rng.normal(0.3, 1, n)
    assert signed_rank_p(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=11))
@settings(max_examples=40, deadline=None)
def test_signed_rank_with_ties_counts_all_assignments_of_signs(differences):
    values = np.array(differences) / 6
    kept = values[values != 0]
    wanted = 1.0
    if len(kept):
        ranks = stats.rankdata(np.round(np.abs(kept), 9))
        signs = np.array(list(product((0, 1), repeat=len(kept))))
        away = np.abs(signs @ ranks - ranks.sum() / 2)
        here = abs(ranks[kept > 0].sum() - ranks.sum() / 2)
        wanted = (away >= here - 1e-9).mean()
    assert signed_rank_p(values) == pytest.approx(wanted)


def test_signed_rank_of_many_is_scipys_normal_one(rng):
    values = np.round(rng.normal(0.1, 1, 400), 1)
    wanted = stats.wilcoxon(values, method="approx", correction=False).pvalue
    assert signed_rank_p(values) == pytest.approx(wanted, rel=1e-6)


def test_equal_sized_differences_make_it_the_sign_test():
    values = np.repeat([0.5, -0.5], [15, 5])
    assert signed_rank_p(values) == pytest.approx(stats.binomtest(15, 20).pvalue)
    assert sign_test_p([*values, 0, 0]) == (pytest.approx(stats.binomtest(15, 20).pvalue), 15, 5)
    assert sign_test_p([0, 0]) == (1.0, 0, 0) and signed_rank_p([0.0]) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0] and holm([]).tolist() == []


@pytest.mark.parametrize(
    ("n_raters", "n_items", "item", "rater"),
    [(6, 24, 0, 0), (6, 24, 0.15, 0.05), (12, 40, 0.15, 0.1), (1, 40, 0.2, 0)],
)
def test_intervals_over_items_and_raters_cover_about_as_they_say(n_raters, n_items, item, rater):
    rng = np.random.default_rng(1)
    covered, n = 0, 200
    for seed in range(n):
        chance = 0.6 + rng.normal(0, item, n_items) + rng.normal(0, rater, (n_raters, 1))
        choices = (rng.random((n_raters, n_items)) < chance).astype(float)
        low, high = crossed_interval(choices, n_boot=400, seed=seed)
        covered += low <= 0.6 <= high
    assert 0.90 < covered / n < 0.99


def test_interval_of_one_rater_is_that_of_independent_answers(rng):
    choices = (rng.random((1, 200)) < 0.6).astype(float)
    low, high = crossed_interval(choices)
    assert high - low == pytest.approx(2 * 1.96 * choices.std() / math.sqrt(200), rel=0.08)


def test_interval_of_equal_answers_is_no_false_certainty():
    low, high = crossed_interval(np.ones((6, 20)))
    exact = stats.binomtest(20, 20).proportion_ci(method="exact")
    assert (low, high) == (pytest.approx(exact.low), 1.0)
    assert crossed_interval(np.zeros((6, 20))) == (0.0, pytest.approx(1 - exact.low))


def test_interval_and_means_pass_over_missing_answers(rng):
    choices = (rng.random((5, 30)) < 0.8).astype(float)
    choices[2, 10:] = np.nan
    low, high = crossed_interval(choices)
    assert low < np.nanmean(choices) < high
    assert means([[1, np.nan], [0, np.nan]], 0).tolist() == [0.5]
    assert means([[1, np.nan], [0, np.nan]], 1).tolist() == [1, 0]


def settings_of(n_originals, **changes):
    comparisons = [
        MethodPair(name=f"{a} vs {b}", kind="method", first=a, second=b)
        for a, b in (("z_c", "z"), ("z_c", "c"))
    ]
    comparisons.append(
        MethodPair(name="identification: z_c", kind="identification", first="z_c", second="z_c")
    )
    originals = tuple(f"i{k}" for k in range(n_originals))
    return StudySettings(title="t", comparisons=comparisons, originals=originals, **changes)


def simulate(preference, n_raters=6, n_originals=30, seed=0, careless=(), spread=0.0):
    """Raters who choose the first with the given chance; careless ones press at random."""
    rng = np.random.default_rng(seed)
    settings = settings_of(n_originals)
    item = rng.normal(0, spread, (3, n_originals))
    rows = []
    for rater in range(n_raters):
        asked = [("main", k, i) for k in range(3) for i in range(n_originals)]
        asked += [("catch", 0, i) for i in range(settings.catch)]
        for position, (part, k, i) in enumerate(asked):
            chance = np.clip(preference[k] + item[k, i], 0, 1) if part == "main" else 0.99
            chosen = bool(rng.random() < (0.5 if rater in careless else chance))
            left = bool(rng.integers(2))
            comparison = settings.comparisons[k] if part == "main" else None
            rows.append(
                AnswerRow(
                    f"rater-{rater + 1:02d}",
                    position,
                    part,
                    comparison.name if comparison else part,
                    comparison.kind if comparison else part,
                    f"i{i % n_originals}",
                    "z_c",
                    "z",
                    f"i{i % n_originals}",
                    left,
                    "left" if left == chosen else "right",
                    chosen,
                    900.0,
                    0.0,
                    950.0,
                    "key",
                    1,
                    "",
                )
            )
    per_rater = Counter(row.rater for row in rows)
    return rows, settings, [(name, n, n) for name, n in per_rater.items()]


def test_known_preferences_are_found():
    found = analyse_rows(*simulate((0.8, 0.5, 0.9)))
    by_name = {result.name: result for result in found.comparisons}
    strong, none, right = by_name.values()
    assert strong.significant and right.significant and not none.significant
    for result, truth in ((strong, 0.8), (none, 0.5), (right, 0.9)):
        assert result.ci_low < truth < result.ci_high
        assert result.n_answers == 180 and result.n_originals == 30 and result.n_raters == 6
    assert right.p_raters == pytest.approx(2 / 2**6) and right.p_raters_holm >= right.p_raters
    assert strong.p_holm == pytest.approx(holm([r.p_originals for r in found.comparisons])[0])


def test_without_preference_errors_are_about_nominal():
    # Originals differ in what raters prefer, around no preference on average.
    rng = np.random.default_rng(5)
    hits, family, n = 0, 0, 600
    for _ in range(n):
        chance = np.clip(0.5 + rng.normal(0, 0.15, (3, 1, 24)), 0, 1)
        share = (rng.random((3, 6, 24)) < chance).mean(axis=1)
        p = [signed_rank_p(values - 0.5) for values in share]
        hits += sum(value < 0.05 for value in p)
        family += min(holm(p)) < 0.05
    assert abs(hits / (3 * n) - 0.05) < 3 * math.sqrt(0.05 * 0.95 / (3 * n))
    assert family / n < 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / n)


def test_raters_who_press_at_random_find_nothing():
    found = [analyse_rows(*simulate((0.5,) * 3, seed=seed)).comparisons for seed in range(12)]
    assert sum(result.significant for results in found for result in results) == 0
    agreement = [result.kappa for results in found for result in results]
    assert abs(np.mean(agreement)) < 0.03


def test_power_for_a_preference_of_two_thirds():
    found = [
        analyse_rows(*simulate((0.67, 0.5, 0.5), seed=seed)).comparisons[0].p_holm < 0.01
        for seed in range(12)
    ]
    assert sum(found) >= 10


def test_careless_raters_are_excluded_by_the_rule_and_listed():
    rows, settings, trials = simulate((0.9, 0.5, 0.9), careless=(1, 4))
    found = analyse_rows(rows, settings, trials)
    assert [rater.rater for rater in found.excluded] == ["rater-02", "rater-05"]
    assert all("catch trials correct, fewer than 80 %" in r.excluded for r in found.excluded)
    first = found.comparisons[0]
    assert first.n_raters == 4 and first.p_raters is None and first.p_raters_holm is None
    everyone = [r.first_chosen for r in rows if r.comparison == "z_c vs z"]
    assert first.proportion_all_raters == pytest.approx(np.mean(everyone))
    assert first.proportion > first.proportion_all_raters
    text = "\n".join(table_lines(found))
    assert "Excluded: rater-02" in text and "Excluded: rater-05" in text


@pytest.mark.parametrize(("n_raters", "n_originals"), [(6, 30), (10, 8)])
def test_too_few_raters_or_originals_are_inconclusive(tmp_path, n_raters, n_originals):
    sure = (1.0, 1.0, 1.0)
    found = analyse_rows(*simulate(sure, n_raters=n_raters, n_originals=n_originals))
    text = "\n".join(table_lines(found))
    few, n = ("raters", n_raters) if n_raters < 10 else ("originals", n_originals)
    best = 3 * 2 / 2**n
    assert (
        f"Inconclusive: with {n} {few}" in text and f"at least {best:.2g} for any answers" in text
    )
    assert text.count("Inconclusive") == 1 and f"use at least 10 {few}." in text
    p = {"raters": "p_raters_holm", "originals": "p_holm"}[few]
    assert min(getattr(result, p) for result in found.comparisons) >= best > 0.01
    assert "Inconclusive" in write_analysis(found, tmp_path)[1].read_text()


def test_a_rater_who_stopped_early_counts_by_the_rule():
    rows, settings, trials = simulate((0.9, 0.5, 0.9))
    total = trials[0][1]

    def cut(share):
        kept = [
            r
            for r in rows
            if r.rater != "rater-01" or r.position < share * total or r.part == "catch"
        ]
        done = sum(r.rater == "rater-01" for r in kept)
        return analyse_rows(kept, settings, [("rater-01", done, total), *trials[1:]])

    assert cut(0.7).excluded == [] and cut(0.7).unfinished == ["rater-01"]
    early = cut(0.2)
    assert "fewer than 50 %" in early.excluded[0].excluded
    partial = cut(0.7).comparisons[-1]
    assert partial.kappa is not None and partial.n_answers < 180


def test_nobody_left_is_told():
    rows, settings, trials = simulate((0.5,) * 3, n_raters=2, careless=(0, 1), seed=3)
    with pytest.raises(CalcarineError, match="All 2 raters with answers are excluded"):
        analyse_rows(rows, settings, trials)
    with pytest.raises(CalcarineError, match="has no answers yet"):
        analyse_rows([], settings, [("rater-01", 0, 98)])


def test_from_answers_over_http_to_the_page(make, rater, first_side, tmp_path):
    study = make(n_raters=3)
    tokens = [token for _, token in study.links()]

    def prefers_z_c(truth):
        names = ("z_c", "c", "z")
        better = names.index(truth["first"]) if truth["first"] in names else 0
        worse = names.index(truth["second"]) if truth["second"] in names else 9
        own = truth["first_side"]
        right = better <= worse or truth["part"] != "main"
        return own if right else {"left": "right", "right": "left"}[own]

    with pytest.raises(CalcarineError, match="has no answers yet"):
        export_answers(study, tmp_path / "a.csv")
    for token in tokens[:2]:
        rater(study, token).finish(prefers_z_c)
    last = rater(study, tokens[2])
    for _ in range(3):
        state = last.begin()
        last.answer(state["trial"], "left", paused_ms=70.0, input="touch")
    assert export_answers(study, tmp_path / "a.csv") == 2 * 22 + 3
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    foil = foils(3, 0, 3)
    names = study.settings.originals
    for row in rows:
        assert row["simulated"] == "yes" and row["client_ms"] == "812.5"
        left = row["first"] if row["first_left"] == "1" else row["second"]
        assert row["first_chosen"] == str(
            int((row["choice"] == "left") == (row["first_left"] == "1"))
        )
        easy = ("original", "original, blurred", "original, dithered")
        assert left in ("z", "c", "z_c", *easy)
        if row["comparison"] == "identification: z_c":
            assert row["second_of"] == names[foil[names.index(row["original"])]]
        if row["rater"] != "rater-03" and row["comparison"].startswith("z_c vs"):
            assert row["first_chosen"] == "1"
        if row["rater"] == "rater-03":
            assert (row["input"], row["paused_ms"]) == ("touch", "70.0")
    assert [int(r["position"]) for r in rows[:22]] == list(range(22))
    assert all(
        row.server_ms >= 0 and row.answered.endswith("+00:00") for row in read_answers(study)
    )

    found = analyse(study)
    by_name = {result.name: result for result in found.comparisons}
    assert by_name["z_c vs z"].proportion == 1 and by_name["z vs c"].proportion == 0
    assert by_name["identification: z_c"].proportion == 1
    assert by_name["z_c vs z"].p_originals == 0.25 and by_name["z_c vs z"].agreement == 1
    assert [r.rater for r in found.excluded] == ["rater-03"]
    written, page = write_analysis(found, tmp_path)
    said = json.loads(written.read_text())
    assert said["simulated"] is True and list(said["excluded"]) == ["rater-03"]
    assert said["comparisons"][0]["proportion"] == 1.0
    html = page.read_text(encoding="utf-8")
    assert "SIMULATED brain" in html and "<script" not in html and "http:" not in html
    assert "rater-03" in html and "answered 3 of 22 trials" in html
    assert table_lines(found)[0].startswith("SIMULATED")


def test_numbers_are_told_shortly():
    assert [p_value(p) for p in (None, 0.25, 0.0009, 1e-120)] == ["–", "0.250", "9e-04", "<1e-99"]
