import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from calcarine.errors import CalcarineError
from calcarine.files import locks
from calcarine.files.locks import LOCK_NAME, folder_lock

HOLDS = """
import sys, time
from pathlib import Path
from calcarine.files.locks import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path``."""
    with subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE) as made:
        assert made.stdout.readline() == b"held\n"
        yield made
        made.kill()


def test_a_second_process_is_refused_and_hears_of_the_first(holder, tmp_path):
    with (
        pytest.raises(
            CalcarineError, match=rf"calcarine \(pid {holder.pid}, host .*in this folder"
        ),
        folder_lock(tmp_path),
    ):
        pass
    with pytest.raises(CalcarineError), folder_lock(tmp_path, writes=False):
        pass
    assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == holder.pid


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_lock_ends_with_its_process(holder, tmp_path, how):
    getattr(holder, how)()
    holder.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_who_waits_gets_the_lock_when_it_is_free(holder, tmp_path):
    threading.Timer(0.2, holder.kill).start()
    with folder_lock(tmp_path, wait=True):
        assert holder.wait() != 0


@pytest.mark.parametrize("left", ["", "{", "[]", '{"pid": 1, "host": "elsewhere"}'])
def test_what_a_lock_file_says_holds_nobody_back(tmp_path, left):
    (tmp_path / LOCK_NAME).write_text(left)
    with folder_lock(tmp_path):
        pass


def test_a_thread_takes_its_own_lock_again_and_another_thread_does_not(tmp_path):
    refused = []

    def other():
        try:
            with folder_lock(tmp_path):
                pass
        except CalcarineError as error:
            refused.append(str(error))

    with folder_lock(tmp_path) as first:
        with folder_lock(tmp_path) as second:
            assert (first, second) == (True, False)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert f"pid {os.getpid()}" in refused[0]
        assert (tmp_path / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_read_without_a_lock(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    with folder_lock(tmp_path, writes=False) as taken:
        assert not taken
    with pytest.raises(OSError, match="Read-only"), folder_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match="has no locks"), folder_lock(tmp_path):
        pass


def test_of_many_that_begin_at_once_one_at_a_time_is_inside(tmp_path):
    script = f"""
import sys
from pathlib import Path
from calcarine.files.locks import folder_lock
for _ in range(40):
    with folder_lock(Path({str(tmp_path / "shared")!r}), wait=True):
        Path({str(tmp_path / "inside")!r}).mkdir()
        Path({str(tmp_path / "inside")!r}).rmdir()
"""
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert list((tmp_path / "shared").iterdir()) == []


def test_the_lock_is_written_before_anybody_reads_it(tmp_path, monkeypatch):
    (tmp_path / LOCK_NAME).write_text("")
    threading.Timer(
        0.05, lambda: (tmp_path / LOCK_NAME).write_text('{"pid": 7, "host": "h"}')
    ).start()
    began = time.monotonic()
    assert "pid 7, host h" in locks._who(tmp_path, tmp_path / LOCK_NAME)
    assert time.monotonic() - began > 0.01
