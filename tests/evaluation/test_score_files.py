"""Folders are paired by name, score files compared where they may be, and mistakes are told."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.evaluation.comparison.compare import compare_scores, concept
from calcarine.evaluation.comparison.published import (
    CONFIDENCE,
    published_records,
    published_systems,
)
from calcarine.evaluation.comparison.tables import comparison_content, comparison_table
from calcarine.evaluation.results.score_files import read_scores, write_scores
from calcarine.evaluation.results.tables import tables, verdict
from calcarine.evaluation.scoring.score import score_arrays, score_folder
from calcarine.evaluation.scoring.settings import ScoreSettings
from calcarine.evaluation.statistics.significance import ALPHA

N = 12
FAST = ScoreSettings(n_boot=20, n_permutations=99)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (N, 16, 16, 3))
    noise = rng.integers(0, 256, (3, N, 16, 16, 3))
    close = np.stack([(truth + noise[0]) // 2, (truth + noise[1]) // 2], 1)
    return {
        k: v.astype(np.uint8) for k, v in (("truth", truth), ("close", close), ("blind", noise[2]))
    }


@pytest.fixture
def folders(tmp_path, pictures):
    for name in ("truth", "close", "blind"):
        (tmp_path / name).mkdir()
    for i in range(N):
        save(tmp_path / "truth" / f"im_{i:02}.png", pictures["truth"][i])
        save(tmp_path / "blind" / f"im_{i:02}.png", pictures["blind"][i])
        save(tmp_path / "close" / f"im_{i:02}_0.png", pictures["close"][i, 0])
        save(tmp_path / "close" / f"im_{i:02}_sample-03.png", pictures["close"][i, 1])
    return tmp_path


def save(path, picture):
    Image.fromarray(picture).save(path)


def folder_scores(folders, images, **settings):
    return score_folder(
        folders / "truth",
        folders / images,
        settings=ScoreSettings(**{"n_boot": 20, "n_permutations": 99} | settings),
    )


def value(evaluation, metric, method=None):
    return next(
        r["value"]
        for r in evaluation.records
        if r["metric"] == metric and method in (None, r["method"])
    )


def test_a_folder_scores_as_its_arrays(folders, pictures):
    by_folder = folder_scores(folders, "close")
    by_array = score_arrays(pictures["truth"], pictures["close"], n_boot=20, n_permutations=99)
    assert by_folder.records[0]["method"] == "close" and by_folder.records[0]["samples"] == 2
    for one, other in zip(by_folder.records, by_array.records, strict=True):
        assert one["value"] == other["value"] and one["data"] == other["data"]


def test_pictures_of_any_kind_are_not_read_by_a_judge_unless_it_is_named(folders):
    runner = CliRunner(env={"COLUMNS": "200"})
    common = ["score", "--truth", str(folders / "truth"), "--images", str(folders / "close")]
    common += ["--n-boot", "20", "--n-permutations", "99"]
    plain = runner.invoke(app, common)
    assert plain.exit_code == 0, plain.output
    rows, notes = plain.output.split("Note: ", 1)
    assert "pixel correlation" in rows
    assert not any(words in rows for words in ("layer", "10-way", "judge"))
    notes = " ".join(notes.split())
    assert "left out 24 metrics: identification (12), identification within category (6)," in notes
    assert "10-way top-1, 24-way top-5, category accuracy, because no judge is named" in notes
    assert "--judge scenes for the package's procedural scenes, --judge digits" in notes
    named = runner.invoke(app, [*common, "--judge", "scenes"])
    assert "late layer" in named.output and "no judge is named" not in named.output
    assert "protocol calcarine: close, mean of 2 samples, judge: scenes" in named.output


def test_without_a_judge_categories_are_not_blamed(pictures):
    names = ["house", "tree"] * (N // 2)
    found = score_arrays(
        pictures["truth"], pictures["close"], categories=names, n_boot=20, n_permutations=99
    )
    assert any("identification within category, pixels" in r["metric"] for r in found.records)
    (note,) = [note for note in found.notes if "category accuracy" in note]
    assert "no judge is named" in note and "no usable categories" not in note
    assert all(record["judge"] is None for record in found.records)


def test_every_score_of_a_judge_says_which(folders, pictures):
    paths = []
    for name in ("close", "blind"):
        found = score_arrays(
            pictures["truth"],
            pictures[name],
            method=name,
            judge="scenes",
            n_boot=20,
            n_permutations=99,
        )
        judges = {record["metric"]: record["judge"] for record in found.records}
        late = judges["identification, late layer, fixed image"]
        assert judges["10-way top-1"] == late == "scenes"
        assert judges["pixel correlation"] is None
        paths.append(folders / f"judged-{name}.json")
        write_scores(paths[-1], found)
    _, rows, _ = comparison_table(compare_scores(paths, n_permutations=19))
    names = [row[0] for row in rows]
    assert "10-way top-1, judge scenes" in names and "pixel correlation" in names


def test_a_generator_that_ignores_the_brain_is_at_chance_and_called_so(folders):
    runner = CliRunner()
    common = ["score", "--truth", str(folders / "truth"), "--n-permutations", "999"]
    blind = runner.invoke(app, [*common, "--images", str(folders / "blind")])
    assert blind.exit_code == 0, blind.output
    assert "blind: no score is significantly better than a shuffled brain" in blind.output
    close = runner.invoke(app, [*common, "--images", str(folders / "close")])
    assert "no score is significantly" not in close.output and "mean of 2 samples" in close.output
    assert "better than a shuffled brain, p = 0.0" in close.output
    result = folder_scores(folders, "blind", n_permutations=999)
    own = [r for r in result.records if r["role"] == "method"]
    assert all(r["p_holm"] >= r["p"] and r["p_holm"] > ALPHA for r in own)
    assert all(verdict(r).startswith("not significantly better") for r in own)
    share = value(result, "identification, pixels, fixed image")
    assert share == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / N))


@pytest.mark.parametrize(
    ("n", "shuffles", "remedy"),
    [(4, 2000, "at least 6 images"), (12, 100, "at least 480 shuffles")],
)
def test_perfect_pictures_that_cannot_be_significant_are_inconclusive(
    pictures, n, shuffles, remedy
):
    truth = pictures["truth"][:n]
    found = score_arrays(truth, truth, judge="scenes", n_boot=20, n_permutations=shuffles)
    own = [r for r in found.records if r["role"] == "method" and r["p"] is not None]
    assert len(own) == 24
    assert all(verdict(r).startswith("inconclusive") for r in own)
    closing = next(text for _, _, text in tables(found.records) if text)
    assert "inconclusive" in closing and "evidence" not in closing
    (note,) = [text for text in found.notes if "perfect reconstructions" in text]
    assert note.endswith(f"use {remedy}.")


@pytest.mark.parametrize(("n", "shuffles"), [(6, 2000), (12, 490)])
def test_perfect_pictures_are_significant_where_they_can_be(pictures, n, shuffles):
    truth = pictures["truth"][:n]
    found = score_arrays(truth, truth, judge="scenes", n_boot=20, n_permutations=shuffles)
    assert any(verdict(r).startswith("better") for r in found.records)
    assert not any("perfect reconstructions" in text for text in found.notes)


def test_a_category_of_nearly_all_images_is_inconclusive(pictures):
    truth = pictures["truth"]
    names = ["cat"] * (N - 1) + ["dog"]
    found = score_arrays(
        truth, truth, categories=names, judge="scenes", n_boot=20, n_permutations=500
    )
    (read,) = [
        r for r in found.records if r["metric"] == "category accuracy" and r["p"] is not None
    ]
    assert read["p_min"] == pytest.approx((1 + 500 / N) / 501)
    assert verdict(read).startswith("inconclusive")


def test_a_run_is_scored_with_all_its_methods(tmp_path, pictures):
    rows = []
    for i in range(N):
        for folder, picture, sample in (
            ("truth", pictures["truth"][i], None),
            ("z", pictures["blind"][i], 0),
            ("z_c", pictures["close"][i, 0], 0),
            ("z_c", pictures["close"][i, 1], 1),
        ):
            name = f"a%2F{i}.png" if sample is None else f"a%2F{i}_{sample:02}.png"
            path = tmp_path / "reconstructions" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, picture)
            if sample is not None:
                method = folder
                rows.append((f"a/{i}", method, sample, str(path.relative_to(tmp_path))))
    index = pd.DataFrame(rows, columns=["id", "method", "sample", "file"])
    index.to_parquet(tmp_path / "reconstructions" / "index.parquet")
    result = score_folder(run=tmp_path, settings=replace(FAST, judge="scenes"))
    by_array = score_arrays(
        pictures["truth"], pictures["close"], judge="scenes", n_boot=20, n_permutations=99
    )
    metric = "identification, early layer, fixed image"
    assert value(result, metric, "z_c") == value(by_array, metric)
    assert {r["method"] for r in result.records if r["role"] == "method"} == {"z", "z_c"}
    with pytest.raises(CalcarineError, match="no method 'c'"):
        score_folder(run=tmp_path, method="c", settings=FAST)
    with pytest.raises(CalcarineError, match="There is no run at"):
        score_folder(run=tmp_path / "absent", settings=FAST)


def test_floors_of_training_pictures_stand_beside(folders, pictures):
    result = score_folder(
        folders / "truth", folders / "close", train=folders / "blind", settings=FAST
    )
    floor = value(result, "identification, pixels, fixed image", "training mean")
    assert floor == 0.5
    roles = {r["method"]: r["role"] for r in result.records}
    assert roles["random training image"] == "floor" and roles["shuffled brain (close)"] == "floor"


def test_mistakes_in_folders_are_one_sentence(folders):
    def refused(message, images="blind", truth="truth"):
        with pytest.raises(CalcarineError, match=message) as told:
            score_folder(folders / truth, folders / images, settings=FAST)
        assert "\n" not in str(told.value)

    refused("no folder .*absent", images="absent")
    (folders / "blind" / "im_03.png").rename(folders / "blind" / "imx.png")
    refused("1 of 12 ground truths have no picture in .*first 'im_03'")
    (folders / "blind" / "imx.png").rename(folders / "blind" / "im_03.png")
    save(folders / "blind" / "extra.png", np.zeros((4, 4, 3), np.uint8))
    refused("1 of 13 pictures of .* have no ground truth in .*first 'extra'")
    (folders / "blind" / "extra.png").unlink()
    (folders / "blind" / "im_05.png").write_bytes(b"no picture")
    refused("im_05.png cannot be read as a picture")
    (folders / "close" / "im_02_0.png").unlink()
    refused("'im_00' has 2 samples and 'im_02' has 1", images="close")
    (folders / "one").mkdir()
    save(folders / "one" / "im_00.png", np.zeros((4, 4, 3), np.uint8))
    refused("at least 2", truth="one", images="one")
    with pytest.raises(CalcarineError, match="--truth DIR and --images DIR"):
        score_folder(settings=FAST)


@pytest.fixture
def files(folders, pictures):
    """Two methods and two subjects."""
    made = {}
    for subject, shift in (("a", 0), ("b", 20)):
        for method in ("close", "blind"):
            recon = np.roll(pictures[method], shift, axis=-1)
            result = score_arrays(
                pictures["truth"], recon, method=method, n_boot=20, n_permutations=99
            )
            made[method, subject] = folders / f"{method}-{subject}.json"
            write_scores(made[method, subject], result, subject)
    return made


def test_methods_are_tested_image_by_image_and_corrected(files):
    found = compare_scores([files["close", "a"], files["blind", "a"]], n_permutations=499)
    assert found.columns == ["close", "blind"]
    assert {(t["a"], t["b"]) for t in found.tests} == {("close", "blind")}
    by_metric = {t["metric"]: t for t in found.tests}
    test = by_metric["pixel correlation"]
    assert 0 < test["ci_low"] < test["difference"] < test["ci_high"]
    assert 1 / 500 <= test["p"] < 0.01 and test["p"] < test["p_holm"] < 0.2
    assert test["p_holm"] >= max(test["p"], len(found.tests) / 500 * 0.5)
    assert 0 < test["p_signed_rank"] <= test["p_signed_rank_holm"] < 0.2
    assert not any("median" in metric for metric in by_metric)
    json.dumps(found.tests)


def test_subjects_of_one_method_make_one_column(files):
    found = compare_scores(list(files.values()), n_permutations=99)
    assert found.columns == ["close, 2 subjects", "blind, 2 subjects"]
    cell = dict(found.rows)["pixel correlation"]["close, 2 subjects"].record
    each = [json.loads(files["close", s].read_text())["records"][0]["value"] for s in "ab"]
    assert cell["value"] == pytest.approx(np.mean(each)) and cell["subjects"] == 2
    assert found.tests[0]["subjects"] == 2 and found.tests[0]["n"] == N


def test_subjects_of_other_data_sets_are_other_columns(files):
    paths = [files["close", "a"], files["close", "b"]]
    for path, name in zip(paths, ("nsd", "god"), strict=True):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": name}))
    found = compare_scores(paths, n_permutations=19)
    assert found.columns == ["close (close-a)", "close (close-b)"]
    assert not found.tests


def test_the_subject_of_an_evaluation_is_written(folders, pictures):
    result = score_arrays(pictures["truth"], pictures["close"], n_boot=20, n_permutations=19)
    path = folders / "scores.json"
    write_scores(path, replace(result, subject="subj02", dataset="nsd"))
    assert (read_scores(path).subject, read_scores(path).dataset) == ("subj02", "nsd")
    write_scores(path, replace(result, subject="subj02"), "another")
    assert (read_scores(path).subject, read_scores(path).dataset) == ("another", None)


def test_files_of_one_name_are_two_columns(folders, pictures):
    paths = []
    for name in ("close", "blind"):
        (folders / "runs" / name).mkdir(parents=True)
        paths.append(folders / "runs" / name / "scores.json")
        result = score_arrays(
            pictures["truth"], pictures[name], method="z", n_boot=20, n_permutations=19
        )
        write_scores(paths[-1], result)
    found = compare_scores(paths, n_permutations=19)
    assert found.columns == ["z (close/scores)", "z (blind/scores)"]
    cells = dict(found.rows)["pixel correlation"]
    one, other = (cells[name].record["value"] for name in found.columns)
    assert one > other + 0.3
    with pytest.raises(CalcarineError, match="given twice"):
        compare_scores([paths[0], paths[0]])


@pytest.mark.parametrize(("n", "flips", "remedy"), [(5, 499, "images"), (N, 99, "sign flips")])
def test_a_comparison_that_cannot_be_significant_says_so(tmp_path, pictures, n, flips, remedy):
    paths = []
    for method in ("truth", "blind"):
        found = score_arrays(
            pictures["truth"][:n],
            pictures[method][:n],
            method=method,
            n_boot=20,
            n_permutations=19,
            judge=None,
        )
        paths.append(tmp_path / f"{method}.json")
        write_scores(paths[-1], found)
    found = compare_scores(paths, n_permutations=flips)
    (note,) = [text for text in found.notes if "inconclusive" in text]
    needed = int(note.split("use at least ")[1].split()[0])
    assert f"with {n} images, {flips} sign flips" in note and note.endswith(f"{remedy}.")
    assert all(test["p_holm"] > 0.05 for test in found.tests)
    if remedy == "sign flips":
        again = compare_scores(paths, n_permutations=needed)
        assert not any("inconclusive" in text for text in again.notes)
        assert any(test["p_holm"] <= 0.05 for test in again.tests)


def test_people_are_not_tested_against_each_other(files):
    found = compare_scores([files["close", "a"], files["blind", "b"]], n_permutations=19)
    assert found.tests == [] and "different subjects" in found.notes[0]
    ordered = compare_scores(
        [files["close", "a"], files["close", "b"], files["blind", "b"], files["blind", "a"]],
        n_permutations=19,
    )
    test, same = (
        next(t for t in result.tests if t["metric"] == "pixel correlation")
        for result in (ordered, compare_scores(list(files.values()), n_permutations=19))
    )
    assert test["subjects"] == 2 and test["ci_low"] == same["ci_low"]


def test_a_run_is_scored_as_it_scored_itself(tmp_path, pictures, monkeypatch):
    """By its own judge, and without samples that were only there to be chosen from."""
    from calcarine.experiment import load_experiment
    from calcarine.experiment.run_directory import RunDirectory

    run = RunDirectory(tmp_path, load_experiment("takagi", None, ["generation.samples=1"]))
    run.update_manifest(judge="digits")
    rows = []
    for i in range(N):
        for sample in (0, 1):
            path = tmp_path / "reconstructions" / "z_c" / f"{i}_{sample}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, pictures["close"][i, sample])
            rows.append((str(i), "z_c", sample, str(path.relative_to(tmp_path))))
        truth = tmp_path / "reconstructions" / "truth" / f"{i}.png"
        truth.parent.mkdir(exist_ok=True)
        save(truth, pictures["truth"][i])
    index = pd.DataFrame(rows, columns=["id", "method", "sample", "file"])
    index.to_parquet(tmp_path / "reconstructions" / "index.parquet")
    seen = []

    def stop(*given, **options):
        seen.append((given, options))
        raise CalcarineError("seen")

    monkeypatch.setattr("calcarine.evaluation.scoring.score.score_pictures", stop)
    with pytest.raises(CalcarineError, match="seen"):
        CliRunner().invoke(app, ["score", str(tmp_path)], catch_exceptions=False)
    (_, methods), options = seen[0]
    assert methods["z_c"].samples == 1 and options["settings"].judge == "digits"


def test_other_protocols_pools_and_test_sets_are_refused_or_marked(folders, files, pictures):
    def written(name, truth, recon, **more):
        path = folders / f"{name}.json"
        result = score_arrays(truth, recon, method=name, n_boot=20, n_permutations=19, **more)
        write_scores(path, result)
        return path

    truth, close = pictures["truth"], pictures["close"]
    other = written("other", truth[:4], close[:4, :1], protocols=["brain-diffuser"])
    fewer = written("fewer", truth[:9], close[:9])
    for path, message in ((other, "no protocol in common"), (fewer, "are not comparable")):
        with pytest.raises(CalcarineError, match=message):
            compare_scores([files["close", "a"], path])
        mixed = compare_scores([files["close", "a"], path], mix=True)
        cells = dict(mixed.rows)["pixel correlation"]
        assert cells["close"].marks == () and cells[path.stem].marks
        # What may not stand together is not tested against each other either.
        assert mixed.tests == []
    ssim = dict(mixed.rows)["SSIM"]["fewer"]
    assert any(mark.startswith("test set") for mark in ssim.marks)
    out = CliRunner().invoke(app, ["compare", str(files["close", "a"]), str(other), "--mix"]).output
    assert "(a) not comparable: protocol brain-diffuser" in out


def test_scores_by_networks_of_other_weights_do_not_stand_in_one_row(folders, pictures):
    paths = []
    for judge in ("scenes", "digits"):
        path = folders / f"{judge}.json"
        result = score_arrays(
            pictures["truth"],
            pictures["close"],
            method=judge,
            n_boot=20,
            n_permutations=19,
            judge=judge,
        )
        write_scores(path, result)
        paths.append(path)
    with pytest.raises(CalcarineError, match=r"are not comparable.*weights of judge"):
        compare_scores(paths)
    mixed = compare_scores(paths, mix=True, n_permutations=19)
    cells = dict(mixed.rows)
    late = next(name for name in cells if "late layer" in name)
    assert cells[late]["digits"].marks == ("weights of judge",)
    assert cells["pixel correlation"]["digits"].marks == ()
    tested = {test["metric"] for test in mixed.tests}
    assert "pixel correlation" in tested and not any("layer" in name for name in tested)


def test_published_distances_are_better_when_lower():
    records = [record for system in published_systems() for record in published_records(system)]
    lower = {record["metric"] for record in records if not record["higher_is_better"]}
    assert lower and lower == {r["metric"] for r in records if "distance" in r["metric"]}


def test_published_scores_have_protocol_source_and_confidence():
    for system in published_systems():
        for record in published_records(system):
            assert record["confidence"] in CONFIDENCE and record["source"]
            assert 0 <= record["value"] <= 1 and concept(record["metric"])
            assert (record["protocol"] is None) == (record["test_set"] is None)
    found = {r["metric"]: r["value"] for r in published_records("brain-it")}
    assert found["pixel correlation"] == 0.386
    assert found["identification, CLIP, fixed reconstruction"] == 0.964
    table = compare_scores([], ["Brain-IT", "MindTuner"])
    assert table.tests == [] and len(table.rows) == 8
    for pair in (("Brain-IT", "MindEye1"), ("Brain-IT", "UMBRAE"), ("Brain-IT", "MindEye2")):
        with pytest.raises(CalcarineError, match="--mix"):
            compare_scores([], pair)
    with pytest.raises(CalcarineError, match="choose among"):
        published_records("MindEye9")
    with pytest.raises(CalcarineError, match="two methods"):
        compare_scores([], ["Brain-IT"])


@pytest.mark.parametrize("text", [None, "{", "[]", "[" * 9000, '{"format": "calcarine scores 2"}'])
def test_broken_score_files_are_told(tmp_path, text):
    path = tmp_path / "s.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CalcarineError, match="is not a score file"):
        compare_scores([path, path])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda c: c["per_image"]["close"]["calcarine"]["SSIM"].append(0.5), "SSIM, which should"),
        (lambda c: c["per_image"].update(close=3), "per_image: close"),
        (lambda c: c["ids"].__setitem__(0, ["x"]), "ids"),
        (lambda c: c["ids"].__setitem__(0, c["ids"][1]), "ids"),
        (lambda c: c["records"][0].update(value=[1]), "records, number 1: value"),
        (lambda c: c["records"][1].update(ci_low=["0"]), "records, number 2: ci_low"),
        (lambda c: c["records"][0].update(value=float("nan")), "value"),
        (lambda c: c["records"][0].update(of_mine=[{"a": float("inf")}]), "number 1: of_mine"),
        (lambda c: c["records"].append(c["records"][0]), "a second score of close by"),
        (lambda c: c["records"][0].update(role="hero"), "role"),
        (lambda c: c["records"][0].update(networks={"clip": 3}), "networks"),
        (lambda c: c["records"][0].pop("test_set"), "test_set"),
        (lambda c: c.update(subject={}), "subject"),
        (lambda c: c.pop("per_image"), "per_image"),
    ],
)
def test_a_damaged_score_file_says_where(files, change, place):
    content = json.loads(files["close", "a"].read_text())
    change(content)
    files["close", "a"].write_text(json.dumps(content))
    with pytest.raises(CalcarineError, match=f"is damaged .*{re.escape(place)}"):
        compare_scores([files["close", "a"], files["blind", "a"]])


def test_no_damage_of_a_score_file_ends_in_a_traceback(files, tmp_path):
    whole = json.loads(files["close", "a"].read_text())
    odd = [None, True, -1, 0.5, 10**400, "", "x", [], [1], ["x"], {}, {"x": 1}, [[1]], 1e308]
    rng = np.random.default_rng(19)
    refused = 0
    for number in range(300):
        content = json.loads(json.dumps(whole))
        parent, key = places(content)[rng.integers(len(places(content)))]
        if number % 3:
            parent[key] = odd[rng.integers(len(odd))]
        else:
            del parent[key]
        damaged = tmp_path / f"{number}.json"
        damaged.write_text(json.dumps(content))
        for mix in (False, True):
            try:
                found = compare_scores(
                    [damaged, files["blind", "a"]], mix=mix, n_boot=5, n_permutations=19
                )
                comparison_table(found), comparison_content(found)
            except CalcarineError:
                refused += 1
    assert 0 < refused < 600


def places(tree):
    """Every place in a JSON tree, as its container and key; of long lists only the first two."""
    keys = list(tree) if isinstance(tree, dict) else range(min(2, len(tree)))
    found = [(tree, key) for key in keys]
    for key in keys:
        if isinstance(tree[key], dict | list):
            found += places(tree[key])
    return found


def named_files(folders, pictures, names, tag, order=None, old=False, subject=None):
    """Score files of two methods, whose pictures have names of their own in each file."""
    paths = []
    for method, ids in zip(("close", "blind"), names, strict=True):
        rows = np.arange(N) if order is None or method == "close" else np.asarray(order)
        result = score_arrays(
            pictures["truth"][rows],
            pictures[method][rows],
            method=method,
            ids=ids,
            n_boot=20,
            n_permutations=19,
        )
        paths.append(folders / f"{tag}-{method}.json")
        write_scores(paths[-1], result, subject)
        if old:
            content = json.loads(paths[-1].read_text())
            del content["pictures"]
            paths[-1].write_text(json.dumps(content))
    return paths


PLAIN = [str(i) for i in range(N)]
SHUFFLED = np.random.default_rng(7).permutation(N)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ((PLAIN, [f"{i:04}" for i in range(N)]), None),
        (([f"im{i}" for i in PLAIN], PLAIN), None),
        ((PLAIN, PLAIN), SHUFFLED),  # the same pictures numbered otherwise
        (([f"{i:02}" for i in range(N)], PLAIN), SHUFFLED),
        ((PLAIN[::-1], PLAIN), SHUFFLED),
    ],
)
def test_pictures_are_paired_by_what_they_show(folders, pictures, names, order):
    alike = compare_scores(named_files(folders, pictures, (PLAIN, PLAIN), "a"), n_permutations=199)
    found = compare_scores(named_files(folders, pictures, names, "b", order), n_permutations=199)
    assert alike.tests and len(found.tests) == len(alike.tests)
    for one, other in zip(alike.tests, found.tests, strict=True):
        assert one == other
    assert found.notes == alike.notes


def test_pictures_of_older_score_files_are_paired_by_name_or_not_at_all(folders, pictures):
    alike = compare_scores(named_files(folders, pictures, (PLAIN, PLAIN), "a"), n_permutations=199)
    old = named_files(folders, pictures, (PLAIN, PLAIN), "old", old=True)
    found = compare_scores(old, n_permutations=199)
    for one, other in zip(alike.tests, found.tests, strict=True):
        assert one["difference"] == pytest.approx(other["difference"])
        assert one["p"] == pytest.approx(other["p"], abs=0.1)
    assert "paired by image names" in " ".join(found.notes)
    for names in ((PLAIN, [f"{i:04}" for i in range(N)]), (PLAIN, [str(i + 1) for i in range(N)])):
        unlike = compare_scores(named_files(folders, pictures, names, "un", old=True))
        assert unlike.tests == []
        assert "image names differ" in " ".join(unlike.notes)
    half = [named_files(folders, pictures, (PLAIN, PLAIN), "n")[0], old[1]]
    assert compare_scores(half, n_permutations=19).tests


def test_a_picture_shown_twice_is_one_image(folders, pictures):
    twice = dict(pictures)
    for name in pictures:
        twice[name] = np.concatenate([pictures[name][:-1], pictures[name][:1]])
    found = compare_scores(named_files(folders, twice, (PLAIN, PLAIN), "t"), n_permutations=99)
    assert {test["n"] for test in found.tests} == {N - 1}
    other = compare_scores(
        named_files(folders, twice, (PLAIN, PLAIN), "u", SHUFFLED), n_permutations=99
    )
    assert [t["p"] for t in found.tests] == [t["p"] for t in other.tests]


def test_a_comparison_says_where_there_is_no_test_and_why(folders, files, pictures):
    found = compare_scores([files["close", "a"], files["blind", "a"]], n_permutations=19)
    assert any("median" in note and "not tested" in note for note in found.notes)
    table = compare_scores([], ["Brain-IT", "MindTuner"])
    assert table.notes == [
        f"{', '.join(table.columns)}: not tested, because the scores of single images are not "
        "available."
    ]
    small = folders / "small.json"
    result = score_arrays(
        pictures["truth"][:5], pictures["close"][:5], method="small", n_boot=20, n_permutations=19
    )
    write_scores(small, result, "a")
    mixed = compare_scores([files["close", "a"], small], mix=True)
    assert mixed.tests == [] and any("not comparable" in note for note in mixed.notes)
    more = compare_scores(
        [
            files["close", "a"],
            files["close", "b"],
            named_files(folders, pictures, (PLAIN, PLAIN), "z")[1],
        ],
        n_permutations=19,
    )
    assert more.tests == [] and "have 2 and 1 subjects" in " ".join(more.notes)
