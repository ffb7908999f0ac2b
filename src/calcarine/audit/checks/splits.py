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

__all__ = ["ChosenStimuli", "RepeatsOverFolds", "SplitLeaks"]

_MOST = 6


@register_check
class SplitLeaks(Check):
    """Stimuli, or their pictures under other ids, on both sides of the split.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, TrialTable, audit
    >>> pictures = PictureSet.of(["b", "c"], np.zeros((2, 8, 8, 3), np.uint8))
    >>> stimulus = np.array(["a", "b", "b", "c"])
    >>> trials = TrialTable(stimulus, np.array(["train", "train", "test", "test"]))
    >>> inputs = AuditInputs("mine", pictures, pictures, trials=trials)
    >>> audit(inputs, only=["split-leaks"]).findings["split-leaks"].sentence
    '1 test stimuli are in training too; the first is b.'
    """

    name = "split-leaks"
    title = "Stimuli on both sides of the split"
    question = "Is any stimulus, or the same picture under another id, in both training and test?"
    evidence_needed = (
        "A table of trials with the columns stimulus and role (train or test), and picture if "
        "several ids show one picture (such as 73k ids and COCO ids of NSD); or training pictures."
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
                    (key, other, "same name in another folder")
                    for key in own
                    if known.find(key) is None and (other := known.elsewhere(key)) is not None
                ]
                counts["training stimuli"] = len(known.exact)
                counts["test stimuli"] = len(own)
        if inputs.train is not None:
            counts["training pictures"] = len(inputs.train)
            counts["test pictures"] = len(inputs)
            leaks += [(own, other, "identical pixels") for own, other in _same_pixels(inputs)]
        if not counts:
            return inconclusive(
                "Neither a table of trials with roles nor the training pictures are given."
            )
        leaks = list(dict.fromkeys(leaks))
        result = {**counts, "stimuli on both sides": len({own for own, _, _ in leaks})}
        if not leaks and not elsewhere:
            return Finding("passed", "No test stimulus is in training.", result)
        table = EvidenceTable(
            ("test stimulus", "training stimulus", "match"), tuple((leaks or elsewhere)[:_MOST])
        )
        if not leaks:
            return Finding(
                "suspicious",
                f"{len(elsewhere)} test stimuli have the same name as a training stimulus in "
                f"another folder; the first is {elsewhere[0][0]}, like {elsewhere[0][1]}.",
                result,
                (table,),
            )
        first, other, how = leaks[0]
        written = f", as {other} ({how})" if "except for" in how else ""
        return Finding(
            "failed",
            f"{result['stimuli on both sides']} test stimuli are in training too; the first "
            f"is {first}{written}.",
            result,
            (table,),
        )


def _test_names(inputs: AuditInputs, trials: TrialTable) -> list[str]:
    """Return the test stimuli of the table and, if they share one training set, of the pictures."""
    test = trials.rows("test")
    named: list[str] = [] if test is None else trials.stimulus[test].tolist()
    if inputs.allowed is None:
        # The table's name of a picture can contain its side, so it comes before the file's name.
        known = Names(named)
        named.extend(key for key in inputs.truth.ids if known.find(key) is None)
    return list(dict.fromkeys(named))


def _shared(own: list[str], known: Names) -> list[tuple[str, str, str]]:
    result = [(key, other) for key in own if (other := known.find(key)) is not None]
    return [(key, other, difference(key, other)) for key, other in result]


