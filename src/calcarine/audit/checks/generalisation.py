"""Checks of what a score rests on: neighbours in training, and few output dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding, Verdict
from calcarine.evaluation.statistics.intervals import bootstrap_interval

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FloatArray

_FEWEST = 12
_CHANCE = 0.5
_FEW_DIMENSIONS = 0.1
_BOOT = 2000


@register_check
class ScoreByDistance(Check):
    """Scores of test stimuli far from training."""

    name = "score-by-distance"
    title = "Score against distance to training"
    question = "Does the score hold for test stimuli that are far from all training stimuli?"
    evidence_needed = (
        "More test stimuli far from training: calcarine datasets split --rule minimum-distance "
        "makes such splits, with random partners of the same sizes."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if inputs.train is None:
            return inconclusive("The training pictures are not here.")
        if len(inputs) < _FEWEST:
            return inconclusive(f"{len(inputs)} test stimuli are too few to divide into thirds.")
        distance = 1 - inputs.nearest_train(inputs.truth)[0]
        score = inputs.identification
        thirds = np.array_split(np.argsort(distance, kind="stable"), 3)
        rows, intervals = [], []
        for name, part in zip(("nearest", "middle", "farthest"), thirds, strict=True):
            low, high = bootstrap_interval(score[part], _BOOT, seed=inputs.seed)
            intervals.append((low, high))
            rows.append(
                (
                    f"{name} third",
                    str(len(part)),
                    f"{distance[part].min():.3f} to {distance[part].max():.3f}",
                    f"{score[part].mean():.3f}",
                    f"{low:.3f} to {high:.3f}",
                )
            )
        slope, low, high = _slope(distance, score, inputs.seed)
        overall = bootstrap_interval(score, _BOOT, seed=inputs.seed)
        numbers = {
            "two-way identification in pixels and layout": float(score.mean()),
            "its interval": f"{overall[0]:.3f} to {overall[1]:.3f}",
            "in the farthest third": float(score[thirds[2]].mean()),
            "change per standard deviation of distance": slope,
            "interval of the change": f"{low:.3f} to {high:.3f}",
        }
        table = EvidenceTable(
            ("test stimuli", "how many", "distance (1 - r)", "identification", "interval"),
            tuple(rows),
            "Chance is .5; distance is that of pixels to the nearest training picture.",
        )
        if overall[0] <= _CHANCE:
            return Finding(
                "inconclusive",
                "The score is not above chance, so there is nothing to divide.",
                numbers,
                (table,),
            )
        if intervals[2][0] > _CHANCE:
            return Finding(
                "passed",
                "In the farthest third the score is still above chance.",
                numbers,
                (table,),
            )
        if high < 0:
            return Finding(
                "suspicious",
                "The score falls with distance and is not above chance in the farthest third: it "
                "rests on neighbours in training.",
                numbers,
                (table,),
            )
        return Finding(
            "inconclusive",
            "In the farthest third the score is not clearly above chance, and the stimuli are too "
            "few to say that distance is the reason.",
            numbers,
            (table,),
        )


def _slope(distance: FloatArray, score: FloatArray, seed: int) -> tuple[float, float, float]:
    """Change of the score per standard deviation of distance, with its bootstrap interval."""
    spread = distance.std()
    if spread < 1e-9:
        return 0.0, 0.0, 0.0
    x = (distance - distance.mean()) / spread
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(x), size=(_BOOT, len(x)))
    a, b = x[drawn], score[drawn]
    a = a - a.mean(axis=1, keepdims=True)
    slopes = (a * b).sum(axis=1) / np.maximum((a * a).sum(axis=1), 1e-12)
    low, high = np.quantile(slopes, [0.025, 0.975])
    return float(x @ score / len(x)), float(low), float(high)


@register_check
class DimensionCollapse(Check):
    """Predictions of few dimensions."""

    name = "dimension-collapse"
    title = "Collapse of output dimensions"
    question = "Do predictions span as many dimensions as what they predict?"
    evidence_needed = (
        "Predicted and true features of the test and those of training (--predictions)."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        from calcarine.audit.picture_features import layout

        sides = [
            (each.name, each.values, each.truth, each.train)
            for each in inputs.predictions
            if each.truth is not None
        ]
        sides.append(
            (
                "pictures' layout",
                layout(inputs.recon.small),
                layout(inputs.truth.small),
                None if inputs.train is None else layout(inputs.train.small),
            )
        )
        if len(inputs) < _FEWEST:
            return inconclusive(f"{len(inputs)} test stimuli are too few to count dimensions.")
        rows, numbers, collapsed = [], {}, []
        for name, values, truth, train in sides:
            assert truth is not None
            made, required = effective_rank(values), effective_rank(truth)
            numbers[f"effective rank of predicted {name}"] = made
            numbers[f"effective rank of true {name}"] = required
            reach = share_inside(truth, values, values.mean(axis=0), 0.99)
            best = None if train is None else share_inside(truth, train, train.mean(axis=0), 1.0)
            rows.append(
                (
                    name,
                    f"{made:.1f}",
                    f"{required:.1f}",
                    f"{reach:.0%}",
                    "unknown" if best is None else f"{best:.0%}",
                )
            )
            if made < max(_FEW_DIMENSIONS * required, min(2.0, 0.5 * required)):
                collapsed.append(name)
        table = EvidenceTable(
            (
                "features",
                "effective rank, predicted",
                "true",
                "true variance the predictions span",
                "the training targets span",
            ),
            tuple(rows),
            "Effective rank: the exponential of the entropy of the spectrum.",
        )
        verdict: Verdict = "suspicious" if collapsed else "passed"
        sentence = (
            f"Predictions of {', '.join(collapsed)} span a tenth of the dimensions of the truth or "
            "fewer: different stimuli get nearly the same prediction."
            if collapsed
            else "Predictions vary in a fair share of the dimensions that the truth has."
        )
        return Finding(verdict, sentence, numbers, (table,))


def effective_rank(values: FloatArray) -> float:
    """Exponential of the entropy of the eigenvalues of the covariance (Roy & Vetterli 2007).

    Parameters
    ----------
    values : float array of shape (n, d)

    Returns
    -------
    float
        Between 1 and the rank; 0 without any variation.
    """
    power = _singular(values)[0] ** 2
    if not len(power) or power.sum() <= 0:
        return 0.0
    part = power[power > 1e-12 * power.sum()] / power.sum()
    return float(np.exp(-(part * np.log(part)).sum()))


def share_inside(truth: FloatArray, span: FloatArray, centre: FloatArray, variance: float) -> float:
    """Share of the variance of the truth inside the leading dimensions of other rows.

    Parameters
    ----------
    truth : float array of shape (n, d)
    span : float array of shape (m, d)
        Whose dimensions, as many as hold ``variance`` of their own.
    centre : float array of shape (d,)
        The middle of these.
    variance : float

    Returns
    -------
    float
        Between 0 and 1.
    """
    spread, axes = _singular(span)
    if not len(spread):
        return 0.0
    held = np.cumsum(spread**2) / np.sum(spread**2)
    used = axes[: int(np.searchsorted(held, min(variance, 1 - 1e-9))) + 1]
    residual = truth - centre
    total = float(np.square(residual).sum())
    return float(np.square(residual @ used.T).sum()) / total if total > 0 else 0.0


def _singular(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Singular values and right vectors of centred rows, by the smaller of the two sides."""
    centred = np.asarray(values, np.float64)
    centred = centred - centred.mean(axis=0)
    if not centred.any():
        return np.empty(0), np.empty((0, centred.shape[1]))
    small = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
    power, vectors = np.linalg.eigh(small)
    kept = power > 1e-12 * power[-1]
    spread, vectors = np.sqrt(power[kept][::-1]), vectors[:, kept][:, ::-1]
    if len(centred) <= centred.shape[1]:
        return spread, (vectors / spread).T @ centred
    return spread, vectors.T
