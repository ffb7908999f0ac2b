import numpy as np
import pytest

from calcarine.features import FeatureStore
from calcarine.features.store import FeatureSpace


def test_an_array_is_extracted_once_and_keyed_by_provenance(tmp_path):
    store, calls = FeatureStore(tmp_path), []

    def extract(rows):
        calls.append(rows)
        return np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]

    first = store.get("z", {"model": "a"}, 10, (1,), extract, chunk=4)
    again = store.get("z", {"model": "a"}, 10, (1,), extract, chunk=4)
    assert np.array_equal(first[:, 0], np.arange(10)) and np.array_equal(first, again)
    assert len(calls) == 3
    store.get("z", {"model": "b"}, 10, (1,), extract, chunk=4)
    assert len(calls) == 6


def test_an_interrupted_extraction_continues(tmp_path):
    store, done = FeatureStore(tmp_path), []

    def extract(rows, fail_at):
        if rows.start >= fail_at:
            raise KeyboardInterrupt
        done.append(rows.start)
        return np.full((rows.stop - rows.start, 2), rows.start, np.float32)

    with pytest.raises(KeyboardInterrupt):
        store.get("z", {}, 10, (2,), lambda r: extract(r, 8), chunk=4)
    values = store.get("z", {}, 10, (2,), lambda r: extract(r, 99), chunk=4)
    assert done == [0, 4, 8]
    assert values[:, 0].tolist() == [0] * 4 + [4] * 4 + [8] * 2


def test_a_broken_part_is_made_again(tmp_path):
    store = FeatureStore(tmp_path)
    (tmp_path / f"{store.key('z', {})}.part.zarr").mkdir()
    values = store.get("z", {}, 3, (1,), lambda r: np.ones((r.stop - r.start, 1), np.float32))
    assert values.sum() == 3


def _slow(rows):
    import time

    time.sleep(0.05)
    return np.repeat(np.arange(rows.start, rows.stop, dtype=np.float32)[:, None], 2, axis=1)


def _extract_in_a_process(folder, log):
    def extract(rows):
        with open(log, "a") as file:
            file.write(f"{rows.start}\n")
        return _slow(rows)

    values = FeatureStore(folder).get("z", {"a": 1}, 40, (2,), extract, chunk=4)
    assert values[:, 0].tolist() == list(range(40))


@pytest.mark.posix
def test_several_processes_share_the_work(tmp_path):
    import multiprocessing as mp

    context = mp.get_context("fork")
    log = tmp_path / "log"
    crew = [
        context.Process(target=_extract_in_a_process, args=(tmp_path / "f", log)) for _ in range(3)
    ]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    assert [one.exitcode for one in crew] == [0, 0, 0]
    begun = sorted(int(line) for line in log.read_text().split())
    assert begun == list(range(0, 40, 4))
    assert not list((tmp_path / "f").glob("*.part"))


@pytest.mark.posix
def test_a_killed_process_leaves_its_piece_to_others(tmp_path):
    import multiprocessing as mp
    import os
    import signal

    def dies():
        def extract(rows):
            if rows.start == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return _slow(rows)

        FeatureStore(tmp_path).get("z", {}, 16, (2,), extract, chunk=4)

    one = mp.get_context("fork").Process(target=dies)
    one.start()
    one.join()
    assert one.exitcode == -signal.SIGKILL
    begun = []

    def extract(rows):
        begun.append(rows.start)
        return _slow(rows)

    values = FeatureStore(tmp_path).get("z", {}, 16, (2,), extract, chunk=4)
    assert values[:, 1].tolist() == list(range(16))
    assert begun == [8, 12]


def _two_killed_after_rename(folder, number):
    """Extract two arrays in a process that is killed after its ``number``-th rename."""
    import multiprocessing as mp
    import os
    import signal

    def work():
        real, done = os.rename, []

        def rename(*args):
            real(*args)
            done.append(args)
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        os.rename = rename
        FeatureStore(folder).get_many([FeatureSpace("a"), FeatureSpace("b")], 8, _two, chunk=4)

    one = mp.get_context("fork").Process(target=work)
    one.start()
    one.join()
    return one.exitcode == -signal.SIGKILL


def _two(rows):
    values = np.arange(rows.start, rows.stop, dtype=np.float32) + 1
    return {"a": values, "b": -values}


