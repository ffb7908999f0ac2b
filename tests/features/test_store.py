import numpy as np
import pytest

from calcarine.features import FeatureStore


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
