"""Folds: splits in which each stimulus is in the test once.

All makers take the stimuli that were shown, each once, and sort them first where they draw at
random, so the same seed gives the same folds in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from calcarine.brain.split import Split
from calcarine.errors import SettingError

__all__ = ["group_folds", "leave_one_out", "random_folds", "session_groups"]

_NAMED = 5


def random_folds(ids: Sequence[str], n_folds: int, seed: int = 0) -> tuple[Split, ...]:
    """Make random folds whose sizes differ by at most one.

    Parameters
    ----------
    ids : sequence of str
        Stimuli that were shown, each once.
    n_folds : int
        How many.
    seed : int
        Seed of the random assignment.

    Returns
    -------
    tuple of Split
        ``fold-00`` and so on.

    Raises
    ------
    CalcarineError
        If there are fewer than two folds, or more than stimuli.

    Examples
    --------
    >>> [split.test for split in random_folds(["a", "b", "c"], 2)]
    [('b', 'c'), ('a',)]
    """
    shown = _shown(ids)
    _check_count(n_folds, len(shown), "stimuli")
    order = np.random.default_rng(seed).permutation(sorted(shown))
    owner = {str(key): row % n_folds for row, key in enumerate(order)}
    rules = [f"fold {number} of {n_folds}, drawn at random" for number in range(n_folds)]
    return _splits(shown, owner, rules, seed)


def leave_one_out(ids: Sequence[str]) -> tuple[Split, ...]:
    """Make a fold for each stimulus, in the given order.

    Raises
    ------
    CalcarineError
        If there are fewer than two stimuli.

    Examples
    --------
    >>> from calcarine.splits import leave_one_out
    >>> [split.test for split in leave_one_out(["a", "b", "c"])]
    [('a',), ('b',), ('c',)]
    """
    shown = _shown(ids)
    _check_count(len(shown), len(shown), "stimuli")
    owner = {key: row for row, key in enumerate(shown)}
    return _splits(shown, owner, [f"stimulus {key} left out" for key in shown], None)


def group_folds(
    ids: Sequence[str],
    groups: Mapping[str, str],
    what: tuple[str, str],
    n_folds: int | None = None,
    seed: int = 0,
) -> tuple[Split, ...]:
    """Make folds that hold out whole groups of stimuli, such as categories.

    Parameters
    ----------
    ids : sequence of str
        Stimuli that were shown, each once.
    groups : mapping of str to str
        Group of each stimulus.
    what : (str, str)
        What a group is, in singular and plural, for rules and errors.
    n_folds : int, optional
        How many folds of groups; a fold for each group if left out.  The
        largest groups are placed first, each into the smallest fold.
    seed : int
        Of the order of groups of one size, where there are fewer folds.

    Raises
    ------
    CalcarineError
        If there are fewer than two groups, or more folds than groups.

    Examples
    --------
    >>> from calcarine.splits import group_folds
    >>> groups = {"dog1": "dog", "dog2": "dog", "cat1": "cat", "bus1": "bus"}
    >>> folds = group_folds(list(groups), groups, ("category", "categories"))
    >>> [sorted(split.test) for split in folds]
    [['dog1', 'dog2'], ['cat1'], ['bus1']]
    """
    shown = _shown(ids)
    names = list(dict.fromkeys(groups[key] for key in shown))
    members = {name: [key for key in shown if groups[key] == name] for name in names}
    if len(names) < 2:
        raise SettingError(
            f"All {len(shown)} stimuli are of one {what[0]} ({names[0]}), so no {what[0]} can be "
            f"held out; use folds without 'by: {what[0]}'."
        )
    count = len(names) if n_folds is None else n_folds
    _check_count(count, len(names), what[1])
    placed: list[list[str]] = [[name] for name in names]
    if count < len(names):
        placed = [[] for _ in range(count)]
        shuffled = np.random.default_rng(seed).permutation(sorted(names)).tolist()
        for name in sorted(shuffled, key=lambda one: -len(members[one])):
            smallest = min(placed, key=lambda fold: (sum(len(members[n]) for n in fold), len(fold)))
            smallest.append(name)
    owner = {key: row for row, fold in enumerate(placed) for name in fold for key in members[name]}
    rules = [f"{what[len(fold) > 1]} {_listed(fold)} held out" for fold in placed]
    return _splits(shown, owner, rules, seed if count < len(names) else None)


def session_groups(stimuli: Sequence[str], sessions: Iterable[int]) -> dict[str, str]:
    """Group stimuli by session; sessions that share a stimulus are one group.

    So no repeat of a stimulus is on the other side of a split.

    Parameters
    ----------
    stimuli, sessions
        Of each trial.

    Returns
    -------
    dict
        Stimulus to its group, named by the sessions: ``"1"`` or ``"1+2"``.

    Examples
    --------
    >>> session_groups(["a", "b", "b", "c"], [1, 1, 2, 3])
    {'a': '1+2', 'b': '1+2', 'c': '3'}
    """
    where: dict[str, list[int]] = {}
    for key, session in zip(stimuli, sessions, strict=True):
        where.setdefault(key, []).append(int(session))
    root = {session: session for own in where.values() for session in own}

    def find(session: int) -> int:
        while root[session] != session:
            root[session] = root[root[session]]
            session = root[session]
        return session

    for own in where.values():
        for one, other in pairwise(sorted(set(own))):
            root[find(other)] = find(one)
    together: dict[int, list[int]] = {}
    for session in sorted(root):
        together.setdefault(find(session), []).append(session)
    return {key: "+".join(map(str, together[find(own[0])])) for key, own in where.items()}


def _shown(ids: Sequence[str]) -> list[str]:
    shown = list(dict.fromkeys(ids))
    if len(shown) < len(ids):
        raise SettingError("Folds are made of stimuli, each listed once; leave out repeats.")
    return shown


def _check_count(n_folds: int, available: int, what: str) -> None:
    if available < 2:
        raise SettingError(f"Folds need two or more {what}, and there are {available}.")
    if not 2 <= n_folds <= available:
        raise SettingError(
            f"{n_folds} folds cannot be made of {available} {what}; choose from 2 to {available}."
        )


def _splits(
    shown: Sequence[str], owner: Mapping[str, int], rules: Sequence[str], seed: int | None
) -> tuple[Split, ...]:
    width = max(2, len(str(len(rules) - 1)))
    return tuple(
        Split(
            name=f"fold-{number:0{width}d}",
            train=tuple(key for key in shown if owner[key] != number),
            test=tuple(key for key in shown if owner[key] == number),
            rule=rule,
            seed=seed,
        )
        for number, rule in enumerate(rules)
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
