"""The command line: help, settings, presets, version, and mistakes that leave nothing behind."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from calcarine import __version__
from calcarine.cli._options import complete_preset, complete_setting
from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.experiment import STAGES
from calcarine.experiment.presets import PRESETS


def call(*words):
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_help_groups_commands_by_theme():
    text = call("--help")
    for panel in ("Experiments", "Stages of a run", "Vis-Dec", "Scores", "Data"):
        assert f" {panel} " in text
    for name in (*STAGES, "run", "settings", "presets", "datasets", "study"):
        assert f" {name} " in text
    assert "--install-completion" in text


def test_every_stage_has_a_command():
    for name in STAGES:
        assert "RUN" in call(name, "--help") or name == "audit"


def test_a_stage_that_a_run_leaves_out_names_the_settings_that_add_it(tmp_path):
    out = str(tmp_path / "run")
    call("init", out, "--preset", "takagi", "--dataset", "simulated")
    with pytest.raises(CalcarineError, match=r"--set visdec\.enabled=true --set visdec\.guide"):
        CliRunner().invoke(app, ["guide", out], catch_exceptions=False)


def test_the_version_is_printed():
    assert call("--version") == f"calcarine {__version__}\n"


def test_settings_are_listed_with_the_values_of_a_preset():
    line = next(x for x in call("settings", "generation").splitlines() if "generation.steps" in x)
    assert "50" in line and "integer" in line and "denoising" in line
    line = call("settings", "generation.steps", "--preset", "demo").splitlines()[-1]
    assert line.split()[:2] == ["generation.steps", "30"]


def test_the_schema_is_written_to_a_file(tmp_path):
    file = tmp_path / "schema.json"
    assert str(file) in call("settings", "--json-schema", "--out", str(file)).replace("\n", "")
    assert "generation" in json.loads(file.read_text())["properties"]
    assert json.loads(call("settings", "--json-schema")) == json.loads(file.read_text())
    with pytest.raises(CalcarineError, match="add --json-schema"):
        CliRunner().invoke(app, ["settings", "--out", str(file)], catch_exceptions=False)


def test_the_shell_completes_presets_and_settings():
    assert complete_preset("visdec") == ["visdec2023", "visdec-mini"]
    assert "generation.steps" in complete_setting("generation.st")
    for words, expected in (
        ("calcarine run --preset de", "demo"),
        ("calcarine settings ridge.n_f", "ridge.n_folds"),
        ("calcarine run --set ridge.n_f", "ridge.n_folds="),
    ):
        shell = {"_CALCARINE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
        if "settings" in words:
            shell["COMP_CWORD"] = "2"
        result = CliRunner().invoke(app, [], prog_name="calcarine", env=shell)
        assert expected in result.output.split(), result.output


def test_presets_are_listed_with_their_purpose():
    text = call("presets")
    assert all(name in text and preset.purpose[:40] in text for name, preset in PRESETS.items())


@pytest.mark.parametrize("words", [["--help"], ["settings"], ["presets"], ["run", "--help"]])
def test_these_commands_do_not_import_torch(words):
    code = (
        "import sys\nfrom calcarine.cli.main import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'pandas', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--preset", "takagi", "--dataset", "simulatd"], "simulatd"),
        (["encode", "--dataset", "simulatd"], "simulatd"),
        (["pretrain", "--dataset", "simulatd"], "simulatd"),
        (["run", "--preset", "demo", "--set", "roi.z=V9"], "roi.z=V9 is not a region"),
        (["run", "--preset", "demo", "--set", "generation.model=absent/here"], "absent/here"),
        (["run", "--preset", "demo", "--set", "dataset.folds=0"], "dataset.folds"),
        (["run", "--preset", "demo", "--set", "dataset.split=absent"], "absent"),
        (["run", "--preset", "demo", "--set", "evaluation.protocols=[mine]"], "mine"),
        (
            [
                "run",
                "--preset",
                "visdec-mini",
                "--set",
                "visdec.pretrain.pool=[hcp]",
                "--set",
                "visdec.encoder.embedding=shared",
            ],
            "needs a folder",
        ),
    ],
)
def test_wrong_settings_leave_no_folder_behind(words, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    small = "dataset.options={n_train: 12, n_test: 4, n_early: 4, n_ventral: 4, n_other: 4}"
    out = tmp_path / "runs" / "mine"
    small = [] if "--dataset" in words else ["--set", small]
    with pytest.raises(CalcarineError, match=message):
        CliRunner().invoke(app, [*words, *small, "--out", str(out)], catch_exceptions=False)
    assert not out.exists() and not out.parent.exists()


def test_init_with_an_unknown_data_set_leaves_no_folder_behind(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(CalcarineError, match="simulatd"):
        command = ["init", str(out), "--dataset", "simulatd"]
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not out.exists()
