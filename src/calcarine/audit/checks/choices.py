"""Checks of test data in pre-training and in choices."""

from __future__ import annotations

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import Finding
from calcarine.audit.inputs import AuditInputs

# Rounding may choose a neighbour on a flat curve of penalties.
_AGAIN = 0.9


@register_check
class PretrainingOnTest(Check):
    """Test responses in training without targets."""

    name = "pretraining-on-test"
    title = "Test responses in pre-training"
    question = "Did test responses reach any training, if only one that needs no pictures?"
    evidence_needed = (
        "Outputs cannot show it. A table of trials with a column pretrain (1 where the response "
        "was used in any training, labelled or not), signed by those who trained."
    )

    def run(self, inputs: AuditInputs) -> Finding:
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
    evidence_needed = (
        "Outputs cannot show it. The code that fitted the decoder, run again without test "
        "responses; of a run of calcarine the audit does that."
    )

    def run(self, inputs: AuditInputs) -> Finding:
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
            sentences = ", ".join(f"{each.n - each.same} of {each.n} {each.name}" for each in other)
            return Finding(
                "failed",
                f"Made again without the test, other choices come out: {sentences}.",
                numbers,
            )
        made = "Made again without the test, the same choices come out."
        if not any(each.name.startswith("penalties") for each in inputs.selections):
            made = (
                "Voxels and repeats come out again without the test. Penalties and weights were "
                "not made again: the fit is too large to be repeated here."
            )
        return Finding("passed", made, numbers)
