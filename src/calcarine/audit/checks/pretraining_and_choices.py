"""Checks of test data in pre-training and in choices."""

from __future__ import annotations

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import Finding
from calcarine.audit.inputs import AuditInputs

__all__ = ["ChoicesOnTest", "PretrainingOnTest"]

# On a flat curve of penalties, rounding can select a neighbouring penalty.
_AGAIN = 0.9


@register_check
class PretrainingOnTest(Check):
    """Test responses in self-supervised pre-training.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, TrialTable, audit
    >>> pictures = PictureSet.of(["b", "c"], np.zeros((2, 8, 8, 3), np.uint8))
    >>> stimulus, role = np.array(["a", "b", "c"]), np.array(["train", "test", "test"])
    >>> trials = TrialTable(stimulus, role, pretrain=np.array([True, True, False]))
    >>> inputs = AuditInputs("mine", pictures, pictures, trials=trials)
    >>> audit(inputs, only=["pretraining-on-test"]).findings["pretraining-on-test"].sentence
    '1 of 2 test responses were used in pre-training.'
    """

    name = "pretraining-on-test"
    title = "Test responses in pre-training"
    question = "Were test responses used in any training, including training without pictures?"
    evidence_needed = (
        "A table of trials with the column pretrain (1 if the response was used in any training, "
        "labelled or not), confirmed by those who trained. Outputs cannot show this."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        trials = inputs.trials
        fact = inputs.facts.get(self.name)
        test = None if trials is None else trials.rows("test")
        if trials is None or trials.pretrain is None or test is None:
            if fact:
                return Finding("passed", fact)
            return inconclusive(
                "It is not given which responses were used in pre-training, and outputs cannot "
                "show it."
            )
        used = int((trials.pretrain & test).sum())
        numbers = {
            "trials in pre-training": int(trials.pretrain.sum()),
            "test trials in pre-training": used,
            "test trials": int(test.sum()),
        }
        if used:
            return Finding(
                "failed",
                f"{used} of {int(test.sum())} test responses were used in pre-training.",
                numbers,
            )
        return Finding(
            "passed", "According to the table, no test response was used in pre-training.", numbers
        )


@register_check
class ChoicesOnTest(Check):
    """Penalties, voxels or repeats that were chosen by their test score.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, DecoderChoices, PictureSet, audit
    >>> pictures = PictureSet.of(["a", "b"], np.zeros((2, 8, 8, 3), np.uint8))
    >>> choices = [DecoderChoices("penalties of z", n=100, same=40)]
    >>> inputs = AuditInputs("mine", pictures, pictures, decoder_choices=choices)
    >>> audit(inputs, only=["choices-on-test"]).findings["choices-on-test"].sentence
    'Repeated without the test set, these choices differ: 60 of 100 penalties of z.'
    """

    name = "choices-on-test"
    title = "Choices made on the test set"
    question = "Were penalties, voxels or repeats chosen by their test score?"
    evidence_needed = (
        "The code that fitted the decoder, run again without test responses (for a calcarine run, "
        "the audit does this). Outputs cannot show this."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if not inputs.decoder_choices:
            return inconclusive(
                "It is not given how penalties, voxels and repeats were chosen, and outputs cannot "
                "show it."
            )
        numbers = {
            f"{each.name} that are reproduced without the test set": f"{each.same} of {each.n}"
            for each in inputs.decoder_choices
        }
        other = [each for each in inputs.decoder_choices if each.same < _AGAIN * each.n]
        if other:
            sentences = ", ".join(f"{each.n - each.same} of {each.n} {each.name}" for each in other)
            return Finding(
                "failed",
                f"Repeated without the test set, these choices differ: {sentences}.",
                numbers,
            )
        made = "Repeated without the test set, the choices are the same."
        if not any(each.name.startswith("penalties") for each in inputs.decoder_choices):
            made = (
                "Repeated without the test set, voxels and repeats are the same. Penalties and "
                "weights were not checked, because the fit is too large to repeat here."
            )
        return Finding("passed", made, numbers)
