"""What is said of the stimuli that validate Vis-Dec and do not train it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calcarine.experiment.stage import PHASES

if TYPE_CHECKING:
    from calcarine.brain import Split
    from calcarine.experiment.workspace import Workspace

__all__ = ["n_training_stimuli", "training_trials", "validation_notes"]


def n_training_stimuli(work: Workspace, split: Split) -> int:
    """Return the number of stimuli of a split that train Vis-Dec."""
    return len(_training_stimuli(work, split))


def training_trials(work: Workspace) -> dict[str, int]:
    """Return the number of training trials of each method, where methods differ.

    Parameters
    ----------
    work : Workspace

    Returns
    -------
    dict of str to int
        By method, the mean over splits; empty if all methods train on the same trials.
    """
    config = work.config
    if not (config.visdec.enabled and config.visdec.validation and config.ridge.enabled):
        return {}
    counts = {
        "vis-dec": [len(work.dataset.trials_of(_training_stimuli(work, s))) for s in work.splits],
        "other methods": [len(work.dataset.trials_of(split.train)) for split in work.splits],
    }
    return {name: int(np.mean(numbers)) for name, numbers in counts.items()}


def validation_notes(work: Workspace) -> list[str]:
    """Return a note on the stimuli that are held out of the training of Vis-Dec, if any are.

    Parameters
    ----------
    work : Workspace

    Returns
    -------
    list of str
    """
    config = work.config
    if not config.visdec.validation:
        return []
    trained = int(np.mean([n_training_stimuli(work, split) for split in work.splits]))
    total = int(np.mean([len(split.train) for split in work.splits]))
    others = f"The other decoders trained on all {total}." if config.ridge.enabled else ""
    note = (
        f"Vis-Dec trained on {trained} of {total} training stimuli. The other {total - trained} "
        f"(visdec.validation) are held out as validation stimuli, {_use(work)}. {others}"
    )
    return [note.rstrip()]


def _use(work: Workspace) -> str:
    """Say what the validation stimuli are used for."""
    visdec = work.config.visdec
    trained = [name for name in PHASES if visdec.runs(name) and getattr(visdec, name).enabled]
    settings = {name: getattr(visdec, name).training for name in trained}
    choosing = [name for name, training in settings.items() if training.chooses]
    if choosing:
        return f"whose loss chose weights or length of the training in {' and '.join(choosing)}"
    if any(training.validate_every for training in settings.values()):
        return "whose loss was recorded and chose nothing"
    return "and no setting uses them (select, patience, validate_every)"


def _training_stimuli(work: Workspace, split: Split) -> list[str]:
    from calcarine.training import split_validation

    config = work.config.visdec
    rows, _ = split_validation(split.train, config.validation, config.seed)
    return [split.train[row] for row in rows]
