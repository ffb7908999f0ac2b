"""Two processes of the CPU that train together, and what becomes of one when the other ends."""

import csv
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from calcarine.errors import CalcarineError
from calcarine.training import processes, train
from calcarine.training.processes import starts_processes

TWO = {"accumulate": 1, "devices": 2, "strategy": "ddp"}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Tasks that another process can import."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("tiny")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted training on two devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        tiny = importlib.import_module("tiny")
        return train(tiny.Even(), tiny.settings(**TWO), tmp_path_factory.mktemp("two"))


def rows_of(path):
    with open(path) as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_two_processes_give_what_one_gives_that_accumulates_twice(tiny, whole, tmp_path):
    before = dict(os.environ), torch.get_num_threads()
    one = train(tiny.Even(), tiny.settings(), tmp_path)
    assert (dict(os.environ), torch.get_num_threads()) == before
    for name in ("log.csv", "validation.csv"):
        first, second = (rows_of(folder / name) for folder in (tmp_path, whole.folder))
        assert [list(row) for row in first] == [list(row) for row in second]
        for a, b in zip(first, second, strict=True):
            assert b == pytest.approx(a, rel=1e-5)
    for name, value in whole.state.items():
        torch.testing.assert_close(value, one.state[name])
    assert not list(whole.folder.glob("*.part"))


@pytest.mark.posix
@pytest.mark.parametrize(
    ("how", "reason"),
    [("killed", "it was ended by SIGKILL"), ("failing", "device 1 is out of memory")],
)
def test_a_training_resumes_after_one_of_its_processes_failed(tiny, whole, tmp_path, how, reason):
    said = f"device 1 failed: {reason}. Start again to resume from the last checkpoint"
    with pytest.raises(CalcarineError, match=said):
        train(tiny.FailingOnTheSecond(6, how), tiny.settings(**TWO), tmp_path)
    assert "LOCAL_RANK" not in os.environ and not torch.distributed.is_initialized()
    done = []
    train(tiny.Even(), tiny.settings(**TWO), tmp_path, progress=done.append)
    assert done[0] == 4 and sum(done) == 12
    assert tiny.traces(tmp_path) == tiny.traces(whole.folder)


@pytest.mark.posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_all_processes_end_with_the_first(tiny, whole, tmp_path, name):
    number = getattr(signal, name)
    script = """
import sys
from pathlib import Path
sys.path[:0] = [PATHS]
import tiny
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiny.train(tiny.Telling(folder), tiny.settings(devices=2, accumulate=1), folder / "training")
"""
    file = tmp_path / "script.py"
    file.write_text(script.replace("PATHS", repr(str(Path(__file__).parent))))
    paths = os.pathsep.join(map(os.path.abspath, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths}
    process = subprocess.Popen([sys.executable, file, tmp_path], env=environment)
    first, second = tmp_path / "0", tmp_path / "1"
    until(lambda: first.exists() and second.exists() and second.read_text())
    process.send_signal(number)
    assert process.wait(60) == (143 if number == signal.SIGTERM else -number)
    pid = int(second.read_text())
    until(lambda: not is_alive(pid))
    train(tiny.Even(), tiny.settings(**TWO), tmp_path / "training")
    assert tiny.traces(tmp_path / "training") == tiny.traces(whole.folder)


def test_a_process_that_waits_for_one_that_failed_is_ended(monkeypatch, capsys):
    """Communication between GPUs may never return."""

    class Failed:
        process = SimpleNamespace(sentinel=0)

        def failure(self):
            return "The process failed."

    def end(code):
        codes.append(code)
        ended.set()

    codes, ended = [], threading.Event()
    monkeypatch.setattr(processes, "_PATIENCE", 0.1)
    monkeypatch.setattr(processes, "wait", lambda sentinels, timeout: [])
    monkeypatch.setattr(os, "_exit", end)
    processes._watch([Failed()], ended)
    assert codes == [1] and capsys.readouterr().err == "calcarine: The process failed.\n"


def test_a_task_that_cannot_be_handed_over_is_refused(tiny, tmp_path):
    task = tiny.Even()
    task.never = lambda: None
    with pytest.raises(CalcarineError, match="cannot be handed to the processes"):
        train(task, tiny.settings(**TWO), tmp_path)
    assert not list(tmp_path.glob("*.part")) and "LOCAL_RANK" not in os.environ


def test_processes_are_started_only_where_nobody_else_starts_them(tiny, monkeypatch):
    for name in ("LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert starts_processes(tiny.settings(devices=2))
    assert not starts_processes(tiny.settings())
    assert not starts_processes(tiny.settings(devices=2, strategy="ddp_spawn"))
    assert not starts_processes(tiny.settings(batch_size=16, devices=2, nodes=2))
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not starts_processes(tiny.settings(devices=2))


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=120):
    for _ in range(10 * seconds):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def test_a_process_whose_pipes_are_closed_has_ended_though_its_status_comes_later():
    class Ending:
        exitcode = None

        def __init__(self, sentinel):
            self.sentinel = sentinel

        def join(self):
            self.exitcode = 1

    reading, writing = multiprocessing.Pipe(duplex=False)
    writing.close()
    member = object.__new__(processes._Member)
    member.process, member._rank, member._said = Ending(reading), 1, "out of memory"
    member._lock = threading.Lock()
    assert "device 1 failed: out of memory" in processes._failure([member], 1)
