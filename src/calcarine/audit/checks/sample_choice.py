"""Checks of the choice among samples, and of the dependence on brain activity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.binomial import proportion_interval, tail_probability
from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceImage, EvidenceTable, Finding
from calcarine.evaluation.statistics.significance import holm

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FloatArray, SampleChoice

__all__ = ["BestOfSamples", "IgnoresTheBrain", "similarities"]

_SURE = 0.8
_P = 0.001
_PERMUTATIONS = 1999
_FEWEST = 10
# If stimuli share reconstructions: the p below which brain activity is taken to choose among them,
# and the p above which it is not. In 8 seeds retrieval reached 1e-7, five pictures for all .003.
_RELATED, _UNRELATED = 1e-4, 0.001
# Two-way identification that the data must exclude for the check to fail.
_WORTH = 0.65


@register_check
class BestOfSamples(Check):
    """Samples that were chosen by their similarity to the ground truth."""

    name = "best-of-samples"
    title = "Best of several samples, chosen by the ground truth"
    question = "Was the shown or scored sample chosen by its similarity to the ground truth?"
    evidence_needed = (
        "All samples (--samples DIR with NAME_0, NAME_1, ...), the rule that chose among them, and "
        "the mean score over all samples as well as that of the chosen ones."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        choice = inputs.sample_choice
        if choice is None:
            fact = inputs.facts.get(self.name)
            if fact:
                return Finding("passed", fact)
            return inconclusive(
                f"{inputs.recon.samples} samples of each stimulus are given, and none is marked as "
                "chosen."
                if inputs.recon.samples > 1
                else "The other samples are not given."
            )
        count = choice.samples.samples
        if count < 2:
            return inconclusive("There is only one sample of each stimulus.")
        rows, p_values = [], []
        for name, scores in similarities(inputs, choice).items():
            # If several samples are equally good, choosing one of them is not informative.
            best = np.isclose(scores, scores.max(axis=1, keepdims=True), rtol=1e-9, atol=0)
            decided = best.sum(axis=1) == 1
            n = int(decided.sum())
            hits = int((scores.argmax(axis=1) == choice.chosen)[decided].sum())
            if n:
                p_values.append(tail_probability(hits, n, 1 / count))
                rows.append((name, hits, n, *proportion_interval(hits, n)))
        if not rows:
            return Finding("passed", "All samples of each stimulus are equal.")
        adjusted = holm(p_values)
        worst = int(np.argmin(adjusted))
        name, hits, n, low, high = rows[worst]
        numbers = {
            "stimuli": n,
            "samples of each": count,
            "share expected by chance": 1 / count,
            "share of stimuli with the best sample chosen": hits / n,
            "its 95 % interval": f"{low:.2f} to {high:.2f}",
            "exact p (Holm over measures)": float(adjusted[worst]),
        }
        table = EvidenceTable(
            ("similarity", "best sample chosen", "share", "95 % interval", "p (Holm)"),
            tuple(
                (
                    measure,
                    f"{times} of {of}",
                    f"{times / of:.2f}",
                    f"{a:.2f} to {b:.2f}",
                    f"{p:.2g}",
                )
                for (measure, times, of, a, b), p in zip(rows, adjusted, strict=True)
            ),
        )
        if choice.reapplied is not None:
            return self._check_rule(choice, numbers, table)
        if adjusted[worst] >= _P:
            return Finding(
                "passed",
                "The chosen sample is the most similar to the ground truth about as often as "
                f"expected by chance (1 in {count}).",
                numbers,
                (table,),
            )
        if low >= _SURE:
            return Finding(
                "failed",
                f"The chosen sample is the best of {count} by {name} for {hits} of {n} stimuli: it "
                "was chosen by its similarity to the ground truth.",
                numbers,
                (table,),
            )
        return Finding(
            "suspicious",
            f"The chosen sample is the best by {name} for {hits} of {n} stimuli, more often than "
            "by chance. A rule based on brain activity can have this effect, and so can a rule "
            "based on the ground truth.",
            numbers,
            (table,),
        )

    @staticmethod
    def _check_rule(
        choice: SampleChoice, numbers: dict[str, object], table: EvidenceTable
    ) -> Finding:
        assert choice.reapplied is not None
        same = float(np.mean(choice.reapplied == choice.chosen))
        numbers["share of choices reproduced without the ground truth"] = same
        if same == 1:
            return Finding(
                "passed",
                "Applied again without the ground truth, the stated rule chooses the same samples.",
                numbers,
                (table,),
            )
        return Finding(
            "failed",
            "Applied again without the ground truth, the stated rule chooses other samples for "
            f"{1 - same:.0%} of the stimuli.",
            numbers,
            (table,),
        )


def similarities(inputs: AuditInputs, choice: SampleChoice) -> dict[str, FloatArray]:
    """Return the similarity of every sample to its ground truth.

    Parameters
    ----------
    inputs : AuditInputs
    choice : SampleChoice

    Returns
    -------
    dict of str to float64 array of shape (n, samples)
        By measure; higher is more similar.
    """
    from calcarine.audit.picture_features import layout, pixels, rows
    from calcarine.evaluation.metrics.matrices import GRAY
    from calcarine.evaluation.metrics.structural_similarity import LocalMoments, structure

    names = ("pixel correlation", "layout correlation", "squared error", "SSIM")
    result: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    truth = inputs.truth.small
    gray = GRAY / 255
    moments = LocalMoments.of(truth @ gray, "2d")
    for sample in range(choice.samples.samples):
        made = choice.samples.small_sample(sample)
        for name, make in ((names[0], pixels), (names[1], layout)):
            result[name].append((rows(make(truth)) * rows(make(made))).sum(axis=1))
        result[names[2]].append(-np.square(pixels(truth) - pixels(made)).sum(axis=1))
        result[names[3]].append(structure(moments, LocalMoments.of(made @ gray, "2d")))
    return {name: np.stack(columns, axis=1) for name, columns in result.items()}


@register_check
class IgnoresTheBrain(Check):
    """Reconstructions that fit other stimuli as well as their own."""

    name = "ignores-the-brain"
    title = "Reconstructions that do not depend on brain activity"
    question = "Are reconstructions more similar to their own stimulus than to other stimuli?"
    evidence_needed = (
        "More test stimuli; scores of reconstructions from shuffled brain activity; scores in the "
        "features of a network (calcarine score --protocol mindeye)."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        from calcarine.evaluation.statistics.intervals import bootstrap_interval
        from calcarine.evaluation.statistics.permutation import permutation_test

        rows, spaces = [], dict(inputs.similarity)
        p_values = [
            permutation_test(matrix, _PERMUTATIONS, inputs.seed).p for matrix in spaces.values()
        ]
        if min(holm(p_values)) > 0.05:
            name, matrix = _by_judge(inputs)
            spaces[name] = matrix
            p_values.append(permutation_test(matrix, _PERMUTATIONS, inputs.seed).p)
        adjusted = holm(p_values)
        for (name, matrix), p in zip(spaces.items(), adjusted, strict=True):
            own, other = float(np.diagonal(matrix).mean()), _others(matrix)
            rows.append((name, f"{own:.3f}", f"{other:.3f}", f"{p:.2g}"))
        pairs = _sharing_pairs(inputs)
        numbers = {
            "stimuli": len(inputs),
            "smallest permutation p (Holm)": float(adjusted.min()),
            "stimuli that share a reconstruction with another stimulus": len(pairs),
        }
        table = EvidenceTable(
            ("features", "r with own stimulus", "r with other stimuli", "p (Holm)"), tuple(rows)
        )
        result = (numbers, (table,), _shown(inputs, pairs))
        share = len(pairs) / len(inputs)
        # A few very similar pictures can make the mean significant, so most stimuli must fit.
        chance = _above_chance(inputs)
        related = adjusted.min() <= 0.05 and chance <= _RELATED
        if share > 0.05 and not related:
            return Finding(
                "failed" if share > 0.5 and chance > _UNRELATED else "suspicious",
                f"{len(pairs)} of {len(inputs)} stimuli have exactly the same reconstruction as "
                "another stimulus, and there is no evidence that brain activity chose it.",
                *result,
            )
        if share > 0.05:
            return Finding(
                "passed",
                f"{len(pairs)} of {len(inputs)} stimuli share a reconstruction with another "
                "stimulus, and reconstructions are more similar to their own stimuli than shuffled "
                f"ones (p = {adjusted.min():.2g}): brain activity chooses among few pictures.",
                *result,
            )
        if adjusted.min() <= 0.05:
            return Finding(
                "passed",
                "Reconstructions are more similar to their own stimuli than shuffled ones (p = "
                f"{adjusted.min():.2g}).",
                *result,
            )
        if len(inputs) < _FEWEST:
            return Finding(
                "inconclusive",
                f"There are {len(inputs)} stimuli; at least {_FEWEST} are needed for this test.",
                *result,
            )
        high = bootstrap_interval(inputs.identification, seed=inputs.seed)[1]
        if high > _WORTH:
            return Finding(
                "suspicious",
                f"Reconstructions of {len(inputs)} stimuli are not significantly more similar to "
                "their own stimuli than shuffled ones, but the data do not exclude an effect.",
                *result,
            )
        return Finding(
            "failed",
            f"Reconstructions of {len(inputs)} stimuli are no more similar to their own stimuli "
            "than shuffled ones, in pixels, layout and features of the bundled network.",
            *result,
        )


def _above_chance(inputs: AuditInputs) -> float:
    """Return the exact p of a sign test of identification above one half."""
    n = int((inputs.identification != 0.5).sum())
    return tail_probability(int((inputs.identification > 0.5).sum()), n, 0.5)


def _others(matrix: FloatArray) -> float:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))


def _by_judge(inputs: AuditInputs) -> tuple[str, FloatArray]:
    from calcarine.audit.picture_features import rows
    from calcarine.evaluation.networks.judges import load_judge

    judge = load_judge("scenes")
    truth, made = (
        np.asarray(judge.read(side.small).layers["late"], np.float64).reshape(len(side), -1)
        for side in (inputs.truth, inputs.recon)
    )
    return "late layer of the bundled network", rows(truth) @ rows(made).T


def _sharing_pairs(inputs: AuditInputs) -> list[tuple[int, int]]:
    """Return pairs of stimuli with the same reconstruction but different pictures."""
    first: dict[str, int] = {}
    result = []
    shared = set()
    for row, digest in enumerate(inputs.recon.digests):
        other = first.setdefault(digest, row)
        if other != row and inputs.truth.digests[other] != inputs.truth.digests[row]:
            if other not in shared:
                result.append((other, row))
            result.append((row, other))
            shared |= {row, other}
    return result


def _shown(
    inputs: AuditInputs, pairs: list[tuple[int, int]]
) -> tuple[tuple[EvidenceImage, ...], ...]:
    return tuple(
        (
            inputs.truth.shown(a, "stimulus"),
            inputs.truth.shown(b, "stimulus"),
            EvidenceImage(inputs.recon.full(a), "same reconstruction for both"),
        )
        for a, b in pairs[::2][:3]
    )
