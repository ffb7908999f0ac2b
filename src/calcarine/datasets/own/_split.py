"""The split that a description asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calcarine.datasets.own._description import Fraction
from calcarine.datasets.own._files import find
from calcarine.datasets.splits.split import Split
from calcarine.errors import CalcarineError
from calcarine.stimuli.tables import read_text

__all__ = ["make_split"]


def make_split(root: Path, test: str | float | Fraction, trial_stimuli: Sequence[str]) -> Split:
    """Assign the stimuli that were shown.

    Parameters
    ----------
    root
        Folder of the description.
    test
        ``"repeated"``, a fraction, or a file: a saved split (JSON) or a list
        of ids, one a line; of a list those that were shown are taken.
    trial_stimuli
        Stimulus of each trial.

    Raises
    ------
    CalcarineError
        If a side would be empty or the file is wrong.
    """
    times = Counter(trial_stimuli)
    if isinstance(test, float):
        test = Fraction(fraction=test)
    if isinstance(test, Fraction):
        return _fraction(test, list(times))
    if test == "repeated":
        return _repeated(times)
    path = find(root, test, "test")
    if path.suffix.lower() == ".json":
        return Split.read(path)
    return _listed(path, list(times))


def _sides(
    name: str, shown: Sequence[str], chosen: set[str], rule: str, seed: int | None = None
) -> Split:
    train = tuple(key for key in shown if key not in chosen)
    if not train:
        raise CalcarineError(
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
        raise CalcarineError(
            f"All {len(times)} stimuli were shown {most} times, so 'test: repeated' tells none "
            "apart; give a list of ids, or a fraction as 'test: 0.1'."
        )
    return _sides("repeated", list(times), chosen, f"the stimuli shown {most} times, most of all")


def _listed(path: Path, shown: list[str]) -> Split:
    lines = [line.strip() for line in read_text(path, "list of test stimuli").splitlines()]
    listed = {line for line in lines if line and not line.startswith("#")}
    chosen = listed & set(shown)
    if not chosen:
        raise CalcarineError(
            f"{path} lists {len(listed)} stimuli of which none was shown; its ids are as "
            f"{min(listed, default='nothing')}, those shown as {shown[0]}."
        )
    rule = (
        f"{len(chosen)} of the {len(listed)} stimuli listed in {path.name}, those that were shown"
    )
    return _sides("listed", shown, chosen, rule)
