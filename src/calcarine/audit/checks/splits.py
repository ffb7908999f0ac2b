"""Checks of the split: leaks, repeats over folds, missing test stimuli."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding
from calcarine.audit.stimulus_names import Names, canonical, difference

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, TrialTable

_MOST = 6


@register_check
class SplitLeaks(Check):
    """A stimulus, or its picture under another id, on both sides."""

    name = "split-leaks"
    title = "Stimuli on both sides of the split"
    question = "Is any stimulus, or the same picture under another id, in training and in test?"
    evidence_needed = (
        "A table of trials with the columns stimulus and role (train or test), and picture where "
        "several ids show one picture (as NSD's 73k ids and COCO's); or the training pictures."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        leaks: list[tuple[str, str, str]] = []
        elsewhere: list[tuple[str, str, str]] = []
        counts: dict[str, int] = {}
        trials = inputs.trials
        if trials is not None and (train := trials.rows("train")) is not None:
            own = _test_names(inputs, trials)
            if own:
                known = Names(trials.stimulus[train].tolist())
                leaks += _shared(own, known) + _same_shown(trials, train)
                elsewhere = [
                    (key, other, "the same name in another folder")
                    for key in own
                    if known.find(key) is None and (other := known.elsewhere(key)) is not None
                ]
                counts["training stimuli"] = len(known.exact)
                counts["test stimuli"] = len(own)
        if inputs.train is not None:
            counts["training pictures"] = len(inputs.train)
            counts["test pictures"] = len(inputs)
            leaks += [(own, other, "the very same pixels") for own, other in _same_pixels(inputs)]
        if not counts:
            return inconclusive(
                "Neither a table of trials with roles nor the training pictures is here."
            )
        leaks = list(dict.fromkeys(leaks))
        result = {**counts, "stimuli on both sides": len({own for own, _, _ in leaks})}
        if not leaks and not elsewhere:
            return Finding("passed", "No stimulus of the test is in training.", result)
        table = EvidenceTable(
            ("in test", "in training", "how"), tuple((leaks or elsewhere)[:_MOST])
        )
        if not leaks:
            return Finding(
                "suspicious",
                f"{len(elsewhere)} test stimuli have the name of a training stimulus in another "
                f"folder, the first {elsewhere[0][0]} that of {elsewhere[0][1]}.",
                result,
                (table,),
            )
        first, other, how = leaks[0]
        written = f", as {other}: {how}" if "but for" in how else ""
        return Finding(
            "failed",
            f"{result['stimuli on both sides']} test stimuli are in training too, the first "
            f"{first}{written}.",
            result,
            (table,),
        )


def _test_names(inputs: AuditInputs, trials: TrialTable) -> list[str]:
    """Test stimuli of the table and, unless folds differ in what they train on, of the pictures."""
    test = trials.rows("test")
    named: list[str] = [] if test is None else trials.stimulus[test].tolist()
    if inputs.allowed is None:
        # The table's own name of a picture, which may say its side, goes before that of its file.
        known = Names(named)
        named.extend(key for key in inputs.truth.ids if known.find(key) is None)
    return list(dict.fromkeys(named))


def _shared(own: list[str], known: Names) -> list[tuple[str, str, str]]:
    result = [(key, other) for key in own if (other := known.find(key)) is not None]
    return [(key, other, difference(key, other)) for key, other in result]


def _same_shown(trials: TrialTable, train: NDArray[np.bool_]) -> list[tuple[str, str, str]]:
    """Test stimuli whose picture, by its name, training shows under another id."""
    test = trials.rows("test")
    if trials.picture is None or test is None:
        return []
    # The empty name is no name.
    train, test = (side & (np.char.strip(trials.picture) != "") for side in (train, test))
    shown = dict(zip(trials.picture[train].tolist(), trials.stimulus[train].tolist(), strict=True))
    known = Names(shown)
    pairs = zip(trials.picture[test].tolist(), trials.stimulus[test].tolist(), strict=True)
    result = [
        (key, picture, other)
        for picture, key in dict.fromkeys(pairs)
        if (other := known.find(picture)) is not None
    ]
    return [
        (key, shown[other], f"both show picture {picture}")
        for key, picture, other in result
        if key != shown[other]
    ]


def _same_pixels(inputs: AuditInputs) -> list[tuple[str, str]]:
    assert inputs.train is not None
    places: dict[str, list[int]] = {}
    for column, digest in enumerate(inputs.train.digests):
        places.setdefault(digest, []).append(column)
    result = []
    for row, digest in enumerate(inputs.truth.digests):
        for column in places.get(digest, ()):
            if inputs.allowed is None or inputs.allowed[row, column]:
                result.append((inputs.truth.ids[row], inputs.train.ids[column]))
                break
    return result


@register_check
class RepeatsOverFolds(Check):
    """Repeats of one stimulus in several folds."""

    name = "repeats-over-folds"
    title = "Repeats of a stimulus over folds"
    question = "Do repeats of one stimulus lie in different folds of a cross-validation?"
    evidence_needed = "A table of trials with the columns stimulus and fold."

    def run(self, inputs: AuditInputs) -> Finding:
        trials = inputs.trials
        if trials is None:
            return inconclusive("There is no table of trials.")
        keys = _shown_keys(trials)
        counts = np.unique(keys, return_counts=True)[1]
        numbers = {
            "trials": len(keys),
            "stimuli": len(counts),
            "stimuli shown more than once": int((counts > 1).sum()),
        }
        if counts.max() == 1:
            return Finding(
                "passed", "Every stimulus was shown once, so no repeats can straddle.", numbers
            )
        if trials.fold is None:
            return Finding(
                "inconclusive",
                "Stimuli were repeated, and nobody says what the folds were.",
                numbers,
            )
        inside = trials.fold != ""
        if not inside.any():
            return Finding(
                "inconclusive", "Stimuli were repeated, and the column fold is empty.", numbers
            )
        pairs = set(zip(keys[inside].tolist(), trials.fold[inside].tolist(), strict=True))
        owners = [key for key, _ in pairs]
        over = sorted(key for key in set(owners) if owners.count(key) > 1) if pairs else []
        numbers |= {
            "folds": len(set(trials.fold[inside].tolist())),
            "stimuli in several folds": len(over),
        }
        if not over:
            return Finding("passed", "All repeats of a stimulus lie in one fold.", numbers)
        if trials.fold_role == "inner":
            return Finding(
                "suspicious",
                f"Repeats of {len(over)} training stimuli straddle the folds that chose the "
                "penalties: too small penalties look good. The test score itself is not touched.",
                numbers,
            )
        return Finding(
            "failed",
            f"Repeats of {len(over)} stimuli lie in several folds, the first {over[0]}: what is "
            "tested was trained on.",
            numbers,
        )


def _shown_keys(trials: TrialTable) -> NDArray[np.str_]:
    """What each trial showed: one key where ids, or names of pictures, mean the same."""
    meant = canonical(trials.stimulus.tolist())
    keys = [meant[name] for name in trials.stimulus.tolist()]
    if trials.picture is None:
        return np.asarray(keys)
    pictures = canonical(trials.picture.tolist())
    # Stimuli that show one picture are one, and so are all that either of them stands for.
    parent = {key: key for key in keys}

    def root(key: str) -> str:
        while parent[key] != key:
            key = parent[key]
        return key

    first: dict[str, str] = {}
    for key, name in zip(keys, trials.picture.tolist(), strict=True):
        if name.strip():
            one = root(first.setdefault(pictures[name], key))
            parent[root(key)] = one
    return np.asarray([root(key) for key in keys])


@register_check
class ChosenStimuli(Check):
    """A score of some test stimuli for that of all."""

    name = "chosen-stimuli"
    title = "Score on a chosen part of the test set"
    question = "Is there a reconstruction of every test stimulus?"
    evidence_needed = (
        "A table of trials with the columns stimulus and role that names all test stimuli, and the "
        "reconstructions of all of them; or who chose these, and by what, before any was scored."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        trials = inputs.trials
        test = None if trials is None else trials.rows("test")
        if trials is None or test is None:
            return inconclusive("No table of trials says which stimuli the test set has.")
        named = list(dict.fromkeys(canonical(trials.stimulus[test].tolist()).values()))
        shown = Names(inputs.truth.ids)
        missing = [name for name in named if shown.find(name) is None]
        numbers = {
            "test stimuli in the table": len(named),
            "reconstructed stimuli": len(inputs),
            "test stimuli without a reconstruction": len(missing),
        }
        if not missing:
            return Finding("passed", "Every test stimulus of the table is here.", numbers)
        return Finding(
            "suspicious",
            f"{len(missing)} of {len(named)} test stimuli that the table names have no "
            f"reconstruction here, the first {missing[0]}: the score is that of a part of the test "
            "set, and nothing says who chose it.",
            numbers,
        )
