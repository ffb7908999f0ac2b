"""Checks of generalisation: test stimuli that are far from training, and few output dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calcarine.audit.check import Check, inconclusive, register_check
from calcarine.audit.findings import EvidenceTable, Finding, Verdict
from calcarine.evaluation.statistics.intervals import bootstrap_interval

if TYPE_CHECKING:
    from calcarine.audit.inputs import AuditInputs, FloatArray

__all__ = ["DimensionCollapse", "ScoreByDistance", "effective_rank", "share_inside"]

_FEWEST = 12
_CHANCE = 0.5
_FEW_DIMENSIONS = 0.1
_BOOT = 2000
_SHUFFLES = 9999
# The level that other checks of the audit use. Stimuli far from training are often of low contrast
# and harder for any decoder, so scores of valid decoders fall a little with distance too; at .05 a
# noisy one was flagged in 3 of 40 seeds.
_P = 0.001


@register_check
class ScoreByDistance(Check):
    """Scores of test stimuli that are far from all training stimuli.

    Examples
    --------
    >>> import calcarine as ca
    >>> from calcarine.audit import AuditInputs, PictureSet, audit
    >>> pictures = ca.StimulusSet.from_scenes(seed=0, indices=range(80)).images()
    >>> ids = [f"test{i}" for i in range(40)]
    >>> truth = PictureSet.of(ids, pictures[40:])
    >>> train = PictureSet.of([f"train{i}" for i in range(40)], pictures[:40])
    >>> result = audit(AuditInputs("the truth", truth, truth, train), only=["score-by-distance"])
    >>> result.findings["score-by-distance"].verdict
    'passed'
    """

    name = "score-by-distance"
    title = "Score by distance to training"
    question = "Does the score hold for test stimuli that are far from all training stimuli?"
    evidence_needed = (
        "More test stimuli that are far from training. The command calcarine datasets split --rule "
        "minimum-distance makes such splits, and random splits of the same sizes."
    )

    def run(self, inputs: AuditInputs) -> Finding:
        if inputs.train is None:
            return inconclusive("The training pictures are not given.")
        if len(inputs) < _FEWEST:
            return inconclusive(
                f"There are {len(inputs)} test stimuli; at least {_FEWEST} are needed for thirds."
            )
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
        slope, p = _slope(distance, score, inputs.seed)
        overall = bootstrap_interval(score, _BOOT, seed=inputs.seed)
        numbers = {
            "two-way identification in pixels and layout": float(score.mean()),
            "its 95 % interval": f"{overall[0]:.3f} to {overall[1]:.3f}",
            "in the farthest third": float(score[thirds[2]].mean()),
            "change per standard deviation of distance": slope,
            "permutation p of a decrease with distance": p,
        }
        table = EvidenceTable(
            ("test stimuli", "number", "distance (1 - r)", "identification", "95 % interval"),
            tuple(rows),
            "Chance is .5. The distance is that of the pixels to the nearest training picture.",
        )
        verdict, sentence = _verdict(overall[0], intervals[2][0], p)
        return Finding(verdict, sentence, numbers, (table,))


def _verdict(overall_low: float, farthest_low: float, p: float) -> tuple[Verdict, str]:
    """Return the verdict from lower bounds of identification and the p of a decrease."""
    if overall_low <= _CHANCE:
        return "inconclusive", "The score is not above chance, so it cannot depend on distance."
    if farthest_low > _CHANCE:
        return "passed", "The score is above chance in the farthest third of the test stimuli too."
    if p < _P:
        return (
            "suspicious",
            f"The score falls with distance to training (p = {p:.2g}) and is not above chance in "
            "the farthest third: it depends on test stimuli that are close to training.",
        )
    return (
        "inconclusive",
        "The score is not clearly above chance in the farthest third, but the decrease with "
        f"distance is not significant either (p = {p:.2g}, level {_P:g}).",
    )


def _slope(distance: FloatArray, score: FloatArray, seed: int) -> tuple[float, float]:
    """Return the change of the score per standard deviation of distance, and the p of a decrease.

    The p is one-sided, from shuffles of the scores over the stimuli.
    """
    spread = distance.std()
    if spread < 1e-9:
        return 0.0, 1.0
    x = (distance - distance.mean()) / (spread * len(distance))
    slope = float(x @ score)
    rng = np.random.default_rng(seed)
    shuffled = np.array([x @ rng.permutation(score) for _ in range(_SHUFFLES)])
    return slope, float((1 + (shuffled <= slope + 1e-12).sum()) / (1 + _SHUFFLES))


@register_check
class DimensionCollapse(Check):
    """Predictions that vary in few dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from calcarine.audit import AuditInputs, PictureSet, Prediction, audit
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((40, 20))
    >>> one = truth[:, :1] * rng.standard_normal(20)  # all predictions on one line
    >>> pictures = PictureSet.of([str(i) for i in range(40)], np.zeros((40, 8, 8, 3), np.uint8))
    >>> predictions = [Prediction("z", one, truth, train=rng.standard_normal((100, 20)))]
    >>> inputs = AuditInputs("mine", pictures, pictures, predictions=predictions)
    >>> audit(inputs, only=["dimension-collapse"]).findings["dimension-collapse"].verdict
    'suspicious'
    """

    name = "dimension-collapse"
    title = "Collapse of the predictions' dimensions"
    question = "Do predictions vary in about as many dimensions as their targets?"
    evidence_needed = (
        "Predicted features, and the target features of test and training (--predictions)."
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
                "picture layout (8 x 8)",
                layout(inputs.recon.small),
                layout(inputs.truth.small),
                None if inputs.train is None else layout(inputs.train.small),
            )
        )
        if len(inputs) < _FEWEST:
            return inconclusive(
                f"There are {len(inputs)} test stimuli; at least {_FEWEST} are needed to measure "
                "dimensions."
            )
        rows, numbers, collapsed = [], {}, []
        for name, values, truth, train in sides:
            assert truth is not None
            predicted, target = effective_rank(values), effective_rank(truth)
            numbers[f"effective rank of predicted {name}"] = predicted
            numbers[f"effective rank of target {name}"] = target
            reach = share_inside(truth, values, values.mean(axis=0), 0.99)
            best = None if train is None else share_inside(truth, train, train.mean(axis=0), 1.0)
            rows.append(
                (
                    name,
                    f"{predicted:.1f}",
                    f"{target:.1f}",
                    f"{reach:.0%}",
                    "unknown" if best is None else f"{best:.0%}",
                )
            )
            if predicted < max(_FEW_DIMENSIONS * target, min(2.0, 0.5 * target)):
                collapsed.append(name)
        table = EvidenceTable(
            (
                "features",
                "effective rank, predictions",
                "effective rank, targets",
                "target variance that predictions span",
                "target variance that training spans",
            ),
            tuple(rows),
            "Effective rank: exponential of the entropy of the eigenvalue spectrum.",
        )
        verdict: Verdict = "suspicious" if collapsed else "passed"
        sentence = (
            f"Predictions of {', '.join(collapsed)} have at most a tenth of the effective rank of "
            "their targets: different stimuli get nearly the same prediction."
            if collapsed
            else "Predictions vary in a sufficient share of the dimensions of their targets."
        )
        return Finding(verdict, sentence, numbers, (table,))


def effective_rank(values: FloatArray) -> float:
    """Return the exponential of the entropy of the eigenvalues of the covariance.

    Parameters
    ----------
    values : float array of shape (n, d)

    Returns
    -------
    float
        Between 1 and the rank; 0 if nothing varies.

    References
    ----------
    Roy & Vetterli (2007), The effective rank: a measure of effective dimensionality.
    """
    power = _singular(values)[0] ** 2
    if not len(power) or power.sum() <= 0:
        return 0.0
    part = power[power > 1e-12 * power.sum()] / power.sum()
    return float(np.exp(-(part * np.log(part)).sum()))


def share_inside(truth: FloatArray, span: FloatArray, centre: FloatArray, variance: float) -> float:
    """Return the share of the targets' variance inside the leading components of other rows.

    Parameters
    ----------
    truth : float array of shape (n, d)
        Targets.
    span : float array of shape (m, d)
        Rows whose leading principal components are used, as many as explain ``variance``.
    centre : float array of shape (d,)
        Mean of these rows.
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
    """Return singular values and right singular vectors of centred rows."""
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
