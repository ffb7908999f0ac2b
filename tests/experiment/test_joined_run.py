"""Several processes on one run: they share its work, and end with the same files as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client, LocalCluster

from calcarine.brain import Split
from calcarine.decoding import EmbeddingRegression
from calcarine.errors import CalcarineError
from calcarine.evaluation.scoring.scoring import Scoring
from calcarine.experiment import decoders, joined_run, load_experiment, run_experiment, run_stage
from calcarine.experiment.run_directory import RunDirectory
from calcarine.experiment.stages import STAGES, run_keys
from calcarine.experiment.workspace import Workspace

OPTIONS = {"n_train": 24, "n_test": 12, "n_early": 20, "n_ventral": 20, "n_other": 4}
SETTINGS = [
    f"dataset.options={json.dumps(OPTIONS)}",
    "dataset.subject=subj01",
    "generation.steps=4",
    "generation.samples=2",
    "generation.candidates=2",
    "generation.search.enabled=false",
    "ridge.n_alphas=3",
    "ridge.n_folds=2",
    "evaluation.n_boot=100",
    "evaluation.n_permutations=100",
    "evaluation.audit=false",
    "evaluation.ceilings=false",
    "encoding.enabled=true",
    "encoding.analyses=[latents, noise]",
    "encoding.strengths=[0.25, 0.5]",
    "encoding.n_components=20",
    "encoding.n_boot=100",
]
# Small pieces, a log of who does which, and in the first one each waits until all have come.
SLOWLY = """
import os, subprocess, time
from dataclasses import replace
from calcarine.diffusion import LatentDiffusion
from calcarine.encoding import _split_models
from calcarine.evaluation.scoring.scoring import Scoring
from calcarine.experiment import joined_run, reconstructions, runner
from calcarine.experiment.stages import STAGES
from calcarine.features import store
from calcarine.reporting import encoding_report

reconstructions.GROUP = 4
joined_run._POLL_SECONDS = 0.05
get, popen = store.FeatureStore.get, subprocess.Popen

def in_small_pieces(self, space, provenance, count, shape, extract, chunk=64):
    return get(self, space, provenance, count, shape, extract, 4)

def crew(name):
    with open(os.environ["LOG"]) as log:
        return {line for line in log if line.split()[0] == name}

def logged(owner, name):
    method, came = getattr(owner, name), []
    def waiting(self, *args, **kwargs):
        with open(os.environ["LOG"], "a") as log:
            log.write(f"{name} {os.getpid()}\\n")
        if not came and name in os.environ["TOGETHER"].split():
            end = time.monotonic() + 120
            while len(crew(name)) < int(os.environ["CREW"]) and time.monotonic() < end:
                time.sleep(0.02)
            came.append(time.sleep(0.3))  # time to be killed
        return method(self, *args, **kwargs)
    setattr(owner, name, waiting)

def start_worker(command, **options):
    if list(command[1:3]) != ["-m", "calcarine.experiment.joined_run"]:
        return popen(command, **options)
    python, _, _, *arguments = command
    script = "import slowly, sys; slowly.joined_run._main(sys.argv[1], int(sys.argv[2]))"
    return popen([python, "-c", script, *arguments], **options)

runner._plan = lambda work, alone: None  # measures by making pictures, also where none are shared
STAGES["report"] = replace(STAGES["report"], run=lambda work: None)  # pages take long
encoding_report.build_encoding_report = lambda run: None
store.FeatureStore.get, subprocess.Popen = in_small_pieces, start_worker
for method in (
    (LatentDiffusion, "encode"),
    (LatentDiffusion, "generate"),
    (Scoring, "score"),
    (_split_models.SplitModels, "_fit"),
    (_split_models.SplitModels, "_fit_pair"),
):
    logged(*method)
"""
COMMAND = """
import json, sys
from pathlib import Path
import slowly
from calcarine.brain import Split
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment, run_experiment
from calcarine.experiment.progress import Progress

class Printed(Progress):
    def say(self, text):
        print(text, flush=True)

folder, settings, workers, *dask = sys.argv[1:]
experiment = load_experiment("takagi", None, json.loads(settings))
try:
    options = {"workers": int(workers), "dask": next(iter(dask), None)}
    run_experiment(experiment, Path(folder), Printed(), **options)