@pytest.mark.posix
def test_a_process_killed_while_it_gives_arrays_their_names_leaves_nothing_behind(tmp_path):
    for number in range(1, 4):  # the first array, the second, the part folder
        folder = tmp_path / str(number)
        assert _two_killed_after_rename(folder, number)
        assert len([left for left in folder.iterdir() if ".part" in left.name]) == 1

        def never(rows):
            raise AssertionError("all was extracted")

        found = FeatureStore(folder).get_many(
            [FeatureSpace("a"), FeatureSpace("b")], 8, never, chunk=4
        )
        for name, sign in (("a", 1), ("b", -1)):
            assert found[name][:].tolist() == [sign * (n + 1) for n in range(8)]
        assert {left.suffix for left in folder.iterdir()} == {".zarr"}
    assert not _two_killed_after_rename(tmp_path / "whole", 4)


@pytest.mark.posix
def test_an_array_that_is_deleted_is_extracted_again_whatever_a_killed_process_left(tmp_path):
    import shutil

    assert _two_killed_after_rename(tmp_path, 2)
    for final in tmp_path.glob("*.zarr"):
        shutil.rmtree(final)
    found = FeatureStore(tmp_path).get_many(
        [FeatureSpace("a"), FeatureSpace("b")], 8, _two, chunk=4
    )
    assert found["a"][:].tolist() == list(range(1, 9))


def test_arrays_made_together_are_extracted_once(tmp_path):
    store, calls = FeatureStore(tmp_path), []
    spaces = [FeatureSpace("a", {"k": 1}, (3,)), FeatureSpace("b@0.8:late", {"k": 2}, (2, 2))]

    def extract(rows):
        calls.append(rows.start)
        n = rows.stop - rows.start
        return {"a": np.ones((n, 3), np.float32), "b@0.8:late": np.full((n, 2, 2), 2, np.float32)}

    found = store.get_many(spaces, 10, extract, chunk=4)
    assert found["b@0.8:late"].shape == (10, 2, 2) and found["a"][:].sum() == 30
    store.get_many(spaces[:1], 10, extract, chunk=4)
    assert calls == [0, 4, 8]


def test_what_is_there_may_be_asked_for_beside_what_is_missing(tmp_path):
    store = FeatureStore(tmp_path)
    old, new = FeatureSpace("a", {}, (1,)), FeatureSpace("b", {}, (1,))

    def extract(rows):
        values = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        return {"a": values, "b": -values}

    store.get_many([old], 10, extract, chunk=4)
    found = store.get_many([old, new], 10, extract, chunk=4)
    assert found["a"][:, 0].tolist() == list(range(10))
    assert found["b"][:, 0].tolist() == [-n for n in range(10)]


@pytest.mark.parametrize("later", [3, 16])
def test_an_extraction_goes_on_in_the_pieces_it_was_begun_in(tmp_path, later):
    store = FeatureStore(tmp_path)

    def breaks(rows):
        if rows.start >= 12:
            raise KeyboardInterrupt
        return _slow(rows)

    with pytest.raises(KeyboardInterrupt):
        store.get("z", {}, 30, (2,), breaks, chunk=4)
    values = store.get("z", {}, 30, (2,), _slow, chunk=later)
    assert values[:, 0].tolist() == list(range(30))
    assert [p.name for p in tmp_path.iterdir()] == [f"{store.key('z', {})}.zarr"]


def test_a_part_of_unknown_pieces_is_begun_anew(tmp_path):
    store = FeatureStore(tmp_path)

    def breaks(rows):
        if rows.start:
            raise KeyboardInterrupt
        return _slow(rows)

    with pytest.raises(KeyboardInterrupt):
        store.get("z", {}, 12, (2,), breaks, chunk=4)
    next(tmp_path.glob("*.part/chunk")).unlink()
    assert store.get("z", {}, 12, (2,), _slow, chunk=6)[:, 0].tolist() == list(range(12))


def test_a_store_prints_the_spaces_it_holds(tmp_path):
    store = FeatureStore(str(tmp_path / "features"))
    assert repr(store) == f"FeatureStore({str(tmp_path / 'features')!r}: empty)"
    store.get("z", {}, 10, (2,), lambda rows: np.zeros((rows.stop - rows.start, 2), np.float32))
    assert repr(store).endswith(": z)")
    assert "10 x 2" in store._repr_html_()
