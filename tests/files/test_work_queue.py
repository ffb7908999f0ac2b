"""Pieces of work that processes share: each is done once, whoever is killed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from calcarine.files import work_queue
from calcarine.files.work_queue import WorkQueue


@pytest.fixture
def without_locks(monkeypatch):
    """A file system without locks."""

    def refuse(*args, **kwargs):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(work_queue.FileLock, "acquire", refuse)


def holder(folder, locks=True, seconds=60):
    """Start a process that holds the first of one piece."""
    script = f"""
import time
from pathlib import Path
from calcarine.files import work_queue
if not {locks}:
    def refuse(*args, **kwargs):
        raise OSError(38, "Function not implemented")
    work_queue.FileLock.acquire = refuse
work_queue._BEAT_SECONDS = .1
for number in work_queue.WorkQueue(Path({str(folder)!r}), "").work(1):
    print(number, flush=True)
    time.sleep({seconds})
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"0\n"
    return process


@pytest.mark.posix
def test_a_piece_of_another_process_is_left_to_it_and_free_at_once_when_it_is_killed(tmp_path):
    with holder(tmp_path) as other:
        working = WorkQueue(tmp_path, "").work(2)
        assert next(working) == 1
        threading.Timer(0.3, other.kill).start()
        assert next(working) == 0 and other.wait() == -signal.SIGKILL
    assert list(working) == [] and list(WorkQueue(tmp_path, "").work(2)) == []
    assert not list(tmp_path.glob("*.lease.?"))


@pytest.mark.posix
def test_without_locks_a_piece_is_free_when_its_owner_gives_no_sign_of_life(
    tmp_path, without_locks
):
    with holder(tmp_path, locks=False) as other:
        working = WorkQueue(tmp_path, "", lease=1.5).work(1)
        killed = []

        def kill():
            killed.append(time.monotonic())
            other.kill()

        # It lives for longer than a lease, and counts as dead only after it was killed.
        threading.Timer(3, kill).start()
        assert next(working) == 0
        assert time.monotonic() - killed[0] > 1
    assert list(working) == []


def test_an_owner_on_another_machine_is_believed_dead_after_the_lease_only(tmp_path, monkeypatch):
    """Where locks do not reach other machines."""
    first = WorkQueue(tmp_path, "")
    monkeypatch.setattr(work_queue, "_machine", lambda: "another one")
    with first._leased("0"):
        monkeypatch.undo()
        (tmp_path / "0.lease.0.lock").unlink()  # its lock is not seen here
        second = WorkQueue(tmp_path, "", lease=0.3)
        for _ in range(5):
            assert second._take("0") is None
            time.sleep(0.1)
            os.utime(tmp_path / "0.lease.0")
        assert second._take("0") is None
        time.sleep(0.4)
        number, lock = second._take("0")
        assert number == 1
        # A third leaves it to the second, which has locks that are seen.
        assert WorkQueue(tmp_path, "", lease=0)._take("0") is None
        second._give_back("0", number, lock)
    assert not list(tmp_path.glob("*.lease.?"))


def test_who_comes_late_after_a_dead_owner_leaves_the_piece_to_the_first(tmp_path, monkeypatch):
    (tmp_path / "0.lease.0").write_text(work_queue._machine())
    queue, other = WorkQueue(tmp_path, ""), WorkQueue(tmp_path, "")
    real, taken = os.open, []

    def slow(file, *args):
        if str(file).endswith("0.lease.1"):
            monkeypatch.setattr(os, "open", real)
            (tmp_path / "0.lease.0").unlink()  # the new owner has ended
            taken.append(other._take("0"))
        return real(file, *args)

    monkeypatch.setattr(os, "open", slow)
    assert queue._take("0") is None and taken[0] is not None
    assert [file.name for file in tmp_path.glob("*.lease.?")] == ["0.lease.0"]


@pytest.mark.parametrize("locks", [True, False])
def test_of_several_processes_each_piece_is_done_by_one(tmp_path, locks):
    script = f"""
from pathlib import Path
from calcarine.files import work_queue
if not {locks}:
    def refuse(*args, **kwargs):
        raise OSError(38, "Function not implemented")
    work_queue.FileLock.acquire = refuse
print(*work_queue.WorkQueue(Path({str(tmp_path)!r}), "").work(30))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    done = " ".join(process.communicate()[0] for process in running).split()
    assert sorted(map(int, done)) == list(range(30))


def test_pieces_done_elsewhere_are_counted_and_remarks_kept(tmp_path):
    first = WorkQueue(tmp_path, "")
    for number in first.work(2):
        first.remark(number, f"files of {number}")
    elsewhere = []
    second = WorkQueue(tmp_path, "")
    assert list(second.work(4, elsewhere.append)) == [2, 3] and elsewhere == [0, 1]
    assert second.remarks() == {0: "files of 0", 1: "files of 1", 2: "", 3: ""}


def test_a_piece_in_which_an_error_was_raised_is_free(tmp_path):
    queue = WorkQueue(tmp_path, "")
    working = queue.work(1)
    next(working)
    with pytest.raises(KeyboardInterrupt):
        working.throw(KeyboardInterrupt)
    assert list(WorkQueue(tmp_path, "").work(1)) == [0]


def test_who_waits_while_all_is_removed_is_done(tmp_path):
    (tmp_path / "part").mkdir()
    queue = WorkQueue(tmp_path / "part" / "claims", "")
    (tmp_path / "part" / "claims" / "0.done").touch()
    (tmp_path / "part").rename(tmp_path / "gone")
    assert list(queue.work(3)) == [] and not (tmp_path / "part").exists()


def test_who_comes_when_all_is_removed_finds_nothing_to_do(tmp_path):
    assert list(WorkQueue(tmp_path / "gone" / "claims", "").work(3)) == []
    assert not (tmp_path / "gone").exists()


def test_a_long_wait_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setattr(work_queue, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(work_queue, "_WARN_SECONDS", 0.05)
    first, second = WorkQueue(tmp_path, ""), WorkQueue(tmp_path, "")
    with first._leased("0"):
        threading.Timer(0.5, (tmp_path / "0.done").touch).start()
        with pytest.warns(UserWarning, match="Waiting for another process") as warned:
            assert list(second.work(1)) == []
    assert len(warned) == 1
