"""Checks of normalisation: scalers fitted on test rows, predictions that use other test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding, Verdict

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FitStatistics, FloatArray, Prediction

__all__ = ["StatisticsFromTest", "TransductivePrediction"]

# Rounding of float32, in standard deviations of a voxel.
_EQUAL = 2e-4
# Smallest share of dimensions with equal means and scales that counts as a match.
_MOST = 0.9
_LARGEST_CHANGE = 1e-3
# Rounding of a picture's mean or contrast, in grey values.
_EQUAL_GREY = 0.5
_MATCHED = ("mean", "contrast")


@register_check
class StatisticsFromTest(Check):
    """Means and scales that were computed with test rows.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, TrialTable, audit
    >>> ids = [f"img{i}" for i in range(40)]
    >>> trials = TrialTable(np.array(ids), np.array(["train"] * 30 + ["test"] * 10))
    >>> betas = np.random.default_rng(0).standard_normal((40, 8))
    >>> betas -= betas.mean(axis=0)  # of all trials, those of the test included
    >>> pictures = PictureSet.of(ids[30:], np.zeros((10, 8, 8, 3), np.uint8))
    >>> inputs = AuditInputs("mine", pictures, pictures, trials=trials, responses=betas)
    >>> audit(inputs, only=["statistics-from-test"]).findings["statistics-from-test"].verdict
    'failed'
    """

    name = "statistics-from-test"
    title = "Means and scales computed with test rows"
    question = "Were responses centred or scaled with statistics that include test rows?"
    evidence_needed = (
        "The responses with the role of each trial, preferably before scaling and with the stored "
        "scaler_mean and scaler_scale."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        result = list(inputs.statistics) + _implied(inputs)
        if not result:
            return inconclusive(
                "Neither responses with roles nor stored means and scales are given."
            )
        rows, verdicts = [], []
        for each in result:
            to_train, to_all = _away(each, each.by_train), _away(each, each.by_all)
            verdict = _which(to_train, to_all)
            verdicts.append(verdict)
            rows.append((each.name, f"{to_train:.1e}", f"{to_all:.1e}", verdict))
        table = EvidenceTable(
            ("statistic", "training alone", "training and test", "verdict"),
            tuple(rows[:12]),
            "Largest difference between the stored statistic and that of these rows, in standard "
            "deviations" + (f"; first 12 of {len(rows)}." if len(rows) > 12 else "."),
        )
        leaks = verdicts.count("failed")
        numbers = {
            "means and scales checked": len(result),
            "equal to those of training alone": verdicts.count("passed"),
            "equal to those of training and test": leaks,
        }
        if leaks:
            first = rows[verdicts.index("failed")][0]
            return Finding(
                "failed",
                f"{leaks} of {len(result)} statistics include test rows; the first is the {first}.",
                numbers,
                (table,),
            )
        if "passed" in verdicts:
            return Finding(
                "passed",
                "All statistics that could be identified were computed from training alone.",
                numbers,
                (table,),
            )
        return Finding(
            "inconclusive",
            "Means and scales match neither training alone nor training and test together.",
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
    """Return statistics implied by scaled responses: the rows whose mean is 0 were centred on."""
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
            f"mean of {name} (zero of the scaled responses)",
            np.zeros_like(unit),
            by_train,
            by_all,
            unit,
        )
        # If zero is neither mean, these responses were not centred in blocks like this one.
        if _which(_away(each, by_train), _away(each, by_all)) != "inconclusive":
            result.append(each)
    return result


def _spread(values: NDArray[np.float64]) -> FloatArray:
    spread = values.std(axis=0)
    return np.asarray(np.where(spread > 1e-9 * np.maximum(np.abs(values.mean(0)), 1e-9), spread, 1))


@register_check
class TransductivePrediction(Check):
    """Predictions of one stimulus that depend on other test stimuli.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, Prediction, audit
    >>> rng = np.random.default_rng(0)
    >>> ids = [str(i) for i in range(10)]
    >>> raw = rng.standard_normal((10, 4))
    >>> def predict(rows):
    ...     return raw[rows] - raw[rows].mean(axis=0)  # centred on the test stimuli
    >>> pictures = PictureSet.of(ids, rng.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8))
    >>> predictions = [Prediction("z", predict(np.arange(10)), predict=predict)]
    >>> inputs = AuditInputs("mine", pictures, pictures, predictions=predictions)
    >>> audit(inputs, only=["transductive-prediction"]).findings["transductive-prediction"].verdict
    'failed'
    """

    name = "transductive-prediction"
    title = "Predictions that use other test stimuli"
    question = "Does the prediction of a test stimulus depend on the other test stimuli?"
    evidence_needed = (
        "Predictions of a few test stimuli alone; or the predicted features with the training "
        "targets (--predictions)."
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
                return Finding(verdict, " ".join(texts), numbers)
        raise AssertionError("the pictures have a verdict")


def _colours(inputs: AuditInputs, numbers: dict[str, float]) -> tuple[Verdict, str]:
    """Test whether means or contrasts of the colours equal those of the ground truths."""
    moments = [_moments_of(side.small) for side in (inputs.recon, inputs.truth)]
    away = _coarse_difference(inputs), _difference(inputs)
    for place, name in enumerate(_MATCHED):
        own, seen = (each[place] for each in moments)
        equal = _equal_share(own, seen)
        numbers[f"share of reconstructions with the {name} of their ground truth"] = equal
        # If all stimuli share a mean or contrast, a match is not informative.
        common = max(_equal_share(own, np.roll(seen, shift, axis=0)) for shift in (1, 2))
        if equal > _MOST and common < 0.5 and _closer_than_noise(place, own, seen, away[place]):
            return (
                "failed",
                f"{equal:.0%} of the reconstructions have exactly the {name} of their ground truth "
                "in each colour, which no decoder can predict so precisely.",
            )
    return (
        "inconclusive",
        ("" if inputs.predictions else "Predictions are not given. ")
        + "Mean colours and contrasts of the reconstructions are not exactly those of the ground "
        "truths.",
    )


def _moments_of(images: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
    flat = images.reshape(len(images), -1, 3).astype(np.float64)
    return flat.mean(axis=1), flat.std(axis=1)


def _equal_share(own: FloatArray, seen: FloatArray) -> float:
    return float((np.abs(own - seen) < _EQUAL_GREY).all(axis=1).mean())


def _coarse_difference(inputs: AuditInputs) -> float:
    """Return the RMS difference of 8 x 8 means from the ground truths in grey values (median)."""
    from calcarine.audit.picture_features import layout

    residual = layout(inputs.recon.small) - layout(inputs.truth.small)
    return float(np.median(np.sqrt(np.square(residual).mean(axis=1))))


def _difference(inputs: AuditInputs) -> float:
    """Return the RMS difference from the ground truths in grey values (median over pictures)."""
    residual = inputs.recon.small.astype(np.float64) - inputs.truth.small
    return float(np.median(np.sqrt(np.square(residual).mean(axis=(1, 2, 3)))))


def _closer_than_noise(place: int, own: FloatArray, seen: FloatArray, away: float) -> bool:
    """Return whether means, or contrasts, match better than pixel noise alone explains.

    With independent noise, the mean over 64 blocks is 8 times closer than that of one block, and
    the contrast of a picture with little noise hardly changes.
    """
    if place == 0:
        return float(np.median(np.abs(own - seen))) * 8 < 0.2 * away
    return away > 8


def _changes(each: Prediction, numbers: dict[str, float]) -> tuple[Verdict, str]:
    """Predict single rows and half of the rows again, and compare."""
    assert each.predict is not None
    n = len(each.values)
    spread = max(float(each.values.std()), 1e-12)
    single = sorted({0, n // 3, n - 1})
    tries = [np.array([row]) for row in single] + [np.arange(0, n, 2)]
    change = 0.0
    for chosen in tries:
        again = np.asarray(each.predict(chosen), np.float64).reshape(len(chosen), -1)
        change = max(change, float(np.abs(again - each.values[chosen]).max()) / spread)
    numbers[f"largest change of {each.name} without the other stimuli, in SD"] = change
    if change > _LARGEST_CHANGE:
        return "failed", f"Predictions of {each.name} change if other test stimuli are left out."
    return "passed", f"Predictions of {each.name} are the same for a stimulus alone."


def _moments(each: Prediction, numbers: dict[str, float]) -> tuple[Verdict, str]:
    """Test whether moments over the test set equal those of targets, a sign of normalisation."""
    values = each.values
    if len(values) < 4:
        return "inconclusive", f"There are fewer than 4 predictions of {each.name}."
    share = 0.0
    source = ""
    sources = {"the test targets": each.truth, "the training targets": each.train}
    for name, other in sources.items():
        if other is not None:
            equal = max(_equal_moments(values, other, d0, d1) for d0 in (0, 1) for d1 in (0, 1))
            numbers[f"share of dimensions of {each.name} with mean and SD of {name}"] = equal
            if equal > share:
                share, source = equal, name
    unit = max(_equal_moments(values, None, ddof, 0) for ddof in (0, 1))
    numbers[f"share of dimensions of {each.name} with mean 0 and a common SD"] = unit
    if unit > share:
        share, source = unit, "z-scores"
    if share > _MOST:
        return (
            "failed",
            f"Over the test set, {share:.0%} of the dimensions of {each.name} have exactly the "
            f"mean and SD of {source}: the test predictions were normalised over the test set.",
        )
    if each.truth is None and each.train is None:
        return "inconclusive", f"The targets of {each.name} are not given."
    return (
        "passed",
        f"Means and SDs of {each.name} over the test set equal neither those of the targets nor "
        "those of z-scores: no sign of a normalisation over the test set.",
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
