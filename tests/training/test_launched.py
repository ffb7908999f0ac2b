"""Two ranks of a command, started as srun and torchrun start them."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from calcarine.errors import CalcarineError
from calcarine.training import launched, train
from calcarine.training.handed_task import handed_over, join_handed
from calcarine.training.launched import Launch, Leader, launch, leading

SCRIPT = """
import os, sys
from pathlib import Path
sys.path[:0] = [PATHS]
import tiny
import calcarine.cli.main

def command():
    folder = Path(sys.argv[1])
    (folder / "commands").open("a").write(os.environ["RANK_HERE"])
    task = TASK
    config = tiny.settings(devices=2, accumulate=1)
    tiny.train(task, config, folder / "first")
    short = tiny.settings(steps=2, warmup_steps=1, validate_every=None)
    tiny.train(tiny.Even(), short, folder / "alone")
    tiny.train(tiny.Even(), config, folder / "second")

if __name__ == "__main__":
    module = sys.modules["calcarine.cli.main"]
    module.app = command
    module.main()
"""


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        import tiny

        yield tiny


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What one process gives, whose sums are formed in the same order as two form them."""
    config = tiny.settings(devices=2, accumulate=1)
    return train(tiny.Even(), config, tmp_path_factory.mktemp("two"))


def free_port():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def slurm(rank, number):
    return {
        "SLURM_JOB_ID": str(number),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "SLURM_JOB_NAME": "train",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
    }


def torchrun(rank, number):
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(number),
        "TORCHELASTIC_RUN_ID": "none",
    }


def run_two(folder, launcher, task):
    """Exit codes and standard error of both ranks."""
    folder.mkdir(exist_ok=True)
    text = SCRIPT.replace("PATHS", repr(str(Path(__file__).parent))).replace("TASK", task)
    file = folder / "script.py"
    file.write_text(text)
    paths = os.pathsep.join(map(os.path.abspath, sys.path))
    number, ranks = free_port(), []
    for rank in (1, 0):  # the one that leads comes later
        environment = {**os.environ, "PYTHONPATH": paths, "RANK_HERE": str(rank)}
        environment |= launcher(rank, number)
        ranks.append(
            subprocess.Popen(
                [sys.executable, file, folder],
                env=environment,
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=300) for process in ranks]
    assert not any(out for out, _ in said)
    return {
        rank: (process.returncode, err)
        for rank, process, (_, err) in zip((1, 0), ranks, said, strict=True)
    }


@pytest.mark.posix
@pytest.mark.parametrize("launcher", [slurm, torchrun])
def test_the_first_of_two_ranks_does_the_command_and_both_train(tiny, whole, tmp_path, launcher):
    codes = run_two(tmp_path, launcher, "tiny.Even()")
    assert codes == {0: (0, ""), 1: (0, "")}
    assert (tmp_path / "commands").read_text() == "0"
    for name in ("first", "second"):
        ours, theirs = tiny.traces(tmp_path / name), tiny.traces(whole.folder)
        assert ours[:2] == theirs[:2]  # the losses, to the last digit
    assert (tmp_path / "alone" / "log.csv").read_text().count("\n") == 3


@pytest.mark.posix
def test_a_rank_that_fails_is_told_and_the_training_resumes(tiny, whole, tmp_path):
    codes = run_two(tmp_path, torchrun, 'tiny.FailingOnTheSecond(6, "failing")')
    assert codes[0][0] == 2 and codes[1][0] == 1
    assert "processes failed: device 1 is out of memory. Start again" in codes[0][1]
    assert "process 1: device 1 is out of memory" in codes[1][1]
    assert run_two(tmp_path, torchrun, "tiny.Even()")[0] == (0, "")
    assert tiny.traces(tmp_path / "first")[:2] == tiny.traces(whole.folder)[:2]


def test_other_numbers_of_processes_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(launched, "_LONGEST_END", 0.0)
    config = tiny.settings(devices=2, accumulate=1)
    with (
        leading(Launch(0, 3, "127.0.0.1", free_port())),
        pytest.raises(CalcarineError, match=r"train on 2 devices.*and 3 processes were"),
    ):
        train(tiny.Even(), config, tmp_path)
    assert launched.leader() is None


def test_a_process_that_never_comes_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(launched, "_LONGEST_START", 0.1)
    monkeypatch.setattr(launched, "_LONGEST_END", 0.0)
    port = free_port()
    with leading(Launch(0, 2, "127.0.0.1", port)):
        with pytest.raises(CalcarineError, match="Only 1 of the 2 processes"):
            launched.leader().hand_over(tmp_path)
        with pytest.raises(CalcarineError, match=f"port {port}, which cannot be opened"):
            Leader(Launch(0, 2, "127.0.0.1", port))
    with pytest.raises(CalcarineError, match="Process 1 does not reach the first one"):
        launched.follow(Launch(1, 2, "127.0.0.1", free_port()), lambda run: None)


def test_another_program_at_the_port_does_no_harm():
    """One that says something else, one that ends at once, and then the process that is due."""
    place = Launch(0, 2, "127.0.0.1", free_port())
    with leading(place):
        for said in (b"GET / HTTP/1.1\r\n\r\n" * 9, b""):
            with socket.create_connection(place[2:]) as stranger:
                stranger.sendall(said)
        with ThreadPoolExecutor() as pool:
            code = pool.submit(launched.follow, place._replace(rank=1), print)
            launched.leader().close()
            assert code.result(timeout=60) == 0


@pytest.mark.posix
def test_a_task_that_another_user_wrote_is_not_read(tmp_path, monkeypatch):
    with handed_over(tmp_path, Path.mkdir, (tmp_path / "made",)) as file:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getuid", lambda: 12345)
            with pytest.raises(CalcarineError, match="belongs to another user"):
                join_handed(file)
        assert not (tmp_path / "made").exists()
        join_handed(file)
    assert (tmp_path / "made").exists() and not file.exists()


def test_several_nodes_need_a_launcher(tiny, tmp_path):
    config = tiny.settings(batch_size=8, devices=1, nodes=2, accumulate=1)
    with pytest.raises(CalcarineError, match="2 nodes, and this command runs on one; start it wit"):
        train(tiny.Even(), config, tmp_path)


def test_a_batch_script_outside_srun_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in slurm(0, 1).items():
        if "STEP" not in name:
            monkeypatch.setenv(name, value)
    assert launch() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert launch()[:3] == (0, 2, "127.0.0.1")
