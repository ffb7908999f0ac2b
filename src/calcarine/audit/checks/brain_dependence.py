"""Check of whether reconstructions depend on brain activity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calcarine.audit.binomial import tail_probability
from calcarine.audit.check import Check, register_check
from calcarine.audit.findings import EvidenceImage, EvidenceTable, Finding
from calcarine.evaluation.statistics.significance import holm

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FloatArray

__all__ = ["IgnoresTheBrain"]

_PERMUTATIONS = 1999
_FEWEST = 10
# If stimuli share reconstructions: the p below which brain activity is taken to choose among them,
# and the p above which it is not. In 8 seeds retrieval reached 1e-7, five pictures for all .003.
_RELATED, _UNRELATED = 1e-4, 0.001
# Two-way identification that the data must exclude for the check to fail.
_WORTH = 0.65


@register_check
class IgnoresTheBrain(Check):
    """Reconstructions that fit other stimuli as well as their own.

    Examples
    --------
    >>> import numpy as np
    >>> import calcarine as ca
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(80)).images()
    >>> ids = [str(i) for i in range(40)]
    >>> recon, truth = PictureSet.of(ids, pictures[:40]), PictureSet.of(ids, pictures[40:])
    >>> result = audit(AuditInputs("other scenes", recon, truth), only=["ignores-the-brain"])
    >>> result.findings["ignores-the-brain"].verdict
    'failed'
    """

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
            f"than shuffled ones, in pixels, layout and features of the judge {inputs.judge}.",
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

    judge = load_judge(inputs.judge, "cpu")
    truth, made = (
        np.asarray(judge.read(side.small).layers["late"], np.float64).reshape(len(side), -1)
        for side in (inputs.truth, inputs.recon)
    )
    return f"late layer of the judge {judge.name}", rows(truth) @ rows(made).T


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
