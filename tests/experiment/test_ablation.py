"""Rows of an ablation, and the flags of its commands, without training."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from calcarine import experiment
from calcarine.cli import ablation
from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment
from calcarine.experiment.ablation import _table, _write, run_ablation
from calcarine.experiment.ablation_rows import (
    MAX_ROWS,
    chosen_rows,
    paper_rows,
    product_rows,
    row_folders,
    varied_rows,
)

AXES = ["visdec.guide.loss.layers=2;4;8", "visdec.roi = early; all", "features.resize=lanczos"]


def test_one_factor_at_a_time_and_every_combination():
    assert list(varied_rows(AXES)) == [
        "as set",
        "guide.loss.layers=2",
        "guide.loss.layers=4",
        "guide.loss.layers=8",
        "roi=early",
        "roi=all",
        "features.resize=lanczos",
    ]
    grid = product_rows(AXES)
    assert list(grid)[:3] == [
        "as set",
        "guide.loss.layers=2, roi=early, features.resize=lanczos",
        "guide.loss.layers=2, roi=all, features.resize=lanczos",
    ]
    expected = {
        (f"visdec.guide.loss.layers={a}", f"visdec.roi={b}", "features.resize=lanczos")
        for a, b in itertools.product("248", ["early", "all"])
    }
    assert set(grid.values()) == expected | {()}
    for changes in grid.values():
        load_experiment("visdec-mini", None, list(changes))
    assert product_rows(AXES[:1]) == varied_rows(AXES[:1])


@pytest.mark.parametrize("axis", ["visdec.roi", "visdec.roi=", "=a;b", "visdec.roi=a;;b"])
def test_an_axis_without_values_is_told(axis):
    for make in (varied_rows, product_rows):
        with pytest.raises(CalcarineError, match="names no values"):
            make([axis])


def test_a_key_has_one_place_in_a_product():
    with pytest.raises(CalcarineError, match=r"'visdec\.roi' is varied twice"):
        product_rows(["visdec.roi=a", "features.resize=lanczos", "visdec.roi=b"])


def test_rows_of_the_paper_are_settings_that_exist():
    for name, changes in paper_rows().items():
        loaded = load_experiment("visdec-mini", None, list(changes))
        assert (loaded == load_experiment("visdec-mini")) == (name == "as set")
    with pytest.raises(CalcarineError, match="There is no row 'x'"):
        run_ablation(paper_rows(), None, only=["x"])
    assert chosen_rows(paper_rows(), None, 3) == paper_rows()
    assert list(chosen_rows(paper_rows(), ["no guidance"], 3)) == ["as set", "no guidance"]


def test_controls_of_guidance_follow_the_settings():
    settings = ["visdec.pretrain.training.steps=300", "visdec.guide.training.steps=70"]
    rows = paper_rows("visdec-mini", settings)
    more = rows["pre-training in place of guidance"]
    found = load_experiment("visdec-mini", None, [*settings, *more]).visdec
    assert (found.pretrain.training.steps, found.guide.enabled) == (370, False)
    others = load_experiment("visdec-mini", None, list(rows["pictures of other stimuli"])).visdec
    assert others.guide.loss.partners == "shuffled"


def test_the_third_phase_as_published_differs_from_the_paper_in_its_length_alone():
    rows = paper_rows()
    paper = load_experiment("visdec2023", None).visdec.finetune
    for name, steps in (("as published", 400), ("as published, ten times the steps", 4000)):
        visdec = load_experiment("visdec-mini", None, list(rows[name])).visdec
        assert visdec.finetune.training.steps == steps
        assert visdec.encoder.embedding == "shared"
        assert visdec.finetune.loss == dataclasses.replace(paper.loss, tokens=None)
        for setting in ("strength", "guidance"):
            assert getattr(visdec.finetune, setting) == getattr(paper, setting)
    assert "as published, ten times the steps" not in paper_rows("visdec2023")


def test_a_large_grid_is_refused_before_anything_is_read(tmp_path):
    axes = ["visdec.a=1;2;3;4;5;6;7", "visdec.b=1;2;3;4;5"]
    with pytest.raises(CalcarineError, match=r"36 rows, with 3 seeds 108 runs") as told:
        run_ablation(product_rows(axes), tmp_path, preset="none")
    assert "--max-rows 36" in str(told.value) and "\n" not in str(told.value)
    assert len(chosen_rows(product_rows(axes), None, 3, most=36)) == 36
    assert len(chosen_rows(product_rows(axes), ["a=1, b=2"], 3)) == 2
    assert inspect.signature(ablation.ablate).parameters["max_rows"].default == MAX_ROWS


def test_every_row_has_a_folder_of_its_own():
    rows = product_rows(["visdec.pretrain.pool=[own];own", "visdec.roi=early;Early"])
    rows |= {"x" * 300: (), "x" * 300 + "y": (), "no guidance": ()}
    folders = row_folders(rows)
    assert len(set(folders.values())) == len(rows)
    assert all(0 < len(name) < 120 and "/" not in name for name in folders.values())
    assert folders["no guidance"] == "no-guidance" and folders["as set"] == "as-set"


@pytest.mark.parametrize("command", ["run", "pretrain", "ablate"])
def test_the_flag_is_the_setting(command, monkeypatch, tmp_path):
    seen = []

    def stop(preset, file, settings, **dataset):
        seen.append(load_experiment(preset, file, settings).visdec.allow_transductive)
        raise CalcarineError("seen")

    monkeypatch.setattr(experiment, "load_experiment", stop)
    monkeypatch.setattr("calcarine.experiment.load_config.load_experiment", stop)
    words = [command, "--preset", "visdec-mini", "--out", str(tmp_path)]
    for more in ([], ["--allow-transductive"], ["--set", "visdec.allow_transductive=true"]):
        with pytest.raises(CalcarineError, match="seen"):
            CliRunner().invoke(app, [*words, *more], catch_exceptions=False)
    assert seen == [False, True, True]
    told = CliRunner().invoke(app, [command, "--help"]).output
    assert "--allow-transductive" in told


def test_flags_without_what_they_need_are_told(tmp_path):
    runner = CliRunner()
    with pytest.raises(CalcarineError, match="--product combines values"):
        runner.invoke(app, ["ablate", "--product"], catch_exceptions=False)
    with pytest.raises(CalcarineError, match="has its own settings"):
        runner.invoke(
            app, ["pretrain", str(tmp_path), "--allow-transductive"], catch_exceptions=False
        )


def _runs(rng, ids, metrics=("10-way top-1",), seeds=2):
    index = pd.MultiIndex.from_product([metrics, ids], names=["metric", "id"])
    return [pd.DataFrame({"value": rng.uniform(size=len(index))}, index) for _ in range(seeds)]


def test_scores_of_rows_are_compared_picture_by_picture(rng):
    base = _runs(rng, ["a", "b", "c", "d"])
    turned = [run.sample(frac=1, random_state=3) for run in base]
    found = {"as set": base, "same": turned}
    table = _table(found, {"as set": (), "same": ("x=1",)}, True, dict.fromkeys(found, "no"))
    row = table.scores[table.scores["row"] == "same"].iloc[0]
    assert row[["difference", "d_low", "d_high"]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("ids", [["e", "f", "g", "h"], ["a", "b"]])
def test_no_difference_is_told_of_rows_with_other_pictures(rng, ids, tmp_path):
    found = {"as set": _runs(rng, ["a", "b", "c", "d"]), "other": _runs(rng, ids)}
    table = _table(found, {"as set": (), "other": ("x=1",)}, True, dict.fromkeys(found, "no"))
    assert "tested on other pictures than 'as set'" in table.title
    assert table.cells[1][1][-1] == "]"
    row = table.scores[table.scores["row"] == "other"].iloc[0]
    assert row[["difference", "d_low", "d_high"]].isna().all() and row["images"] == len(ids)
    _write(table, tmp_path)
    assert json.loads((tmp_path / "ablation.json").read_text())["scores"][1]["difference"] is None


def test_a_metric_that_a_row_lacks_is_said(rng):
    both = ("10-way top-1", "pixel correlation")
    found = {"as set": _runs(rng, ["a", "b"], both), "less": _runs(rng, ["a", "b"], both[:1])}
    rows, use = {"as set": (), "less": ("x=1",)}, dict.fromkeys(found, "no")
    table = _table(found, rows, True, use, ["scenes"])
    assert "2 pictures, judge scenes;" in table.title
    assert table.cells[1][2] == "not scored" and len(table.scores) == 3


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("visdec.finetune.training.seed=1;2", "--seeds"),
        ("generation.seed=7", "--seeds"),
        ("ridge.enabled=true", "sets 'ridge.enabled' itself"),
    ],
)
def test_settings_that_an_ablation_gives_itself_are_refused(tmp_path, setting, told):
    with pytest.raises(CalcarineError, match=told):
        run_ablation(varied_rows([setting]), tmp_path)
    with pytest.raises(CalcarineError, match=told):
        run_ablation(paper_rows(), tmp_path, settings=[setting.split(";")[0]])
    assert not list(tmp_path.iterdir())


def test_from_scratch_is_from_scratch_beside_a_published_start():
    rows = paper_rows()
    for name in ("no pre-training", "from scratch, no guidance"):
        settings = ["visdec.pretrain.start=checkpoint.pth", *rows[name]]
        assert load_experiment("visdec2023", None, settings).visdec.pretrain.start is None
