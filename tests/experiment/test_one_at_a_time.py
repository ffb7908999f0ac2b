"""Two commands on one run's folder, and folders that cannot be written to."""

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calcarine.cli.main import app
from calcarine.errors import CalcarineError
from calcarine.experiment import load_experiment, run_experiment, runner
from calcarine.experiment.run_directory import RunDirectory, opened_run
from calcarine.experiment.stage_files import WrittenFiles
from calcarine.files.locks import LOCK_NAME, folder_lock

SETTINGS = [
    "dataset.options.n_train=40",
    "dataset.options.n_test=4",
    "ridge.n_alphas=3",
    "ridge.n_folds=2",
    "generation.samples=1",
    "generation.steps=2",
    "generation.search.enabled=false",
    "evaluation.n_boot=100",
    "evaluation.n_permutations=100",
    "evaluation.ceilings=false",
    "evaluation.direct_ridge=false",
]


def pictures(work):
    """Write what the settings say, picture by picture, slowly."""
    made = work.run.made("reconstruct")
    for number in range(30):
        file = work.run.reconstructions / f"{number}.txt"
        if not made.holds(file):
            file.parent.mkdir(exist_ok=True)
            file.write_text(str(work.config.generation.guidance))
            made.add([file])
        time.sleep(0.1)  # the other command must start meanwhile, on a busy machine too


def slow_run(folder, guidance, said):
    """Process of a run of one stage; what it ends with is written to a file."""

    def work():
        key = {"reconstruct": f"r{guidance}"}
        stage = dataclasses.replace(runner.STAGES["reconstruct"], run=pictures, needs=())
        runner.STAGES = {"reconstruct": stage}
        runner.run_keys, runner.check_experiment = lambda work: key, lambda work: None
        experiment = load_experiment("takagi", None, [f"generation.guidance={guidance}"])
        try:
            run_experiment(experiment, folder)
            said.write_text("done")
        except CalcarineError as error:
            said.write_text(str(error))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.posix
@pytest.mark.parametrize("delay", [None, 0.0, 0.1, 0.3, 0.5])
def test_the_second_of_two_commands_is_refused_and_the_first_is_not_harmed(tmp_path, delay):
    folder = tmp_path / "run"
    first = slow_run(folder, 1.0, tmp_path / "1.0")
    if delay is not None:
        until(lambda: (folder / LOCK_NAME).exists())
        time.sleep(delay)
    second = slow_run(folder, 5.0, tmp_path / "5.0")
    for process in (first, second):
        process.join()
    said = {name: (tmp_path / name).read_text() for name in ("1.0", "5.0")}
    (wanted,) = (name for name in said if said[name] == "done")
    (refused,) = (name for name in said if name != wanted)
    winner = {"1.0": first, "5.0": second}[wanted]
    assert f"Another calcarine (pid {winner.pid}, host" in said[refused]
    assert {f.read_text() for f in (folder / "reconstructions").iterdir()} == {wanted}
    assert len(list((folder / "reconstructions").iterdir())) == 30
    assert f"guidance: {wanted}" in (folder / "experiment.yaml").read_text()
    assert not (folder / LOCK_NAME).exists()


@pytest.mark.posix
def test_a_killed_command_leaves_no_lock_and_is_continued_by_other_settings(tmp_path):
    first = slow_run(tmp_path / "run", 1.0, tmp_path / "said")
    until(lambda: (tmp_path / "run" / "reconstructions" / "5.txt").exists())
    first.kill()
    first.join()
    assert (tmp_path / "run" / LOCK_NAME).exists()
    slow_run(tmp_path / "run", 5.0, tmp_path / "said").join()
    assert (tmp_path / "said").read_text() == "done"
    files = list((tmp_path / "run" / "reconstructions").iterdir())
    assert len(files) == 30 and {f.read_text() for f in files} == {"5.0"}


