"""Jobs that submitit and dask-jobqueue start take part in runs."""

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import yaml
from distributed import LocalCluster
from submitit import AutoExecutor
from typer.testing import CliRunner

from calcarine.cli.main import app
from calcarine.datasets.registry import write_fake_dataset
from calcarine.errors import CalcarineError, MissingExtraError
from calcarine.experiment import load_experiment, run_experiment
from calcarine.experiment.many_runs import ManyRuns
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.slurm_jobs import job_executor, submit_jobs
from calcarine.files.locks import LOCK_NAME

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
    "encoding.enabled=false",
]
SMALL = "dataset.options={n_train: 24, n_test: 6, n_early: 10, n_ventral: 10, n_other: 2}"


@pytest.mark.posix
def test_jobs_do_the_runs_of_a_file_and_one_may_be_killed(tmp_path):
    write_fake_dataset("nsd", tmp_path / "nsd", trials=[20, 20], n_subjects=2, sessions=2)
    file = tmp_path / "lab.yaml"
    content = {
        "dataset": {"name": "nsd", "data": str(tmp_path / "nsd"), "options": {"sessions": 2}},
        "subjects": ["subj01", "subj02", "subj05"],  # the files of the last are missing
        "settings": QUICK,
    }
    file.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    command = ["many", str(file), "--out", str(out)]
    executor = job_executor(tmp_path / "jobs", {"cluster": "local", "timeout_min": 10})
    jobs = submit_jobs(executor, command, 2)
    end = time.monotonic() + 300
    while not list(out.glob("*/.stages/reconstruct.json")):
        assert time.monotonic() < end and not all(job.done() for job in jobs)
        time.sleep(0.1)
    (marker, *_) = out.glob("*/.stages/reconstruct.json")
    lock = json.loads((marker.parents[1] / LOCK_NAME).read_text())
    os.kill(lock["pid"], signal.SIGKILL)
    assert all(job.exception() is not None for job in jobs)  # killed, or with a run that failed
    states = {state.name: state.state for state in ManyRuns(file, out).states()}
    assert states == {
        "subj01-takagi": "finished",
        "subj02-takagi": "finished",
        "subj05-takagi": "failed",
    }
    assert "2 of 3 runs are finished" in (out / "many.html").read_text()


def test_a_run_is_prepared_and_its_jobs_resume_it(tmp_path, monkeypatch):
    submitted = []

    class Executor:
        def __init__(self, folder, cluster):
            self.folder, self.cluster = folder, cluster

        def update_parameters(self, **options):
            submitted.append((self.cluster, options))

        def batch(self):
            return nullcontext()

        def submit(self, function, command, check):
            submitted.append(command)
            return SimpleNamespace(job_id=str(100 + len(submitted)))

    monkeypatch.setattr("submitit.AutoExecutor", Executor)
    out = tmp_path / "run"
    settings = [part for text in [SMALL, *QUICK] for part in ("--set", text)]
    result = CliRunner().invoke(
        app,
        [
            *("run", "--preset", "takagi", "--out", str(out), "--slurm", "2", *settings),
            *("--job", "timeout_min=60", "--job", "slurm_time=24:00:00"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "Submitted 2 jobs: 102, 103" in result.output
    assert submitted[0] == ("slurm", {"timeout_min": 60, "slurm_time": "24:00:00"})
    assert submitted[1] == submitted[2] == [sys.executable, "-m", "calcarine", "run", str(out)]
    assert RunDirectory(out).experiment.generation.steps == 2
    file = tmp_path / "lab.yaml"
    file.write_text(yaml.safe_dump({"dataset": {"name": "simulated"}, "settings": QUICK}))
    result = CliRunner().invoke(
        app, ["many", str(file), "--out", str(tmp_path / "m"), "--slurm", "1", "--set", SMALL]
    )
    assert result.exit_code == 0, result.output
    assert submitted[-1][3:] == ["many", str(file), "--out", str(tmp_path / "m"), "--set", SMALL]


def test_what_cannot_be_submitted_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # without sbatch
    with pytest.raises(CalcarineError, match=r"login node .* --job cluster=local"):
        job_executor(tmp_path / "jobs")
    with pytest.raises(CalcarineError, match=r"submitit refuses .*time_limit"):
        job_executor(tmp_path / "jobs", {"cluster": "local", "time_limit": 1})
    monkeypatch.setattr("calcarine.errors.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"calcarine\[cluster\]"):
        job_executor(tmp_path / "jobs")


def test_nothing_is_left_where_jobs_cannot_be_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["run", "--preset", "takagi", "--out", str(tmp_path / "run"), "--slurm", "1"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, CalcarineError) and not (tmp_path / "run").exists()
    for more, message in (
        (["--workers", "2"], "one of --slurm, --workers and --dask"),
        (["--dask", "slurm"], "one of --slurm, --workers and --dask"),
        (["--job", "mem_gb"], "write key=value, as mem_gb=32"),
    ):
        result = CliRunner().invoke(app, [*arguments, "--set", SMALL, *more])
        assert message in str(result.exception)
    result = CliRunner().invoke(app, ["run", "--preset", "takagi", "--job", "mem_gb=4"])
    assert "give their number with --slurm" in str(result.exception)


def test_what_slurm_refuses_is_one_sentence():
    class Refusing:
        def batch(self):
            return nullcontext()

        def submit(self, *args, **kwargs):
            raise RuntimeError("sbatch: error: invalid partition specified: gpus")

    with pytest.raises(CalcarineError, match=r"invalid partition.*--job"):
        submit_jobs(Refusing(), ["run", "x"], 1)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({}, {"timeout_min": 1440}),
        ({"timeout_min": 7}, {"timeout_min": 7}),
        ({"slurm_time": "24:00:00"}, {"slurm_time": "24:00:00"}),
    ],
)
def test_jobs_have_a_day_unless_they_are_given_a_time(tmp_path, monkeypatch, options, given):
    seen = []
    monkeypatch.setattr(AutoExecutor, "update_parameters", lambda self, **own: seen.append(own))
    job_executor(tmp_path / "jobs", {"cluster": "local", **options})
    assert seen == [given]


@pytest.mark.posix
def test_jobs_of_dask_jobqueue_take_part_without_being_waited_for(tmp_path, monkeypatch):
    made = []

    class Jobs(LocalCluster):
        def __init__(self):
            super().__init__(n_workers=0, threads_per_worker=1, dashboard_address=":0")
            made.append(self)

        def scale(self, jobs):
            super().scale(jobs)

    monkeypatch.setattr("dask_jobqueue.SLURMCluster", Jobs)
    experiment = load_experiment("takagi", None, [SMALL, *QUICK])
    run = run_experiment(experiment, tmp_path / "run", dask="slurm", workers=2)
    assert (run.path / "report.html").exists() and made


def test_a_missing_configuration_of_dask_jobqueue_is_named(tmp_path, monkeypatch):
    def refuse():
        raise ValueError("You must specify how much cores to use per job like ``cores=8``")

    monkeypatch.setattr("dask_jobqueue.SLURMCluster", refuse)
    experiment = load_experiment("takagi", None, [SMALL, *QUICK])
    with pytest.raises(CalcarineError, match=r"jobqueue\.yaml"):
        run_experiment(experiment, tmp_path / "run", dask="slurm")
    assert not (tmp_path / "run").exists()
