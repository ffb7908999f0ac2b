"""Check of near-duplicates between training and test pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.binomial import proportion_interval
from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding
from calcarine.audit.inputs import AuditInputs

__all__ = ["NearDuplicates"]

_MOST = 6


@register_check
class NearDuplicates(Check):
    """Test pictures that are the same, or nearly the same, as training pictures.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(15)).images()
    >>> train = PictureSet.of([f"train{i}" for i in range(10)], pictures[:10])
    >>> test = PictureSet.of([f"test{i}" for i in range(6)], pictures[9:])  # one is in training
    >>> inputs = AuditInputs("mine", test, test, train)
    >>> finding = audit(inputs, only=["near-duplicates"]).findings["near-duplicates"]
    >>> finding.numbers["test pictures in training"]
    1
    """

    name = "near-duplicates"
    title = "Near-duplicates between training and test"
    question = "Does training contain test pictures, or pictures that are nearly the same?"
    evidence_needed = (
        "The training pictures of all subjects that the model was trained on (--train DIR)."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if inputs.train is None:
            return inconclusive("The training pictures are not given.")
        hits, undecided = _with_changed(inputs, _alike(inputs))
        best = inputs.nearest_train(inputs.truth)[0]
        among = _among_themselves(inputs)
        p = _drawn_nearer(best, among)
        numbers = {
            "test pictures": len(inputs),
            "training pictures": len(inputs.train),
            "test pictures in training": len(hits),
            "correlation with the nearest training picture, median": float(np.median(best)),
            "the same between training pictures, median": float(np.median(among)),
            "p (one-sided) that test pictures are closer to training": p,
        }
        shown = tuple(
            (inputs.truth.shown(row, "test"), inputs.train.shown(column, "training"))
            for row, column, _ in hits[:_MOST]
        )
        if hits:
            low, high = proportion_interval(len(hits), len(inputs))
            table = EvidenceTable(
                ("test picture", "training picture", "match"),
                tuple(
                    (
                        inputs.truth.ids[row],
                        inputs.train.ids[column],
                        how.removeprefix(", ") or "same picture, with small changes at most",
                    )
                    for row, column, how in hits[:_MOST]
                ),
            )
            return Finding(
                "failed",
                f"{len(hits)} of {len(inputs)} test pictures (95 % interval {low:.0%} to "
                f"{high:.0%}) are in training; the first is "
                f"{inputs.truth.ids[hits[0][0]]}{hits[0][2]}.",
                numbers,
                (table,),
                pictures=shown,
            )
        unsure = ""
        if undecided:
            unsure = (
                f" (Copies that are {' or '.join(undecided)} are inconclusive here, because many "
                "training pictures are such copies of each other.)"
            )
        if p < 0.001:
            return Finding(
                "suspicious",
                "No test picture is in training, but test pictures are closer to training pictures "
                "than training pictures are to each other. Frames of one film or crops of one "
                "photograph can have this effect."
                f"{unsure}",
                numbers,
            )
        return Finding(
            "passed",
            "No test picture is in training, and test pictures are no closer to training than "
            "training pictures are to each other. (This check cannot detect a second photograph of "
            f"the same object.){unsure}",
            numbers,
        )


def _with_changed(
    inputs: AuditInputs, hits: list[tuple[int, int]]
) -> tuple[list[tuple[int, int, str]], tuple[str, ...]]:
    """Add rotated, recoloured or cropped copies; also return the changes that are undecided."""
    from calcarine.splits.transformed_copies import same_pictures

    assert inputs.train is not None
    result = {row: (row, column, "") for row, column in hits}
    matches = same_pictures(inputs.truth.small, inputs.train.small, inputs.allowed, inputs.seed)
    for each in matches.pairs:
        result.setdefault(each.row, (each.row, each.column, f", {each.how}"))
    return [result[row] for row in sorted(result)], matches.undecided


def _alike(inputs: AuditInputs) -> list[tuple[int, int]]:
    """Return rows of test pictures and columns of the same pictures in training."""
    from calcarine.brain import Split
    from calcarine.splits.duplicate_search import find_duplicates
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
        table = find_duplicates(split, both).table
        flagged = (table["flag"] == "same picture").to_numpy()
        hits += [
            (members[k], place[str(table["hash_nearest"][k])]) for k in np.flatnonzero(flagged)
        ]
    return sorted(hits)


def _columns(inputs: AuditInputs, row: int) -> list[int]:
    assert inputs.allowed is not None
    return [int(column) for column in np.flatnonzero(inputs.allowed[row])]


def _among_themselves(inputs: AuditInputs, most: int = 500) -> NDArray[np.float64]:
    """Return the correlation of training pictures with the most similar other training picture."""
    from calcarine.audit.picture_features import pixels, rows

    assert inputs.train is not None
    rng = np.random.default_rng(inputs.seed)
    count = len(inputs.train)
    chosen = rng.permutation(count)[:most]
    own = rows(pixels(inputs.train.small[chosen]))
    best = np.full(len(chosen), -1.0)
    for start in range(0, count, 2048):
        part = np.arange(start, min(count, start + 2048))
        result = own @ rows(pixels(inputs.train.small[part])).T
        result[chosen[:, None] == part[None]] = -1.0
        best = np.maximum(best, result.max(axis=1))
    return best


def _drawn_nearer(test: NDArray[np.float64], among: NDArray[np.float64]) -> float:
    from scipy.stats import mannwhitneyu

    if len(among) < 2:
        return 1.0
    return float(mannwhitneyu(test, among, alternative="greater").pvalue)
