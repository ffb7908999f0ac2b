"""The terms that the report of a run uses, explained before its first number."""

from __future__ import annotations

from collections.abc import Sequence

from calcarine.evaluation.networks.judge_names import JUDGE_PICTURES
from calcarine.reporting.run_records import RunRecord, Score
from calcarine.reporting.score_tables import FIXED_IMAGE, FIXED_RECONSTRUCTION, names_of_role

__all__ = ["Term", "judge_names", "judges_text", "report_terms"]

Term = tuple[str, str]

_METHODS = {
    "z": "reconstruction from the decoded image latent alone. A latent is the small array from "
    "which the generator's autoencoder draws a picture",
    "z, empty text": "the decoded image latent, with noise added and removed under empty text",
    "c": "reconstruction from the decoded text conditioning alone, starting from noise. The "
    "conditioning is the encoded caption that tells the generator what to draw",
    "z_c": "reconstruction from both: the decoded image latent, with noise added and removed under "
    "the decoded text conditioning",
    "vis-dec": "generated with the conditioning of the pre-trained fMRI encoder",
    "direct ridge": "pixels decoded by ridge regression, without a generator",
    "z_c, chosen by the brain": "of the samples of z_c, the one that agrees best with the decoded "
    "latent; the ground truth is not used",
}
_CEILINGS = {
    "ceiling z": "the true image latent, which shows the limit of the autoencoder",
    "ceiling c": "the true text conditioning, which shows the limit of the captions",
    "ceiling z_c": "both through the same generator",
    "ceiling blurred truth": "the blurred stimulus",
}
_FLOORS = {
    "training mean": "the mean training picture",
    "random training image": "a random training picture",
    "nearest training image": "the training picture nearest to what was decoded",
}
_SHUFFLED = "the reconstructions of other stimuli (shuffled brain)"


def report_terms(record: RunRecord) -> list[Term]:
    """Return the terms that the report of a run uses, each with a short explanation.

    Parameters
    ----------
    record : RunRecord
        The run.

    Returns
    -------
    list of (str, str)
        Only terms that occur on the page, in the order in which a reader needs them.
    """
    scores = record.scores
    metrics = list(dict.fromkeys(score.metric for score in scores))
    named = dict.fromkeys([*record.picture_methods, *names_of_role(scores, "method")])
    terms = [("stimulus", "the picture that was shown; also called image or ground truth")]
    terms += [(name, _METHODS[name]) for name in named if name in _METHODS]
    terms += _limits(scores)
    terms += _comparison(scores, metrics)
    terms += _networks(scores, metrics)
    return terms


def judge_names(scores: Sequence[Score]) -> list[str]:
    """Return the names of the judges that scores used."""
    return list(dict.fromkeys(score.judge for score in scores if score.judge))


def judges_text(names: Sequence[str]) -> str:
    """Return a sentence with the names of judges for a caption; empty if there is none."""
    if not names:
        return ""
    which = "Judge" if len(names) == 1 else "Judges"
    listed = ", ".join(f"“{name}”" for name in names)
    return f" {which} of layers, n-way and category metrics: {listed}."


def _limits(scores: Sequence[Score]) -> list[Term]:
    """Explain floors and ceilings by those that this run has."""
    terms = []
    floors = names_of_role(scores, "floor")
    kinds = [words for name, words in _FLOORS.items() if name in floors]
    if any(name.startswith("shuffled brain") for name in floors):
        kinds.append(_SHUFFLED)
    if kinds:
        what = "the score of pictures that need no reconstruction"
        terms.append(("floor", f"{what}: {'; '.join(kinds)}. A method must be better than that"))
    ceilings = names_of_role(scores, "ceiling")
    kinds = [words for name, words in _CEILINGS.items() if name in ceilings]
    if kinds:
        what = "the score of pictures that were made without a brain"
        terms.append(
            (
                "ceiling",
                f"{what}: from {'; from '.join(kinds)}. It is what a decoder without errors would "
                "get",
            )
        )
    return terms


def _comparison(scores: Sequence[Score], metrics: Sequence[str]) -> list[Term]:
    """Explain identification and what is fixed in it."""
    names = " ".join(metrics)
    terms = []
    if "identification" in names:
        terms.append(
            (
                "identification",
                "how often a picture and its own reconstruction are more similar than pictures "
                "that do not belong together; guessing is right in half of the comparisons",
            )
        )
    if any(score.pool for score in scores):
        terms.append(
            (
                "pool",
                "the candidates among which the right one is looked for; the more there are, the "
                "harder it is",
            )
        )
    for words, text in (
        ("fixed image", FIXED_IMAGE),
        ("fixed reconstruction", FIXED_RECONSTRUCTION),
    ):
        if words in names:
            terms.append((words, text.partition(": ")[2].rstrip(".")))
    return terms


def _networks(scores: Sequence[Score], metrics: Sequence[str]) -> list[Term]:
    """Explain the judge and its layers, where scores used one."""
    terms = []
    judges = judge_names(scores)
    if judges:
        kinds = [f"“{name}”, {_trained_on(name)}" for name in judges]
        terms.append(
            (
                "judge",
                f"a small image classifier that reads stimuli and reconstructions alike; here "
                f"{' and '.join(kinds)}",
            )
        )
    present = [part for part in ("early", "middle", "late") if _has_layer(part, metrics)]
    if present:
        terms.append(
            (
                f"{', '.join(present)} layer",
                "features that the judge computes of a picture: the early layer responds to edges "
                "and colours, the late layer to what the picture shows",
            )
        )
    return terms


def _trained_on(name: str) -> str:
    if name in JUDGE_PICTURES:
        return f"which comes with calcarine and was trained on {JUDGE_PICTURES[name]}"
    return "a network of your own"


def _has_layer(part: str, metrics: Sequence[str]) -> bool:
    return any(f"{part} layer" in name for name in metrics)
