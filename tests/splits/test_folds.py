import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcarine.errors import CalcarineError
from calcarine.splits.folds import (
    group_folds,
    leave_one_out,
    random_folds,
    session_groups,
)

IDS = st.lists(st.text("abc01", min_size=1, max_size=4), min_size=2, max_size=30, unique=True)


def check_partition(splits, ids):
    """Each stimulus is in one test, and in the training of all other folds."""
    assert sorted(key for split in splits for key in split.test) == sorted(ids)
    for split in splits:
        assert set(split.train) == set(ids) - set(split.test)
        assert split.train and split.test
    width = max(2, len(str(len(splits) - 1)))
    assert [split.name for split in splits] == [f"fold-{k:0{width}d}" for k in range(len(splits))]


@given(IDS, st.data(), st.integers(0, 99))
def test_random_folds(ids, data, seed):
    count = data.draw(st.integers(2, len(ids)))
    splits = random_folds(ids, count, seed)
    assert len(splits) == count
    check_partition(splits, ids)
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    again = random_folds(ids[::-1], count, seed)
    assert [set(split.test) for split in again] == [set(split.test) for split in splits]


def test_another_seed_is_another_division():
    ids = [f"s{row}" for row in range(40)]
    assert random_folds(ids, 10, 0) != random_folds(ids, 10, 1)


@given(IDS)
def test_leave_one_out(ids):
    splits = leave_one_out(ids)
    check_partition(splits, ids)
    assert [split.test for split in splits] == [(key,) for key in ids]


@given(IDS, st.integers(2, 6), st.data(), st.integers(0, 9))
def test_groups_are_held_out_whole(ids, kinds, data, seed):
    groups = {key: f"g{row % kinds}" for row, key in enumerate(ids)}
    known = len(set(groups.values()))
    count = data.draw(st.none() | st.integers(2, known))
    splits = group_folds(ids, groups, ("kind", "kinds"), count, seed)
    assert len(splits) == (count or known)
    check_partition(splits, ids)
    for split in splits:
        assert not {groups[key] for key in split.train} & {groups[key] for key in split.test}


def test_folds_of_groups_are_of_about_one_size():
    sizes = {"a": 9, "b": 8, "c": 3, "d": 2, "e": 2}
    groups = {f"{name}{row}": name for name, n in sizes.items() for row in range(n)}
    splits = group_folds(list(groups), groups, ("kind", "kinds"), 3)
    assert sorted(len(split.test) for split in splits) == [7, 8, 9]
    assert "kinds" in splits[2].rule and splits[0].rule == "kind a held out"


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), min_size=1, max_size=40))
def test_sessions_that_share_a_stimulus_are_one_group(trials):
    names = [f"s{row}" for row, _ in trials]
    groups = session_groups(names, [session for _, session in trials])
    by_session = {}
    for session, name in zip([session for _, session in trials], names, strict=True):
        assert by_session.setdefault(session, groups[name]) == groups[name]
        assert str(session) in groups[name].split("+")
    # As many groups as connected parts of the graph of sessions, counted by its Laplacian.
    sessions = sorted(by_session)
    met = np.array([[(row, s) in trials for s in sessions] for row in range(13)], float)
    linked = (met.T @ met > 0).astype(float)
    laplacian = np.diag(linked.sum(0)) - linked
    parts = int((np.linalg.eigvalsh(laplacian) < 1e-9).sum())
    assert len(set(groups.values())) == parts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_folds(["a", "b"], 3), "3 folds cannot be made of 2 stimuli; choose from 2"),
        (lambda: random_folds(["a", "b"], 1), "1 folds cannot be made"),
        (lambda: random_folds(["a", "a"], 2), "each listed once"),
        (lambda: leave_one_out(["a"]), "Folds need two or more stimuli, and there are 1"),
        (lambda: group_folds("ab", {"a": "x", "b": "x"}, ("kind", "kinds")), "of one kind"),
        (
            lambda: group_folds("abc", {"a": "x", "b": "x", "c": "y"}, ("kind", "kinds"), 3),
            "3 folds cannot be made of 2 kinds",
        ),
    ],
)
def test_folds_that_cannot_be_made(make, message):
    with pytest.raises(CalcarineError, match=message):
        make()
