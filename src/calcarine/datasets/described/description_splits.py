"""The splits of a description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from calcarine.brain.split import Split
from calcarine.datasets.described.description import LEAVE_ONE_OUT, Folds, Fraction
from calcarine.datasets.described.description_arrays import find
from calcarine.errors import SettingError
from calcarine.splits.folds import (
    group_folds,
    leave_one_out,
    random_folds,
    session_groups,
)
from calcarine.splits.split_files import read_split
from calcarine.stimuli.tables import read_text

__all__ = ["make_splits"]


Categories = Callable[[], Mapping[str, Sequence[str]]]


def make_splits(
    root: Path, test: str | float | Fraction | Folds, trials: pd.DataFrame, categories: Categories
) -> tuple[Split, ...]:
    """Assign the stimuli that were shown to training and test.

    Parameters
    ----------
    root
        Folder of the description.
    test
        ``"repeated"``, ``"leave-one-out"``, folds, a fraction, or a file: a
        saved split (JSON) or a list of ids, one a line; of a list those that
        were shown are taken.
    trials
        Columns ``stimulus`` and ``session``.
    categories
        Gives the categories of each stimulus, where folds are made by them.

    Raises
    ------
    CalcarineError
        If a side would be empty, folds cannot be made, or the file is wrong.
    """
    times = Counter(trials["stimulus"].tolist())
    if isinstance(test, float):
        test = Fraction(fraction=test)
    if isinstance(test, Fraction):
        return (_fraction(test, list(times)),)
    if isinstance(test, Folds):
        return _folds(test, trials, list(times), categories)
    if test == LEAVE_ONE_OUT:
        return leave_one_out(list(times))
    if test == "repeated":
        return (_repeated(times),)
    path = find(root, test, "test")
    if path.suffix.lower() == ".json":
        return (read_split(path),)
    return (_listed(path, list(times)),)


def _folds(
    wanted: Folds, trials: pd.DataFrame, shown: list[str], categories: Categories
) -> tuple[Split, ...]:
    if wanted.by is None:
        assert wanted.folds is not None  # the description gives one of both
        return random_folds(shown, wanted.folds, wanted.seed)
    if wanted.by == "session":
        groups = _by_session(trials)
        return group_folds(shown, groups, ("session", "sessions"), wanted.folds, wanted.seed)
    groups = _by_category(shown, categories())
    return group_folds(shown, groups, ("category", "categories"), wanted.folds, wanted.seed)


def _by_session(trials: pd.DataFrame) -> Mapping[str, str]:
    sessions = trials["session"].nunique()
    if sessions < 2:
        raise SettingError(
            "All trials are of one session, so no session can be held out; use folds without "
            "'by: session', or say in the column session of the trials which session each is of."
        )
    groups = session_groups(trials["stimulus"].tolist(), trials["session"].tolist())
    if len(set(groups.values())) < 2:
        times = trials.groupby("stimulus", sort=False)["session"].nunique()
        raise SettingError(
            f"All {sessions} sessions are linked by stimuli that were shown in several of them "
            f"({int((times > 1).sum())}, the first {times.index[times > 1][0]}), so none can be "
            "held out without its stimuli being trained on; use folds without 'by: session'."
        )
    return groups


def _by_category(shown: list[str], known: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    without = [key for key in shown if not known[key]]
    if without:
        raise SettingError(
            f"{len(without)} of {len(shown)} stimuli have no category, the first {without[0]}; "
            "fill the column category of the table of pictures or captions, or use folds without "
            "'by: category'."
        )
    return {key: known[key][0] for key in shown}


def _sides(
    name: str, shown: Sequence[str], chosen: set[str], rule: str, seed: int | None = None
) -> Split:
    train = tuple(key for key in shown if key not in chosen)
    if not train:
        raise SettingError(
            f"All {len(shown)} stimuli would be in the test; leave some for training."
        )
    return Split(name, train, tuple(key for key in shown if key in chosen), rule, seed)


def _fraction(wanted: Fraction, shown: list[str]) -> Split:
    count = max(1, round(wanted.fraction * len(shown)))
    order = np.random.default_rng(wanted.seed).permutation(sorted(shown))
    rule = f"{wanted.fraction:g} of the stimuli, drawn at random"
    return _sides("random", shown, {str(key) for key in order[:count]}, rule, wanted.seed)


def _repeated(times: Counter[str]) -> Split:
    most = max(times.values())
    chosen = {key for key, number in times.items() if number == most}
    if len(chosen) == len(times):
        raise SettingError(
            f"All {len(times)} stimuli were shown {most} times, so 'test: repeated' selects none "
            "of them; give a list of ids, a fraction as 'test: 0.1', or 'test: leave-one-out'."
        )
    return _sides("repeated", list(times), chosen, f"the stimuli shown {most} times, most of all")


def _listed(path: Path, shown: list[str]) -> Split:
    lines = [line.strip() for line in read_text(path, "list of test stimuli").splitlines()]
    listed = {line for line in lines if line and not line.startswith("#")}
    chosen = listed & set(shown)
    if not chosen:
        raise SettingError(
            f"{path} lists {len(listed)} stimuli of which none was shown; its ids are as "
            f"{min(listed, default='nothing')}, those shown as {shown[0]}."
        )
    rule = (
        f"{len(chosen)} of the {len(listed)} stimuli listed in {path.name}, those that were shown"
    )
    return _sides("listed", shown, chosen, rule)