except CalcarineError as error:
    print(error)
    raise SystemExit(2)
"""


@pytest.fixture(scope="module")
def slowly(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slowly")
    (folder / "slowly.py").write_text(SLOWLY)
    return folder


@pytest.fixture(scope="module")
def start(slowly):
    """Return a function that starts a run in a process."""

    def start(folder, log, crew=1, together="", settings=SETTINGS, workers=1, dask=()):
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(folder), json.dumps(settings), str(workers), *dask],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(slowly), *sys.path]),
                "LOG": str(log),
                "CREW": str(crew),
                "TOGETHER": together,
            },
        )

    return start


def done(log, what=""):
    """Return the processes that did something, and how often."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    pids = [int(pid) for name, pid in lines if what in ("", name)]
    return {pid: pids.count(pid) for pid in pids}


def until(true, process=None):
    for _ in range(12000):
        if true():
            return
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def files(run):
    """Content of a run's files, without those that tell of the time, the place or chance."""
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.name != "manifest.json" and file.suffix != ".html"
    }


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    process = start(folder / "run", folder / "log")
    assert process.wait() == 0, process.communicate()[0]
    return files(folder / "run")


@pytest.mark.posix
def test_processes_with_the_same_command_share_a_run(start, tmp_path, alone):
    log = tmp_path / "log"
    processes = [start(tmp_path / "run", log, 3, "encode generate score _fit") for _ in range(3)]
    for process in processes:
        assert process.wait() == 0, process.communicate()[0]
    for what in ("encode", "generate", "score", "_fit"):
        assert len(done(log, what)) == 3
    assert files(tmp_path / "run") == alone
    assert not (tmp_path / "run" / ".shared").exists()


@pytest.mark.posix
@pytest.mark.parametrize("who", ["the first", "the other"])
def test_those_that_are_killed_cost_a_piece_and_nothing_else(start, tmp_path, alone, who):
    """In each stage one of two processes is killed, and a new one takes part."""
    log, stages = tmp_path / "log", ["encode", "generate", "score", "_fit"]

    def begin():
        return start(tmp_path / "run", log, 2, " ".join(stages))

    first = begin()
    until((tmp_path / "run" / ".shared" / "led").exists, first)
    other = begin()
    for what in stages:
        both = {first.pid, other.pid}
        until(lambda what=what, both=both: both <= set(done(log, what)), first)
        killed, left = (first, other) if who == "the first" else (other, first)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        first, other = left, begin()
    for process in (first, other):
        assert process.wait() == 0, process.communicate()[0]
    assert files(tmp_path / "run") == alone


@pytest.mark.posix
def test_workers_take_part_and_one_that_is_killed_is_reported(start, tmp_path, alone):
    log = tmp_path / "log"
    first = start(tmp_path / "run", log, 3, "generate", workers=3)
    until(lambda: len(done(log, "generate")) == 3, first)
    killed = next(pid for pid in done(log, "generate") if pid != first.pid)
    os.kill(killed, signal.SIGKILL)
    said = first.communicate()[0]
    assert first.returncode == 0 and said.count("ended early, and others did its work") == 1
    assert "exit status -9" in said
    assert files(tmp_path / "run") == alone
    assert not (tmp_path / "run" / ".shared").exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in done(log))


