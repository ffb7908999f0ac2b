"""Subjects x presets as one piece of work, with failures and killed processes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from calcarine.cli.main import app
from calcarine.datasets.registry import write_fake_dataset
from calcarine.errors import CalcarineError
from calcarine.evaluation.statistics.intervals import hierarchical_bootstrap
from calcarine.experiment import many_runs
from calcarine.experiment.many_runs import ManyRuns

QUICK = [
    "generation.model=mini",
    "generation.steps=2",
    "generation.samples=1",
    "generation.candidates=0",
    "generation.search.enabled=false",
    "ridge.n_alphas=3",
    "ridge.n_folds=2",
    "evaluation.n_boot=100",
    "evaluation.n_permutations=100",
    "evaluation.audit=false",
    "evaluation.ceilings=false",
    "evaluation.direct_ridge=false",
]
SMALL = {"n_train": 24, "n_test": 6, "n_early": 10, "n_ventral": 10, "n_other": 2}


def write(folder, **content):
    file = folder / "lab.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def call(*arguments):
    return CliRunner().invoke(app, ["many", *map(str, arguments)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two subjects with two variants, finished."""
    folder = tmp_path_factory.mktemp("many")
    file = write(
        folder,
        name="A lab & its subjects",
        dataset={"name": "simulated", "options": SMALL},
        subjects=["subj01", "subj02"],
        variants={"plain": [], "strong": ["generation.strength=1"]},
        settings=QUICK,
    )
    result = call(file, "--out", folder / "out")
    assert result.exit_code == 0, result.output
    return file, folder / "out", result.output


def test_every_run_is_done_and_summarised_on_one_page(done):
    _, out, printed = done
    names = [f"{s}-takagi-{v}" for v in ("plain", "strong") for s in ("subj01", "subj02")]
    assert all((out / name / "report.html").exists() and name in printed for name in names)
    content = json.loads((out / "many.json").read_text())
    assert [run["name"] for run in content["runs"]] == names and content["simulated"]
    assert {run["state"] for run in content["runs"]} == {"finished"}
    page = (out / "many.html").read_text()
    assert "A lab &amp; its subjects" in page and "SIMULATED" in page
    assert "4 of 4 runs are finished." in page
    assert all(f'href="{name}/report.html"' in page for name in names)
    assert "takagi-strong (2 subjects)" in page


def test_scores_are_means_over_subjects_with_hierarchical_intervals(done):
    _, out, _ = done
    with open(out / "many.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label"] for row in rows} == {"takagi-plain", "takagi-strong"}
    (row,) = [
        row
        for row in rows
        if (row["label"], row["method"], row["metric"])
        == ("takagi-plain", "z_c", "pixel correlation")
    ]
    values = []
    for subject in ("subj01", "subj02"):
        table = pd.read_parquet(out / f"{subject}-takagi-plain" / "metrics" / "per_image.parquet")
        chosen = table[(table["method"] == "z_c") & (table["metric"] == "pixel correlation")]
        values.append(chosen["value"].to_numpy())
    expected = hierarchical_bootstrap(values)
    found = [float(row[name]) for name in ("value", "ci_low", "ci_high")]
    np.testing.assert_allclose(found, [expected.value, expected.ci_low, expected.ci_high])
    assert (row["subjects"], row["images"]) == ("2", "12")


def test_finished_runs_are_not_done_again(done, monkeypatch):
    file, out, _ = done
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}
    assert call(file, "--out", out).exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.png")} == before


def test_what_would_be_done_and_where_it_is(done, tmp_path):
    file, out, _ = done
    listed = call(file, "--out", tmp_path / "other", "--dry-run")
    assert listed.exit_code == 0 and "subj02-takagi-strong" in listed.output
    assert not (tmp_path / "other").exists()
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "subj01-takagi-plain" / ".stages" / "evaluate.json").unlink()
    shutil.rmtree(tmp_path / "out" / "subj02-takagi-plain")
    runs = ManyRuns(file, tmp_path / "out")
    states = [(state.state, state.stage) for state in runs.states()]
    assert states == [("unfinished", "evaluate"), ("not started", ""), *[("finished", "")] * 2]
    shown = call(file, "--out", tmp_path / "out", "--status")
    assert shown.exit_code == 0 and "not started" in shown.output
    script = call(file, "--out", out, "--sbatch").output
    assert "#SBATCH --job-name=A-lab-its-subjects" in script and "--array=1-4" in script
    assert script.splitlines()[-1] == f"calcarine many {file} --out {out}"
    script = call(file, "--out", out, "--sbatch", "--set", "generation.steps=3").output
    assert script.splitlines()[-1].endswith(f"{out} --set generation.steps=3")


