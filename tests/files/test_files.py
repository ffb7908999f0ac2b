import errno
import math
import os
from types import SimpleNamespace

import pandas as pd
import pytest

from calcarine.cli.main import _of_system
from calcarine.files import (
    atomic_write,
    explain_full_disk,
    is_partial_file,
    read_json,
    remove_partial_files,
    write_bytes,
)
from calcarine.files import local_files as files
from calcarine.files.parquet import read_parquet


def test_two_writers_of_one_file_have_parts_of_their_own(tmp_path):
    with atomic_write(tmp_path / "a.txt") as one, atomic_write(tmp_path / "a.txt") as two:
        assert one != two and is_partial_file(one) and is_partial_file(two)
        one.write_text("one")
        two.write_text("two")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "one"


def test_a_name_as_long_as_a_disk_allows_can_be_written(tmp_path):
    write_bytes(tmp_path / ("n" * 255), b"x")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"x"


def test_only_what_was_left_half_written_is_removed(tmp_path):
    kept = ["a.part", "a.txt", "b.0123456789.part", "a.h5.part.json", "c.partial"]
    left = ["a.txt.0123abcd.part", f"0.{'ab' * 16}.partial"]
    for name in [*kept, *left]:
        place = tmp_path / "deep" / name
        place.parent.mkdir(exist_ok=True)
        place.write_text("")
    remove_partial_files(tmp_path)
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == sorted(kept)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left" })'),
    ],
)
def test_a_full_disk_names_the_file_its_place_and_what_is_free(tmp_path, monkeypatch, error):
    usage = SimpleNamespace(free=1_234_567)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
    wanted = pytest.raises(OSError, match=r"1\.2 MB are free in ")
    with wanted as caught, atomic_write(tmp_path / "new" / "a.bin"):
        raise error
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "new" / "a.bin")
    said = _of_system(caught.value)
    assert str(tmp_path / "new" / "a.bin") in said and "Make room" in said
    with pytest.raises(OSError, match=f"free in {tmp_path}"), explain_full_disk(tmp_path / "zarr"):
        raise error


def test_an_error_of_a_full_disk_without_a_file_names_places():
    said = _of_system(OSError(errno.ENOSPC, "No space left on device"))
    assert f"free in {os.getcwd()}" in said and "make room" in said
    assert _of_system(OSError(5, "Input/output error")) == "Input/output error"


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a"):
        raise ZeroDivisionError
    with pytest.raises(PermissionError), explain_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"\xff\xfe1\0"])
def test_what_is_no_json_is_one_kind_of_error(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_where_they_cannot_be(tmp_path, number):
    (tmp_path / "a.json").write_text(f'{{"a": [1.5, 2, {number}]}}')
    assert not math.isfinite(read_json(tmp_path / "a.json")["a"][2])
    with pytest.raises(ValueError, match=f"{number}, which is not finite"):
        read_json(tmp_path / "a.json", finite=True)
    (tmp_path / "a.json").write_text('{"a": [1.5, 2]}')
    assert read_json(tmp_path / "a.json", finite=True) == {"a": [1.5, 2]}


def test_a_parquet_table_is_read_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.parquet"
    table = pd.DataFrame({"id": ["abcdefgh", "secondid"], "n": [1, 2]}, index=["u", "v"])
    table.to_parquet(path, compression=None)
    pd.testing.assert_frame_equal(read_parquet(path), table)
    whole = path.read_bytes()
    for damaged in (whole.replace(b"secondid", b"second\xff\xfe"), whole[:50], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or not a Parquet"):
            read_parquet(path)
    with pytest.raises(FileNotFoundError):
        read_parquet(tmp_path / "missing.parquet")