def test_the_command_line_says_it_in_one_line_with_code_2(tmp_path):
    RunDirectory(tmp_path / "run", load_experiment("takagi"))
    with folder_lock(tmp_path / "run"):
        ended = subprocess.run(
            [sys.executable, "-m", "calcarine", "report", str(tmp_path / "run")],
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith(f"calcarine: Another calcarine (pid {os.getpid()}, host ")
    assert ended.stderr.count("\n") == 1


def until(true):
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    return run_experiment(load_experiment("takagi", None, SETTINGS), out).path


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


COMMANDS = [
    ["run", "RUN"],
    ["features", "RUN"],
    ["fit", "RUN"],
    ["reconstruct", "RUN"],
    ["evaluate", "RUN"],
    ["encode", "RUN"],
    ["report", "RUN"],
    ["audit", "RUN"],
    ["score", "RUN"],
    ["bottleneck", "RUN"],
    ["gallery", "RUN"],
    ["pretrain", "RUN"],
    ["guide", "RUN"],
    ["finetune", "RUN"],
    ["run", "--preset", "takagi", "--out", "RUN"],
    ["encode", "--out", "RUN"],
    ["pretrain", "--dataset", "simulated", "--out", "RUN"],
    ["ablate", "--out", "RUN"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_on_a_run_waits_for_nobody(tmp_path, command):
    """Another process holds the lock of a run that is not even finished."""
    RunDirectory(tmp_path / "run", load_experiment("takagi", None, SETTINGS))
    before = snapshot(tmp_path / "run")
    with holding(tmp_path / "run") as pid:
        called = [str(tmp_path / "run") if word == "RUN" else word for word in command]
        result = CliRunner().invoke(app, called)
        assert isinstance(result.exception, CalcarineError), result.exception
        assert f"Another calcarine (pid {pid}, host" in str(result.exception)
        assert {**snapshot(tmp_path / "run"), **before} == before | lock_of(tmp_path / "run")


class holding:  # noqa: N801 - reads as a function
    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        script = (
            "import sys, time; from pathlib import Path\n"
            "from calcarine.files.locks import folder_lock\n"
            "with folder_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(self.folder)], stdout=subprocess.PIPE
        )
        self.process.stdout.readline()
        return self.process.pid

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


def snapshot(folder):
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def lock_of(folder):
    return {str(folder / LOCK_NAME): (folder / LOCK_NAME).read_bytes()}


def test_what_is_refused_leaves_nothing(tmp_path):
    with pytest.raises(CalcarineError, match="is not a run"), opened_run(tmp_path / "none"):
        pass
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("mine")
    with pytest.raises(CalcarineError, match="is not empty and is not a run"):
        run_experiment(load_experiment("takagi"), tmp_path / "letters")
    assert [p.name for p in tmp_path.rglob("*")] == ["letters", "a.txt"]


def test_part_files_of_a_killed_command_are_removed(run):
    strays = [
        run / "reconstructions" / "z" / "a_00.png.0123abcd.part",
        run / "features" / "x.zarr" / "c" / f"0.{'0f' * 16}.partial",
    ]
    for stray in strays:
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_text("half")
    with opened_run(run):
        assert not any(stray.exists() for stray in strays)


# --- results are checked against their key ---


def test_a_stage_that_another_command_began_is_not_called_finished(tmp_path):
    run = RunDirectory(tmp_path / "run", load_experiment("takagi"))
    assert run.begin("reconstruct", "a")
    RunDirectory(tmp_path / "run").begin("reconstruct", "b")
    with pytest.raises(CalcarineError, match="Another calcarine process changed 'reconstruct'"):
        run.finish("reconstruct", "a")
    run.finish("reconstruct", "b")


def test_files_that_another_command_put_there_are_not_taken_for_ours(tmp_path):
    run = RunDirectory(tmp_path / "run", load_experiment("takagi"))
    run.begin("reconstruct", "a")
    file, foreign = run.path / "one.png", run.path / "two.png"
    for place in (file, foreign):
        place.write_text("of a")
    made = run.made("reconstruct")
    made.add([file])
    assert made.holds(file) and not made.holds(foreign)
    assert run.made("reconstruct").holds(file) and run.made("reconstruct").holds_below(run.path)
    file.write_text("of b")
    with pytest.raises(CalcarineError, match=r"one\.png was changed or deleted while"):
        run.finish("reconstruct", "a")
    assert not run.made("reconstruct").holds(file)
    assert run.begin("reconstruct", "b") and not run.made("reconstruct").holds_below(run.path)


def test_half_a_line_of_what_was_made_hides_no_other(tmp_path):
    file = tmp_path / "a.png"
    file.write_text("a")
    (tmp_path / ".stages").mkdir()
    WrittenFiles(tmp_path, "s", "k").add([file])
    listed = tmp_path / ".stages" / "s.made"
    listed.write_text(listed.read_text() + '\n["b.png", "12')
    WrittenFiles(tmp_path, "s", "k").add([file])
    assert WrittenFiles(tmp_path, "s", "k").holds(file) and not WrittenFiles(
        tmp_path, "s", "other"
    ).holds(file)


def test_what_a_finished_stage_made_is_listed_the_same_interrupted_or_not(tmp_path):
    lists = []
    for name in ("whole", "killed"):
        run = RunDirectory(tmp_path / name, load_experiment("takagi"))
        run.begin("reconstruct", "k")
        one, two = files = [run.path / "one.png", run.path / "two.png"]
        for file in files:
            file.write_text(file.name)
        if name == "killed":  # each time before it had noted all
            run.made("reconstruct").add([two])
            with open(run.path / ".stages" / "reconstruct.made", "a") as lines:
                lines.write('\n["one.png", "12')
            run.made("reconstruct").add([one, two])
        run.made("reconstruct").add(files)
        run.finish("reconstruct", "k")
        assert all(run.made("reconstruct").holds(file) for file in files)
        lists.append((run.path / ".stages" / "reconstruct.made").read_bytes())
    assert lists[0] == lists[1]


# --- a finished run on a disk that cannot be written to ---


@pytest.fixture
def read_only(run, monkeypatch):
    """Nothing below the run can be written, as on a disk that is mounted read-only."""
    real = {name: getattr(os, name) for name in ("open", "replace", "mkdir", "unlink", "rename")}

    def refusing(name):
        def instead(path, *args, **kwargs):
            writes = name != "open" or (args and args[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if writes and str(path).startswith(str(run)):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return real[name](path, *args, **kwargs)

        return instead

    def opener(path, mode="r", *args, **kwargs):
        if set(mode) & set("wxa+") and str(path).startswith(str(run)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return plain(path, mode, *args, **kwargs)

    plain = open
    monkeypatch.setattr("builtins.open", opener)
    for name in real:
        monkeypatch.setattr(os, name, refusing(name))
    return run


def test_a_finished_run_on_a_read_only_disk_can_be_audited_and_scored(read_only, tmp_path):
    before = snapshot(read_only)
    for command in (
        ["audit", read_only, "--out", tmp_path / "elsewhere.html"],
        ["score", read_only, "--out", tmp_path / "scores.json"],
        ["gallery", read_only, "--out", tmp_path / "gallery.html"],
        ["run", read_only],
    )[:3]:
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 0, result.exception
        assert Path(command[-1]).exists()
    assert snapshot(read_only) == before
    result = CliRunner().invoke(app, ["audit", str(read_only)])
    assert isinstance(result.exception, OSError) and "Read-only" in str(result.exception)


def test_settings_that_did_not_change_are_not_written_again(run):
    config = run / "experiment.yaml"
    before = config.stat().st_mtime_ns, config.stat().st_ino
    with opened_run(run, load_experiment("takagi", None, SETTINGS)):
        pass
    RunDirectory(run)
    assert (config.stat().st_mtime_ns, config.stat().st_ino) == before
    with opened_run(run, load_experiment("takagi", None, [*SETTINGS, "evaluation.seed=1"])):
        assert "seed: 1" in config.read_text()


def test_the_gallery_goes_into_the_runs_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["gallery", str(run)]).exit_code == 0
    assert (run / "gallery.html").exists() and not (tmp_path / "gallery.html").exists()


# --- damaged files of a run ---


@pytest.mark.parametrize("text", ['{"outc', "", "[]", "[" * 5000, '{"outcome": 3, "checks": []}'])
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_damaged_audit_is_one_sentence(run, command, text):
    (run / "audit.json").write_text(text)
    result = CliRunner().invoke(app, [command, str(run)])
    assert isinstance(result.exception, CalcarineError), result.exception
    assert "audit.json cannot be read" in str(result.exception)
    assert "calcarine audit" in str(result.exception)


def test_an_index_that_lacks_test_stimuli_is_refused(run):
    import pandas as pd

    file = run / "reconstructions" / "index.parquet"
    index = pd.read_parquet(file)
    gone = sorted(index["id"].unique())[0]
    index[index["id"] != gone].to_parquet(file)
    for stage in ("evaluate", "report", "audit"):
        (run / ".stages" / f"{stage}.json").unlink()
    for command in ("audit", "evaluate", "run"):
        result = CliRunner().invoke(app, [command, str(run)])
        assert isinstance(result.exception, CalcarineError), result.exception
        assert f"lacks 1 stimuli, the first '{gone}'" in str(result.exception)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.assign(sample="one"),
        lambda index: index.assign(file="\0"),
        lambda index: index.assign(file=None),
        lambda index: index.drop(columns="method"),
    ],
)
def test_an_index_of_other_values_is_one_sentence(run, change):
    import pandas as pd

    file = run / "reconstructions" / "index.parquet"
    change(pd.read_parquet(file)).to_parquet(file)
    (run / ".stages" / "report.json").unlink()
    for command in (["report"], ["audit"], ["gallery"], ["score"]):
        result = CliRunner().invoke(app, [*command, str(run)])
        assert isinstance(result.exception, CalcarineError), (command, result.exception)


@pytest.mark.parametrize("name", ["z.json", "latents.json", "c.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "list", "numbers", "deep"])
def test_a_damaged_decoder_is_one_sentence(run, name, damage):
    file = next((run / "decoder").iterdir()) / name
    text = file.read_bytes()
    if damage == "numbers" and name.endswith("json"):
        tree = json.loads(text)
        text = json.dumps(dict.fromkeys(tree, 3) | {"format": tree.get("format")}).encode()
    file.write_bytes(
        {
            "cut": text[:-9],
            "empty": b"",
            "list": b"[1]",
            "numbers": text[:-1] + b"}" * 2,
            "deep": b"[" * 9000,
        }.get(damage, text)
    )
    result = CliRunner().invoke(app, ["audit", str(run)])
    assert isinstance(result.exception, CalcarineError), result.exception


def test_nothing_is_held_after_a_command(run):
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
    with folder_lock(run) as taken:
        assert taken