@pytest.mark.posix
def test_a_run_that_another_process_works_on_is_running(done, tmp_path):
    file, out, _ = done
    shutil.copytree(out, tmp_path / "out")
    folder = tmp_path / "out" / "subj01-takagi-plain"
    (folder / ".stages" / "evaluate.json").unlink()
    script = (
        "import sys, time; from calcarine.files.locks import folder_lock\n"
        "with folder_lock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert ManyRuns(file, tmp_path / "out").states()[0].state == "running"
        other.kill()
    assert ManyRuns(file, tmp_path / "out").states()[0].state == "unfinished"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"dataset": {"name": "simulated"}, "subject": ["a"]},
            "key 'subject'.*Did you mean subjects",
        ),
        ({"subjects": ["a"]}, "names no data set"),
        ({"dataset": {"name": "simulated"}, "presets": ["takagy"]}, "no preset 'takagy'"),
        ({"dataset": {"name": "simulated"}, "subjects": "subj01"}, "'subjects' .* list of names"),
        ({"dataset": {"name": "simulated"}, "subjects": ["a/b"]}, "cannot name a folder"),
        (
            {"dataset": {"name": "simulated"}, "subjects": ["a", "a"]},
            "lists the run a-takagi twice",
        ),
        ({"dataset": {"name": "simulated"}, "settings": ["x=1"]}, "no setting 'x'"),
        ({"dataset": {"name": "simulated"}, "variants": ["x"]}, "'variants' .* for each name"),
        ({"dataset": {"name": "simulated"}, "variants": {"x": "a=1"}}, "'x' .* list of names"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, content, message):
    with pytest.raises(CalcarineError, match=message):
        ManyRuns(write(tmp_path, **content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mistake_of_the_program_in_one_run_does_not_stop_the_others(done, tmp_path, monkeypatch):
    file, out, _ = done
    shutil.copytree(out, tmp_path / "out")
    whole = many_runs.run_experiment

    def failing(experiment, folder, *args, **options):
        if folder.name == "subj01-takagi-plain":
            raise ZeroDivisionError("by zero")
        return whole(experiment, folder, *args, **options)

    monkeypatch.setattr(many_runs, "run_experiment", failing)
    (tmp_path / "out" / "subj01-takagi-plain" / ".stages" / "report.json").unlink()
    states = ManyRuns(file, tmp_path / "out").run()
    assert [state.state for state in states] == ["failed", *["finished"] * 3]
    assert states[0].reason == "ZeroDivisionError: by zero" and states[0].stage == "report"
    note = json.loads((tmp_path / "out" / "failed" / "subj01-takagi-plain.json").read_text())
    assert "Traceback" in note["trace"]
    monkeypatch.undo()
    assert ManyRuns(file, tmp_path / "out").run()[0].state == "finished"
    assert not list((tmp_path / "out" / "failed").iterdir())


@pytest.mark.posix
def test_nsd_subjects_in_two_processes_of_which_one_is_killed(tmp_path):
    write_fake_dataset("nsd", tmp_path / "nsd", n_subjects=3, trials=[24, 20, 22])
    (missing,) = (tmp_path / "nsd").rglob("subj03/func1pt8mm/betas*/betas_session02.hdf5")
    missing.unlink()
    file = write(
        tmp_path,
        dataset={"name": "nsd", "data": str(tmp_path / "nsd"), "options": {"sessions": 3}},
        subjects=["subj01", "subj02", "subj03"],
        presets=["takagi", "takagi2023-compat"],
        settings=QUICK,
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "calcarine", "many", str(file), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    crew = [
        subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    end = time.monotonic() + 240
    while len(list(out.glob("*/.shared/led"))) < 2:  # each has a run of its own
        assert time.monotonic() < end
        time.sleep(0.05)
    crew[0].kill()
    printed = crew[1].communicate()[0].decode()
    assert crew[0].wait() == -signal.SIGKILL
    states = {run["name"]: run for run in json.loads((out / "many.json").read_text())["runs"]}
    finished = [name for name, run in states.items() if run["state"] == "finished"]
    assert sorted(finished) == [
        f"{s}-{p}" for s in ("subj01", "subj02") for p in ("takagi", "takagi2023-compat")
    ]
    for preset in ("takagi", "takagi2023-compat"):
        failed = states[f"subj03-{preset}"]
        assert failed["state"] == "failed" and "betas_session02" in failed["reason"]
    assert crew[1].returncode == 2 and "2 of 6 runs failed" in printed
    page = (out / "many.html").read_text()
    assert "takagi2023-compat (2 subjects)" in page and "betas_session02" in page


def test_a_run_that_is_in_use_is_tried_again(done, tmp_path, monkeypatch):
    """A run whose folder another command holds is tried again until it is free."""
    file, out, _ = done
    shutil.copytree(out, tmp_path / "out")
    tries = []

    def held_for_a_while(experiment, folder, *args, **options):
        tries.append(Path(folder).name)
        if tries.count("subj02-takagi-strong") < 3 and tries[-1] == "subj02-takagi-strong":
            raise many_runs.FolderInUseError("held")

    monkeypatch.setattr(many_runs, "run_experiment", held_for_a_while)
    ManyRuns(file, tmp_path / "out").run()
    assert tries.count("subj02-takagi-strong") == 3 and len(tries) == 6
