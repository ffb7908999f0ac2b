"""Folds over whole groups."""

import numpy as np
import pytest

from calcarine.errors import CalcarineError
from calcarine.linear import grouped_folds


def test_groups_stay_whole_and_folds_are_balanced():
    groups = np.repeat(np.arange(40), np.arange(40) % 4 + 1)
    folds = grouped_folds(groups, 5)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    loads = np.bincount(folds)
    assert len(loads) == 5
    assert loads.max() - loads.min() <= 1


def test_row_order_changes_nothing():
    rng = np.random.default_rng(0)
    groups = np.array([f"coco{i:03d}" for i in rng.integers(0, 30, 100)])
    order = rng.permutation(100)
    np.testing.assert_array_equal(grouped_folds(groups, 4)[order], grouped_folds(groups[order], 4))


def test_cycling_categories_do_not_become_folds():
    folds = grouped_folds(np.arange(100), 5)
    assert all(len(set(folds[np.arange(100) % 5 == category])) > 1 for category in range(5))


def test_without_groups_each_row_is_one():
    np.testing.assert_array_equal(np.bincount(grouped_folds(None, 3, n_rows=10)), [4, 3, 3])


@pytest.mark.parametrize(
    ("groups", "n_folds", "message"),
    [
        ([1, 1, 2], 3, "only 2 group"),
        ([1, 2, 3], 1, "at least 2"),
        ([1, 2, 3], 2.5, "whole number"),
        ([1.0, np.nan, 3.0], 2, "row 1"),
        (np.array(["a", 1, None], dtype=object), 2, "mixes"),
        ([[1], [2]], 2, "shape"),
        (None, 2, "missing"),
    ],
)
def test_unusable_groups_are_told(groups, n_folds, message):
    with pytest.raises(CalcarineError, match=message):
        grouped_folds(groups, n_folds)