@pytest.mark.posix
def test_ranks_of_a_launcher_take_part(slowly, tmp_path, alone):
    script = "import slowly, sys; from calcarine.cli.main import main; sys.exit(main())"
    settings = [part for text in SETTINGS for part in ("--set", text)]
    command = [sys.executable, "-c", script, "run", "--preset", "takagi", *settings]
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_PORT": str(port), "CREW": "2", "TOGETHER": "generate"}
    shared |= {"LOG": str(tmp_path / "log"), "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = os.pathsep.join([str(slowly), *sys.path])
    ranks = [
        subprocess.Popen(
            [*command, "--out", str(tmp_path / "run")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        assert process.wait() == 0, process.communicate()[0]
    assert set(done(tmp_path / "log", "generate")) == {process.pid for process in ranks}
    assert files(tmp_path / "run") == alone


@pytest.mark.posix
def test_workers_of_a_dask_cluster_take_part_and_one_may_be_killed(start, slowly, tmp_path, alone):
    log = tmp_path / "log"
    environment = {"LOG": str(log), "CREW": "3", "TOGETHER": "generate", "OMP_NUM_THREADS": "1"}
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", env=environment
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(exec, f"import sys; sys.path.insert(0, {str(slowly)!r}); import slowly")
        address = cluster.scheduler_address
        first = start(tmp_path / "run", log, 3, "generate", dask=[address])
        until(lambda: len(done(log, "generate")) == 3, first)
        killed = next(pid for pid in done(log, "generate") if pid != first.pid)
        os.kill(killed, signal.SIGKILL)
        said = first.communicate()[0]
        assert first.returncode == 0, said
    assert files(tmp_path / "run") == alone


def test_a_dask_cluster_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(joined_run, "_ANSWER_SECONDS", 0.2)
    experiment = load_experiment("takagi", None, SETTINGS)
    with pytest.raises(CalcarineError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9\b"):
        run_experiment(experiment, tmp_path / "run", dask="tcp://127.0.0.1:9")
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        pytest.raises(CalcarineError, match="has no workers"),
    ):
        run_experiment(experiment, tmp_path / "run", dask=cluster.scheduler_address)


@pytest.mark.posix
def test_a_process_with_other_settings_is_refused_and_one_with_another_device_is_not(
    start, tmp_path
):
    log = tmp_path / "log"
    first = start(tmp_path / "run", log, 2, "encode")  # which waits for another
    until((tmp_path / "run" / ".shared" / "led").exists, first)
    other = start(tmp_path / "run", log, settings=[*SETTINGS, "generation.guidance=2"])
    assert other.wait() == 2
    assert f"Another calcarine (pid {first.pid}" in other.communicate()[0]
    device = load_experiment("takagi", None, [*SETTINGS, "compute.device=cpu"])
    found = joined_run.run_to_join(tmp_path / "run", device)
    assert found is not None and found.experiment.compute.device == "cpu"
    assert RunDirectory(tmp_path / "run").experiment.compute.device == "auto"
    first.kill()
    first.wait()


def test_other_data_than_those_of_the_first_process_are_refused(tmp_path, monkeypatch):
    experiment = load_experiment("takagi", None, SETTINGS)
    run = RunDirectory(tmp_path / "run", experiment)
    monkeypatch.setattr(joined_run, "is_locked", lambda path: True)
    run.begin("features", "a key of other data")
    with run.sharing("features"), pytest.raises(CalcarineError, match=r"cannot share its stage"):
        joined_run.take_part(RunDirectory(tmp_path / "run"))


@pytest.mark.posix
def test_a_worker_ends_with_its_parent(tmp_path):
    run = RunDirectory(tmp_path / "run", load_experiment("takagi", None, SETTINGS))
    script = f"""
import subprocess, sys, time
from pathlib import Path
from calcarine.experiment.joined_run import start_workers
from calcarine.experiment.progress import Progress
from calcarine.experiment.run_directory import opened_run
from calcarine.experiment import joined_run
popen = subprocess.Popen
def told(*args, **kwargs):
    process = popen(*args, **kwargs)
    print(process.pid, flush=True)
    return process
subprocess.Popen = told
with opened_run(Path({str(run.path)!r})) as run, run.led(), start_workers(run, 1, Progress()):
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(1)
        parent.kill()
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in state(pid))


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_a_gpu_for_each_worker(monkeypatch, gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus(4)
    found = [joined_run._environment(n, 2)["CUDA_VISIBLE_DEVICES"] for n in range(1, 6)]
    assert found == ["1", "2", "3", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    assert joined_run._environment(1, 2)["CUDA_VISIBLE_DEVICES"] == "5"
    gpus(1)
    assert joined_run._environment(1, 2)["CUDA_VISIBLE_DEVICES"] == "3,5,6,7"
    assert joined_run._environment(1, 2)["OMP_NUM_THREADS"] == "2"


def in_quarters(work):
    """Return four splits with the training stimuli of the only one."""
    (split,) = work.dataset.splits
    return [
        Split(f"quarter {number}", split.train, split.test[number::4], "of the test stimuli")
        for number in range(4)
    ]


def test_decoders_and_settings_of_splits_are_shared(tmp_path, monkeypatch):
    """Two processes, here threads, fit two splits each; the second takes part."""
    monkeypatch.setattr(Workspace, "splits", property(in_quarters))
    settings = [*SETTINGS, "generation.search.enabled=true"]
    settings += ["generation.search.n_stimuli=5", "generation.search.steps=2"]
    settings += ["generation.search.strengths=[0.8]", "generation.search.guidances=[3]"]
    settings += ["embeddings.targets=[{name: z, space: z, roi: early}]"]
    experiment = load_experiment("takagi", None, settings)
    alone = Workspace(RunDirectory(tmp_path / "alone", experiment))
    first = Workspace(RunDirectory(tmp_path / "run", experiment))
    for work in (alone, first):
        run_stage(work, "features")
    for stage in ("fit", "retrieve"):
        run_stage(alone, stage)

    places = {"_fit_split": decoders, "choose_settings": decoders, "fit": EmbeddingRegression}
    done = {name: [] for name in places}
    both = {name: threading.Barrier(2, timeout=60) for name in done}

    def logged(name):
        method = getattr(places[name], name)

        def waiting(*arguments):
            if threading.get_ident() not in done[name]:
                both[name].wait()
            done[name].append(threading.get_ident())
            return method(*arguments)

        monkeypatch.setattr(places[name], name, waiting)

    for name in done:
        logged(name)
    second = Workspace(RunDirectory(tmp_path / "run", experiment))
    for stage in ("fit", "retrieve"):
        with first.run.led():
            leader = threading.Thread(target=run_stage, args=(first, stage))
            leader.start()
            until(first.run.shared_stages)
            STAGES[stage].share(second)
            leader.join()
    for name, threads in done.items():
        assert len(threads) == 4 and len(set(threads)) == 2, name
    for stage, folder in (("fit", "decoder"), ("retrieve", "retrieval")):
        assert first.run.has_finished(stage)
        assert files(first.run.path / folder) == files(alone.run.path / folder)
        made = f".stages/{stage}.made"
        assert (first.run.path / made).read_bytes() == (alone.run.path / made).read_bytes()


def test_a_decoder_that_was_changed_after_an_interruption_is_fitted_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Workspace, "splits", property(in_quarters))
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, SETTINGS)))
    run_stage(work, "features")
    changed = work.run.decoder / work.splits[0].name / "predictions.safetensors"
    fitted = []

    def interrupted(*arguments):
        if fitted:
            raise KeyboardInterrupt
        fitted.append(fit(*arguments))

    fit = decoders._fit_split
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decoders, "_fit_split", interrupted)
        run_stage(work, "fit")
    content = changed.read_bytes()
    changed.write_bytes(b"something else")
    run_stage(work, "fit")
    assert changed.read_bytes() == content


def test_scores_of_an_interrupted_evaluation_are_made_again(tmp_path, monkeypatch):
    """Weights may have come meanwhile: scores with and without them are not mixed."""
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, SETTINGS)))
    for name in ("features", "fit", "reconstruct"):
        run_stage(work, name)
    scored = []
    score = Scoring.score

    def counted(self, number):
        scored.append(number)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return score(self, number)

    monkeypatch.setattr(Scoring, "score", counted)
    with pytest.raises(KeyboardInterrupt):
        run_stage(work, "evaluate")
    run_stage(work, "evaluate")
    assert scored[:3] == [0, 1, 2] and scored[3:] == list(range(len(scored) - 3))


def test_groups_that_only_seem_to_be_done_are_made(tmp_path):
    """What was left of an interrupted stage names other files, or files that were changed."""
    work = Workspace(RunDirectory(tmp_path / "run", load_experiment("takagi", None, SETTINGS)))
    for name in ("features", "fit"):
        run_stage(work, name)
    run, key = work.run, run_keys(work)["reconstruct"]
    run.begin("reconstruct", key)
    (run.reconstructions / "z").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), run.sharing("reconstruct"):
        queue = run.queue("reconstruct", "pictures")
        left = ["", '{"other.png": "0"}', '{"reconstructions/z/a.png": "0"}']
        for number in queue.work(3):
            queue.remark(number, left[number])
        raise KeyboardInterrupt
    run_stage(work, "reconstruct")
    assert run.has_finished("reconstruct")
    index = pd.read_parquet(run.reconstructions / "index.parquet")
    assert all((run.path / file).exists() for file in index["file"])