def _same_shown(trials: TrialTable, train: NDArray[np.bool_]) -> list[tuple[str, str, str]]:
    """Return test stimuli whose picture, by its name, is in training under another id."""
    test = trials.rows("test")
    if trials.picture is None or test is None:
        return []
    # An empty name is a missing name.
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
    """Repeats of a stimulus in several folds of a cross-validation.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, TrialTable, audit
    >>> pictures = PictureSet.of(["a", "b"], np.zeros((2, 8, 8, 3), np.uint8))
    >>> stimulus, fold = np.array(["a", "b", "a", "b"]), np.array(["1", "1", "2", "2"])
    >>> inputs = AuditInputs("mine", pictures, pictures, trials=TrialTable(stimulus, fold=fold))
    >>> audit(inputs, only=["repeats-over-folds"]).findings["repeats-over-folds"].verdict
    'failed'
    """

    name = "repeats-over-folds"
    title = "Repeats of a stimulus in several folds"
    question = "Are repeats of one stimulus in different folds of a cross-validation?"
    evidence_needed = "A table of trials with the columns stimulus and fold."

    def run(self, inputs: AuditInputs) -> Finding:
        trials = inputs.trials
        if trials is None:
            return inconclusive("No table of trials is given.")
        keys = _shown_keys(trials)
        counts = np.unique(keys, return_counts=True)[1]
        numbers = {
            "trials": len(keys),
            "stimuli": len(counts),
            "stimuli shown more than once": int((counts > 1).sum()),
        }
        if counts.max() == 1:
            return Finding(
                "passed", "Every stimulus was shown once, so there are no repeats.", numbers
            )
        if trials.fold is None:
            return Finding(
                "inconclusive",
                "Stimuli were repeated, but the folds are not given.",
                numbers,
            )
        inside = trials.fold != ""
        if not inside.any():
            return Finding(
                "inconclusive", "Stimuli were repeated, but the column fold is empty.", numbers
            )
        pairs = set(zip(keys[inside].tolist(), trials.fold[inside].tolist(), strict=True))
        owners = [key for key, _ in pairs]
        over = sorted(key for key in set(owners) if owners.count(key) > 1) if pairs else []
        numbers |= {
            "folds": len(set(trials.fold[inside].tolist())),
            "stimuli in several folds": len(over),
        }
        if not over:
            return Finding("passed", "All repeats of each stimulus are in one fold.", numbers)
        if trials.fold_role == "inner":
            return Finding(
                "suspicious",
                f"Repeats of {len(over)} training stimuli are in several of the folds that chose "
                "the penalties, which favours penalties that are too small. The test score is not "
                "affected directly.",
                numbers,
            )
        return Finding(
            "failed",
            f"Repeats of {len(over)} stimuli are in several folds; the first is {over[0]}. Test "
            "stimuli of a fold were in its training.",
            numbers,
        )


def _shown_keys(trials: TrialTable) -> NDArray[np.str_]:
    """Return one key for each trial; ids or names of pictures with the same meaning share a key."""
    meant = canonical(trials.stimulus.tolist())
    keys = [meant[name] for name in trials.stimulus.tolist()]
    if trials.picture is None:
        return np.asarray(keys)
    pictures = canonical(trials.picture.tolist())
    # Stimuli that show the same picture are joined (union-find).
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
    """A score of only some of the test stimuli.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, TrialTable, audit
    >>> pictures = PictureSet.of(["b", "c"], np.zeros((2, 8, 8, 3), np.uint8))
    >>> stimulus = np.array(["a", "b", "c", "d"])  # there is no picture of d
    >>> trials = TrialTable(stimulus, np.array(["train", "test", "test", "test"]))
    >>> inputs = AuditInputs("mine", pictures, pictures, trials=trials)
    >>> audit(inputs, only=["chosen-stimuli"]).findings["chosen-stimuli"].sentence
    '1 of 3 test stimuli in the table have no reconstruction; the first is d. ...'
    """

    name = "chosen-stimuli"
    title = "Score on a part of the test set"
    question = "Is there a reconstruction of every test stimulus?"
    evidence_needed = (
        "A table of trials with the columns stimulus and role that lists all test stimuli, and the "
        "reconstructions of all of them; or the rule that selected these stimuli before scoring."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        trials = inputs.trials
        test = None if trials is None else trials.rows("test")
        if trials is None or test is None:
            return inconclusive("No table of trials with the roles of the stimuli is given.")
        named = list(dict.fromkeys(canonical(trials.stimulus[test].tolist()).values()))
        shown = Names(inputs.truth.ids)
        missing = [name for name in named if shown.find(name) is None]
        numbers = {
            "test stimuli in the table": len(named),
            "reconstructed stimuli": len(inputs),
            "test stimuli without a reconstruction": len(missing),
        }
        if not missing:
            return Finding(
                "passed", "Every test stimulus of the table has a reconstruction.", numbers
            )
        return Finding(
            "suspicious",
            f"{len(missing)} of {len(named)} test stimuli in the table have no reconstruction; the "
            f"first is {missing[0]}. The score covers only a part of the test set, and the rule "
            "that selected this part is not given.",
            numbers,
        )
