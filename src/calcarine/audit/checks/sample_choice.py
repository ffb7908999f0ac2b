"""Check of the choice among samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.binomial import proportion_interval, tail_probability
from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding
from calcarine.evaluation.statistics.significance import holm

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FloatArray, SampleChoice

__all__ = ["BestOfSamples", "similarities"]

_SURE = 0.8
_P = 0.001


@register_check
class BestOfSamples(Check):
    """Samples that were chosen by their similarity to the ground truth.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, SampleChoice, audit
    >>> rng = np.random.default_rng(0)
    >>> ids = [str(i) for i in range(20)]
    >>> truth, other = rng.integers(0, 256, (2, 20, 32, 32, 3), dtype=np.uint8)
    >>> samples = np.stack([other, truth // 2 + other // 2], axis=1)  # the second is always better
    >>> choice = SampleChoice(PictureSet.of(ids, samples), np.ones(20, int))
    >>> shown, truth = PictureSet.of(ids, samples[:, 1]), PictureSet.of(ids, truth)
    >>> inputs = AuditInputs("mine", shown, truth, sample_choice=choice)
    >>> audit(inputs, only=["best-of-samples"]).findings["best-of-samples"].verdict
    'failed'
    """

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
