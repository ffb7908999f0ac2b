"""Checks of normalisation: scalers fitted on test rows, predictions that use other test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding, Verdict

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FitStatistics, FloatArray, Prediction

# Rounding of float32 in units of a voxel's standard deviation.
_EQUAL = 2e-4
# Share of dimensions in which means and scales must be equal.
_MOST = 0.9
_LARGEST_CHANGE = 1e-3
# Rounding of a picture's mean or contrast, in grey values.
_EQUAL_GREY = 0.5
_MATCHED = ("mean", "contrast")


@register_check
class StatisticsFromTest(Check):
    """Means and scales that were made with test rows."""

    name = "statistics-from-test"
    title = "Means and scales made with test rows"
    question = "Were responses centred or scaled with means and deviations that test rows entered?"
    evidence_needed = (
        "The responses with the role of each trial; better, those before scaling with the stored "
        "scaler_mean and scaler_scale."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        result = list(inputs.statistics) + _implied(inputs)
        if not result:
            return inconclusive(
                "There are no responses with roles, and no stored means and scales."
            )
        rows, verdicts = [], []
        for each in result:
            to_train, to_all = _away(each, each.by_train), _away(each, each.by_all)
            verdict = _which(to_train, to_all)
            verdicts.append(verdict)
            rows.append((each.name, f"{to_train:.1e}", f"{to_all:.1e}", verdict))
        table = EvidenceTable(
            ("what", "from training alone", "from training and test", ""),
            tuple(rows[:12]),
            "Largest difference between what was stored and what these rows give, in standard "
            "deviations" + (f"; {len(rows)} in all." if len(rows) > 12 else "."),
        )
        leaks = verdicts.count("failed")
        numbers = {
            "means and scales looked at": len(result),
            "equal to those of training alone": verdicts.count("passed"),
            "equal to those of training and test": leaks,
        }
        if leaks:
            first = rows[verdicts.index("failed")][0]
            return Finding(
                "failed",
                f"{leaks} of {len(result)} were made with test rows, the first the {first}.",
                numbers,
                (table,),
            )
        if "passed" in verdicts:
            return Finding(
                "passed",
                "What could be recognised was made from training alone.",
                numbers,
                (table,),
            )
        return Finding(
            "inconclusive",
            "Means and scales are neither those of training nor those of all rows.",
            numbers,
            (table,),
        )


def _away(each: FitStatistics, other: FloatArray) -> float:
    return float(np.max(np.abs(each.stored - other) / each.unit))


def _which(to_train: float, to_all: float) -> Verdict:
    if to_train <= _EQUAL < to_all / 3:
        return "passed"
    if to_all <= _EQUAL < to_train / 3:
        return "failed"
    return "inconclusive"


def _implied(inputs: AuditInputs) -> list[FitStatistics]:
    """Responses that came scaled: rows whose mean is 0 (and deviation 1) are those that made it."""
    from calcarine.audit.inputs import FitStatistics

    trials, values = inputs.trials, inputs.responses
    if trials is None or values is None:
        return []
    train, test = trials.rows("train"), trials.rows("test")
    if train is None or test is None:
        return []
    blocks = [("all sessions", np.ones(len(train), bool))]
    if trials.session is not None and len(np.unique(trials.session)) > 1:
        blocks += [(f"session {s}", trials.session == s) for s in np.unique(trials.session)]
    result = []
    for name, inside in blocks:
        own, both = values[inside & train], values[inside & (train | test)]
        if len(own) < 3 or len(both) == len(own):
            continue
        unit = _spread(both.astype(np.float64))
        by_train, by_all = own.mean(0, dtype=np.float64), both.mean(0, dtype=np.float64)
        each = FitStatistics(
            f"mean of {name} (the responses' zero)", np.zeros_like(unit), by_train, by_all, unit
        )
        # A zero that is nobody's mean only says that these responses were not centred like this.
        if _which(_away(each, by_train), _away(each, by_all)) != "inconclusive":
            result.append(each)
    return result


def _spread(values: NDArray[np.float64]) -> FloatArray:
    spread = values.std(axis=0)
    return np.asarray(np.where(spread > 1e-9 * np.maximum(np.abs(values.mean(0)), 1e-9), spread, 1))


@register_check
class TransductivePrediction(Check):
    """Predictions of one stimulus that need the others."""

    name = "transductive-prediction"
    title = "Predictions that use other test stimuli"
    question = "Does the prediction for one test stimulus change when the others are left out?"
    evidence_needed = (
        "Predict a few test stimuli alone and compare; or give the predicted features with the "
        "targets of training (--predictions)."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        numbers: dict[str, float] = {}
        sentences = [_colours(inputs, numbers)]
        for each in inputs.predictions:
            if each.predict is not None:
                sentences.append(_changes(each, numbers))
            sentences.append(_moments(each, numbers))
        for verdict in ("failed", "suspicious", "passed", "inconclusive"):
            texts = [text for result, text in sentences if result == verdict]
            if texts:
                return Finding(verdict, " ".join(texts), numbers)  # type: ignore[arg-type]
        raise AssertionError("the pictures have a verdict")


def _colours(inputs: AuditInputs, numbers: dict[str, float]) -> tuple[Verdict, str]:
    """Light and contrast that are taken from the truth, asked of pictures whatever else is here."""
    moments = [_moments_of(side.small) for side in (inputs.recon, inputs.truth)]
    away = _coarse_difference(inputs), _difference(inputs)
    for place, name in enumerate(_MATCHED):
        own, seen = (each[place] for each in moments)
        equal = _equal_share(own, seen)
        numbers[f"pictures with the truth's own {name} in each colour"] = equal
        # Stimuli of one common light or contrast tell nobody's: any truth would fit.
        common = max(_equal_share(own, np.roll(seen, shift, axis=0)) for shift in (1, 2))
        if equal > _MOST and common < 0.5 and _closer_than_noise(place, own, seen, away[place]):
            return (
                "failed",
                f"{equal:.0%} of the reconstructions have exactly the {name} of their truth in "
                "each colour, which no decoder could know.",
            )
    return (
        "inconclusive",
        ("" if inputs.predictions else "Predictions are not here. ")
        + "The pictures' light and contrast, at least, are not those of the truth to the last "
        "digit.",
    )


def _moments_of(images: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    flat = images.reshape(len(images), -1, 3).astype(np.float64)
    return flat.mean(axis=1), flat.std(axis=1)


def _equal_share(own: FloatArray, seen: FloatArray) -> float:
    return float((np.abs(own - seen) < _EQUAL_GREY).all(axis=1).mean())


def _coarse_difference(inputs: AuditInputs) -> float:
    """Grey values by which 8 x 8 means of pictures and truths differ, median over pictures."""
    from calcarine.audit.picture_features import layout

    residual = layout(inputs.recon.small) - layout(inputs.truth.small)
    return float(np.median(np.sqrt(np.square(residual).mean(axis=1))))


def _difference(inputs: AuditInputs) -> float:
    """Grey values by which pictures and truths differ, median over pictures."""
    residual = inputs.recon.small.astype(np.float64) - inputs.truth.small
    return float(np.median(np.sqrt(np.square(residual).mean(axis=(1, 2, 3)))))


def _closer_than_noise(place: int, own: FloatArray, seen: FloatArray, away: float) -> bool:
    """Whether means, or contrasts, are nearer to the truth's than the rest of the picture is.

    Noise in each pixel leaves the mean of 64 blocks 8 times nearer than that of one block, and
    hardly changes the contrast of a picture that it changes little: no step is needed for that.
    """
    if place == 0:
        return float(np.median(np.abs(own - seen))) * 8 < 0.2 * away
    return away > 8


def _changes(each: Prediction, numbers: dict[str, float]) -> tuple[Verdict, str]:
    """Predict single rows, and half of the rows, and compare."""
    assert each.predict is not None
    n = len(each.values)
    spread = max(float(each.values.std()), 1e-12)
    single = sorted({0, n // 3, n - 1})
    tries = [np.array([row]) for row in single] + [np.arange(0, n, 2)]
    change = 0.0
    for chosen in tries:
        again = np.asarray(each.predict(chosen), np.float64).reshape(len(chosen), -1)
        change = max(change, float(np.abs(again - each.values[chosen]).max()) / spread)
    numbers[f"largest change of {each.name} when others are left out, in deviations"] = change
    if change > _LARGEST_CHANGE:
        return "failed", f"Predictions of {each.name} change when other test rows are left out."
    return "passed", f"Predictions of {each.name} are the same for one stimulus alone."


def _moments(each: Prediction, numbers: dict[str, float]) -> tuple[Verdict, str]:
    """Means and deviations over the test set that equal those of targets mark a normalisation."""
    values = each.values
    if len(values) < 4:
        return "inconclusive", f"There are too few predictions of {each.name}."
    share = 0.0
    source = ""
    sources = {"the true targets of the test": each.truth, "the training targets": each.train}
    for name, other in sources.items():
        if other is not None:
            equal = max(_equal_moments(values, other, d0, d1) for d0 in (0, 1) for d1 in (0, 1))
            numbers[f"dimensions of {each.name} with mean and deviation of {name}"] = equal
            if equal > share:
                share, source = equal, name
    unit = max(_equal_moments(values, None, ddof, 0) for ddof in (0, 1))
    numbers[f"dimensions of {each.name} with mean 0 and one common deviation"] = unit
    if unit > share:
        share, source = unit, "a z-score"
    if share > _MOST:
        return (
            "failed",
            f"Over the test set, {share:.0%} of the dimensions of {each.name} have exactly the "
            f"mean and deviation of {source}: test predictions were normalised by each other.",
        )
    if each.truth is None and each.train is None:
        return "inconclusive", f"The targets of {each.name} are not here to compare with."
    return (
        "passed",
        f"Means and deviations of {each.name} over the test set are nobody else's: no sign of a "
        "normalisation by the test set.",
    )


def _equal_moments(values: FloatArray, other: FloatArray | None, d0: int, d1: int) -> float:
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=d0)
    alive = spread > 1e-9
    if not alive.any():
        return 0.0
    if other is None:
        wanted_mean = np.zeros_like(mean)
        required = np.full_like(spread, float(np.median(spread[alive])))
    else:
        wanted_mean, required = other.mean(axis=0), other.std(axis=0, ddof=d1)
    unit = np.maximum(required, 1e-12)
    equal = (np.abs(mean - wanted_mean) < 1e-3 * unit) & (np.abs(spread - required) < 1e-3 * unit)
    return float(equal[alive].mean())
