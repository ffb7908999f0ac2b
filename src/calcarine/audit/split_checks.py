"""Checks of who was on which side: leaks, repeats over folds, near-duplicates, pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding
from calcarine.audit.intervals import share
from calcarine.audit.stimulus_names import Names, canonical, difference

if TYPE_CHECKING:
    from calcarine.audit.audit_inputs import AuditInputs, TrialTable

_MOST = 6
# Rounding may choose a neighbour on a flat curve of penalties.
_AGAIN = 0.9


@register_check
class SplitLeaks(Check):
    """A stimulus, or its picture under another id, on both sides."""

    name = "split-leaks"
    title = "Stimuli on both sides of the split"
    question = "Is any stimulus, or the same picture under another id, in training and in test?"
    settle = (
        "A table of trials with the columns stimulus and role (train or test), and picture where "
        "several ids show one picture (as NSD's 73k ids and COCO's); or the training pictures."
    )

    def look(self, inputs: AuditInputs) -> Finding:
        leaks: list[tuple[str, str, str]] = []
        elsewhere: list[tuple[str, str, str]] = []
        looked: dict[str, int] = {}
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
                looked["training stimuli"] = len(known.exact)
                looked["test stimuli"] = len(own)
        if inputs.train is not None:
            looked["training pictures"] = len(inputs.train)
            looked["test pictures"] = len(inputs)
            leaks += [(own, other, "the very same pixels") for own, other in _same_pixels(inputs)]
        if not looked:
            return inconclusive(
                "Neither a table of trials with roles nor the training pictures is here."
            )
        leaks = list(dict.fromkeys(leaks))
        found = {**looked, "stimuli on both sides": len({own for own, _, _ in leaks})}
        if not leaks and not elsewhere:
            return Finding("passed", "No stimulus of the test is in training.", found)
        table = EvidenceTable(
            ("in test", "in training", "how"), tuple((leaks or elsewhere)[:_MOST])
        )
        if not leaks:
            return Finding(
                "suspicious",
                f"{len(elsewhere)} test stimuli have the name of a training stimulus in another "
                f"folder, the first {elsewhere[0][0]} that of {elsewhere[0][1]}.",
                found,
                (table,),
            )
        first, other, how = leaks[0]
        written = f", as {other}: {how}" if "but for" in how else ""
        return Finding(
            "failed",
            f"{found['stimuli on both sides']} test stimuli are in training too, the first "
            f"{first}{written}.",
            found,
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
    found = [(key, other) for key in own if (other := known.find(key)) is not None]
    return [(key, other, difference(key, other)) for key, other in found]


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
    found = [
        (key, picture, other)
        for picture, key in dict.fromkeys(pairs)
        if (other := known.find(picture)) is not None
    ]
    return [
        (key, shown[other], f"both show picture {picture}")
        for key, picture, other in found
        if key != shown[other]
    ]


def _same_pixels(inputs: AuditInputs) -> list[tuple[str, str]]:
    assert inputs.train is not None
    places: dict[str, list[int]] = {}
    for column, digest in enumerate(inputs.train.digests):
        places.setdefault(digest, []).append(column)
    found = []
    for row, digest in enumerate(inputs.truth.digests):
        for column in places.get(digest, ()):
            if inputs.allowed is None or inputs.allowed[row, column]:
                found.append((inputs.truth.ids[row], inputs.train.ids[column]))
                break
    return found


@register_check
class RepeatsOverFolds(Check):
    """Repeats of one stimulus in several folds."""

    name = "repeats-over-folds"
    title = "Repeats of a stimulus over folds"
    question = "Do repeats of one stimulus lie in different folds of a cross-validation?"
    settle = "A table of trials with the columns stimulus and fold."

    def look(self, inputs: AuditInputs) -> Finding:
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
    settle = (
        "A table of trials with the columns stimulus and role that names all test stimuli, and the "
        "reconstructions of all of them; or who chose these, and by what, before any was scored."
    )

    def look(self, inputs: AuditInputs) -> Finding:
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


@register_check
class NearDuplicates(Check):
    """Test pictures that training has nearly seen."""

    name = "near-duplicates"
    title = "Near-duplicates between training and test"
    question = "Does training hold pictures that are, or nearly are, those of the test?"
    settle = "The training pictures of all subjects the model was trained on (--train DIR)."

    def look(self, inputs: AuditInputs) -> Finding:
        if inputs.train is None:
            return inconclusive("The training pictures are not here.")
        hits, undecided = _with_changed(inputs, _alike(inputs))
        best = inputs.nearest_train(inputs.truth)[0]
        among = _among_themselves(inputs)
        p = _drawn_nearer(best, among)
        numbers = {
            "test pictures": len(inputs),
            "training pictures": len(inputs.train),
            "test pictures that training holds": len(hits),
            "correlation with the nearest training picture, median": float(np.median(best)),
            "the same among training pictures, median": float(np.median(among)),
            "p that test pictures lie no nearer than training pictures do": p,
        }
        shown = tuple(
            (inputs.truth.shown(row, "test"), inputs.train.shown(column, "training"))
            for row, column, _ in hits[:_MOST]
        )
        if hits:
            low, high = share(len(hits), len(inputs))
            table = EvidenceTable(
                ("in test", "in training", "how"),
                tuple(
                    (
                        inputs.truth.ids[row],
                        inputs.train.ids[column],
                        how.removeprefix(", ") or "with small changes at most",
                    )
                    for row, column, how in hits[:_MOST]
                ),
            )
            return Finding(
                "failed",
                f"{len(hits)} of {len(inputs)} test pictures ({low:.0%} to {high:.0%} of such "
                f"pictures) are in training as the same picture, the first "
                f"{inputs.truth.ids[hits[0][0]]}{hits[0][2]}.",
                numbers,
                (table,),
                pictures=shown,
            )
        unsure = ""
        if undecided:
            unsure = (
                f" (Test pictures that are there {' or '.join(undecided)} inconclusive: many "
                "training pictures are such copies of each other.)"
            )
        if p < 0.001:
            return Finding(
                "suspicious",
                "No test picture is in training, but they lie nearer to training pictures than "
                "these lie to each other, as frames of a film or crops of one photograph would."
                f"{unsure}",
                numbers,
            )
        return Finding(
            "passed",
            "No test picture is in training, and they are no nearer to it than training pictures "
            f"are to each other. (The same object photographed again is not seen.){unsure}",
            numbers,
        )


def _with_changed(
    inputs: AuditInputs, hits: list[tuple[int, int]]
) -> tuple[list[tuple[int, int, str]], tuple[str, ...]]:
    """And those that are there turned, in other colours or cropped; and what cannot be told."""
    from calcarine.splits.transformed_copies import same_pictures

    assert inputs.train is not None
    found = {row: (row, column, "") for row, column in hits}
    matches = same_pictures(inputs.truth.small, inputs.train.small, inputs.allowed, inputs.seed)
    for each in matches.pairs:
        found.setdefault(each.row, (each.row, each.column, f", {each.how}"))
    return [found[row] for row in sorted(found)], matches.undecided


def _alike(inputs: AuditInputs) -> list[tuple[int, int]]:
    """Rows of test pictures, and columns of the same pictures in training."""
    from calcarine.brain import Split
    from calcarine.splits.duplicate_audit import audit_split
    from calcarine.stimuli import StimulusSet

    assert inputs.train is not None
    test, train = inputs.truth.stimuli("test/"), inputs.train.stimuli("train/")
    both = StimulusSet.joined([test, train])
    place = {key: column for column, key in enumerate(train.ids)}
    groups: dict[bytes, list[int]] = {}
    for row in range(len(test)):
        key = b"" if inputs.allowed is None else inputs.allowed[row].tobytes()
        groups.setdefault(key, []).append(row)
    hits = []
    for members in groups.values():
        columns = range(len(train)) if inputs.allowed is None else _columns(inputs, members[0])
        split = Split(
            "audit", tuple(train.ids[c] for c in columns), tuple(test.ids[r] for r in members), ""
        )
        table = audit_split(split, both).table
        flagged = (table["flag"] == "same picture").to_numpy()
        hits += [
            (members[k], place[str(table["hash_nearest"][k])]) for k in np.flatnonzero(flagged)
        ]
    return sorted(hits)


def _columns(inputs: AuditInputs, row: int) -> list[int]:
    assert inputs.allowed is not None
    return [int(column) for column in np.flatnonzero(inputs.allowed[row])]


def _among_themselves(inputs: AuditInputs, most: int = 500) -> NDArray[np.float64]:
    """Correlation of training pictures with the most alike of the others."""
    from calcarine.audit.views import pixels, rows

    assert inputs.train is not None
    rng = np.random.default_rng(inputs.seed)
    count = len(inputs.train)
    chosen = rng.permutation(count)[:most]
    own = rows(pixels(inputs.train.small[chosen]))
    best = np.full(len(chosen), -1.0)
    for start in range(0, count, 2048):
        part = np.arange(start, min(count, start + 2048))
        found = own @ rows(pixels(inputs.train.small[part])).T
        found[chosen[:, None] == part[None]] = -1.0
        best = np.maximum(best, found.max(axis=1))
    return best


def _drawn_nearer(test: NDArray[np.float64], among: NDArray[np.float64]) -> float:
    from scipy.stats import mannwhitneyu

    if len(among) < 2:
        return 1.0
    return float(mannwhitneyu(test, among, alternative="greater").pvalue)


@register_check
class PretrainingOnTest(Check):
    """Test responses in training without targets."""

    name = "pretraining-on-test"
    title = "Test responses in pre-training"
    question = "Did test responses reach any training, if only one that needs no pictures?"
    settle = (
        "Outputs cannot show it. A table of trials with a column pretrain (1 where the response "
        "was used in any training, labelled or not), signed by those who trained."
    )

    def look(self, inputs: AuditInputs) -> Finding:
        trials = inputs.trials
        fact = inputs.facts.get(self.name)
        test = None if trials is None else trials.rows("test")
        if trials is None or trials.pretrain is None or test is None:
            if fact:
                return Finding("passed", fact)
            return inconclusive(
                "Nothing says which responses a pre-training had, and no output could tell."
            )
        used = int((trials.pretrain & test).sum())
        numbers = {
            "trials in pre-training": int(trials.pretrain.sum()),
            "of them test trials": used,
            "test trials": int(test.sum()),
        }
        if used:
            return Finding(
                "failed",
                f"{used} of {int(test.sum())} test responses were in pre-training.",
                numbers,
            )
        return Finding(
            "passed", "By the table given, no test response was in pre-training.", numbers
        )


@register_check
class ChoicesOnTest(Check):
    """Penalties, voxels or repeats that were chosen by how well the test comes out."""

    name = "choices-on-test"
    title = "Choices made by the test score"
    question = "Were penalties, voxels or repeats chosen by how well the test comes out?"
    settle = (
        "Outputs cannot show it. The code that fitted the decoder, run again without test "
        "responses; of a run of calcarine the audit does that."
    )

    def look(self, inputs: AuditInputs) -> Finding:
        if not inputs.selections:
            return inconclusive(
                "Nothing says how penalties, voxels and repeats were chosen, and no output shows "
                "it."
            )
        numbers = {
            f"{each.name} that come out again without the test": f"{each.same} of {each.n}"
            for each in inputs.selections
        }
        other = [each for each in inputs.selections if each.same < _AGAIN * each.n]
        if other:
            said = ", ".join(f"{each.n - each.same} of {each.n} {each.name}" for each in other)
            return Finding(
                "failed",
                f"Made again without the test, other choices come out: {said}.",
                numbers,
            )
        made = "Made again without the test, the same choices come out."
        if not any(each.name.startswith("penalties") for each in inputs.selections):
            made = (
                "Voxels and repeats come out again without the test. Penalties and weights were "
                "not made again: the fit is too large to be repeated here."
            )
        return Finding("passed", made, numbers)
