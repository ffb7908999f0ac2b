"""Outlines and run lengths against closed forms and against a plain reading of the rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calcarine.datasets.nsd._fake_tables import compress_runs, encode_runs
from calcarine.datasets.nsd.coco_maps import CATEGORIES, Crop, Instance, run_lengths, semantic_map


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=40))
def test_compressed_run_lengths_are_read_back(counts):
    assert run_lengths(compress_runs(counts)).tolist() == counts
    assert run_lengths(counts).tolist() == counts


def test_published_text_of_run_lengths():
    # By hand: 6 takes one group of five bits, 33 two; the fourth is the second less one.
    assert run_lengths("6").tolist() == [6]
    assert run_lengths("Q1").tolist() == [33]
    assert run_lengths("234O").tolist() == [2, 3, 4, 2]
    for damaged in ("P", "é", "6" * 3 + "o"):
        with pytest.raises(ValueError, match="run lengths"):
            run_lengths(damaged)


def test_runs_go_down_the_columns():
    mask = np.zeros((5, 4), bool)
    mask[1:3, 0] = mask[4, 2] = True
    shape = run_lengths(encode_runs(mask))
    assert shape.tolist()[:3] == [1, 2, 11]
    found = semantic_map([Instance(9, 3, shape)], Crop(5, 4), (5, 4))
    np.testing.assert_array_equal(found, mask * 9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 12), st.floats(-2, 12)), min_size=3, max_size=7),
    st.sampled_from([(5, 9), (10, 10), (23, 17)]),
)
def test_an_outline_holds_the_pixels_whose_centre_is_inside(points, size):
    found = semantic_map([Instance(1, 1, (np.array(points),))], Crop(10, 10), size)
    for r in range(size[0]):
        for c in range(size[1]):
            y, x = (r + 0.5) * 10 / size[0], (c + 0.5) * 10 / size[1]
            crossings, near = 0, False
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (y0 > y) != (y1 > y):
                    at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    crossings += at <= x
                    near |= abs(at - x) < 1e-9
                near |= min(abs(y0 - y), abs(y1 - y)) < 1e-9
            assert near or found[r, c] == crossings % 2


def test_small_objects_lie_on_large_ones_and_the_crop_is_taken():
    def square(left, top, side):
        return (
            np.array(
                [(left, top), (left + side, top), (left + side, top + side), (left, top + side)],
                float,
            ),
        )

    small, large = Instance(2, 16, square(4, 2, 4)), Instance(1, 100, square(2, 0, 10))
    crop = Crop(10, 14, left=2 / 14, right=2 / 14)
    for order in ([small, large], [large, small]):
        found = semantic_map(order, crop, (10, 10))
        wanted = np.ones((10, 10))
        wanted[2:6, 2:6] = 2
        np.testing.assert_array_equal(found, wanted)


def test_the_table_of_classes_is_cocos():
    assert len(CATEGORIES) == 80
    assert (CATEGORIES[1], CATEGORIES[13], CATEGORIES[90]) == ("person", "stop sign", "toothbrush")
    assert {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}.isdisjoint(CATEGORIES)
